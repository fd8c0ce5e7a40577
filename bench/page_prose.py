"""The figures that the prose of docs/performance.md and of the README quotes, of every processor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from . import cells
from .cells import digits
from .page_results import Results
from .processors import Processor
from .rows import COMPILE, EAGER, PACKAGE, Row
from .steps import BOTH, FORWARD

_Figure = Callable[[Sequence[Row]], str]
"""A figure as text, from the rows of one run. Raises LookupError where the run lacks the case."""

_FAMILIES: dict[str, Callable[[Processor], bool]] = {
    "AVX2": lambda one: one.isa == "avx2",
    "AVX-512": lambda one: one.isa.startswith("avx512"),
    "NEON": lambda one: "aarch64" in one.model or "arm64" in one.model,
}
"""The instruction sets of the CPU kernels, each with a test for the processors that run it."""


def sentences(results: Results) -> dict[str, str]:
    """By the names that the template has for them."""
    runs = results.timed("ops")
    return {
        "processors": "\n".join(
            f"* **{title}**: {one.model}, {one.isa} kernels" for one, title in results.titles.items()
        ),
        "torch": _and(cells.names([row.versions["torch"]] for rows in runs.values() for row in rows)),
        "rounds": _and(cells.names([str(row.rounds)] for rows in runs.values() for row in rows)),
        "targets": "; ".join(f"{results.titles[one]}: {cells.summary(rows)}" for one, rows in runs.items()),
        "unmeasured": _unmeasured(results.titles),
        "data_cost": _each(results, _data_cost(results)),
        **{name: _each(results, _of_runs(results, *figure)) for name, figure in _PAGE.items()},
    }


def readme(results: Results) -> str:
    """The README's sentence: the first processor's figures, those of the others in brackets."""
    (loss_eager, loss_compile), of_losses = _shown(results, _README_LOSS)
    (term_eager, term_compile), of_terms = _shown(results, _README_TERM)
    return (
        f"losses of 64x3x128x128 run {loss_eager} times as fast as eager torch and "
        f"{loss_compile} times as fast as torch.compile{'' if of_losses == of_terms else f' {of_losses}'}, "
        f"the pulling-away term {term_eager} and {term_compile} times {of_terms}"
    )


def one_pass(results: Results) -> str:
    """The words of docs/one-pass.md: the ratios on one thread, of all processors. LookupError where there is none."""
    parts = []
    for one, lines in results.one_pass.items():
        words = [
            f"{line['ratio']:.2f}{'' if number else ' times as fast'} for {line['networks']}"
            for number, line in enumerate(line for line in lines if line["threads"] == 1)
        ]
        if words:
            parts.append(f"{_and(words)} ({results.titles[one]})")
    if not parts:
        raise LookupError("no run in the results of one-pass is on one thread")
    return "; ".join(parts)


def _shown(results: Results, figures: Sequence[_Figure]) -> tuple[list[str], str]:
    """Figures of `ops`, each of the processors that have them all, and the names of these."""
    found = [_of_runs(results, "ops", figure) for figure in figures]
    whole = [one for one in results.titles if all(one in values for values in found)]
    first, *others = (results.titles[one] for one in whole)
    named = f"({first}; in brackets {'; '.join(others)})" if others else f"({first})"
    return [_bracketed([values[one] for one in whole]) for values in found], named


def _bracketed(values: Sequence[str]) -> str:
    """'4.5 (3.9)'."""
    first, *others = values
    return f"{first} ({'; '.join(others)})" if others else first


def _and(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _of_runs(results: Results, name: str, figure: _Figure) -> dict[Processor, str]:
    """A figure of each processor's run in one of the files, but for runs that lack it. LookupError where all do."""
    found = {}
    for one, rows in results.timed(name).items():
        with contextlib.suppress(LookupError):
            found[one] = figure(rows)
    if not found:
        raise LookupError(f"no run in the results of {name} has a case that the page quotes")
    return found


def _each(results: Results, found: Mapping[Processor, str]) -> str:
    """'4.5 and 3.9', in the page's order; '4.5' where all are equal; each with its processor where not all have one."""
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
    """The large loss in the package's default norm."""
    return _row(rows, "discriminator_loss", "64x3x128x128, l2")


def _small(rows: Sequence[Row]) -> Row:
    return _row(rows, "discriminator_loss", "64x784")


