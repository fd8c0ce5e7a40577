"""One measured case as a line of JSON. Files only grow: a run's rows are added behind those of earlier runs."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from .provenance import Conditions

PACKAGE, REFERENCE, EAGER, COMPILE = "ebgan_fast", "reference", "eager", "torch.compile"
TRITON, CUDA = "triton", "cuda"
KERNELS = (TRITON, CUDA)
"""Backends that stand in a row under their own names, beside the one that ebgan_fast chooses by itself."""


class Spread(NamedTuple):
    """The least, the median and the largest of the rounds."""

    low: float
    """A fifth of the rounds is below."""
    median: float
    high: float
    """A fifth of the rounds is above."""


def spread(values: Sequence[float]) -> Spread:
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return Spread(fifths[0], statistics.median(values), fifths[3])


@dataclass(frozen=True, kw_only=True)
class Result(Conditions):
    """The fields that rows of all commands have."""

    kind: ClassVar[str]
    """The command that wrote it."""
    run: str
    """The time at which the run began: the same in all of its rows."""
    op: str
    shape: str
    dtype: str
    threads: int
    device: str
    """The type of torch's device."""
    memory: str
    """"kept": the allocator keeps freed memory mapped; "returned": as the system does by default."""
    wrong: dict[str, str]
    """By provider, why it has no figure."""
    first_call: dict[str, float] | None = None
    """Seconds of the first call in the process, forward and backward, by provider: what it compiles or makes for good.
    None: not told (older rows)."""

    @property
    def setting(self) -> str:
        """Return what, beside case and dtype, tells rows of one run apart."""
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}" if self.device == "cpu" else self.device


@dataclass(frozen=True, kw_only=True)
class Row(Result):
    """One case, timed by `ops`."""

    kind: ClassVar[str] = "ops"
    watch: str
    """"called" as a program does, or "replayed" from a CUDA graph, without the calls."""
    mode: str
    seconds: dict[str, Spread]
    """By provider; none for a provider whose results are wrong."""
    ratio: dict[str, Spread]
    """Multiples of ebgan_fast's seconds, by provider, round by round."""
    empty: float
    """Seconds of an autograd Function that only allocates these gradients: the calls alone."""
    unit: str
    rate: float | None
    """Useful work of ebgan_fast per second."""
    ceiling: dict[str, str | float]
    share: float | None
    """rate / ceiling."""
    targets: dict[str, float]
    """By provider, the least ratio that is wanted."""
    rounds: int
    backend: str | None = None
    """The backend that ebgan_fast ran on. None: not told (older rows)."""
    peak: dict[str, int] | None = None
    """Bytes of the GPU's memory by provider, over what was there with the inputs. None: not told (older rows), or on
    the CPU, where a process that holds all providers says nothing of one: `memory` has processes for that."""

    @property
    def setting(self) -> str:
        return super().setting if self.device == "cpu" else self.watch

    def missed(self, provider: str) -> bool:
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
    """The sizes that don't."""
    expected: dict[str, float]
    """By provider, the exponent that its operations, or bytes, have on the axis."""

    @property
    def curve(self) -> tuple[str, str, str]:
        """The same for all points of one curve."""
        return self.op, self.axis, self.fixed


@dataclass(frozen=True, kw_only=True)
class MemoryRow(Result):
    """The memory that a case takes beyond its inputs, measured by `memory`."""

    kind: ClassVar[str] = "memory"
    inputs: int
    """Bytes."""
    gradients: int
    """Bytes: the least that anything which gives back the gradients needs."""
    peak: dict[str, int]
    """Bytes by provider, over what the process had before."""


_KINDS: dict[str, type[Result]] = {kind.kind: kind for kind in (Row, LatencyRow, ScalingRow, MemoryRow)}


def append(row: Conditions, path: Path) -> None:
    """Add one line to the file."""
    append_all([row], path)


def append_all(rows: Iterable[Conditions], path: Path) -> None:
    """Add lines to the file, all at once."""
    text = "".join(json.dumps(_fields(row), ensure_ascii=False) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _fields(row: Conditions) -> dict[str, Any]:
    kind = {"kind": row.kind} if isinstance(row, Result) else {}
    return kind | dataclasses.asdict(row)


def read(path: Path) -> list[Result]:
    """Raises ValueError for a line that is no row, or a file without any."""
    rows: list[Result] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            rows.append(_row(json.loads(line)))
    except (AttributeError, KeyError, TypeError, ValueError):  # of names, of JSON or of UTF-8
        where = f"{path}, line {len(rows) + 1}"
        raise ValueError(f"{where}: got something else than a row that this version of bench wrote") from None
    if not rows:
        raise ValueError(f"{path}: got an empty file, expected rows that bench wrote")
    return rows


def _row(fields: dict[str, Any]) -> Result:
    kind = _KINDS[fields.pop("kind")]
    for name in ("seconds", "ratio"):
        if name in fields:
            fields[name] = {provider: Spread(*values) for provider, values in fields[name].items()}
    return kind(**fields)


def last_run(rows: Sequence[Result]) -> list[Result]:
    """The rows of the run that wrote last."""
    return [row for row in rows if row.run == rows[-1].run]
