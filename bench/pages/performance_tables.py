"""The tables of docs/performance.md, README.md and docs/one-pass.md, with the processors side by side if that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from ..results.provenance import Processor, source_hash
from ..results.rows import COMPILE, EAGER, PACKAGE, REFERENCE, MemoryRow, Row, TrainRow
from .committed import RESULTS, Results
from .tables import NONE, Cells, cells_of, digits, markdown, milliseconds, names, percent, times

PUBLISHED = (REFERENCE, "full Gram", "broadcast NxNxd", "python loop", "F.mse_loss")

Case = tuple[str, str]
"""The op and the shape of a case."""

_HEADLINE: dict[str, Case] = {
    "discriminator loss, 64x3x128x128, l2 (the default)": ("discriminator_loss", "64x3x128x128, l2"),
    "discriminator loss, 64x3x128x128, mse": ("discriminator_loss", "64x3x128x128"),
    "discriminator loss, 64x784, mse": ("discriminator_loss", "64x784"),
    "reconstruction energy, 64x3x64x64, mse": ("reconstruction_energy", "64x3x64x64"),
    "pulling-away term, 2048x512": ("pulling_away_term", "2048x512"),
    "pulling-away term, 64x16384": ("pulling_away_term", "64x16384"),
}
"""The cases of the README's table, in a reader's words."""


def tables(results: Results) -> dict[str, str]:
    """Return the tables of docs/performance.md, by the names that its template has for them."""
    return {
        "table_ops": _every_op(results),
        "table_published": _published(results),
        "table_kept": _by_setting(results, "kept", lambda row: row.setting),
        "table_bfloat16": _by_setting(results, "bfloat16", lambda row: row.dtype),
        "table_latency": _one_each(results, "latency"),
        "table_scaling": _one_each(results, "scaling"),
        "table_memory": markdown(cells_of(results.runs["memory"][results.newest("memory")])),
        "memory_of": _memory_of(results),
        "table_train": _train(results),
        "table_one_pass": _one_pass(results),
        "table_stacked": _stacked(results),
        "table_sources": _sources(results),
    }


# ---- README.md and docs/one-pass.md


def headline(results: Results) -> str:
    """Return the README's table, under a sentence that names its processor.

    The processor is the one that ran most of the cases, and the latest of those that ran equally many.

    Args:
        results: The committed results.

    Raises:
        LookupError: No processor ran any of the cases.
    """
    cases = set(_HEADLINE.values())
    runs = {
        one: {(row.op, row.shape): row for row in rows if (row.op, row.shape) in cases}
        for one, rows in results.one_thread().items()
    }
    one, found = max(
        runs.items(), key=lambda run: (len(run[1]), max((row.date for row in run[1].values()), default=""))
    )
    if not found:
        raise LookupError("no run in the results of ops has a case of the README's table")
    lines = [
        [words, *(_ratio(found.get(case), name) for name in (EAGER, COMPILE))] for words, case in _HEADLINE.items()
    ]
    torch = next(iter(found.values())).versions["torch"].partition("+")[0]
    said = (
        f"On one CPU thread ({results.titles[one]}, float32, torch {torch}), a loss with its gradients takes\n"
        "this many times as long in eager torch and in torch.compile as here:"
    )
    return f"{said}\n\n{markdown(Cells(['op and shape', EAGER, COMPILE], lines, (0,)))}"


def one_pass(results: Results) -> str:
    """Return the table of docs/one-pass.md: the ratios on one thread, a column for each processor.

    Args:
        results: The committed results.

    Raises:
        LookupError: No run is on one thread.
    """
    rows = {one: [row for row in own if row.threads == 1] for one, own in results.one_pass.items()}
    rows = {one: own for one, own in rows.items() if own}
    if not rows:
        raise LookupError("no run in the results of one-pass is on one thread")
    sizes = names([f"{row.networks}, batches of {row.batch_size}"] for own in rows.values() for row in own)
    found = {
        (one, f"{row.networks}, batches of {row.batch_size}"): times(row.ratio)
        for one, own in rows.items()
        for row in own
    }
    lines = [[size, *(found.get((one, size), NONE) for one in rows)] for size in sizes]
    titles = [f"{results.titles[one]}: times as fast as the usual loop" for one in rows]
    return markdown(Cells(["one thread", *titles], lines, (0,)))


# ---- docs/performance.md


def _cases(runs: Iterable[Sequence[Row]]) -> list[Case]:
    """Return the cases of all processors. A processor that was measured before a case was added has none of it."""
    return list(dict.fromkeys((row.op, row.shape) for rows in runs for row in rows))


def _every_op(results: Results) -> str:
    """Return a table for each number of threads."""
    runs = results.timed("ops")
    blocks = []
    for setting in names([row.setting] for rows in runs.values() for row in rows):
        here = {one: [row for row in rows if row.setting == setting] for one, rows in runs.items()}
        blocks.append(f"{setting}:\n\n{_side_by_side(results, {one: rows for one, rows in here.items() if rows})}")
    return "\n\n".join(blocks)


def _side_by_side(results: Results, runs: Mapping[Processor, Sequence[Row]]) -> str:
    """Return a table with four columns for each processor."""
    found = {(one, row.op, row.shape): row for one, rows in runs.items() for row in rows}
    lines = []
    for op, shape in _cases(runs.values()):
        rows = [found.get((one, op, shape)) for one in runs]
        bounds = names([str(row.ceiling["name"])] for row in rows if row)
        lines.append([op, shape, " or ".join(bounds), *(cell for row in rows for cell in _four(row))])
    titles = ["op", "shape", "bound"]
    for one in runs:
        titles += [f"{results.titles[one]}: ms", EAGER, COMPILE, "of the bound"]
    return markdown(Cells(titles, lines, (0, 1, 2)))


def _four(row: Row | None) -> list[str]:
    if row is None:
        return [NONE] * 4
    return [digits(1e3 * row.seconds[PACKAGE].median), _ratio(row, EAGER), _ratio(row, COMPILE), percent(row.share)]


def _ratio(row: Row | None, provider: str) -> str:
    """Return a provider's time in multiples of ebgan_fast's, "2.27x", or "-" if it was not timed."""
    return NONE if row is None or provider not in row.ratio else times(row.ratio[provider].median)


def _published(results: Results) -> str:
    """Return a table with all processors in one cell, because most cells are empty."""
    runs = results.one_thread()
    found = {(one, row.op, row.shape): row for one, rows in runs.items() for row in rows}
    lines = []
    for op, shape in _cases(runs.values()):
        ratios = [[_ratio(found.get((one, op, shape)), name) for one in runs] for name in PUBLISHED]
        line = [" / ".join(some) if set(some) != {NONE} else NONE for some in ratios]
        if set(line) != {NONE}:
            lines.append([op, shape, *line])
    legend = f"In a cell: {' / '.join(results.titles[one] for one in runs)}.\n\n" if len(runs) > 1 else ""
    return legend + markdown(Cells(["op", "shape", *PUBLISHED], lines, (0, 1)))


def _by_setting(results: Results, name: str, title: Callable[[Row], str]) -> str:
    """Return times, and ratios to eager torch and to torch.compile, in a column for each processor's settings."""
    runs = results.timed(name)
    found = {(one, title(row), row.op, row.shape): row for one, rows in runs.items() for row in rows}
    columns = list(dict.fromkeys((one, setting) for one, setting, *_ in found))
    lines = [
        [op, shape, *(_time_and_ratios(found.get((*column, op, shape))) for column in columns)]
        for op, shape in _cases(runs.values())
    ]
    titles = [f"{results.titles[one]}: {setting}" for one, setting in columns]
    return markdown(Cells(["op", "shape", *titles], lines, (0, 1)))


