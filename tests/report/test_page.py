from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ebgan_fast.report import page as report_page
from ebgan_fast.report import write_report
from ebgan_fast.training.pictures import score_curves, training_curves

_VOID = {"meta", "img"}
Line = dict[str, Any]


def _pixel() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (1, 1), 128).save(buffer, "PNG")
    return buffer.getvalue()


PIXEL = _pixel()


class Page(HTMLParser):
    """A page's text, pictures and tags; fails on tags that don't match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.pictures: list[str] = []
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "img":
            self.pictures.append(values["src"] or "")
            assert values["alt"]
        self.links += [value or "" for name, value in attributes if name in ("href", "src")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def metrics_line(step: int) -> dict[str, Any]:
    names = ["loss_d", "loss_g", "energy_real", "energy_fake", "hinge_active", "pulling_away"]
    names += ["lr_g", "lr_d", "grad_norm_g", "grad_norm_d"]
    return {"step": step, **{name: 1 / step for name in names}, "margin": 20.0, "images_per_s": 123.4, "elapsed_s": 65}


def score_line(step: int, fd: float) -> dict[str, Any]:
    sizes = {"samples": 1000, "real_images": 1871, "kid_subset_size": 1000}
    return {
        "step": step,
        "elapsed_s": 3720.0,
        "features": "FD (EfficientNet-Lite0)",
        "fd": fd,
        "kid": fd / 100,
        "kid_std": 0.001,
        **sizes,
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that was scored, with a name that HTML could mistake."""
    return make_run(tmp_path)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a folder with its report, to be read alone."""
    folder = make_run(tmp_path_factory.mktemp("reported"))
    write_report(folder)
    return folder


def make_run(place: Path) -> Path:
    folder = place / "runs <b>&'\"$body"
    (folder / "samples").mkdir(parents=True)
    networks = {"family": "conv", "width": 0.5}
    config = {"steps": 500, "batch_size": 32, "data": "/data/<script>alert(1)</script>", "networks": networks}
    (folder / "config.json").write_text(json.dumps(config))
    write_lines(folder / "metrics.jsonl", [metrics_line(step) for step in (100, 200, 300)])
    write_lines(folder / "scores.jsonl", [score_line(100, 300.0), score_line(300, 120.0)])
    for step in (100, 200, 300):
        Image.new("RGB", (4, 4), (step % 256, 0, 0)).save(folder / "samples" / f"step_{step:06d}.png")
    Image.new("RGB", (4, 4)).save(folder / "interpolation.png")
    Image.new("RGB", (4, 4)).save(folder / "neighbors.png")
    return folder


class Charts:
    """The lines of each chart that a page asked for; in its place stands one gray pixel."""

    def __init__(self) -> None:
        self.of_training: list[Sequence[Line]] = []
        self.of_scores: list[Sequence[Line]] = []

    def note(self, among: list[Sequence[Line]]) -> Callable[[Sequence[Line]], bytes]:
        def chart(lines: Sequence[Line]) -> bytes:
            among.append(lines)
            return PIXEL

        return chart


@pytest.fixture
def charts(monkeypatch: pytest.MonkeyPatch) -> Charts:
    """Spares what a test doesn't look at: a chart takes half a second."""
    charts = Charts()
    monkeypatch.setattr(report_page, "training_curves", charts.note(charts.of_training))
    monkeypatch.setattr(report_page, "score_curves", charts.note(charts.of_scores))
    return charts


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_page_says_what_the_folder_holds(reported: Path) -> None:
    page = Page(reported / "report.html")
    for words in (
        "300 of 500 steps in 1 min 5 s, batches of 32, 123 images per second.",
        "FD (EfficientNet-Lite0) went from 300 at step 100 to 120 at step 300, a factor of 0.40; KID from 3 to 1.2.",
        "With 1,000 samples the Fréchet distance comes out larger than with many; KID doesn't.",
        "100 1 h 2 min 300 3 0.001 1,000 1,000 1,871",
        "Step 300, not chosen",
        "Step 100",
        "width 0.5",
    ):
        assert words in page.text
    assert "Left out" not in page.text
    for heading in ("Samples", "Scores", "Training", "Interpolations", "Nearest training images", "Settings"):
        assert heading in page.words


@pytest.mark.usefixtures("charts")
def test_the_page_says_which_points_are_of_one_step(run: Path) -> None:
    settings = json.loads((run / "config.json").read_text())
    always = "Each point is the mean over a log interval; margin, lengths of gradients"
    for weight, text in (
        (0.1, f"{always}: of its"),
        (0.0, f"{always}, the pulling-away term, whose weight is 0: of its"),
    ):
        (run / "config.json").write_text(json.dumps({**settings, "pt_weight": weight}))
        assert f"{text} last step." in Page(write_report(run)).text


