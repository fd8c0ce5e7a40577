"""The rows of results: one measurement is one line of JSON. Files only grow: a run is added behind earlier runs.

Every command has its kind of row, and all kinds are one family under `Result`. `read` and `append` take every kind,
`bench.pages.tables` shows it, and `bench.commands.session` writes it.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from .provenance import Conditions, Processor

PACKAGE, REFERENCE, EAGER, COMPILE = "ebgan_fast", "reference", "eager", "torch.compile"
TRITON, CUDA = "triton", "cuda"
KERNELS = (TRITON, CUDA)
"""Backends that stand in a row under their own names, beside the backend that ebgan_fast chooses by itself."""
LEAST_GAIN = 0.98
"""The ratio of times below which another choice is made. A smaller gain is noise, and not worth an entry to keep."""


class Spread(NamedTuple):
    """The median of the rounds, and the values between which three fifths of the rounds lie."""

    low: float
    """A fifth of the rounds is below this value."""
    median: float
    high: float
    """A fifth of the rounds is above this value."""


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of the values of all rounds."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return Spread(fifths[0], statistics.median(values), fifths[3])


class Fault(NamedTuple):
    """A fault that a row tells of."""

    text: str
    fails: bool = True
    """True if the command ends with status 1."""


@dataclass(frozen=True, kw_only=True)
class Result(Conditions):
    """The fields that rows of all commands have."""

    kind: ClassVar[str]
    """The command that wrote the row."""
    keeps_faults: ClassVar[bool] = False
    """True if a row with a fault is added to the committed results too."""
    run: str | None = None
    """The time at which the run began, the same in all of its rows. None: not noted (older rows)."""
    device: str = "cpu"
    """The type of torch's device."""

    def faults(self) -> list[Fault]:
        """Return the faults that the row tells of."""
        return []


@dataclass(frozen=True, kw_only=True)
class CaseResult(Result):
    """The fields that rows of one case have."""

    op: str
    shape: str
    dtype: str
    threads: int
    memory: str
    """"kept" if the allocator keeps freed memory mapped; "returned" if it does as the system does by default."""
    wrong: dict[str, str]
    """The reason why a provider has no figure, by provider."""
    first_call: dict[str, float] | None = None
    """Seconds of the first call in the process, forward and backward, by provider. The first call compiles, and makes
    what is kept. None: not noted (older rows)."""

    @property
    def setting(self) -> str:
        """The part of the conditions, beside case and dtype, that tells rows of one run apart."""
        return threads_in_words(self.threads) if self.device == "cpu" else self.device

    def faults(self) -> list[Fault]:
        """Return the wrong providers. Others than ours fail nothing if only a CUDA graph does not take them."""
        return [
            Fault(
                f"{provider} at {self.op} {self.shape} {self.dtype}, {self.setting}: {why}",
                self.setting != "replayed" or provider in (PACKAGE, *KERNELS),
            )
            for provider, why in self.wrong.items()
        ]


@dataclass(frozen=True, kw_only=True)
class Row(CaseResult):
    """One case, timed by `ops`."""

    kind: ClassVar[str] = "ops"
    watch: str
    """"called" as a program calls it, or "replayed" from a CUDA graph, without the calls."""
    mode: str
    seconds: dict[str, Spread]
    """Seconds by provider. A provider whose results are wrong has none."""
    ratio: dict[str, Spread]
    """Multiples of ebgan_fast's seconds, by provider, round by round."""
    empty: float
    """Seconds of an autograd Function that only allocates these gradients: the time of the calls alone."""
    unit: str
    rate: float | None
    """Useful work of ebgan_fast per second, in the unit."""
    ceiling: dict[str, str | float]
    share: float | None
    """The rate over that of the ceiling."""
    targets: dict[str, float]
    """The least ratio that is wanted, by provider."""
    rounds: int
    backend: str | None = None
    """The backend that ebgan_fast ran on. None: not noted (older rows)."""
    peak: dict[str, int] | None = None
    """Bytes of the GPU's memory by provider, beyond those held with the inputs. None: not noted (older rows), or on the
    CPU, where one process holds all providers. `memory` has a process for each."""

    @property
    def setting(self) -> str:
        """The number of threads on the CPU, the watch on a GPU."""
        return super().setting if self.device == "cpu" else self.watch

    def missed(self, provider: str) -> bool:
        """Return True if the ratio to a provider is below its target."""
        return provider in self.ratio and self.ratio[provider].median < self.targets.get(provider, 0)


