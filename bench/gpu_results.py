"""The committed results of GPUs: bench/results/{ops,latency,train}-<gpu>.jsonl, the latest row of each case.

Those of `train` hold the rows of `graph` too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .graph import GraphRow
from .rows import KERNELS, PACKAGE, LatencyRow, Row, read

FOLDER = "bench/results"

Line = dict[str, Any]
"""A row of `train` or of `graph`."""

_R = TypeVar("_R")


@dataclass(frozen=True)
class Gpu:
    """All measurements on one model of GPU, under one version of CUDA."""

    name: str
    """The model and CUDA's version."""
    ops: list[Row]
    latency: list[LatencyRow]
    train: list[Line]
    graph: list[Line]


def gpus(root: Path) -> list[Gpu]:
    """Every GPU that has results, by name. Raises ValueError for a file that holds something else than rows."""
    timed = [row for command in ("ops", "latency") for path in _files(root, command) for row in _timed(path)]
    lines = [line for path in _files(root, "train") for line in _lines(path)]
    trained = [line for line in lines if "kind" not in line]
    compared = [line for line in lines if line.get("kind") == GraphRow.kind]
    names = {row.processor for row in timed} | {line["processor"] for line in lines}
    return [
        Gpu(
            name,
            _latest([row for row in timed if row.processor == name and type(row) is Row], _case),
            _latest([row for row in timed if row.processor == name and isinstance(row, LatencyRow)], _case),
            _latest([line for line in trained if line["processor"] == name], _size),
            _latest([line for line in compared if line["processor"] == name], _compared_case),
        )
        for name in sorted(names)
    ]


def _files(root: Path, command: str) -> list[Path]:
    return sorted((root / FOLDER).glob(f"{command}-*.jsonl"))


def _timed(path: Path) -> list[Row]:
    return [row for row in read(path) if isinstance(row, Row) and row.device == "cuda"]


def _lines(path: Path) -> list[Line]:
    """Those of a GPU, but for comparisons with another commit."""
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [line for line in found if line.get("device", "cpu") == "cuda" and not line.get("compared")]
    except (AttributeError, KeyError, ValueError):
        raise ValueError(f"{path}: got something else than rows that this version of bench train wrote") from None


def _case(row: Row) -> tuple[str, ...]:
    return row.op, row.shape, row.dtype, row.watch, row.mode


def _size(line: Line) -> tuple[Any, ...]:
    return line["preset"], line["width"], line["batch_size"]


def _compared_case(line: Line) -> tuple[Any, ...]:
    return line["case"], line["width"], line["batch_size"]


def _latest(rows: Iterable[_R], key: Callable[[_R], Any]) -> list[_R]:
    """The one that was written last for each key, where the first one for it stood."""
    return list({key(row): row for row in rows}.values())


def architecture(row: Row) -> str:
    """ "sm_90" or the like."""
    return row.isa.partition(",")[0]


def backends_of(row: Row) -> dict[str, float]:
    """The time of each backend, in multiples of that of the one that ran as `ebgan_fast`; that one first.

    A backend whose results are wrong has none.
    """
    own = {str(row.backend): 1.0} if PACKAGE in row.seconds else {}
    return own | {name: row.ratio[name].median for name in KERNELS if name in row.ratio}


def wrong_backends(rows: Sequence[Row]) -> dict[str, str]:
    """By backend, the first case in which its results were wrong, and why."""
    found: dict[str, str] = {}
    for row in rows:
        for provider, why in row.wrong.items():
            backend = str(row.backend) if provider == PACKAGE else provider
            if backend in KERNELS:
                found.setdefault(backend, f"{row.op} {row.shape} {row.dtype}, {row.watch}: {why}")
    return found