def test_the_page_stands_alone(reported: Path) -> None:
    page = Page(reported / "report.html")
    assert len(page.pictures) == 3 + 1 + 1 + 2  # grids, scores, curves, extras
    assert page.links == page.pictures
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not re.search(r"url\(|@import|https?:", (reported / "report.html").read_text(encoding="utf-8"))
    assert sorted(path.name for path in reported.iterdir() if path.name.startswith(".")) == []


def test_names_are_words_not_tags(reported: Path) -> None:
    page = Page(reported / "report.html")
    assert f"EBGAN run {reported.name}" in page.words
    assert "/data/<script>alert(1)</script>" in page.words
    assert "<script" not in (reported / "report.html").read_text()


@pytest.mark.usefixtures("charts")
def test_parts_that_are_missing_are_left_out(run: Path) -> None:
    (run / "config.json").write_text("{}")
    for name in ("scores.jsonl", "interpolation.png", "neighbors.png"):
        (run / name).unlink()
    for path in (run / "samples").iterdir():
        path.unlink()
    page = Page(write_report(run))
    assert "This run was not scored while it trained." in page.text
    assert "No grid of samples was drawn yet." in page.text
    assert "Left out, as the run folder lacks them: interpolation.png, neighbors.png." in page.text
    assert "300 steps in 1 min 5 s, 123 images per second." in page.text
    assert "Interpolations" not in page.words
    assert len(page.pictures) == 1


@pytest.mark.usefixtures("charts")
def test_a_line_cut_short_is_left_out_and_a_bad_one_named(run: Path) -> None:
    metrics = run / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 400, "loss')
    assert "300 of 500 steps" in Page(write_report(run)).text
    metrics.write_text(metrics.read_text() + "\n")  # the line break came through
    assert "300 of 500 steps" in Page(write_report(run)).text
    metrics.write_text("nonsense\n" + metrics.read_text())
    with pytest.raises(ValueError, match=r"metrics\.jsonl: got a bad line 1 "):
        write_report(run)


def test_folders_that_are_no_runs(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got a folder without config\.json, expected the folder of a run"):
        write_report(tmp_path)
    for content in ("", '{"step": 1'):
        (run / "metrics.jsonl").write_text(content)
        with pytest.raises(ValueError, match="got a run without metrics"):
            write_report(run)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b'{"steps": 5', r"config\.json: got a file that isn't JSON"),
        ("config.json", b"[1]", r"config\.json: got a JSON list, expected an object"),
        ("score.json", b"\xff", r"score\.json: got a file that isn't JSON"),
        ("metrics.jsonl", b"3\n", r"metrics\.jsonl: got a JSON int in line 1, expected one JSON object a line"),
        ("metrics.jsonl", b"\xff\n{}\n", r"metrics\.jsonl: got a bad line 1"),
        (
            "metrics.jsonl",
            b'{"step": 3, "elapsed_s": "long"}\n',
            r"metrics\.jsonl: got elapsed_s 'long' in line 1, expected a finite number",
        ),
        ("scores.jsonl", b'{"step": 3, "elapsed_s": 2}\n', r"scores\.jsonl: got fd None in line 1, expected a finite"),
    ],
)
def test_files_that_no_run_writes_are_named(run: Path, name: str, content: bytes, message: str) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        write_report(run)
    assert "\n" not in str(error.value)
    assert not (run / "report.html").exists()


def test_distances_by_different_nets_are_kept_apart(run: Path, charts: Charts) -> None:
    """A run that goes on may go on with another feature net, or with more samples."""
    inception = [{**score_line(step, fd), "features": "FID (own.pt)"} for step, fd in ((350, 50.0), (400, 25.0))]
    fewer = [{**inception[0], "step": 340, "fd": 900.0, "samples": 10}]
    write_lines(run / "scores.jsonl", [score_line(100, 300.0), *fewer, *inception])
    page = Page(write_report(run))
    # A chart of each net's scores, whose points lie in the order that they were taken in.
    assert [[line["step"] for line in lines] for lines in charts.of_scores] == [[100], [340, 350, 400]]
    assert "FID (own.pt) went from 50 at step 350 to 25 at step 400, a factor of 0.50;" in page.text
    assert "FD (EfficientNet-Lite0) and KID over steps and time." in page.words
    assert "FID (own.pt) and KID over steps and time." in page.words
    assert [page.words.count(net) for net in ("FD (EfficientNet-Lite0)", "FID (own.pt)")] == [1, 1]  # heads of tables
    assert "With 10 samples the Fréchet distance" in page.text
    write_lines(run / "scores.jsonl", [score_line(100, 300.0), inception[1]])
    assert "FID (own.pt) is 25 at step 400, KID 0.25." in Page(write_report(run)).text


