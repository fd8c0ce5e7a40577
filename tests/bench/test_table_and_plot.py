"""Rows for the eye: the table's marks and the picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import pytest

from bench import plot, table
from bench.rows import Row


def _text(rows: list[Row]) -> str:
    file = io.StringIO()
    table.show(rows, file)
    return file.getvalue()


def test_a_missed_target_is_marked(make_row: Callable[..., Row]) -> None:
    text = _text([make_row()])  # 4.0 against 3.0, 1.5 against 2.0
    assert "4.00 >= 3 " in text
    assert "1.50 <  2 !" in text
    assert "1 of 2 targets reached" in text


def test_a_row_shows_every_figure(make_row: Callable[..., Row]) -> None:
    line = _text([make_row(seconds={"ebgan_fast": 1e-6, "eager": 2.5}, ratio_compile=None)]).splitlines()[1]
    assert line.split()[:8] == ["pulling_away_term", "8x32", "float32", "1", "thread", "0.00100", "2500", "-"]
    assert line.split()[-6:] == ["30.0", "GFLOP/s", "50", "%", "60.0", "sgemm"]


def test_a_row_of_a_gpu_tells_how_it_was_timed(make_row: Callable[..., Row]) -> None:
    text = _text([make_row(device="cuda", watch=watch) for watch in ("called", "replayed")])
    assert [line.split()[3] for line in text.splitlines()[1:3]] == ["called", "replayed"]


def test_nothing_is_cut_short_in_a_narrow_pipe(make_row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    shape = "64x3x64x64, code 64x16384"
    lines = _text([make_row(shape=shape)]).splitlines()
    assert shape in lines[1]
    assert lines[1].rstrip().endswith("sgemm")


def test_a_wrong_provider_shows_as_wrong(make_row: Callable[..., Row]) -> None:
    row = make_row(seconds={"eager": 0.004}, ratio_eager=None, ratio_compile=None, rate=None, share=None)
    text = _text([make_row(**{**vars(row), "wrong": {"ebgan_fast": "loss is off"}})])
    assert text.splitlines()[1].split()[5:7] == ["wrong", "4.00"]
    assert "no targets among these rows" in text


def test_rows_of_different_sources_are_told_apart(make_row: Callable[..., Row]) -> None:
    text = _text([make_row(), make_row(shape="9x32"), make_row(source_hash="f" * 16)])
    assert text.count("source 0123456789abcdef") == 1
    assert text.count(f"source {'f' * 16}") == 1


def test_the_picture_grows_with_cases_and_panels(make_row: Callable[..., Row], tmp_path: Path) -> None:
    def size(rows: list[Row]) -> tuple[int, int]:
        plot.plot(rows, tmp_path / "plot.png")
        height, width = matplotlib.image.imread(tmp_path / "plot.png").shape[:2]
        return height, width

    height, width = size([make_row()])
    assert size([make_row(), make_row(shape="9x32")]) == (height + 54, width)  # 0.36 inches at 150 dpi
    taller, wider = size([make_row(), make_row(threads=2, ratio_eager=0.5)])
    assert taller == height
    assert wider > width


def test_rows_without_ratios_are_refused(make_row: Callable[..., Row], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got no row with a ratio"):
        plot.plot([make_row(ratio_eager=None, ratio_compile=None)], tmp_path / "plot.png")