@dataclass(frozen=True, kw_only=True)
class LatencyRow(Row):
    """A case so small that only its calls take time, timed by `latency`."""

    kind: ClassVar[str] = "latency"


@dataclass(frozen=True, kw_only=True)
class ScalingRow(Row):
    """One point of a curve, timed by `scaling`."""

    kind: ClassVar[str] = "scaling"
    axis: str
    """The size that grows: "N", "d", "K" or "threads"."""
    value: int
    fixed: str
    """The sizes that do not grow."""
    expected: dict[str, float]
    """The exponent of the operations, or of the bytes, on the axis, by provider."""

    @property
    def curve(self) -> tuple[str, str, str]:
        """The key that all points of one curve share."""
        return self.op, self.axis, self.fixed


@dataclass(frozen=True, kw_only=True)
class MemoryRow(CaseResult):
    """The memory that a case takes beyond its inputs, measured by `memory`."""

    kind: ClassVar[str] = "memory"
    inputs: int
    """Bytes of the inputs."""
    gradients: int
    """Bytes of the gradients, the least that anything which returns them needs."""
    peak: dict[str, int]
    """Bytes by provider, beyond those that the process held before."""


@dataclass(frozen=True, kw_only=True)
class TrainRow(Result):
    """One measurement of training steps, timed by `train`."""

    kind: ClassVar[str] = "train"
    keeps_faults: ClassVar[bool] = True
    preset: str
    width: float
    batch_size: int
    threads: int
    seconds: dict[str, float]
    """Seconds of a step, by contestant: the minimum over rounds."""
    median: dict[str, float]
    """Seconds of a step, by contestant: the median over rounds."""
    images_per_s: dict[str, float]
    """Real images per second, at the minimum."""
    speedup: dict[str, float]
    """Speed in multiples of the public loop's under the same choice of cuDNN, by precision."""
    targets: dict[str, float]
    """The speedup that is wanted, by precision."""
    data_cost: float | None
    """Seconds of a step that reads images over those of a step that does not: the median of the rounds' ratios."""
    native_bfloat16: bool
    """True if the processor multiplies bfloat16. Otherwise torch emulates the products."""
    rounds: int
    backend: str | None = None
    """The backend that ebgan_fast's losses ran on. None: not noted (older rows)."""
    steps: int = 1
    """Steps in a reading of the clock."""
    first_call: dict[str, float] | None = None
    """Seconds of each contestant's first step, which compiles, and in which cuDNN chooses. For a recorded step, of the
    steps before the recording. None: not noted (older rows)."""
    peak: dict[str, int] | None = None
    """Bytes of the GPU's memory during a later step, weights and optimizers included. None: not noted (older rows), or
    on the CPU, where the processes hold more than one contestant."""
    cudnn_benchmark: dict[str, bool] | None = None
    """True for a contestant whose convolutions cuDNN chose by trial. None: not noted (older rows)."""
    ratio: dict[str, Spread] | None = None
    """Another commit's seconds in multiples of this one's, by precision, round by round. None: not compared."""
    compared: str | None = None
    """The other commit."""
    wrong: str | None = None
    """The fault of the first losses. The figures of such steps prove nothing."""
    failed: dict[str, str] | None = None
    """The reason why a contestant has no figures, by contestant. None: all have theirs."""

    @property
    def networks(self) -> str:
        """The networks and the batch in words."""
        return f"{self.preset}, width {self.width:g}, batches of {self.batch_size}"

    def faults(self) -> list[Fault]:
        """Return the fault of the first losses, and the contestants that could not run."""
        wrong = [] if self.wrong is None else [Fault(self.wrong)]
        return [*wrong, *(Fault(f"{who}: {why}") for who, why in (self.failed or {}).items())]


@dataclass(frozen=True, kw_only=True)
class GraphRow(Result):
    """One comparison of training with a CUDA graph and without, made by `graph` and kept among the rows of `train`."""

    kind: ClassVar[str] = "graph"
    keeps_faults: ClassVar[bool] = True
    case: str
    width: float
    batch_size: int
    steps: int
    backend: str
    equal: bool
    """True if the statistics of every step, and the weights after the last, are the same bit for bit."""
    largest: float = 0.0
    """The largest difference of a loss, as a share of its value without a graph."""
    first: int | None = None
    """The first step whose statistics differ, counted from 1."""
    repeats: bool | None = None
    """True if two runs without a graph are the same. None: not tried, as the graph's run is the same."""

    @property
    def is_wrong(self) -> bool:
        """True if the graph's losses differ although those without a graph repeat."""
        return not self.equal and bool(self.repeats)

    @property
    def words(self) -> str:
        """The finding in a sentence."""
        losses = f"losses of {self.steps} steps"
        if self.equal:
            return f"{losses} and the weights after them are the same with a CUDA graph, bit for bit"
        since = f"from step {self.first} on" if self.first else "and in the last weights alone"
        without = "they repeat" if self.repeats else "they don't repeat either"
        by = f"by up to {self.largest:.1e} of their value, {since}"
        return f"{losses} differ with a CUDA graph, {by}; without one {without}"

    def faults(self) -> list[Fault]:
        """Return the finding if the graph is wrong."""
        return [Fault(f"{self.case}: {self.words}")] if self.is_wrong else []


