"""A study's table and figures are drawn from its file of results alone. For a malformed file, an error of one sentence
says what is wrong."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ebgan_fast.studies.__main__ import main
from ebgan_fast.studies.framework import results as files
from ebgan_fast.studies.framework.results import Results, read, with_pictures

RESULTS = Path(__file__).parents[2] / "docs" / "studies" / "results"


def samples(path: Path, mode: str = "L") -> None:
    path.parent.mkdir(exist_ok=True)
    Image.linear_gradient("L").convert(mode).save(path)


def swept(folder: Path) -> Path:
    """Write the results of two margins, where the samples of one margin are on another machine. Return the file."""
    samples(folder / "samples" / "margin-1-0.png")
    found = read(RESULTS / "margin-sweep.json")
    trials = [trial for trial in found.trials if trial.params["margin"] in (1, 8)]
    found = Results(found.study, found.settings, found.versions, found.machine, found.date, trials)
    files.write(with_pictures(found, folder, ["samples/margin-1-0.png", "samples/margin-8-0.png"]), folder)
    return folder / "results.json"


@pytest.mark.parametrize("name", [path.stem for path in sorted(RESULTS.glob("*.json"))])
def test_committed_results_give_table_and_figures(tmp_path: Path, name: str) -> None:
    assert main(["redraw", str(RESULTS / f"{name}.json"), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "table.md").read_text() in (RESULTS.parent / f"{name}.md").read_text()
    assert list((tmp_path / "out").glob("*.png"))


def test_samples_are_those_of_the_file(tmp_path: Path) -> None:
    """The figure is the same even if the samples' own files are gone."""
    path = swept(tmp_path)
    found = read(path)
    assert list(found.pictures) == ["samples/margin-1-0.png"]
    picture = found.picture("samples/margin-1-0.png")
    assert picture is not None
    assert picture.size == (256, 256)
    assert found.picture("samples/margin-8-0.png") is None
    drawn = []
    for place in ("first", "second"):
        assert main(["redraw", str(path), str(tmp_path / place)]) == 0
        drawn.append((tmp_path / place / "margins.png").read_bytes())
        (tmp_path / "samples" / "margin-1-0.png").unlink(missing_ok=True)
    assert drawn[0] == drawn[1]
    with Image.open(tmp_path / "first" / "margins.png") as image:
        left, right = (image.convert("L").crop((x, 40, x + 300, image.height - 40)) for x in (0, 400))
        assert left.getextrema()[0] < 50  # the gradient
        assert right.getextrema()[0] > 200  # nothing


def _webp(width: int, height: int) -> str:
    content = io.BytesIO()
    Image.new("L", (width, height)).save(content, "WEBP")
    return base64.b64encode(content.getvalue()).decode()


def _png() -> str:
    content = io.BytesIO()
    Image.new("L", (9, 9)).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


@pytest.mark.parametrize(
    "picture", ["", "no base64 \x1b", "AAAA", _webp(5000, 3), _png(), _webp(9, 9)[:40], "é"], ids=str
)
def test_odd_pictures_are_named(tmp_path: Path, picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = swept(tmp_path)
    content = json.loads(path.read_text())
    content["pictures"]["samples/margin-1-0.png"] = picture
    path.write_text(json.dumps(content))
    assert main(["redraw", str(path), str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert str(path) in told
    assert "pictures: got" in told
    assert told.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "change",
    [
        {"study": "\x1b[31m"},
        {"pictures": 1},
        {"pictures": {"a": 1}},
        {"trials": [{"params": {}, "result": {}, "reason": None, "seconds": 0}]},
        {"trials": [{"params": {"margin": []}, "result": {}, "reason": None, "seconds": 0}]},
        {"trials": [{"params": {"margin": 1, "seed": "x"}, "result": {"classes": "x"}, "reason": None, "seconds": 0}]},
        {"trials": []},
    ],
)
def test_odd_results_are_named(tmp_path: Path, change: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    path = swept(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert main(["redraw", str(path), str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert str(path) in told
    assert told.rstrip("\n").isprintable()


def test_a_missing_package_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert main(["redraw", str(RESULTS / "pt-study.json"), str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "scipy" in told
    assert "pip install 'ebgan_fast[train,studies]'" in told


def test_what_earlier_versions_wrote_is_read(tmp_path: Path) -> None:
    """Files of earlier versions had no pictures, and one number per line."""
    found = read(RESULTS / "theory.json")
    content = json.loads((RESULTS / "theory.json").read_text())
    content.pop("pictures", None)
    (tmp_path / "results.json").write_text(json.dumps(content, indent=1))
    assert read(tmp_path / "results.json") == found
