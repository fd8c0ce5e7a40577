"""Tests of run folders from strangers: a file that no run writes ends in one short sentence that names the file."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ebgan_fast import cli
from ebgan_fast.report import page as report_page
from ebgan_fast.report import write_report
from ebgan_fast.training import load_generator, train
from ebgan_fast.training.config import TrainConfig, from_dict, read_json, to_dict
from ebgan_fast.training.pictures import score_curves, training_curves
from ebgan_fast.training.run import checkpoint
from ebgan_fast.training.run.folder import RunFolder
from ebgan_fast.training.run.lines import LinesFile

from ..hanging import ends
from ..report.test_page import PIXEL, Page, make_run, metrics_line, score_line, write_lines
from .conftest import Configure

DEEP, LONG = 100_000, 5000
ESCAPE = "\x1b[31m\x07"

Make = Callable[[Path], object]


def sparse(path: Path, head: bytes = b"") -> None:
    """Write a file of 10 GB of zeros that takes no space on the disk."""
    path.write_bytes(head)
    os.truncate(path, 10 << 30)


def loop(path: Path) -> None:
    path.symlink_to(path)


def of(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


# Things that may stand in place of any file.
NO_FILE: dict[str, Make] = {"folder": Path.mkdir, "pipe": os.mkfifo, "loop": loop, "sparse": sparse}

NO_OBJECT = {
    "nothing": b"",
    "zeros": bytes(1000),
    "not-utf-8": b'{"a": "\xff\xfe"}',
    "encoded-surrogate": b'{"a": "\xed\xa0\x80"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "nul": b'{"a": "\0"}',
    "list": b"[1]",
    "text": json.dumps(ESCAPE * 1000).encode(),
    "deep-lists": b'{"a": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep-objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "fairly-deep": b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}",
    "long-integer": b'{"a": ' + b"9" * LONG + b"}",
    "twice": b'{"a": 1, "a": 2}',
    "long-name-twice": b'{"%s": 1, "%s": 2}' % (b"a" * 9999, b"a" * 9999),
    "escape-twice": b'{"\\u001b[31m": 1, "\\u001b[31m": 2}',
}


def put(path: Path, make: Make) -> Path:
    path.unlink(missing_ok=True)
    make(path)
    return path


def assert_one_sentence(said: str, path: Path) -> None:
    assert str(path) in said
    assert len(said) <= 500
    assert said.isprintable(), said


def refusal(read: Callable[[], object], path: Path) -> str:
    """Return the message of a reader that refuses a file."""
    with ends(), pytest.raises((ValueError, OSError)) as error:
        read()
    said = str(error.value)
    assert_one_sentence(said, path)
    return said


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a scored run. Its report draws no curves, which would take a second."""
    for name in ("training_curves", "score_curves"):
        monkeypatch.setattr(report_page, name, lambda lines: PIXEL)
    folder = make_run(tmp_path).rename(tmp_path / "run")
    (folder / "score.json").write_text("{}")
    return folder


@pytest.mark.parametrize("odd", [*NO_FILE, *NO_OBJECT])
@pytest.mark.parametrize("name", ["config.json", "score.json"])
def test_settings_and_scores_that_are_none(run: Path, name: str, odd: str) -> None:
    path = put(run / name, NO_FILE.get(odd) or of(NO_OBJECT[odd]))
    said = refusal(lambda: write_report(run), path)
    for kind, words in (("sparse", "expected at most 1,048,576"), ("long-integer", "an integer of 5000 digits")):
        assert odd != kind or words in said
    if name == "config.json":
        refusal(lambda: read_json(path), path)
    assert not (run / "report.html").exists()


_LINE = json.dumps(metrics_line(100)).encode()
_SCORE = json.dumps(score_line(100, 3.0)).encode()


