"""Entries of the tables against each other: checked against the reference, then timed together."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ebgan_fast import use_backend
from ebgan_fast.ops.backends.triton import tables as in_use

from .cases import Arguments, Case
from .correctness import Judge, results
from .devices import Device
from .knobs import Tables
from .providers import inputs_on
from .steps import BOTH, first_line, step
from .timing import Step, Watch, interleaved


@dataclass(frozen=True)
class Outcome:
    """One entry on one case."""

    seconds: float | None = None
    """The median of the rounds."""
    ratio: float | None = None
    """Its time over the first entry's, the median of the rounds."""
    complaint: str | None = None
    """The reason that there is none."""


def _under(tables: Tables, wanted: Step) -> Step:
    def run() -> None:
        with in_use.replaced(tables):
            wanted()

    return run


def _ready(
    tables: Tables, case: Case, copies: Sequence[Arguments], judge: Judge, watch: Watch
) -> tuple[Step | None, str | None]:
    try:
        with in_use.replaced(tables):
            complaint = judge.complaint(results(case.package, copies[0]))
        if complaint is not None:
            return None, complaint
        return watch.prepared(_under(tables, step(case.package, copies, BOTH))), None
    except Exception as error:  # a tile that takes more than the GPU has: Triton raises what it likes
        return None, f"cannot run: {first_line(error)}"


def compare(
    contestants: Sequence[Tables], case: Case, dtype: torch.dtype, device: Device, watch: str, rounds: int
) -> list[Outcome]:
    """One outcome for each; all without ratio when the first is not right."""
    copies = inputs_on(device, case, dtype)
    judge = Judge(case, copies[0])
    with use_backend("triton"):  # on this GPU another one may be the first choice
        ready = [_ready(tables, case, copies, judge, device.watches[watch]) for tables in contestants]
        steps = {str(index): step for index, (step, _) in enumerate(ready) if step is not None}
        seconds = interleaved(steps, rounds, watch=device.watches[watch])
    first = seconds.get("0")

    def outcome(index: int) -> Outcome:
        mine = seconds.get(str(index))
        if mine is None:
            return Outcome(complaint=ready[index][1])
        ratio = statistics.median(a / b for a, b in zip(mine, first, strict=True)) if first else None
        return Outcome(statistics.median(mine) / len(copies), ratio)

    return [outcome(index) for index in range(len(contestants))]