@dataclass(frozen=True, kw_only=True)
class OnePassRow(Result):
    """A training step over one pass of the discriminator beside the usual loop's two, timed by `one-pass`."""

    kind: ClassVar[str] = "one-pass"
    networks: str
    batch_size: int
    threads: int
    seconds: dict[str, float]
    """Seconds of a step of each loop: the minimum over rounds."""
    ratio: float
    """The usual loop's time over the other's: the median over rounds."""
    bound: float
    """The usual loop's floating-point operations over the other's, in all products and convolutions of a step."""
    rounds: int

    @property
    def size(self) -> str:
        """The networks, the batch and the threads in words."""
        return f"{self.networks}, batches of {self.batch_size}, {threads_in_words(self.threads)}"


@dataclass(frozen=True, kw_only=True)
class StackedRow(Result):
    """Several configurations with stacked weights beside the same ones one after another, timed by `stacked`."""

    kind: ClassVar[str] = "stacked"
    configurations: int
    n_layer_g: int
    size_g: int
    size_d: int
    threads: int
    seconds: dict[str, float]
    """Seconds of a step of all configurations: the minimum over rounds."""
    ratio: float
    """The separate steps' time over the stack's: the median over rounds."""
    rounds: int

    @property
    def size(self) -> str:
        """The configurations in words."""
        return f"{self.configurations} x nLayerG {self.n_layer_g}, sizeG {self.size_g}, sizeD {self.size_d}"


def threads_in_words(count: int) -> str:
    """Return "1 thread" or "2 threads"."""
    return f"{count} thread{'s' if count > 1 else ''}"


# ---- Files

_KINDS: dict[str, type[Result]] = {
    kind.kind: kind for kind in (Row, LatencyRow, ScalingRow, MemoryRow, TrainRow, GraphRow, OnePassRow, StackedRow)
}


def append(row: Result, path: Path) -> None:
    """Add one line to the file."""
    append_all([row], path)


def append_all(rows: Iterable[Result], path: Path) -> None:
    """Add lines to the file, all at once."""
    fields = ({"kind": row.kind} | dataclasses.asdict(row) for row in rows)
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in fields)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def read(path: Path) -> list[Result]:
    """Return all rows of a file.

    Args:
        path: A file of JSON lines.

    Raises:
        ValueError: A line is no row, or there is no line.
    """
    rows: list[Result] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            rows.append(_row(json.loads(line)))
    except (AttributeError, KeyError, TypeError, ValueError):  # errors of names, of JSON or of UTF-8
        where = f"{path}, line {len(rows) + 1}"
        raise ValueError(f"{where}: got something else than a row that this version of bench wrote") from None
    if not rows:
        raise ValueError(f"{path}: got an empty file, expected rows that bench wrote")
    return rows


def _row(fields: dict[str, Any]) -> Result:
    kind = _KINDS[fields.pop("kind")]
    for name in ("seconds", "ratio"):
        if isinstance(fields.get(name), dict):
            fields[name] = {who: Spread(*one) if isinstance(one, list) else one for who, one in fields[name].items()}
    return kind(**fields)


def kind_of(rows: Sequence[Result]) -> type[Result]:
    """Return the kind of one command's rows. Raises ValueError for rows of several commands."""
    (kind, *others) = {type(row) for row in rows}
    if others:
        raise ValueError("got rows of several commands, expected those of one")
    return kind


def last_run(rows: Sequence[Result]) -> list[Result]:
    """Return the rows of the run that wrote last."""
    return [row for row in rows if row.run == rows[-1].run]


def last_runs(rows: Sequence[Result]) -> dict[Processor, list[Result]]:
    """Return the rows of the run that wrote last on each processor."""
    found: dict[Processor, list[Result]] = {}
    for row in rows:
        found.setdefault(Processor.of(row), []).append(row)
    return {processor: last_run(own) for processor, own in found.items()}
