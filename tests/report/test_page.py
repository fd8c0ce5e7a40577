from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ebgan_fast.report import write_report

_VOID = {"meta", "img"}


class Page(HTMLParser):
    """A page's text, pictures and tags; fails on tags that don't match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.pictures: list[str] = []
        self.links: list[str] = []
        self.feed(path.read_text())
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
    folder = tmp_path / "runs <b>&'\"$body"
    (folder / "samples").mkdir(parents=True)
    networks = {"family": "conv", "width": 0.5}
    config = {"steps": 500, "batch_size": 32, "data": "/data/<script>alert(1)</script>", "networks": networks}
    (folder / "config.json").write_text(json.dumps(config))
    write_lines(folder / "metrics.jsonl", [metrics_line(step) for step in (100, 200, 300)])
    write_lines(folder / "scores.jsonl", [score_line(100, 300.0), score_line(300, 120.0)])
    for step in (100, 200, 300):
        Image.new("RGB", (4, 4), (step % 256, 0, 0)).save(folder / "samples" / f"step_{step:06d}.png")
    Image.new("RGB", (4, 4)).save(folder / "interpolation.png")
    Image.new("RGB", (4, 4)).save(folder / "neighbours.png")
    return folder


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_page_says_what_the_folder_holds(run: Path) -> None:
    page = Page(write_report(run))
    for words in (
        "300 of 500 steps in 1 min 5 s, batches of 32, 123 images per second.",
        "FD (EfficientNet-Lite0) went from 300 at step 100 to 120 at step 300, a factor of 0.40; KID from 3 to 1.2.",
        "With 1,000 samples the Frechet distance comes out larger than with many.",
        "Step 300, not chosen",
        "Step 100",
        "1 h 2 min",
        "1,871",
        "width 0.5",
    ):
        assert words in page.text
    for heading in ("Samples", "Scores", "Training", "Interpolations", "Nearest training images", "Settings"):
        assert heading in page.words


def test_the_page_stands_alone(run: Path) -> None:
    page = Page(write_report(run))
    assert len(page.pictures) == 3 + 1 + 1 + 2  # grids, scores, curves, extras
    assert page.links == page.pictures
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not re.search(r"url\(|@import|https?:", (run / "report.html").read_text())
    assert sorted(path.name for path in run.iterdir() if path.name.startswith(".")) == []


def test_names_are_words_not_tags(run: Path) -> None:
    page = Page(write_report(run))
    assert f"EBGAN run {run.name}" in page.words
    assert "/data/<script>alert(1)</script>" in page.words
    assert "<script" not in (run / "report.html").read_text()


def test_parts_that_are_missing_are_left_out(run: Path) -> None:
    for name in ("scores.jsonl", "interpolation.png", "neighbours.png"):
        (run / name).unlink()
    for path in (run / "samples").iterdir():
        path.unlink()
    page = Page(write_report(run))
    assert "This run was not scored while it trained." in page.text
    assert "No grid of samples was drawn yet." in page.text
    assert "Interpolations" not in page.words
    assert len(page.pictures) == 1


def test_a_line_cut_short_is_left_out_and_a_bad_one_named(run: Path) -> None:
    metrics = run / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 400, "loss')
    assert "300 of 500 steps" in Page(write_report(run)).text
    metrics.write_text("nonsense\n" + metrics.read_text())
    with pytest.raises(ValueError, match=r"metrics\.jsonl: got a bad line"):
        write_report(run)


def test_folders_that_are_no_runs(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got a folder without config\.json, expected the folder of a run"):
        write_report(tmp_path)
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="got a run without metrics"):
        write_report(run)


def test_curves_of_old_runs_without_gradients(run: Path) -> None:
    lines = [metrics_line(100)]
    del lines[0]["grad_norm_g"], lines[0]["grad_norm_d"], lines[0]["images_per_s"]
    write_lines(run / "metrics.jsonl", lines)
    page = Page(write_report(run))
    assert "nan images" not in page.text


def test_curves_have_their_colours(run: Path) -> None:
    from ebgan_fast.report.charts import score_curves, training_curves

    for content, expected in [
        (training_curves([metrics_line(100), metrics_line(200)]), {(0, 114, 178), (213, 94, 0), (0, 158, 115)}),
        (score_curves([score_line(100, 3.0), score_line(200, 2.0)]), {(0, 114, 178), (213, 94, 0)}),
    ]:
        with Image.open(io.BytesIO(content)) as picture:
            colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24)}
        assert expected <= colours
