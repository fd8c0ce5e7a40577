"""The tables of docs/performance.md and the figures that its prose quotes, made of the last runs in bench/results."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import cells
from .cells import Cells, digits, times
from .provenance import ROOT, source_hash
from .rows import COMPILE, EAGER, PACKAGE, REFERENCE, Result, Row, last_run, read

RESULTS = {
    "ops": "bench/results/ops-cpu.jsonl",
    "kept": "bench/results/ops-cpu-kept.jsonl",
    "bfloat16": "bench/results/ops-cpu-bfloat16.jsonl",
    "latency": "bench/results/latency-cpu.jsonl",
    "scaling": "bench/results/scaling-cpu.jsonl",
    "memory": "bench/results/memory-cpu.jsonl",
}
_TRAIN, _STACKED = "bench/results/train-cpu.jsonl", "bench/results/stacked-cpu.jsonl"
PUBLISHED = (REFERENCE, "full Gram", "broadcast NxNxd", "python loop", "F.mse_loss")


def results(name: str) -> list[Result]:
    """The last run of one of the committed files."""
    return last_run(read(ROOT / RESULTS[name]))


def timed(name: str) -> list[Row]:
    return [row for row in results(name) if isinstance(row, Row)]


def one_thread() -> list[Row]:
    return [row for row in timed("ops") if row.threads == 1]


def _markdown(found: Cells) -> str:
    lines = [found.titles, ["---" if index in found.words else "---:" for index in range(len(found.titles))]]
    return "\n".join("| " + " | ".join(line) + " |" for line in [*lines, *found.lines])


def _range(row: Row, provider: str) -> str:
    """'2.27x (2.10 to 2.40)'."""
    if provider not in row.ratio:
        return cells.NONE
    low, median, high = row.ratio[provider]
    mark = " **missed**" if row.missed(provider) else ""
    return f"{times(median)} ({low:.2f} to {high:.2f}){mark}"


def _every_op(rows: Sequence[Row]) -> str:
    lines = [
        [
            row.op,
            row.shape,
            f"{digits(1e3 * row.seconds[PACKAGE].median)} ms",
            _range(row, EAGER),
            _range(row, COMPILE),
            f"{100 * (row.share or 0):.0f} % of {row.ceiling['name']}",
        ]
        for row in rows
    ]
    titles = ["op", "shape", PACKAGE, "eager torch", COMPILE, "share of the bound"]
    return _markdown(Cells(titles, lines, (0, 1)))


def _published(rows: Sequence[Row]) -> str:
    kept = [row for row in rows if any(name in row.ratio for name in PUBLISHED)]
    lines = [
        [row.op, row.shape, *(times(row.ratio[name].median) if name in row.ratio else cells.NONE for name in PUBLISHED)]
        for row in kept
    ]
    return _markdown(Cells(["op", "shape", *PUBLISHED], lines, (0, 1)))


def _by_thread(rows: Sequence[Row], title: Callable[[Row], str]) -> str:
    """Ratios to eager torch and to torch.compile, a column for each setting."""
    columns = cells.names([title(row)] for row in rows)
    found = {(row.op, row.shape, title(row)): row for row in rows}
    lines = []
    for op, shape in dict.fromkeys((row.op, row.shape) for row in rows):
        line = [op, shape]
        for column in columns:
            row = found[op, shape, column]
            both = (times(row.ratio[name].median) for name in (EAGER, COMPILE) if name in row.ratio)
            line += [f"{digits(1e3 * row.seconds[PACKAGE].median)} ms, {' and '.join(both)}"]
        lines.append(line)
    return _markdown(Cells(["op", "shape", *columns], lines, (0, 1)))


def _lines_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]


def _train() -> str:
    """The last row of each size."""
    newest = {(row["width"], row["batch_size"]): row for row in _lines_of(_TRAIN)}
    lines = []
    for (width, batch), row in sorted(newest.items(), reverse=True):
        plain, own = (row["seconds"][name] for name in ("public loop", "ebgan_fast float32"))
        lines.append(
            [
                f"{row['preset']}, width {width:g}, batches of {batch}",
                *(f"{digits(1e3 * seconds)} ms, {batch / seconds:.1f} images/s" for seconds in (plain, own)),
                times(row["speedup"]["float32"]),
            ]
        )
    return _markdown(Cells(["two threads", "plain loop", "ebgan_fast, float32", ""], lines, (0,)))


def _stacked() -> str:
    newest = {(row["n_layer_g"], row["size_g"], row["size_d"]): row for row in _lines_of(_STACKED)}
    lines = [
        [
            f"{row['configurations']} x nLayerG {layers}, sizeG {size_g}, sizeD {size_d}",
            *(f"{digits(1e3 * row['seconds'][name])} ms" for name in ("one after another", "stacked")),
            times(row["ratio"]),
        ]
        for (layers, size_g, size_d), row in sorted(newest.items())
    ]
    return _markdown(Cells(["configurations", "one after another", "stacked", ""], lines, (0,)))


def tables() -> dict[str, str]:
    one = one_thread()
    return {
        "table_ops": _every_op(one),
        "table_published": _published(one),
        "table_threads": _by_thread(timed("ops"), lambda row: row.setting),
        "table_kept": _by_thread(timed("kept"), lambda row: row.setting),
        "table_bfloat16": _by_thread(timed("bfloat16"), lambda row: row.dtype),
        "table_latency": _markdown(cells.of(results("latency"))),
        "table_scaling": _markdown(cells.of(results("scaling"))),
        "table_memory": _markdown(cells.of(results("memory"))),
        "table_train": _train(),
        "table_stacked": _stacked(),
        "table_sources": _sources(),
    }


def _sources() -> str:
    """Where each file's figures come from, and whether the ops have changed since."""
    here = source_hash()
    lines = []
    for name, path in RESULTS.items():
        first = results(name)[0]
        changed = "of this version" if first.source_hash == here else "changed since"
        versions = f"torch {first.versions['torch']}, Python {first.versions['python']}, {first.versions['compiler']}"
        lines.append(
            [
                f"[{Path(path).name}](../{path})",
                first.run[:10],
                versions,
                f"`{first.source_hash}`, {changed}",
                first.memory,
            ]
        )
    titles = ["results", "measured", "with", "source of the ops", "freed memory"]
    return _markdown(Cells(titles, lines, (0, 1, 2, 3, 4)))


