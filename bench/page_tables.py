"""The tables of docs/performance.md, with the processors side by side where that leaves them readable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from . import cells
from .cells import Cells, digits, times
from .page_results import RESULTS, Line, Results
from .processors import Processor
from .provenance import source_hash
from .rows import COMPILE, EAGER, PACKAGE, REFERENCE, MemoryRow, Row

PUBLISHED = (REFERENCE, "full Gram", "broadcast NxNxd", "python loop", "F.mse_loss")
_MISSED = " †"

Case = tuple[str, str]
"""Op and shape."""


def tables(results: Results) -> dict[str, str]:
    """By the names that the template has for them."""
    return {
        "table_ops": _every_op(results),
        "table_published": _published(results),
        "table_kept": _by_setting(results, "kept", lambda row: row.setting),
        "table_bfloat16": _by_setting(results, "bfloat16", lambda row: row.dtype),
        "table_latency": _one_each(results, "latency"),
        "table_scaling": _one_each(results, "scaling"),
        "table_memory": markdown(cells.of(results.runs["memory"][results.newest("memory")])),
        "memory_of": _memory_of(results),
        "table_train": _train(results),
        "table_one_pass": _one_pass(results),
        "table_stacked": _stacked(results),
        "table_sources": _sources(results),
    }


def markdown(found: Cells) -> str:
    """A table of the page."""
    lines = [found.titles, ["---" if index in found.words else "---:" for index in range(len(found.titles))]]
    return "\n".join("| " + " | ".join(line) + " |" for line in [*lines, *found.lines])


def _cases(runs: Iterable[Sequence[Row]]) -> list[Case]:
    """The cases of all processors: one that was measured before a case was added has none of it."""
    return list(dict.fromkeys((row.op, row.shape) for rows in runs for row in rows))


def _every_op(results: Results) -> str:
    """A table for each number of threads."""
    runs = results.timed("ops")
    blocks = []
    for setting in cells.names([row.setting] for rows in runs.values() for row in rows):
        here = {one: [row for row in rows if row.setting == setting] for one, rows in runs.items()}
        blocks.append(f"{setting}:\n\n{_side_by_side(results, {one: rows for one, rows in here.items() if rows})}")
    return "\n\n".join(blocks)


def _side_by_side(results: Results, runs: Mapping[Processor, Sequence[Row]]) -> str:
    """Four columns for each processor."""
    found = {(one, row.op, row.shape): row for one, rows in runs.items() for row in rows}
    lines = []
    for op, shape in _cases(runs.values()):
        rows = [found.get((one, op, shape)) for one in runs]
        bounds = cells.names([str(row.ceiling["name"])] for row in rows if row)
        lines.append([op, shape, " or ".join(bounds), *(cell for row in rows for cell in _four(row))])
    titles = ["op", "shape", "bound"]
    for one in runs:
        titles += [f"{results.titles[one]}: ms", EAGER, COMPILE, "of the bound"]
    return markdown(Cells(titles, lines, (0, 1, 2)))


def _four(row: Row | None) -> list[str]:
    if row is None:
        return [cells.NONE] * 4
    share = cells.NONE if row.share is None else f"{100 * row.share:.0f} %"
    return [digits(1e3 * row.seconds[PACKAGE].median), _ratio(row, EAGER), _ratio(row, COMPILE), share]


def _ratio(row: Row | None, provider: str) -> str:
    """'2.27x', or '2.27x †' where that is less than the target."""
    if row is None or provider not in row.ratio:
        return cells.NONE
    return times(row.ratio[provider].median) + (_MISSED if row.missed(provider) else "")


def _published(results: Results) -> str:
    """All processors in one cell: most cells are empty."""
    runs = results.one_thread()
    found = {(one, row.op, row.shape): row for one, rows in runs.items() for row in rows}
    lines = []
    for op, shape in _cases(runs.values()):
        ratios = [[_ratio(found.get((one, op, shape)), name) for one in runs] for name in PUBLISHED]
        line = [" / ".join(some) if set(some) != {cells.NONE} else cells.NONE for some in ratios]
        if set(line) != {cells.NONE}:
            lines.append([op, shape, *line])
    legend = f"In a cell: {' / '.join(results.titles[one] for one in runs)}.\n\n" if len(runs) > 1 else ""
    return legend + markdown(Cells(["op", "shape", *PUBLISHED], lines, (0, 1)))


def _by_setting(results: Results, name: str, title: Callable[[Row], str]) -> str:
    """Times, and ratios to eager torch and to torch.compile, a column for each processor's settings."""
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
        return cells.NONE
    ratios = [times(row.ratio[name].median) for name in (EAGER, COMPILE) if name in row.ratio]
    return f"{digits(1e3 * row.seconds[PACKAGE].median)} ms, {' and '.join(ratios)}"


