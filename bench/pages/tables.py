"""Rows as tables: their cells, printed on a terminal or written in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..results.rows import (
    PACKAGE,
    CaseResult,
    GraphRow,
    LatencyRow,
    MemoryRow,
    OnePassRow,
    Result,
    Row,
    ScalingRow,
    StackedRow,
    TrainRow,
    kind_of,
    threads_in_words,
)

NONE = "-"
_COLORS = {"wrong": "red", "behind": "yellow", None: None}
_MOST_OF_DATA = 1.03  # the target for a step with data over one without


@dataclass(frozen=True)
class Cells:
    """The texts of a table, without its layout."""

    titles: Sequence[str]
    lines: Sequence[Sequence[str]]
    words: tuple[int, ...]
    """The columns of words. All others are numbers."""
    marks: Sequence[str | None] = ()
    """The mark of each line on a terminal: "wrong", "behind" a target, or None. Empty: no line has one."""
    notes: Sequence[str] = ()
    """Lines below the table on a terminal."""


def cells_of(rows: Sequence[Result]) -> Cells:
    """Return the table of one command's rows.

    Args:
        rows: The rows.

    Raises:
        ValueError: The rows are of several commands.
    """
    kinds: dict[type[Result], Callable[[Any], Cells]] = {
        Row: _timed,
        LatencyRow: _timed,
        ScalingRow: _scaling,
        MemoryRow: _memory,
        TrainRow: _train,
        GraphRow: _graph,
        OnePassRow: _one_pass,
        StackedRow: _stacked,
    }
    return kinds[kind_of(rows)](rows)


# ---- Numbers


def digits(value: float) -> str:
    """Return three significant digits, never as a power of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".removesuffix(".")


def times(ratio: float) -> str:
    """Return a ratio as "2.27x", "22.7x" or "227x"."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x" if ratio < 100 else f"{ratio:.0f}x"


def percent(share: float | None) -> str:
    """Return a share as "87 %", or "-" for None."""
    return NONE if share is None else f"{100 * share:.0f} %"


def milliseconds(seconds: float) -> str:
    """Return a time as "12.0 ms"."""
    return f"{digits(1e3 * seconds)} ms"


def names(providers: Iterable[Iterable[str]]) -> list[str]:
    """Return each name once, in the order of the first mentions."""
    return list(dict.fromkeys(name for some in providers for name in some))


# ---- Timed cases


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
                percent(row.share),
                f"{digits(float(row.ceiling['value']))} {row.ceiling['name']}",
            ]
        lines.append(line)
    titles = ["op", "shape", "dtype", "timed", f"{PACKAGE} {unit}", *providers, "calls", *bounds]
    notes = ["calls: an empty autograd Function with the same gradients"]
    if bounds:
        notes.append("of: the ceiling, timed in the same rounds")
    return Cells(titles, lines, (0, 1, 2, 3), [_mark(row) for row in rows], [*notes, summary(rows)])


def _provider(row: Row, name: str, scale: float) -> str:
    """Return "0.391 (2.27x)", or "0.391 (2.27x, not 3.8x)" if a target is missed."""
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


def summary(rows: Sequence[Row]) -> str:
    """Return the number of targets reached, in words."""
    reached = [not row.missed(name) for row in rows for name in row.targets if name in row.ratio]
    return f"{sum(reached)} of {len(reached)} targets reached" if reached else "no targets among these rows"


# ---- Curves


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the logarithms, by least squares over the last three points.

    Smaller points are left out, because their time is that of the calls.
    """
    logs = [(math.log(x), math.log(y)) for x, y in points[-3:]]
    middle_x, middle_y = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    return sum((x - middle_x) * (y - middle_y) for x, y in logs) / sum((x - middle_x) ** 2 for x, _ in logs)


def curves(rows: Sequence[ScalingRow]) -> dict[tuple[str, str, str], list[ScalingRow]]:
    """Return the points of each curve, in the order of their sizes."""
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
    return Cells(titles, lines, (0, 1, 2, 3, 4), notes=[note])


# ---- Memory


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
    note = "MiB at the peak of forward and backward, beyond the inputs; in brackets, times the gradients"
    marks = ["wrong" if row.wrong else None for row in rows]
    return Cells(["op", "shape", "dtype", "inputs", "gradients", *providers], lines, (0, 1, 2), marks, [note])


def _mebibytes(row: MemoryRow, provider: str) -> str:
    if provider in row.wrong:
        return "wrong"
    if provider not in row.peak:
        return NONE
    peak = row.peak[provider]
    return f"{digits(peak / 2**20)} ({times(peak / row.gradients)})"


# ---- Training