@pytest.mark.parametrize("odd", [*NO_FILE, *NO_OBJECT, "long-line"])
@pytest.mark.parametrize("name", ["metrics.jsonl", "scores.jsonl"])
def test_lines_that_are_none(run: Path, name: str, odd: str) -> None:
    """A bad line is refused. Only the last line may be cut short, so a whole line follows the bad one."""
    good = _LINE if name == "metrics.jsonl" else _SCORE
    bad = b'{"note": "%s"}' % (b"x" * (1 << 20)) if odd == "long-line" else NO_OBJECT.get(odd, b"")
    path = put(run / name, NO_FILE.get(odd) or of(good + b"\n" + bad + b"\n" + good + b"\n"))
    refusal(lambda: write_report(run), path)
    refusal(lambda: LinesFile(path).rewind(10), path)
    if odd not in NO_FILE:
        assert "line 2" in refusal(LinesFile(path).lines, path)


def test_zeros_in_one_line_are_not_read_to_their_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"")
    os.truncate(path, 1 << 30)
    assert "more than 1,048,576 bytes in line 1" in refusal(LinesFile(path).lines, path)


HUGE, NAN, INF = 10**400, float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("metrics.jsonl", "step", [-1, -(10**300), 2**63, HUGE, 1.0, INF, NAN, True, None, "1", [1], {}]),
        *(
            (name, field, [INF, -INF, NAN, HUGE, True, None, "1", [1], {"a": 1}, ESCAPE * 99, ["x" * 999] * 99])
            for name, field in (
                *(("metrics.jsonl", field) for field in ("elapsed_s", "loss_d")),
                *(("scores.jsonl", field) for field in ("fd", "kid_std", "samples", "kid_subset_size")),
            )
        ),
        ("scores.jsonl", "features", [1, None, ["net"], True]),
        *(
            ("metrics.jsonl", field, ["much", True, [1], {}, ESCAPE])
            for field in ("hinge_active", "images_per_s", "margin", "energy_real")
        ),
    ],
)
def test_values_that_no_line_has(run: Path, name: str, field: str, values: list[Any]) -> None:
    path = run / name
    good = metrics_line(100) if name == "metrics.jsonl" else score_line(100, 3.0)
    for value in values:
        write_lines(path, [good, {**good, field: value}, good])
        said = refusal(RunFolder(run).contents, path)
        assert re.search(f": got {field} .* in line 2, expected ", said), said


def test_what_is_harmless_stays_accepted(run: Path) -> None:
    """Harmless oddities are accepted: a byte-order mark, fields of another version, nulls, and overflows that older
    runs wrote.
    """
    deep: Any = 1
    for _ in range(20):
        deep = [deep]
    extra = {"note": ESCAPE, "deep": deep, "lone": "\ud800", "nul": "\0", "large": HUGE, "infinite": INF}
    odd = {"grad_norm_g": INF, "grad_norm_d": NAN, "hinge_active": None, "images_per_s": HUGE, "margin": None}
    lines = [metrics_line(100), {**metrics_line(200), **odd, **extra}]
    write_lines(run / "metrics.jsonl", lines)
    write_lines(run / "scores.jsonl", [{**score_line(100, 0.0), **extra}])
    for name in ("metrics.jsonl", "scores.jsonl", "config.json"):
        (run / name).write_bytes(b"\xef\xbb\xbf" + (run / name).read_bytes())
    config = {"steps": None, "batch_size": None, "pt_weight": INF, **extra, "networks": extra}
    (run / "config.json").write_text(json.dumps(config))
    (run / "score.json").write_text(json.dumps({**extra, "exp_score": NAN, "samples": None}))
    page = Page(write_report(run))
    assert "200 steps in 1 min 5 s, batches of None, 123 images per second." in page.text
    assert "note \\x1b[31m\\x07" in page.text
    assert "lone \\ud800 nul \\x00" in page.text