def _time_and_ratios(row: Row | None) -> str:
    if row is None:
        return NONE
    ratios = [times(row.ratio[name].median) for name in (EAGER, COMPILE) if name in row.ratio]
    return f"{milliseconds(row.seconds[PACKAGE].median)}, {' and '.join(ratios)}"


def _one_each(results: Results, name: str) -> str:
    """Return a table for each processor, for columns that are too wide to stand side by side."""
    return "\n\n".join(
        f"{results.titles[one]}:\n\n{markdown(cells_of(rows))}" for one, rows in results.runs[name].items()
    )


def _memory_of(results: Results) -> str:
    """Return the processor of the memory table, and the largest difference of ebgan_fast's peaks elsewhere."""
    newest = results.newest("memory")
    runs = {
        one: {(row.op, row.shape, row.dtype): row.peak[PACKAGE] for row in cast(Sequence[MemoryRow], rows)}
        for one, rows in results.runs["memory"].items()
    }
    shown = runs.pop(newest)
    if not runs:
        return results.titles[newest]
    differences = [abs(peak / shown[case] - 1) for run in runs.values() for case, peak in run.items() if case in shown]
    others = " and ".join(results.titles[one] for one in runs)
    return (
        f"{results.titles[newest]}, the processor measured last; the peaks of {PACKAGE} are within "
        f"{100 * max(differences):.1f} % of those on {others}"
    )


