"""The committed results that the performance pages are made of: the last run on each processor, and on each GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..results.provenance import Processor, titles
from ..results.rows import (
    KERNELS,
    PACKAGE,
    GraphRow,
    LatencyRow,
    OnePassRow,
    Result,
    Row,
    StackedRow,
    TrainRow,
    last_runs,
    read,
)

FOLDER = "bench/results"
RESULTS = {
    "ops": f"{FOLDER}/ops-cpu.jsonl",
    "kept": f"{FOLDER}/ops-cpu-kept.jsonl",
    "bfloat16": f"{FOLDER}/ops-cpu-bfloat16.jsonl",
    "latency": f"{FOLDER}/latency-cpu.jsonl",
    "scaling": f"{FOLDER}/scaling-cpu.jsonl",
    "memory": f"{FOLDER}/memory-cpu.jsonl",
}
"""The files of cases, by the name that the page has for each."""
_TRAIN, _ONE_PASS, _STACKED = (f"{FOLDER}/{command}-cpu.jsonl" for command in ("train", "one-pass", "stacked"))

_R = TypeVar("_R", bound=Result)


# ---- The CPU


@dataclass(frozen=True)
class Results:
    """The results on the CPU that the page shows. Processors are in one order everywhere, that of `titles`."""

    titles: Mapping[Processor, str]
    """The processors' names, first measured first. So a new run changes figures, and moves none to another column."""
    runs: Mapping[str, Mapping[Processor, list[Result]]]
    """The last run on each processor, by the names of `RESULTS`."""
    train: Mapping[Processor, list[TrainRow]]
    """The last row of each size, the largest size first."""
    one_pass: Mapping[Processor, list[OnePassRow]]
    """The last row of each size, in the order in which the sizes were first measured."""
    stacked: Mapping[Processor, list[StackedRow]]
    """The last row of each size, the largest size first."""

    @classmethod
    def read(cls, root: Path) -> Results:
        """Read the files below the root of the repository.

        Args:
            root: The root.

        Raises:
            ValueError: A file holds something else than rows.
        """
        rows = {name: read(root / path) for name, path in RESULTS.items()}
        train, one_pass, stacked = (_rows(root / path) for path in (_TRAIN, _ONE_PASS, _STACKED))
        dated = [(row.date, Processor.of(row)) for some in (*rows.values(), train, one_pass, stacked) for row in some]
        order = titles(one for _, one in sorted(dated))

        def by_processor(
            some: Sequence[Result], kind: type[_R], size: Callable[[_R], Any]
        ) -> dict[Processor, list[_R]]:
            mine = [row for row in some if isinstance(row, kind)]
            found = {one: _latest([row for row in mine if Processor.of(row) == one], size) for one in order}
            return {one: own for one, own in found.items() if own}

        def largest_first(found: dict[Processor, list[_R]], size: Callable[[_R], Any]) -> dict[Processor, list[_R]]:
            return {one: sorted(own, key=size, reverse=True) for one, own in found.items()}

        runs = {name: last_runs(some) for name, some in rows.items()}
        return cls(
            order,
            {name: {one: found[one] for one in order if one in found} for name, found in runs.items()},
            largest_first(by_processor(train, TrainRow, _size_of_training), _size_of_training),
            by_processor(one_pass, OnePassRow, lambda row: (row.networks, row.batch_size, row.threads)),
            largest_first(by_processor(stacked, StackedRow, _size_of_stack), _size_of_stack),
        )

    def timed(self, name: str) -> dict[Processor, list[Row]]:
        """Return the runs in one of the files of timed cases."""
        return {one: [row for row in rows if isinstance(row, Row)] for one, rows in self.runs[name].items()}

    def one_thread(self) -> dict[Processor, list[Row]]:
        """Return the timed ops on one thread."""
        return {one: [row for row in rows if row.threads == 1] for one, rows in self.timed("ops").items()}

    def newest(self, name: str) -> Processor:
        """Return the processor that was measured last in one of the files."""
        return max(self.runs[name], key=lambda one: self.runs[name][one][0].run or "")


def _rows(path: Path) -> list[Result]:
    """Return the rows of a file, which may be empty."""
    return read(path) if path.read_bytes() else []


def _size_of_training(row: TrainRow) -> tuple[Any, ...]:
    return row.preset, row.width, row.batch_size, row.threads


def _size_of_stack(row: StackedRow) -> tuple[Any, ...]:
    return row.n_layer_g, row.size_g, row.size_d, row.threads


def _latest(rows: Iterable[_R], key: Callable[[_R], Any]) -> list[_R]:
    """Return the row that was written last for each key, in the order in which the keys first came."""
    return list({key(row): row for row in rows}.values())


# ---- GPUs


@dataclass(frozen=True)
class Gpu:
    """The results on one model of GPU, under one version of CUDA: the latest row of each case."""

    name: str
    """The model and CUDA's version."""
    ops: list[Row]
    latency: list[LatencyRow]
    train: list[TrainRow]
    graph: list[GraphRow]


def gpus(root: Path) -> list[Gpu]:
    """Return every GPU that has results, by name.

    Args:
        root: The root of the repository.

    Raises:
        ValueError: A file holds something else than rows.
    """
    files = [path for kind in ("ops", "latency", "train") for path in sorted((root / FOLDER).glob(f"{kind}-*.jsonl"))]
    rows = [row for path in files for row in _rows(path) if row.device == "cuda"]

    def latest(name: str, kind: type[_R], key: Callable[[_R], Any]) -> list[_R]:
        return _latest([row for row in rows if row.processor == name and type(row) is kind], key)

    return [
        Gpu(
            name,
            latest(name, Row, _case),
            latest(name, LatencyRow, _case),
            [row for row in latest(name, TrainRow, _contest) if not row.compared],
            latest(name, GraphRow, lambda row: (row.case, row.width, row.batch_size)),
        )
        for name in sorted({row.processor for row in rows if not (isinstance(row, TrainRow) and row.compared)})
    ]


def _case(row: Row) -> tuple[str, ...]:
    return row.op, row.shape, row.dtype, row.watch, row.mode


def _contest(row: TrainRow) -> tuple[Any, ...]:
    """Return the size, and whether the row is a comparison with another commit, which the page leaves out."""
    return row.preset, row.width, row.batch_size, bool(row.compared)


def architecture(row: Row) -> str:
    """Return the architecture of a GPU's row, such as "sm_90"."""
    return row.isa.partition(",")[0]


def backends_of(row: Row) -> dict[str, float]:
    """Return each backend's time in multiples of that of the backend that ran as `ebgan_fast`, which comes first.

    A backend whose results are wrong has none.
    """
    own = {str(row.backend): 1.0} if PACKAGE in row.seconds else {}
    return own | {name: row.ratio[name].median for name in KERNELS if name in row.ratio}


def wrong_backends(rows: Sequence[Row]) -> dict[str, str]:
    """Return the first case in which a backend's results were wrong, and the reason, by backend."""
    found: dict[str, str] = {}
    for row in rows:
        for provider, why in row.wrong.items():
            backend = str(row.backend) if provider == PACKAGE else provider
            if backend in KERNELS:
                found.setdefault(backend, f"{row.op} {row.shape} {row.dtype}, {row.watch}: {why}")
    return found