def _one_each(results: Results, name: str) -> str:
    """A table for each processor: side by side they would be too wide."""
    return "\n\n".join(
        f"{results.titles[one]}:\n\n{markdown(cells.of(rows))}" for one, rows in results.runs[name].items()
    )


def _memory_of(results: Results) -> str:
    """The processor of the memory table, and the largest difference of ebgan_fast's peaks elsewhere."""
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
            f"{line['preset']}, width {line['width']:g}, batches of {line['batch_size']}, {line['threads']} threads",
            _step(line, "public loop"),
            _step(line, f"{PACKAGE} float32", "float32"),
            _step(line, f"{PACKAGE} bfloat16", "bfloat16"),
        ]
        for one, found in results.train.items()
        for line in found
    ]
    titles = ["processor", "networks", "plain loop", f"{PACKAGE}, float32", f"{PACKAGE}, bfloat16"]
    return markdown(Cells(titles, lines, (0, 1)))


def _step(line: Line, name: str, precision: str | None = None) -> str:
    """'283 ms, 112.9 images/s', with the ratio to the plain loop where there is a precision to compare."""
    if name not in line["seconds"]:
        return cells.NONE
    text = f"{digits(1e3 * line['seconds'][name])} ms, {line['images_per_s'][name]:.1f} images/s"
    if precision is None:
        return text
    ratio = line["speedup"][precision]
    mark = _MISSED if ratio < line["targets"].get(precision, 0) else ""
    emulated = "emulated: " if precision == "bfloat16" and not line["native_bfloat16"] else ""
    return f"{emulated}{text}, {times(ratio)}{mark}"


def _one_pass(results: Results) -> str:
    lines = [
        [
            results.titles[one],
            f"{line['networks']}, batches of {line['batch_size']}, {line['threads']} "
            f"thread{'s' if line['threads'] > 1 else ''}",
            *(f"{digits(1e3 * line['seconds'][name])} ms" for name in ("usual loop", "one pass")),
            times(line["ratio"]),
            times(line["bound"]),
        ]
        for one, found in results.one_pass.items()
        for line in found
    ]
    return markdown(Cells(["processor", "networks", "usual loop", "one pass", "ratio", "bound"], lines, (0, 1)))


def _stacked(results: Results) -> str:
    lines = [
        [
            results.titles[one],
            f"{line['configurations']} x nLayerG {line['n_layer_g']}, sizeG {line['size_g']}, sizeD {line['size_d']}",
            *(f"{digits(1e3 * line['seconds'][name])} ms" for name in ("one after another", "stacked")),
            times(line["ratio"]),
        ]
        for one, found in results.stacked.items()
        for line in reversed(found)
    ]
    return markdown(Cells(["processor", "configurations", "one after another", "stacked", ""], lines, (0, 1)))


def _sources(results: Results) -> str:
    """The origin of each file's figures: processor, date, versions, and a remark if the ops have changed since."""
    here = source_hash()
    lines = []
    for name, runs in results.runs.items():
        file = f"[{Path(RESULTS[name]).name}](../{RESULTS[name]})"
        for one, (first, *_) in runs.items():
            changed = "of this version" if first.source_hash == here else "changed since"
            versions = (
                f"torch {first.versions['torch']}, Python {first.versions['python']}, {first.versions['compiler']}"
            )
            source = f"`{first.source_hash}`, {changed}"
            lines.append([file, results.titles[one], first.run[:10], versions, source, first.memory])
    titles = ["results", "processor", "measured", "with", "source of the ops", "freed memory"]
    return markdown(Cells(titles, lines, tuple(range(len(titles)))))