def _term(rows: Sequence[Row], shape: str, threads: int = 1) -> Row:
    return _row(rows, "pulling_away_term", shape, threads)


def _terms(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.op == "pulling_away_term" and row.threads == 1]


def _mode(rows: Sequence[Row], mode: str) -> list[Row]:
    return [row for row in rows if row.mode == mode]


def _factor(row: Row, provider: str) -> str:
    return f"{row.ratio[provider].median:.1f}"


def _percent(row: Row) -> str:
    return f"{100 * (row.share or 0):.0f} %"


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:.0f}"


def _two_threads(rows: Sequence[Row]) -> str:
    """The term's speed on two threads, in multiples of that on one."""
    one, two = (_term(rows, "2048x512", threads).seconds[PACKAGE].median for threads in (1, 2))
    return f"{one / two:.1f}"


def _eager_term(rows: Sequence[Row]) -> str:
    return digits(1e3 * _term(rows, "4096x256").seconds[EAGER].median)


def _span(rows: Sequence[Row], provider: str) -> str:
    """'2.3 to 50'."""
    found = [row.ratio[provider].median for row in rows if provider in row.ratio]
    if not found:
        raise LookupError(provider)
    low, high = min(found), max(found)
    return f"{low:.1f} to {high:.0f}" if high >= 10 else f"{low:.1f} to {high:.1f}"


def _data_cost(results: Results) -> dict[Processor, str]:
    """'0.96 to 0.97', over all sizes of the training step."""
    found = {}
    for one, lines in results.train.items():
        costs = sorted({f"{line['data_cost']:.2f}" for line in lines if line["data_cost"] is not None})
        if costs:
            found[one] = " to ".join(dict.fromkeys((costs[0], costs[-1])))
    return found


def _unmeasured(processors: Iterable[Processor]) -> str:
    known = list(processors)
    missing = [family for family, runs_on in _FAMILIES.items() if not any(map(runs_on, known))]
    return f"On the CPU nobody has timed the kernels for {_and(missing)}." if missing else ""


def _bounds(row: Row) -> str:
    """The speed of a large loss, in shares of its bound and multiples of others."""
    return (
        f"{_percent(row)} of the copy's speed, {_factor(row, EAGER)} times as fast as eager torch and "
        f"{_factor(row, COMPILE)} times as fast as torch.compile"
    )


_README_LOSS: tuple[_Figure, ...] = (
    lambda rows: _factor(_default(rows), EAGER),
    lambda rows: _factor(_default(rows), COMPILE),
)
_README_TERM: tuple[_Figure, ...] = (
    lambda rows: _span(_terms(rows), EAGER),
    lambda rows: _span(_terms(rows), COMPILE),
)
_PAGE: dict[str, tuple[str, _Figure]] = {
    "large_default": ("ops", lambda rows: _bounds(_default(rows))),
    "large_eager": ("ops", lambda rows: _factor(_large(rows), EAGER)),
    "large_compile": ("ops", lambda rows: _factor(_large(rows), COMPILE)),
    "large_share": ("ops", lambda rows: _percent(_large(rows))),
    "small_us": ("ops", lambda rows: _microseconds(_small(rows).seconds[PACKAGE].median)),
    "small_empty": ("ops", lambda rows: _microseconds(_small(rows).empty)),
    "small_eager_us": ("ops", lambda rows: _microseconds(_small(rows).seconds[EAGER].median)),
    "small_eager": ("ops", lambda rows: _factor(_small(rows), EAGER)),
    "small_wanted_us": (
        "ops",
        lambda rows: _microseconds(_small(rows).seconds[EAGER].median / _small(rows).targets[EAGER]),
    ),
    "share_2048x512": ("ops", lambda rows: _percent(_term(rows, "2048x512"))),
    "share_64x16384": ("ops", lambda rows: _percent(_term(rows, "64x16384"))),
    "two_threads": ("ops", _two_threads),
    "latency_forward": ("latency", lambda rows: _span(_mode(rows, FORWARD), EAGER)),
    "latency_both": ("latency", lambda rows: _span(_mode(rows, BOTH), EAGER)),
    "eager_returned": ("ops", _eager_term),
    "eager_kept": ("kept", _eager_term),
}
"""By the names that the template has for them: of which file, and which figure. Float32, one thread."""