def _row(rows: Sequence[Row], op: str, shape: str) -> Row:
    (found,) = (row for row in rows if (row.op, row.shape, row.threads) == (op, shape, 1))
    return found


def _span(rows: Sequence[Row], provider: str) -> str:
    """'2.3 to 50'."""
    found = [row.ratio[provider].median for row in rows if provider in row.ratio]
    low, high = min(found), max(found)
    return f"{low:.1f} to {high:.0f}" if high >= 10 else f"{low:.1f} to {high:.1f}"


def sentences() -> dict[str, str]:
    """Figures that prose quotes; one thread, float32."""
    rows = timed("ops")
    large, small = (_row(rows, "discriminator_loss", shape) for shape in ("64x3x128x128", "64x784"))
    terms = [row for row in rows if row.op == "pulling_away_term" and row.threads == 1]
    latency = [row for row in timed("latency") if row.mode != "forward"]
    first = rows[0]
    values = {
        "machine": f"{first.processor}, {first.isa}, torch {first.versions['torch']}",
        "rounds": str(first.rounds),
        "large_eager": f"{large.ratio[EAGER].median:.1f}",
        "large_compile": f"{large.ratio[COMPILE].median:.1f}",
        "large_share": f"{100 * (large.share or 0):.0f} %",
        "small_us": f"{1e6 * small.seconds[PACKAGE].median:.0f}",
        "small_empty": f"{1e6 * small.empty:.0f}",
        "small_eager_us": f"{1e6 * small.seconds[EAGER].median:.0f}",
        "small_eager": f"{small.ratio[EAGER].median:.1f}",
        "pt_eager": _span(terms, EAGER),
        "pt_compile": _span(terms, COMPILE),
        "targets": cells.summary(rows),
        "latency_eager": _span(latency, EAGER),
    }
    for shape in ("2048x512", "64x16384"):
        share = _row(rows, "pulling_away_term", shape).share or 0
        values[f"share_{shape}"] = f"{100 * share:.0f} %"
    return values