def _train(rows: Sequence[TrainRow]) -> Cells:
    lines, marks = [], []
    for row in rows:
        for name, value in row.seconds.items():
            first = f"{row.first_call[name]:.1f}" if row.first_call else NONE
            peak = f"{row.peak[name] / 2**30:.2f}" if row.peak and name in row.peak else NONE
            lines.append([row.networks, name, digits(1e3 * value), f"{row.images_per_s[name]:.1f}", first, peak])
            marks.append("wrong" if row.wrong else None)
        for name in row.failed or {}:
            lines.append([row.networks, name, *[NONE] * 4])
            marks.append("wrong")
    notes = [f"{row.networks}: {line}" if len(rows) > 1 else line for row in rows for line in _train_notes(row)]
    titles = ["networks", "step", "ms", "images/s", "first step, s", "peak, GiB"]
    told = [index for index in range(len(titles)) if index < 4 or any(line[index] != NONE for line in lines)]
    lines = [[line[index] for index in told] for line in lines]
    return Cells([titles[index] for index in told], lines, (0, 1), marks, notes)


def _train_notes(row: TrainRow) -> Iterable[str]:
    for kind, ratio in row.speedup.items():
        target = row.targets.get(kind)
        verdict = "" if target is None else f" {'>=' if ratio >= target else '< '} {target:g}"
        yield f"{kind}: {ratio:.2f} times the public loop{verdict}"
    for kind, (low, median, high) in (row.ratio or {}).items():
        yield f"{kind}: {row.compared} takes {median:.3f} times as long ({low:.3f} to {high:.3f})"
    if any("bfloat16" in name for name in row.seconds) and not row.native_bfloat16:
        yield "bfloat16: torch emulates it, as this processor has no AVX512_BF16 or AMX"
    if row.data_cost is not None:
        yield f"reading images: {row.data_cost:.3f} times a step without, at most {_MOST_OF_DATA:g} wanted"
    if row.device != "cpu" and row.tf32 is not None:
        words = ", ".join(f"{what} {'on' if on else 'off'}" for what, on in row.tf32.items())
        yield f"tf32: {words}; {row.steps} steps a reading"


def _graph(rows: Sequence[GraphRow]) -> Cells:
    lines = [[row.case, f"{row.width:g}", str(row.batch_size), str(row.steps), _verdict(row)] for row in rows]
    marks = ["wrong" if row.is_wrong else None for row in rows]
    notes = [f"{row.case}: {row.words}" for row in rows if not row.is_wrong]
    return Cells(["case", "width", "batch", "steps", "with a graph"], lines, (0, 4), marks, notes)


def _verdict(row: GraphRow) -> str:
    return "wrong" if row.is_wrong else "the same" if row.equal else "differs, as steps without one do"


def _one_pass(rows: Sequence[OnePassRow]) -> Cells:
    lines = [[row.size, *map(milliseconds, row.seconds.values()), times(row.ratio), times(row.bound)] for row in rows]
    titles = ["networks", *rows[0].seconds, "ratio", "bound"]
    return Cells(titles, lines, (0,), notes=["bound: the ratio of both loops' floating-point operations"])


def _stacked(rows: Sequence[StackedRow]) -> Cells:
    lines = [[row.size, *map(milliseconds, row.seconds.values()), times(row.ratio)] for row in rows]
    return Cells(["configurations", *rows[0].seconds, "ratio"], lines, (0,))


# ---- Layouts


def markdown(found: Cells) -> str:
    """Return a table in Markdown, without marks and notes."""
    lines = [found.titles, ["---" if index in found.words else "---:" for index in range(len(found.titles))]]
    return "\n".join("| " + " | ".join(line) + " |" for line in [*lines, *found.lines])


def show(rows: Sequence[Result], file: IO[str] | None = None) -> None:
    """Print the table of one command's rows, with lines and color on a terminal and plain in a pipe.

    Args:
        rows: The rows.
        file: The file to print to. None: standard output.

    Raises:
        ValueError: The rows are of several commands.
    """
    found = cells_of(rows)
    console = Console(file=file, highlight=False)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, title in enumerate(found.titles):
        table.add_column(title, justify="left" if index in found.words else "right", no_wrap=True)
    for line, mark in zip(found.lines, found.marks or [None] * len(found.lines), strict=True):
        table.add_row(*line, style=_COLORS[mark])
    # A line too long for the window is better than a number cut short.
    console.width = max(console.width, console.measure(table, options=console.options.update(width=900)).maximum)
    console.print(table)
    for line in (*found.notes, *conditions(rows)):
        console.print(line, soft_wrap=True)


def conditions(rows: Sequence[Result]) -> list[str]:
    """Return the conditions of all figures, one line for each different set."""
    lines: dict[str, None] = {}
    for row in rows:
        versions = row.versions
        lines[
            f"{row.processor}, {row.isa}; torch {versions['torch']}, Python {versions['python']}, "
            f"{versions['compiler']}; ebgan_fast {versions['ebgan_fast']}, source {row.source_hash}; "
            f"{_taken(row)}{(row.run or row.date)[:10]}"
        ] = None
    return list(lines)


def _taken(row: Result) -> str:
    """Return how the figures of a row were taken, in words."""
    memory = f"freed memory {row.memory}; " if isinstance(row, CaseResult) else ""
    if isinstance(row, Row):
        return f"{memory}median of {row.rounds} rounds; "
    if isinstance(row, TrainRow | OnePassRow | StackedRow):
        return f"{threads_in_words(row.threads)}; minimum of {row.rounds} rounds; "
    return memory