def _train(results: Results) -> str:
    lines = [
        [
            results.titles[one],
            f"{row.networks}, {row.threads} threads",
            _step(row, "public loop"),
            _step(row, f"{PACKAGE} float32", "float32"),
            _step(row, f"{PACKAGE} bfloat16", "bfloat16"),
        ]
        for one, found in results.train.items()
        for row in found
    ]
    titles = ["processor", "networks", "plain loop", f"{PACKAGE}, float32", f"{PACKAGE}, bfloat16"]
    return markdown(Cells(titles, lines, (0, 1)))


def _step(row: TrainRow, name: str, precision: str | None = None) -> str:
    """Return "283 ms, 112.9 images/s", followed by the ratio to the plain loop if there is a precision to compare."""
    if name not in row.seconds:
        return NONE
    text = f"{milliseconds(row.seconds[name])}, {row.images_per_s[name]:.1f} images/s"
    if precision is None:
        return text
    emulated = "emulated: " if precision == "bfloat16" and not row.native_bfloat16 else ""
    return f"{emulated}{text}, {times(row.speedup[precision])}"


def _one_pass(results: Results) -> str:
    lines = [
        [
            results.titles[one],
            row.size,
            *(milliseconds(row.seconds[name]) for name in ("usual loop", "one pass")),
            times(row.ratio),
            times(row.bound),
        ]
        for one, found in results.one_pass.items()
        for row in found
    ]
    return markdown(Cells(["processor", "networks", "usual loop", "one pass", "ratio", "bound"], lines, (0, 1)))


def _stacked(results: Results) -> str:
    lines = [
        [
            results.titles[one],
            row.size,
            *(milliseconds(row.seconds[name]) for name in ("one after another", "stacked")),
            times(row.ratio),
        ]
        for one, found in results.stacked.items()
        for row in reversed(found)
    ]
    return markdown(Cells(["processor", "configurations", "one after another", "stacked", ""], lines, (0, 1)))


def _sources(results: Results) -> str:
    """Return the origin of each file's figures: processor, date, versions, and if the ops have changed since."""
    here = source_hash()
    lines = []
    for name, runs in results.runs.items():
        file = f"[{Path(RESULTS[name]).name}](../{RESULTS[name]})"
        for one, (first, *_) in runs.items():
            row = cast(Row | MemoryRow, first)
            changed = "of this version" if row.source_hash == here else "changed since"
            versions = f"torch {row.versions['torch']}, Python {row.versions['python']}, {row.versions['compiler']}"
            source = f"`{row.source_hash}`, {changed}"
            lines.append([file, results.titles[one], str(row.run)[:10], versions, source, row.memory])
    titles = ["results", "processor", "measured", "with", "source of the ops", "freed memory"]
    return markdown(Cells(titles, lines, tuple(range(len(titles)))))
