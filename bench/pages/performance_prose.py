"""The figures that the prose of docs/performance.md quotes, of every processor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..results.provenance import Processor
from ..results.rows import COMPILE, EAGER, PACKAGE, Row
from ..subjects.calls import BOTH, FORWARD
from .committed import Results
from .tables import digits, names, percent

_Figure = Callable[[Sequence[Row]], str]
"""Returns a figure as text, from the rows of one run. Raises LookupError if the run lacks the case."""

_FAMILIES: dict[str, Callable[[Processor], bool]] = {
    "AVX2": lambda one: one.isa == "avx2",
    "AVX-512": lambda one: one.isa.startswith("avx512"),
    "NEON": lambda one: "aarch64" in one.model or "arm64" in one.model,
}
"""The instruction sets of the CPU kernels, each with a test for the processors that run it."""


def sentences(results: Results) -> dict[str, str]:
    """Return the figures as text, by the names that the template has for them."""
    runs = results.timed("ops")
    return {
        "processors": "\n".join(
            f"* **{title}**: {one.model}, {one.isa} kernels" for one, title in results.titles.items()
        ),
        "torch": _and(names([row.versions["torch"]] for rows in runs.values() for row in rows)),
        "rounds": _and(names([str(row.rounds)] for rows in runs.values() for row in rows)),
        "unmeasured": _unmeasured(results.titles),
        "data_cost": _each(results, _data_cost(results)),
        **{name: _each(results, _of_runs(results, *figure)) for name, figure in _PAGE.items()},
    }


def _and(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _of_runs(results: Results, name: str, figure: _Figure) -> dict[Processor, str]:
    """Return a figure of each processor's run in one of the files. Raises LookupError if all runs lack it."""
    found = {}
    for one, rows in results.timed(name).items():
        with contextlib.suppress(LookupError):
            found[one] = figure(rows)
    if not found:
        raise LookupError(f"no run in the results of {name} has a case that the page quotes")
    return found


def _each(results: Results, found: Mapping[Processor, str]) -> str:
    """Return "4.5 and 3.9", in the page's order.

    Returns "4.5" if all are equal. Names the processor of each figure if not all processors have one.
    """
    if len(found) == len(results.titles):
        return _and(found.values() if len(set(found.values())) > 1 else set(found.values()))
    return _and(f"{value} ({results.titles[one]})" for one, value in found.items())


def _row(rows: Sequence[Row], op: str, shape: str, threads: int = 1) -> Row:
    for row in rows:
        if (row.op, row.shape, row.threads) == (op, shape, threads):
            return row
    raise LookupError(f"{op} {shape}, {threads} threads")


def _large(rows: Sequence[Row]) -> Row:
    return _row(rows, "discriminator_loss", "64x3x128x128")


def _default(rows: Sequence[Row]) -> Row:
    """Return the row of the large loss in the package's default norm."""
    return _row(rows, "discriminator_loss", "64x3x128x128, l2")


def _small(rows: Sequence[Row]) -> Row:
    return _row(rows, "discriminator_loss", "64x784")


def _term(rows: Sequence[Row], shape: str, threads: int = 1) -> Row:
    return _row(rows, "pulling_away_term", shape, threads)


def _mode(rows: Sequence[Row], mode: str) -> list[Row]:
    return [row for row in rows if row.mode == mode]


def _factor(row: Row, provider: str) -> str:
    return f"{row.ratio[provider].median:.1f}"


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:.0f}"


def _two_threads(rows: Sequence[Row]) -> str:
    """Return the term's speed on two threads, in multiples of the speed on one."""
    one, two = (_term(rows, "2048x512", threads).seconds[PACKAGE].median for threads in (1, 2))
    return f"{one / two:.1f}"


def _eager_term(rows: Sequence[Row]) -> str:
    return digits(1e3 * _term(rows, "4096x256").seconds[EAGER].median)


def _span(rows: Sequence[Row], provider: str) -> str:
    """Return the range of the ratios to a provider, "2.3 to 50"."""
    found = [row.ratio[provider].median for row in rows if provider in row.ratio]
    if not found:
        raise LookupError(provider)
    low, high = min(found), max(found)
    return f"{low:.1f} to {high:.0f}" if high >= 10 else f"{low:.1f} to {high:.1f}"


def _data_cost(results: Results) -> dict[Processor, str]:
    """Return the range of the cost of data over all sizes of the training step, "0.96 to 0.97"."""
    found = {}
    for one, rows in results.train.items():
        costs = sorted({f"{row.data_cost:.2f}" for row in rows if row.data_cost is not None})
        if costs:
            found[one] = " to ".join(dict.fromkeys((costs[0], costs[-1])))
    return found


def _unmeasured(processors: Iterable[Processor]) -> str:
    known = list(processors)
    missing = [family for family, runs_on in _FAMILIES.items() if not any(map(runs_on, known))]
    return f"On the CPU nobody has timed the kernels for {_and(missing)}." if missing else ""


def _bounds(row: Row) -> str:
    """Return the speed of a large loss, as a share of its bound and in multiples of others."""
    return (
        f"{percent(row.share)} of the copy's speed, {_factor(row, EAGER)} times as fast as eager torch and "
        f"{_factor(row, COMPILE)} times as fast as torch.compile"
    )


_PAGE: dict[str, tuple[str, _Figure]] = {
    "large_default": ("ops", lambda rows: _bounds(_default(rows))),
    "large_eager": ("ops", lambda rows: _factor(_large(rows), EAGER)),
    "large_compile": ("ops", lambda rows: _factor(_large(rows), COMPILE)),
    "large_share": ("ops", lambda rows: percent(_large(rows).share)),
    "small_us": ("ops", lambda rows: _microseconds(_small(rows).seconds[PACKAGE].median)),
    "small_empty": ("ops", lambda rows: _microseconds(_small(rows).empty)),
    "small_eager_us": ("ops", lambda rows: _microseconds(_small(rows).seconds[EAGER].median)),
    "small_eager": ("ops", lambda rows: _factor(_small(rows), EAGER)),
    "share_2048x512": ("ops", lambda rows: percent(_term(rows, "2048x512").share)),
    "share_64x16384": ("ops", lambda rows: percent(_term(rows, "64x16384").share)),
    "two_threads": ("ops", _two_threads),
    "latency_forward": ("latency", lambda rows: _span(_mode(rows, FORWARD), EAGER)),
    "latency_both": ("latency", lambda rows: _span(_mode(rows, BOTH), EAGER)),
    "eager_returned": ("ops", _eager_term),
    "eager_kept": ("kept", _eager_term),
}
"""The file and the figure of each name in the template. All are in float32, on one thread."""
