"""The committed results that docs/performance.md is made of: each processor's last run in each file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processors import Processor, last_runs, titles
from .rows import Result, Row, read

RESULTS = {
    "ops": "bench/results/ops-cpu.jsonl",
    "kept": "bench/results/ops-cpu-kept.jsonl",
    "bfloat16": "bench/results/ops-cpu-bfloat16.jsonl",
    "latency": "bench/results/latency-cpu.jsonl",
    "scaling": "bench/results/scaling-cpu.jsonl",
    "memory": "bench/results/memory-cpu.jsonl",
}
_TRAIN, _STACKED = "bench/results/train-cpu.jsonl", "bench/results/stacked-cpu.jsonl"
_ONE_PASS = "bench/results/one-pass-cpu.jsonl"
_TRAIN_SIZE = ("preset", "width", "batch_size", "threads")
_STACKED_SIZE = ("n_layer_g", "size_g", "size_d", "threads")
_ONE_PASS_SIZE = ("networks", "batch_size", "threads")

Line = dict[str, Any]
"""A row of `train`, of `one-pass` or of `stacked`."""


@dataclass(frozen=True)
class Results:
    """All that the page shows. Processors are in one order everywhere, that of `titles`."""

    titles: Mapping[Processor, str]
    """The processors' names, first measured first: a new run changes figures, and moves none to another column."""
    runs: Mapping[str, Mapping[Processor, list[Result]]]
    """By the names of `RESULTS`."""
    train: Mapping[Processor, list[Line]]
    """The last line of each size."""
    one_pass: Mapping[Processor, list[Line]]
    """The last line of each size, in the order in which they were first measured."""
    stacked: Mapping[Processor, list[Line]]
    """The last line of each size."""

    @classmethod
    def read(cls, root: Path) -> Results:
        """Raises ValueError for a file that holds something else than rows."""
        rows = {name: read(root / path) for name, path in RESULTS.items()}
        train, one_pass, stacked = (_lines(root / path) for path in (_TRAIN, _ONE_PASS, _STACKED))
        dated = [(row.date, Processor.of(row)) for some in rows.values() for row in some]
        dated += [(line["date"], _processor(line)) for line in (*train, *one_pass, *stacked)]
        order = titles(one for _, one in sorted(dated))
        runs = {name: last_runs(some) for name, some in rows.items()}
        return cls(
            order,
            {name: {one: found[one] for one in order if one in found} for name, found in runs.items()},
            {one: found for one in order if (found := _last(train, one, _TRAIN_SIZE))},
            {one: list(own.values()) for one in order if (own := _latest(one_pass, one, _ONE_PASS_SIZE))},
            {one: found for one in order if (found := _last(stacked, one, _STACKED_SIZE))},
        )

    def timed(self, name: str) -> dict[Processor, list[Row]]:
        """The runs in one of the files of timed cases."""
        return {one: [row for row in rows if isinstance(row, Row)] for one, rows in self.runs[name].items()}

    def one_thread(self) -> dict[Processor, list[Row]]:
        """Every op on one thread."""
        return {one: [row for row in rows if row.threads == 1] for one, rows in self.timed("ops").items()}

    def newest(self, name: str) -> Processor:
        """The processor that was measured last."""
        return max(self.runs[name], key=lambda one: self.runs[name][one][0].run)


def _lines(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _processor(line: Line) -> Processor:
    return Processor(line["processor"], line["isa"])


def _last(lines: Sequence[Line], processor: Processor, size: Sequence[str]) -> list[Line]:
    """The largest size first."""
    found = _latest(lines, processor, size)
    return [found[key] for key in sorted(found, reverse=True)]


def _latest(lines: Sequence[Line], processor: Processor, size: Sequence[str]) -> dict[tuple[Any, ...], Line]:
    """The last line of each size on a processor."""
    return {tuple(line[name] for name in size): line for line in lines if _processor(line) == processor}
