"""The committed page is what the committed results give, and its pictures were drawn from them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.commands import page
from bench.pages import figures
from bench.pages.committed import RESULTS, Results
from bench.results import rows
from bench.results.provenance import ROOT


def test_the_committed_page_readme_and_pictures_are_what_the_results_give(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["page", "--check"])
    assert capsys.readouterr().err == ""
    assert status == 0


def _complaints(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["page", "--check"]) == 1
    return capsys.readouterr().err


def _again(path: Path, change: float) -> None:
    """Add a later run of the same cases, in which the package is faster by a factor."""
    found = []
    for row in rows.last_run(rows.read(path)):
        assert isinstance(row, rows.Row)
        values = {**vars(row), "run": "2999-01-01T00:00:00+00:00"}
        values["ratio"] = {name: rows.Spread(*(change * x for x in spread)) for name, spread in row.ratio.items()}
        found.append(rows.Row(**values))
    rows.append_all(found, path)


@pytest.mark.slow
def test_newer_results_make_the_page_the_readme_and_the_pictures_stale(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _again(copy / RESULTS["ops"], 2.0)
    said = _complaints(capsys)
    for name in (
        "docs/performance.md: not what",
        "README.md: not what",
        "docs/images/bench-ops.png: bench/results/ops",
    ):
        assert name in said
    assert main(["page"]) == 0
    assert main(["page", "--check"]) == 0
    assert "2999-01-01" in (copy / "docs" / "performance.md").read_text()


def test_an_edited_page_is_stale(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "docs" / "performance.md"
    path.write_text(path.read_text().replace("ebgan_fast", "EBGAN_FAST", 1))
    assert "docs/performance.md: not what bench/results give: python -m bench page" in _complaints(capsys)


def test_a_page_that_could_not_be_replaced_stays_as_it_was_and_nothing_else_is_left(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = copy / "docs"
    before = (docs / "performance.md").read_text(), sorted(docs.iterdir())

    def interrupted(*paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        page._write({"docs/performance.md": "later"})
    assert ((docs / "performance.md").read_text(), sorted(docs.iterdir())) == before


QUOTING = ("README.md", "docs/one-pass.md")


@pytest.mark.parametrize("name", QUOTING)
def test_other_words_between_the_marks_of_a_page_are_stale(
    name: str, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = (copy / name).read_text()
    (copy / name).write_text(page._MARKED.sub(r"\1other words\n\2", committed))
    assert f"{name}: not what bench/results give: python -m bench page" in _complaints(capsys)
    monkeypatch.setattr(page, "draw_all", lambda results: None)
    assert main(["page"]) == 0
    assert (copy / name).read_text() == committed


@pytest.mark.parametrize("name", QUOTING)
def test_a_page_that_has_lost_its_marks_is_told(name: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / name).write_text((copy / name).read_text().replace("<!-- end of figures -->", ""))
    assert f"{name}: got no figures between marks" in _complaints(capsys)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("docs/images/bench-scaling.png", "docs/images/bench-scaling.png is not what it was"),
        ("docs/studies/results/theory.json", "theory-theory.webp: docs/studies/results/theory.json is not what it was"),
        ("bench/pages/plot.py", "docs/images/bench-memory.png: bench/pages/plot.py is not what it was"),
    ],
)
def test_a_picture_or_its_source_that_changed_is_stale(
    copy: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (copy / name).open("ab") as file:
        file.write(b"\n")
    assert said in _complaints(capsys)


def test_a_picture_must_be_recorded_and_there(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(copy / "docs/images/bench-ops.png", copy / "docs/images/new.png")
    assert "docs/images/new.png: not in docs/figures.json" in _complaints(capsys)
    figures.record({"docs/images/new.png": ["README.md"]})
    (copy / "docs/images/new.png").unlink()
    assert "docs/images/new.png is not what it was" in _complaints(capsys)
    figures.record({})  # forgets the picture that is gone
    assert main(["page", "--check"]) == 0


def test_every_study_s_picture_knows_its_results() -> None:
    recorded = json.loads((ROOT / figures.RECORD).read_text())
    for picture, digests in recorded.items():
        if picture.startswith("docs/studies/"):
            assert any(name.startswith("docs/studies/results/") for name in digests), picture


def test_every_figure_of_the_template_is_given_and_used() -> None:
    text = (ROOT / page.TEMPLATE).read_text()
    unused = {name for name in page.values_of(Results.read(ROOT)) if f"${{{name}}}" not in text}
    assert not unused
    with pytest.raises(KeyError):
        page.performance({})