def test_lines_that_stay_keep_their_bytes(tmp_path: Path) -> None:
    """The lines before a rewind keep their bytes, even where a JSON writer would write them differently."""
    path = tmp_path / "metrics.jsonl"
    first, second = b'{"step":10,  "x": 1e999, "y": null}\n', b'{"step": 20}\n'
    path.write_bytes(first + second)
    LinesFile(path).rewind(10)
    assert path.read_bytes() == first


def test_the_pages_words_are_short_and_no_tags(run: Path) -> None:
    bad = "<script>alert(1)</script>" + ESCAPE + "x" * 100_000
    odd = {bad: bad, "list": [ESCAPE] * 5000, "steps": True, "batch_size": bad}
    (run / "config.json").write_text(json.dumps(odd))
    (run / "score.json").write_text(json.dumps({bad: [bad], "n": 10**4000}))
    write_lines(run / "metrics.jsonl", [{**metrics_line(2**63 - 1), "elapsed_s": 1e308, "images_per_s": 1.7e308}])
    write_lines(run / "scores.jsonl", [{**score_line(1, 1e308), "features": bad, "kid_subset_size": 1e308}])
    content = write_report(run).read_text(encoding="utf-8")
    assert len(content) < 100_000
    assert "<script" not in content
    assert all(sign.isprintable() or sign == "\n" for sign in content)
    assert max(map(len, Page(run / "report.html").words)) <= 1000


