"""The terminal's table and the pictures show every figure of their rows."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.image
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from bench.pages import plot, tables
from bench.results.rows import CaseResult, LatencyRow, MemoryRow, Result, Row, ScalingRow, Spread, spread
from bench.subjects.calls import BOTH


def _text(rows: Sequence[Result]) -> str:
    file = io.StringIO()
    tables.show(rows, file)
    return file.getvalue()


def test_a_missed_target_is_marked(make_row: Callable[..., Row]) -> None:
    text = _text([make_row()])  # 4.0 where 3.0 is wanted, and 1.5 where 2.0 is wanted
    assert "4.00 (4.00x) " in text
    assert "1.50 (1.50x, not 2x)" in text
    assert "1 of 2 targets reached" in text


def test_a_row_shows_every_figure(make_row: Callable[..., Row]) -> None:
    seconds = {"ebgan_fast": Spread(0.8e-6, 1e-6, 1.4e-6), "eager": Spread(2.5, 2.5, 2.5)}
    titles, line = _text([make_row(seconds=seconds, ratio={})]).splitlines()[:2]
    assert titles.split()[4:8] == ["ebgan_fast", "ms", "eager", "calls"]
    begin = ["pulling_away_term", "8x32", "float32", "1", "thread", "0.00100", "±30", "%", "2500", "0.100"]
    assert line.split() == [*begin, "30.0", "GFLOP/s", "50", "%", "60.0", "sgemm"]


def test_what_a_provider_cannot_do_is_left_empty(make_row: Callable[..., Row]) -> None:
    full = make_row()
    row = make_row(shape="9x32", seconds={"ebgan_fast": full.seconds["ebgan_fast"]}, ratio={})
    line = _text([full, row]).splitlines()[2]
    assert line.split()[5:10] == ["1.00", "±10", "%", "-", "-"]


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
    seconds = {"eager": Spread(0.004, 0.004, 0.004)}
    text = _text([make_row(seconds=seconds, ratio={}, rate=None, share=None, wrong={"ebgan_fast": "loss is off"})])
    assert text.splitlines()[1].split()[5:7] == ["wrong", "4.00"]
    assert "no targets among these rows" in text


def test_rows_of_different_sources_are_told_apart(make_row: Callable[..., Row]) -> None:
    text = _text([make_row(), make_row(shape="9x32"), make_row(source_hash="f" * 16)])
    assert text.count("source 0123456789abcdef") == 1
    assert text.count(f"source {'f' * 16}") == 1


def test_calls_are_in_microseconds(make_row: Callable[..., Row]) -> None:
    text = _text([LatencyRow(**vars(make_row()))])
    assert text.splitlines()[1].split()[3:10] == ["1", "thread,", "forward", "+", "backward", "1000", "±10"]
    assert "ebgan_fast µs" in text


def _points(make_row: Callable[..., Row], exponent: float) -> list[ScalingRow]:
    return [
        ScalingRow(
            **vars(make_row(seconds={"eager": spread([1e-3 * size**exponent])}, ratio={})),
            axis="N",
            value=size,
            fixed="d = 32",
            expected={"eager": 2.0},
        )
        for size in (4, 2, 8)
    ]


def test_exponents_are_those_of_the_times(make_row: Callable[..., Row]) -> None:
    line = _text(_points(make_row, 1.75)).splitlines()[1]
    assert " ".join(line.split()) == "pulling_away_term d = 32 N eager 2: 3.36, 4: 11.3, 8: 38.1 1.75 2"


def test_memory_is_in_mebibytes_and_times_the_gradients(make_row: Callable[..., Row]) -> None:
    row = {name: value for name, value in vars(make_row()).items() if name in CaseResult.__dataclass_fields__}
    memory = MemoryRow(**{**row, "wrong": {"eager": "off"}}, inputs=2**21, gradients=2**20, peak={"compile": 3 * 2**19})
    assert _text([memory]).splitlines()[1].split()[3:] == ["2.00", "1.00", "1.50", "(1.50x)", "wrong"]


def test_rows_of_several_commands_are_refused(make_row: Callable[..., Row]) -> None:
    row = {name: value for name, value in vars(make_row()).items() if name in CaseResult.__dataclass_fields__}
    memory = MemoryRow(**row, inputs=2, gradients=1, peak={})
    for show in (_text, plot.draw):
        with pytest.raises(ValueError, match="rows of several commands"):
            show([make_row(), memory])


def test_the_picture_grows_with_cases_and_panels(make_row: Callable[..., Row], tmp_path: Path) -> None:
    def size(rows: list[Row]) -> tuple[int, int]:
        plot.save(plot.draw(rows), tmp_path / "plot.png")
        height, width = matplotlib.image.imread(tmp_path / "plot.png").shape[:2]
        return height, width

    height, width = size([make_row()])
    taller, same = size([make_row(), make_row(shape="9x32")])
    assert (taller > height, same) == (True, width)
    slow = {"eager": spread([0.5])}
    taller, wider = size([make_row(), make_row(threads=2, ratio=slow)])
    assert (taller, wider > width) == (height, True)


def _texts(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(Text)}


def test_pictures_say_what_they_show(make_row: Callable[..., Row]) -> None:
    row = make_row()
    assert {"4.00x", "1.50x", "eager", "torch.compile", "pulling-away  8x32"} <= _texts(plot.draw([row]))
    assert "target" not in _texts(plot.draw([row]))
    assert {"4000", "1000", "ebgan_fast"} <= _texts(plot.draw([LatencyRow(**vars(row))]))
    assert {"1.75", "pulling-away, d = 32", "N", "expected slope"} <= _texts(plot.draw(_points(make_row, 1.75)))
    fields = {name: value for name, value in vars(row).items() if name in CaseResult.__dataclass_fields__}
    assert {"7.50x", "eager"} <= _texts(plot.draw([MemoryRow(**fields, inputs=2, gradients=2, peak={"eager": 15})]))


_TWO = ({"processor": "AMD EPYC", "isa": "avx2"}, {"processor": "Intel(R) Xeon(R) Processor", "isa": "avx512"})


def _panel(figure: Figure, *title: str) -> set[str]:
    """Return the texts of one panel."""
    (found,) = (axes for axes in figure.findobj(Axes) if axes.get_title() == "\n".join(title))
    return {text.get_text() for text in found.findobj(Text)}


@pytest.mark.parametrize("kind", [Row, LatencyRow])
def test_each_processor_has_panels_of_its_own(make_row: Callable[..., Row], kind: type[Row]) -> None:
    rows = [
        make_row(**one, threads=threads, seconds={"eager": spread([1e-3 * value])}, ratio={"eager": spread([value])})
        for one, first in zip(_TWO, (4.0, 7.0), strict=True)
        for threads, value in ((1, first), (2, first + 1))
    ]
    figure = plot.draw([kind(**vars(row)) for row in rows])
    words = {4.0: "4.00x", 5.0: "5.00x", 7.0: "7.00x", 8.0: "8.00x"}
    if kind is LatencyRow:
        words = {value: f"{1000 * value:.0f}" for value in words}
    begin = "float32, " if kind is Row else f"{BOTH}, "
    for name, setting, value in (
        ("AMD EPYC, avx2", "1 thread", 4.0),
        ("AMD EPYC, avx2", "2 threads", 5.0),
        ("Intel Xeon, avx512", "1 thread", 7.0),
        ("Intel Xeon, avx512", "2 threads", 8.0),
    ):
        assert _panel(figure, name, begin + setting) & set(words.values()) == {words[value]}
    upper, lower = figure.axes[:2], figure.axes[2:]
    for line in (upper, lower):
        assert [axes.get_title().partition("\n")[0] for axes in line] == ["AMD EPYC, avx2", "Intel Xeon, avx512"]
    assert [axes.get_subplotspec().is_first_row() for axes in figure.axes] == [True, True, False, False]
    (machines,) = (text for text in _texts(figure) if "torch 2.13.0" in text)
    assert [line.partition(", ")[0] for line in machines.splitlines()] == ["AMD EPYC", "Intel(R) Xeon(R) Processor"]


@pytest.mark.parametrize("exponents", [(1.75, 1.5), (1.5, 1.75)], ids=str)
def test_each_processor_has_its_curves_on_the_same_scale(
    make_row: Callable[..., Row], exponents: tuple[float, float]
) -> None:
    """The curves of both processors lie within one scale, whichever processor is slower."""
    rows = [
        dataclasses.replace(row, **one)
        for one, exponent in zip(_TWO, exponents, strict=True)
        for row in _points(make_row, exponent)
    ]
    figure = plot.draw(rows)
    first, second = figure.findobj(Axes)
    for block, name, axes, slope in zip(
        figure.subfigs,
        ("AMD EPYC, avx2", "Intel Xeon, avx512"),
        (first, second),
        map("{:.2f}".format, exponents),
        strict=True,
    ):
        assert name in {text.get_text() for text in block.findobj(Text)}
        assert {text.get_text() for text in axes.findobj(Text)} & {"1.75", "1.50"} == {slope}
        low, high = axes.get_ylim()
        assert all(low < value < high for line in axes.lines for value in line.get_ydata())
    assert first.get_ylim() == second.get_ylim()


def test_rows_without_ratios_are_refused(make_row: Callable[..., Row]) -> None:
    with pytest.raises(ValueError, match="got no row with a ratio"):
        plot.draw([make_row(ratio={})])