@pytest.mark.usefixtures("charts")
def test_an_evaluation_is_shown(run: Path) -> None:
    (run / "score.json").write_text(json.dumps({"exp_score": 9.123456, "class_share": [0.25, 0.125], "samples": 5000}))
    page = Page(write_report(run))
    assert "Evaluation of the checkpoint name value exp_score 9.123 class_share 0.25, 0.125 samples 5000" in page.text


@pytest.mark.usefixtures("charts")
def test_grids_follow_in_order(run: Path) -> None:
    """By number: as text, a step of seven digits comes before one of six. Other pictures are none of the run's."""
    for name in ("step_1000000", "step_999999", "step_last"):
        (run / "samples" / f"{name}.png").write_bytes(PIXEL + name.encode())
    (run / "samples" / "step_2000000.pt").write_bytes(b"no picture")
    page = Page(write_report(run))
    assert "Step 1,000,000, not chosen" in page.text
    assert base64.b64decode(page.pictures[0].partition(",")[2]) == PIXEL + b"step_1000000"
    assert [words for words in page.words if re.fullmatch(r"Step [\d,]+", words)] == [
        f"Step {step}" for step in ("100", "200", "300", "999,999")
    ]


@pytest.mark.slow
def test_the_page_is_utf_8_whatever_the_locale(run: Path) -> None:
    """Under a locale whose encoding is ASCII, as some clusters' shells have."""
    code = f"from pathlib import Path; from ebgan_fast.report import write_report; write_report(Path({str(run)!r}))"
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **ascii_only}, check=True)
    assert "± over subsets" in Page(run / "report.html").text


@pytest.mark.usefixtures("charts")
def test_a_name_that_is_no_text(run: Path) -> None:
    odd = run.rename(os.fsdecode(os.fsencode(run) + b"\xff"))
    assert Page(write_report(odd)).words.count(f"EBGAN run {odd.name}".replace("\udcff", "?")) == 2


def line_of_an_old_run() -> Line:
    line = metrics_line(100)
    del line["grad_norm_g"], line["grad_norm_d"], line["images_per_s"]
    return line


def test_the_page_of_an_old_run_without_gradients(run: Path, charts: Charts) -> None:
    write_lines(run / "metrics.jsonl", [line_of_an_old_run()])
    assert "1 min 5 s, batches of 32." in Page(write_report(run)).text
    assert charts.of_training == [[line_of_an_old_run()]]


def picture_of(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as picture:
        return picture.convert("RGB")


def chart_of(reported: Path, which: int) -> Image.Image:
    """Of the pictures after a page's three grids: 0 the scores, 1 the training."""
    return picture_of(base64.b64decode(Page(reported / "report.html").pictures[3 + which].partition(",")[2]))


def test_what_no_line_tells_gets_no_panel(reported: Path) -> None:
    """Of six in two columns, two; a line alone is a point."""
    picture = picture_of(training_curves([line_of_an_old_run()]))
    assert 3 * picture.height == 2 * chart_of(reported, 1).height
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115)} <= colors_of(picture)


def test_curves_have_their_colors(reported: Path) -> None:
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115)} <= colors_of(chart_of(reported, 1))


@pytest.mark.parametrize("below", [False, True])
def test_kernel_distances_below_zero_are_drawn(reported: Path, below: bool) -> None:
    """KID is unbiased, so near 0 it falls on either side. Below the Frechet distance's blue."""
    if below:
        picture = picture_of(score_curves([{**score_line(step, 10.0), "kid": -0.001 * step} for step in (1, 2, 3)]))
    else:
        picture = chart_of(reported, 0)
    assert {(0, 114, 178), (213, 94, 0)} <= colors_of(picture)
    lower = picture.crop((0, picture.height // 2, picture.width, picture.height))
    orange = sum(count for count, color in lower.getcolors(2**24) or [] if color == (213, 94, 0))
    assert orange > 500


def colors_of(picture: Image.Image) -> set[Any]:
    return {color for _, color in picture.getcolors(2**24) or []}