def test_scores_by_many_nets_are_not_all_drawn(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores by many nets are not all drawn, because a chart takes a second."""
    drawn: list[str] = []

    def chart(lines: list[dict[str, Any]]) -> bytes:
        drawn.append(lines[0]["features"])
        return PIXEL

    monkeypatch.setattr(report_page, "score_curves", chart)
    write_lines(run / "scores.jsonl", [{**score_line(step, 1.0), "features": f"net {step}"} for step in range(500)])
    write_report(run)
    assert drawn == [f"net {step}" for step in range(492, 500)]


def png(width: int, height: int) -> bytes:
    return PIXEL[:16] + struct.pack(">II", width, height) + PIXEL[24:]


NO_PICTURES: dict[str, Make] = {
    **NO_FILE,
    "nothing": of(b""),
    "text": of(b"<script>" * 100),
    "another-kind": of(b"GIF89a" + bytes(100)),
    "cut-in-its-head": of(PIXEL[:20]),
    "bomb": of(png(100_000, 100_000)),
    "largest": of(png(2**31 - 1, 2**31 - 1)),
    "sparse-picture": lambda path: sparse(path, PIXEL),
}


@pytest.mark.parametrize("odd", NO_PICTURES)
@pytest.mark.parametrize("name", ["samples/step_000300.png", "samples/step_000100.png", "interpolation.png"])
def test_pictures_that_are_none(run: Path, name: str, odd: str) -> None:
    path = put(run / name, NO_PICTURES[odd])
    if odd == "loop" and name == "interpolation.png":
        assert "interpolation.png" in Page(write_report(run)).text  # a link to itself counts as no file
        return
    refusal(lambda: write_report(run), path)
    assert not (run / "report.html").exists()


def test_a_folder_of_thousands_of_grids(run: Path) -> None:
    """A folder of thousands of grids is read, and all but five grids are listed by name only. The number in a name may
    have 200 digits, all of one alphabet.
    """
    for step in range(3000):
        (run / "samples" / f"step_{step:08d}.png").touch()
    for name in ("1" * 200, "٣", "", "-1", "1e3"):
        (run / "samples" / f"step_{name}.png").write_bytes(PIXEL)
    grids = RunFolder(run).contents().grids
    assert len(grids) == 3000 + 3 + 1
    assert grids[-1][0] == int("1" * 200)
    (run / "samples").rename(run / "others")
    (run / "samples").write_bytes(b"no folder")
    assert "No grid of samples was drawn yet." in Page(write_report(run)).text


_DRAWN = {"step": 1, "elapsed_s": 1.0, "loss_d": 1.0, "loss_g": 1.0}


@pytest.mark.parametrize(
    "odd",
    [
        {"loss_d": 1.7e308, "loss_g": -1.7e308, "energy_real": HUGE, "energy_fake": "1", "margin": [1]},
        {"loss_d": INF, "loss_g": NAN, "energy_real": -INF, "energy_fake": None, "margin": {"a": 1}},
        {"step": HUGE},
        {"step": 10**300},
    ],
    ids=["large", "infinite", "far", "distant"],
)
def test_curves_of_odd_numbers_are_drawn(odd: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = training_curves([_DRAWN, {**_DRAWN, "step": 2, **odd}])
    with Image.open(io.BytesIO(content)) as picture:
        assert min(picture.size) > 200


def test_curves_with_odd_names_are_drawn() -> None:
    """Curves are drawn with any name of a net's file or a run's folder: formulas, characters that no font has, a
    megabyte.
    """
    name = "$a$ \\frac{$ \ud800 \0 \n" + ESCAPE + "x" * 1_000_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for content in (score_curves([{**score_line(1, 1e308), "features": name}]), training_curves([_DRAWN], name)):
            with Image.open(io.BytesIO(content)) as picture:
                assert min(picture.size) > 200


GOOD = to_dict(TrainConfig(out=Path("run")))
NESTED: Any = []
for _ in range(DEEP):
    NESTED = [NESTED]
VALUES = [
    10**LONG,
    -HUGE,
    NESTED,
    {"a": NESTED},
    ESCAPE * 999,
    "x" * 10**6,
    "\ud800",
    "a\0",
    INF,
    torch.ones(3),
    b"\x1b",
]


def assert_short(said: str) -> None:
    assert len(said) <= 400
    assert said.isprintable(), said


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_odd_values_in_a_config_are_told_in_short(value: Any) -> None:
    """Odd values in a config are reported in a short message. A checkpoint's values are no JSON: torch's pickle limits
    neither depth nor digits.
    """
    told: list[str] = []
    for name in GOOD.keys() - {"networks"}:
        from_dict({**GOOD, name: value}, told.append)
    from_dict({**GOOD, str(ESCAPE): value, 3: value, "x" * 10**6: value}, told.append)
    assert told
    for note in told:
        assert_short(note)
    for networks in (value, {"family": value}, {"family": "conv", **dict.fromkeys(["width"], value)}):
        with pytest.raises(ValueError, match=r"networks: got|got a config without generator_layers") as error:
            from_dict({**GOOD, "networks": networks})
        assert_short(str(error.value))


def test_odd_sizes_of_networks_are_refused_in_short() -> None:
    for value in (-(10**LONG), NESTED, ESCAPE * 999):
        networks = {**dict.fromkeys(GOOD["networks"], value), "family": "mlp"}
        with pytest.raises(ValueError, match="z_dim: got ") as error:
            from_dict({**GOOD, "networks": networks})
        assert_short(str(error.value))


def test_many_unknown_fields_are_told_in_one_line() -> None:
    told: list[str] = []
    from_dict({**GOOD, **{f"field_{number}": number for number in range(10_000)}}, told.append)
    (note,) = told
    assert note.startswith("field_0, field_1, field_2, field_3, field_4 and 9,995 more: got fields that this version")


def resave(path: Path, **fields: Any) -> None:
    """Change fields of the config in a checkpoint."""
    state = checkpoint.read(path)
    checkpoint.write(path, {**state, "config": {**state["config"], **fields}})


def test_odd_values_in_a_checkpoint(whole: Path, configure: Configure) -> None:
    path = whole / "checkpoint.pt"
    resave(path, margin=HUGE, device=ESCAPE * 99, **{ESCAPE: "x" * 10**6})
    with pytest.warns(UserWarning, match=r"checkpoint\.pt: ") as warned:
        assert load_generator(path).config.margin == 10.0
    for warning in warned:
        assert_one_sentence(str(warning.message), path)
    with pytest.raises(ValueError, match="another config") as error:
        train(configure(out=whole), resume=True)
    assert_one_sentence(str(error.value), path)


def arguments_of(config: TrainConfig) -> list[str]:
    """Return the flags with which a command resumes a run."""
    fields = to_dict(config)
    fields |= {name: value for name, value in fields.pop("networks").items() if name != "family"}
    flags: list[str] = []
    for name, value in fields.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            flags += [f"--{flag}", str(value)]
    return flags


@pytest.mark.parametrize("command", ["report", "train"])
@pytest.mark.parametrize("odd", ["pipe", "sparse", "not-utf-8", "deep-lists", "long-integer", "escape-twice"])
def test_a_command_ends_in_one_line(
    whole: Path,
    configure: Configure,
    command: str,
    odd: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: True)
    path = whole / "metrics.jsonl"
    line = path.read_bytes().splitlines()[0]
    put(path, NO_FILE.get(odd) or of(NO_OBJECT[odd] + b"\n" + line + b"\n"))
    flags = ["--no-neighbors", "--device", "cpu"] if command == "report" else ["--resume"]
    given = [str(whole)] if command == "report" else arguments_of(configure(out=whole))
    assert cli.main([command, *given, *flags]) == 1
    out, said = capsys.readouterr()
    assert said.count("\n") == 1
    assert_one_sentence(said.rstrip("\n"), path)
    assert (out + said).replace("\n", "").isprintable()


@pytest.mark.parametrize("value", ["much", None, [1], ESCAPE])
def test_a_hint_of_an_odd_line(whole: Path, configure: Configure, value: Any) -> None:
    """A resumed run reads its lines to find the hints that it has given. An odd value there is refused."""
    path = whole / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [{**lines[0], "hinge_active": value}, *lines[1:]])
    if value is None:
        assert train(configure(out=whole), resume=True).step == 20
    else:
        refusal(lambda: train(configure(out=whole), resume=True), path)


def test_a_link_in_a_run_folder_leads_no_file_astray(tmp_path: Path) -> None:
    """A link in a run folder leads no file astray. A stranger's folder may hold a link under the name of a half-written
    report.
    """
    folder = make_run(tmp_path / "run")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (folder / ".report.html.partial").symlink_to(victim)
    (folder / "report.html").symlink_to(victim)
    write_report(folder)
    assert victim.read_text() == "mine"
    assert not (folder / "report.html").is_symlink()


@pytest.mark.parametrize("name", ["metrics.jsonl", "scores.jsonl", "samples", "checkpoints", "tensorboard"])
def test_a_run_goes_on_through_no_link(name: str, whole: Path, configure: Configure) -> None:
    """A run resumes through no link. Through one it would cut a file of the user's own, or remove another run's
    checkpoints.
    """
    inside, outside = whole / name, whole.parent / "outside"
    if inside.exists():
        inside.rename(outside)
    inside.symlink_to(outside)
    assert refusal(lambda: train(configure(out=whole), resume=True), inside).startswith(f"{inside}: got a link")


def test_a_run_goes_on_in_a_folder_that_is_a_link(whole: Path, configure: Configure) -> None:
    """A run resumes in a folder that is itself a link, which users have when a disk is full."""
    (whole.parent / "link").symlink_to(whole)
    assert train(configure(out=whole.parent / "link"), resume=True).step == 20


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("resume", [True, False])
def test_a_lock_that_is_a_link_is_left_alone(
    link: Callable[[Path, Path], None], resume: bool, whole: Path, configure: Configure
) -> None:
    """A lock that is a link is left alone. A new run meets one too: a folder that holds only a killed run's lock may be
    used.
    """
    victim = whole.parent / "victim"
    victim.write_text("mine")
    folder = whole if resume else whole.parent / "new"
    folder.mkdir(exist_ok=True)
    link(victim, folder / ".lock")
    said = refusal(lambda: train(configure(out=folder), resume=resume), folder / ".lock")
    assert "got a link or device" in said
    assert victim.read_text() == "mine"
