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
    """The text, pictures and links of a page. A tag that is closed out of order fails."""

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
    """The folder of a scored run, whose name holds characters that mean something in HTML."""
    return make_run(tmp_path)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a scored run with its report, for tests that change nothing in it."""
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
    """A stand-in for the charts: it keeps the lines that each was drawn from, and returns one gray pixel."""

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
    """Replace the charts, of which each takes half a second, for tests that don't look at them."""
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
    """A resumed run may be scored by another feature net, or with more samples."""
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
def test_an_evaluation_of_digits_is_shown_in_words(run: Path) -> None:
    """A reader needs no name of a field, and sees the classes' shares as bars in proportion."""
    scored = {
        "checkpoint": "checkpoint.pt",
        "samples": 5000,
        "classifier_test_accuracy": 0.9931,
        "exp_score": 9.123456,
        "exp_score_std": 0.0567,
        "kl_conditional_marginal": 2.2,
        "kl_marginal_conditional": 10.66,
        "class_share": [0.25, 0.125, 0.625],
    }
    (run / "score.json").write_text(json.dumps(scored))
    page = Page(write_report(run))
    for row in (
        "quantity value meaning Checkpoint checkpoint.pt Generated samples 5000",
        "Classifier's accuracy on the test digits 99.31%",
        "Score: exp E KL(p(y|x) ‖ p(y)) 9.123 ± 0.057 1 is worst, the number of classes best",
        "E KL(p(y|x) ‖ p(y)) 2.2 nats The paper's I′: E KL(p(y) ‖ p(y|x)) 10.66 nats",
        "Share of each class among the samples, by the classifier. Equal shares are 33.3% each. ",
        "each. 0 25.0% 1 12.5% 2 62.5%",
    ):
        assert row in page.text
    for field in (*scored.keys() - {"checkpoint", "samples"}, "exp_score"):
        assert field not in page.text
    widths = re.findall(r'class="bar" style="width: ([\d.]+)%"', (run / "report.html").read_text(encoding="utf-8"))
    assert list(map(float, widths)) == [40.0, 20.0, 100.0]


@pytest.mark.usefixtures("charts")
def test_an_evaluation_of_images_is_shown_in_words(run: Path) -> None:
    scored = {"features": "FD (own.pt)", "fd": 12.5, "kid": 0.0123, "kid_std": 0.002, "kid_subset_size": 100}
    (run / "score.json").write_text(json.dumps(scored))
    page = Page(write_report(run))
    for row in ("Feature net FD (own.pt)", "Fréchet distance 12.5 0 is best", "Kernel distance (KID) 0.0123 ± 0.002"):
        assert row in page.text
    assert "Share of each class" not in page.text


@pytest.mark.usefixtures("charts")
@pytest.mark.parametrize("share", ["a half", [], [2.0], ["0.5", "0.5"], [0.001] * 101, {"0": 1.0}])
def test_class_shares_that_are_none_are_shown_as_they_are(run: Path, share: Any) -> None:
    (run / "score.json").write_text(json.dumps({"class_share": share, "of_a_later_version": 3}))
    page = Page(write_report(run))
    assert "class_share" in page.text
    assert "of_a_later_version 3" in page.text
    assert "Share of each class" not in page.text


@pytest.mark.usefixtures("charts")
def test_no_share_at_all_is_a_chart_without_bars(run: Path) -> None:
    (run / "score.json").write_text(json.dumps({"class_share": [0.0, 0.0]}))
    assert "0 0.0% 1 0.0%" in Page(write_report(run)).text


@pytest.mark.usefixtures("charts")
@pytest.mark.parametrize(
    ("settings", "margins", "words"),
    [
        (
            {"norm": "l2", "margin": 10.0, "pt_weight": 0.1},
            (10.0, 10.0),
            "norm l2, margin 10, pulling-away weight 0.1.",
        ),
        (
            {"norm": "sse", "margin": 16.0, "pt_weight": 0.0},
            (16.0, 2.0),
            "norm sse, margin 16 at first, 2 now, no pull",
        ),
        ({"norm": "l2", "margin": "auto"}, (7.25, 7.25), "norm l2, margin 7.25 (auto)."),
        ({"norm": ["<b>"], "pt_weight": "much"}, (20.0, 20.0), "EBGAN with margin 20."),
    ],
)
def test_the_first_line_names_norm_and_margin(
    run: Path, settings: dict[str, Any], margins: tuple[float, float], words: str
) -> None:
    (run / "config.json").write_text(json.dumps(settings))
    lines = [{**metrics_line(step), "margin": margin} for step, margin in zip((100, 200), margins, strict=True)]
    write_lines(run / "metrics.jsonl", lines)
    page = Page(write_report(run))
    assert page.text.partition("EBGAN with ")[2].startswith(words.removeprefix("EBGAN with "))
    assert page.text.index("EBGAN with ") < page.text.index("200 steps in")


@pytest.mark.usefixtures("charts")
def test_grids_follow_in_order(run: Path) -> None:
    """Grids are sorted by step as a number: as text, seven digits come before six. Other pictures are left out."""
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
    """The page is UTF-8 also under an ASCII locale, which the shells of some clusters have."""
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
    """Return a picture after the page's three grids: 0 is the chart of scores, 1 the chart of training."""
    return picture_of(base64.b64decode(Page(reported / "report.html").pictures[3 + which].partition(",")[2]))


def test_what_no_line_tells_gets_no_panel(reported: Path) -> None:
    """An old line lacks the values of four panels: two of the six are left. A single line is drawn as a point."""
    picture = picture_of(training_curves([line_of_an_old_run()]))
    assert 3 * picture.height == 2 * chart_of(reported, 1).height
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115)} <= colors_of(picture)


def test_curves_have_their_colors(reported: Path) -> None:
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115)} <= colors_of(chart_of(reported, 1))


@pytest.mark.parametrize("below", [False, True])
def test_kernel_distances_below_zero_are_drawn(reported: Path, below: bool) -> None:
    """KID is unbiased, so it may be negative near 0. Its orange curve lies below the Frechet distance's blue one."""
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
