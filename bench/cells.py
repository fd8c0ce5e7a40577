"""Rows as the cells of a table, for a terminal and for a page alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from .rows import PACKAGE, LatencyRow, MemoryRow, Result, Row, ScalingRow

NONE = "-"


@dataclass(frozen=True)
class Cells:
    titles: Sequence[str]
    lines: Sequence[Sequence[str]]
    words: tuple[int, ...]
    """The columns of words, not numbers."""
    marks: Sequence[str | None] = ()
    """By line, for a terminal: "wrong", "behind" a target, or None."""
    notes: Sequence[str] = ()


def of(rows: Sequence[Result]) -> Cells:
    """Of the rows of one command."""
    if all(isinstance(row, MemoryRow) for row in rows):
        return _memory(cast(Sequence[MemoryRow], rows))
    if all(isinstance(row, ScalingRow) for row in rows):
        return _scaling(cast(Sequence[ScalingRow], rows))
    if all(isinstance(row, Row) for row in rows):
        return _timed(cast(Sequence[Row], rows))
    raise ValueError("got rows of several commands, expected those of one")


def digits(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".removesuffix(".")


def times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x" if ratio < 100 else f"{ratio:.0f}x"


def names(providers: Iterable[Iterable[str]]) -> list[str]:
    """Each once, in the order of their first mention."""
    return list(dict.fromkeys(name for some in providers for name in some))


def _provider(row: Row, name: str, scale: float) -> str:
    """'0.391 (2.27x)', or '0.391 (2.27x, not 3.8x)' for a target that is missed."""
    if name in row.wrong:
        return "wrong"
    if name not in row.seconds:
        return NONE
    time = digits(scale * row.seconds[name].median)
    if name not in row.ratio:
        return time
    wanted = f", not {row.targets[name]:.3g}x" if row.missed(name) else ""
    return f"{time} ({times(row.ratio[name].median)}{wanted})"


def _own(row: Row, scale: float) -> str:
    if PACKAGE in row.wrong:
        return "wrong"
    low, median, high = row.seconds[PACKAGE]
    return f"{digits(scale * median)} ±{50 * (high - low) / median:.0f} %"


def _mark(row: Row) -> str | None:
    if row.wrong:
        return "wrong"
    return "behind" if any(row.missed(name) for name in row.targets) else None


def _timed(rows: Sequence[Row]) -> Cells:
    is_latency = isinstance(rows[0], LatencyRow)
    unit, scale = ("µs", 1e6) if is_latency else ("ms", 1e3)
    providers = [name for name in names((*row.seconds, *row.wrong) for row in rows) if name != PACKAGE]
    bounds = [] if is_latency else ["rate", "share", "of"]
    lines = []
    for row in rows:
        line = [row.op, row.shape, row.dtype, f"{row.setting}, {row.mode}" if is_latency else row.setting]
        line += [_own(row, scale), *(_provider(row, name, scale) for name in providers), digits(scale * row.empty)]
        if bounds:
            line += [
                NONE if row.rate is None else f"{digits(row.rate)} {row.unit}",
                NONE if row.share is None else f"{100 * row.share:.0f} %",
                f"{digits(float(row.ceiling['value']))} {row.ceiling['name']}",
            ]
        lines.append(line)
    titles = ["op", "shape", "dtype", "timed", f"{PACKAGE} {unit}", *providers, "calls", *bounds]
    notes = ["calls: an empty autograd Function with the same gradients"]
    if bounds:
        notes.append("of: the ceiling, timed in the same rounds")
    return Cells(titles, lines, (0, 1, 2, 3), [_mark(row) for row in rows], [*notes, summary(rows)])


def summary(rows: Sequence[Row]) -> str:
    reached = [not row.missed(name) for row in rows for name in row.targets if name in row.ratio]
    return f"{sum(reached)} of {len(reached)} targets reached" if reached else "no targets among these rows"


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the logarithms, by least squares over the last three points: smaller ones have calls to pay."""
    logs = [(math.log(x), math.log(y)) for x, y in points[-3:]]
    middle_x, middle_y = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    return sum((x - middle_x) * (y - middle_y) for x, y in logs) / sum((x - middle_x) ** 2 for x, _ in logs)


def curves(rows: Sequence[ScalingRow]) -> dict[tuple[str, str, str], list[ScalingRow]]:
    """In the order of their values."""
    found: dict[tuple[str, str, str], list[ScalingRow]] = {}
    for row in rows:
        found.setdefault(row.curve, []).append(row)
    return {curve: sorted(points, key=lambda row: row.value) for curve, points in found.items()}


def _scaling(rows: Sequence[ScalingRow]) -> Cells:
    lines = []
    for (op, axis, fixed), points in curves(rows).items():
        for name, expected in points[0].expected.items():
            here = [(row.value, row.seconds[name].median) for row in points if name in row.seconds]
            slope = f"{exponent(here):.2f}" if len(here) > 1 else NONE
            seconds = ", ".join(f"{value}: {digits(1e3 * time)}" for value, time in here)
            lines.append([op, fixed, axis, name, seconds, slope, f"{expected:g}"])
    titles = ["op", "with", "grows", "provider", "ms by size", "exponent", "expected"]
    note = "exponent: of the time, over the last three sizes; expected: of the operations, or of the bytes"
    return Cells(titles, lines, (0, 1, 2, 3, 4), [None] * len(lines), [note])


def _mebibytes(row: MemoryRow, provider: str) -> str:
    if provider in row.wrong:
        return "wrong"
    if provider not in row.peak:
        return NONE
    peak = row.peak[provider]
    return f"{digits(peak / 2**20)} ({times(peak / row.gradients)})"


def _memory(rows: Sequence[MemoryRow]) -> Cells:
    providers = names((*row.peak, *row.wrong) for row in rows)
    lines = [
        [
            row.op,
            row.shape,
            row.dtype,
            *(digits(size / 2**20) for size in (row.inputs, row.gradients)),
            *(_mebibytes(row, name) for name in providers),
        ]
        for row in rows
    ]
    note = (
        "MiB at the peak of forward and backward, over what was there with the inputs; in brackets, times the gradients"
    )
    marks = ["wrong" if row.wrong else None for row in rows]
    return Cells(["op", "shape", "dtype", "inputs", "gradients", *providers], lines, (0, 1, 2), marks, [note])
