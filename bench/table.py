"""Rows as a table: with lines and colour on a terminal, plain text in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from rich import box
from rich.console import Console
from rich.table import Table

from .rows import COMPILE, EAGER, PACKAGE, Row, missed

_COLUMNS = ("op", "shape", "dtype", "timed", "ebgan_fast ms", "eager ms", "compile ms", "calls ms")
_NONE = "-"


def _digits(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _milliseconds(row: Row, provider: str) -> str:
    if provider in row.wrong:
        return "wrong"
    seconds = row.seconds.get(provider)
    return _NONE if seconds is None else _digits(1e3 * seconds)


def _ratio(ratio: float | None, target: float | None) -> str:
    """'4.12 >= 3.8', or '3.51 <  3.8 !' for a target that is missed."""
    if ratio is None:
        return f"{_NONE:>6}"
    if target is None:
        return f"{ratio:6.2f}"
    return f"{ratio:6.2f} <  {target:.3g} !" if missed(ratio, target) else f"{ratio:6.2f} >= {target:.3g}"


def _colour(row: Row) -> str | None:
    if row.wrong:
        return "red"
    behind = missed(row.ratio_eager, row.target_eager) or missed(row.ratio_compile, row.target_compile)
    return "yellow" if behind else None


def _cells(row: Row) -> list[str]:
    return [
        row.op,
        row.shape,
        row.dtype,
        row.setting,
        *(_milliseconds(row, provider) for provider in (PACKAGE, EAGER, COMPILE)),
        _digits(1e3 * row.empty),
        _ratio(row.ratio_eager, row.target_eager),
        _ratio(row.ratio_compile, row.target_compile),
        _NONE if row.rate is None else f"{_digits(row.rate)} {row.unit}",
        _NONE if row.share is None else f"{100 * row.share:.0f} %",
        f"{_digits(float(row.ceiling['value']))} {row.ceiling['name']}",
    ]


def _conditions(rows: Sequence[Row]) -> list[str]:
    """What all the figures have in common; more than one line where rows of several runs meet."""
    lines: dict[str, None] = {}
    for row in rows:
        versions = row.versions
        lines[
            f"{row.processor}, {row.isa}; torch {versions['torch']}, Python {versions['python']}, "
            f"{versions['compiler']}; ebgan_fast {versions['ebgan_fast']}, source {row.source_hash}; "
            f"freed memory {row.memory}; best of {row.rounds} rounds; {row.date[:10]}"
        ] = None
    return list(lines)


def summary(rows: Sequence[Row]) -> str:
    pairs = [
        pair
        for row in rows
        for pair in ((row.ratio_eager, row.target_eager), (row.ratio_compile, row.target_compile))
        if None not in pair
    ]
    if not pairs:
        return "no targets among these rows"
    return f"{sum(not missed(*pair) for pair in pairs)} of {len(pairs)} targets reached"


def show(rows: Sequence[Row], file: IO[str] | None = None) -> None:
    """Print to `file`, by default standard output."""
    console = Console(file=file, highlight=False)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in _COLUMNS:
        table.add_column(title, justify="left" if title in ("op", "shape", "dtype") else "right", no_wrap=True)
    for title in ("x eager", "x compile"):
        table.add_column(title, no_wrap=True)
    for title in ("rate", "share"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("of", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row), style=_colour(row))
    # A line too long for the window is better than a number cut short.
    console.width = max(console.width, console.measure(table, options=console.options.update(width=500)).maximum)
    console.print(table)
    console.print(
        "calls: an empty autograd Function with the same gradients; of: the ceiling, timed in the same rounds"
    )
    for line in (*_conditions(rows), f"forward + backward; {summary(rows)}"):
        console.print(line, soft_wrap=True)
