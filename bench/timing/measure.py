"""The measurement of one case: every provider is checked, then all of them are timed together, and give a row."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from ..results import provenance
from ..results.rows import COMPILE, EAGER, PACKAGE, Row, spread
from ..subjects.calls import BOTH, Judge, step
from ..subjects.cases import Arguments, Case
from ..terminal import first_line
from . import ceilings, providers
from .devices import Device
from .providers import Provider
from .rounds import interleaved_clocks, multiples
from .watches import Clock, Watch, rise


class OtherProcess(Protocol):
    """A process that times ebgan_fast, as this commit or another one has it."""

    name: str

    def prepare(self, case: Case, setting: Setting, copies: int) -> str | None:
        """Make a case ready to be timed. Returns why its package gets no time, or None."""

    def clock(self, repeats: int) -> float:
        """Return the seconds of that many calls of the case that was prepared."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The conditions under which a case is timed."""

    device: Device
    run: str
    memory: str
    environment: dict[str, Any]
    rounds: int
    threads: int = 1
    dtype: torch.dtype = torch.float32
    watch: str = "called"
    mode: str = BOTH

    @property
    def stopwatch(self) -> Watch:
        """The watch of that name on the device."""
        return self.device.watches[self.watch]


def targets_of(case: Case, setting: Setting) -> dict[str, float]:
    """Return the least ratio to each provider that is wanted.

    The targets hold for float32, forward and backward, on the CPU. Two threads share the memory's bandwidth, so nine
    tenths are wanted there.
    """
    share = {1: 1.0, 2: 0.9}.get(setting.threads)
    is_theirs = setting.dtype == torch.float32 and setting.device.torch.type == "cpu" and setting.mode == BOTH
    if case.targets is None or share is None or not is_theirs:
        return {}
    return {EAGER: share * case.targets.eager, COMPILE: share * case.targets.compile}


@dataclass
class _Admitted:
    """The providers whose results are right, with their clocks; the reasons why others have none."""

    clocks: dict[str, Clock] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    """Calls in one step of a clock."""
    first_call: dict[str, float] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    def add(self, one: Provider, setting: Setting, copies: Sequence[Arguments], judge: Judge) -> None:
        """Check a provider, and make its clock if it is right."""
        complaint = one.complaint(copies[0], judge)
        if complaint is None:
            try:
                turns = one.turns(copies, setting.mode)
                self.first_call[one.name] = one.first_call[0]
                with one.chosen():
                    taken = rise(step(one.loss, copies[:1], setting.mode), setting.device.torch)
                if taken is not None:
                    self.peak[one.name] = taken
                self.clocks[one.name] = one.clock(step(one.loss, turns, setting.mode), setting.stopwatch)
                self.turns[one.name] = len(turns)
                return
            except Exception as error:  # a provider may raise anything, and the others are timed all the same
                complaint = f"cannot be captured: {first_line(error)}"
        self.wrong[one.name] = complaint

    def add_process(self, other: OtherProcess, case: Case, setting: Setting, copies: int) -> None:
        """Let another process check its package, and take its clock if the package is right."""
        complaint = other.prepare(case, setting, copies)
        if complaint is None:
            self.clocks[other.name], self.turns[other.name] = other.clock, copies
        else:
            self.wrong[other.name] = complaint


def measure(
    case: Case,
    setting: Setting,
    contestants: Sequence[Provider],
    after_round: Callable[[], None] = lambda: None,
    processes: Sequence[OtherProcess] = (),
) -> Row:
    """Time one case by one of the device's watches. Sets torch's number of threads.

    Args:
        case: The case.
        setting: The conditions.
        contestants: The providers. One that has the name of a process is timed by that process alone.
        after_round: Called after each round.
        processes: The processes that time ebgan_fast in the same rounds.
    """
    torch.set_num_threads(setting.threads)
    copies = providers.inputs_on(setting.device, case, setting.dtype)
    judge = Judge(case, copies[0])
    admitted = _Admitted()
    for one in contestants:
        if all(one.name != other.name for other in processes):
            admitted.add(one, setting, copies, judge)
    del judge  # holds a copy of every gradient in float64
    for other in processes:
        admitted.add_process(other, case, setting, len(copies))
    clocks = {**admitted.clocks, **ceilings.clocks(case.work, setting.dtype, copies[0], setting.stopwatch)}
    seconds = interleaved_clocks(clocks, setting.rounds, after_round, setting.stopwatch.block)
    for name, count in admitted.turns.items():
        seconds[name] = [value / count for value in seconds[name]]
    return _row(case, setting, admitted, seconds)


def _row(case: Case, setting: Setting, admitted: _Admitted, seconds: dict[str, list[float]]) -> Row:
    timed = list(admitted.turns)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    own = seconds.get(PACKAGE)
    ceiling = ceilings.ceiling(case.work, setting.dtype, setting.device.torch.type, middle)
    rate = ceilings.amount(case.work, setting.dtype, ceiling.unit) / middle[PACKAGE] if own else None
    targets = targets_of(case, setting)
    return Row(
        run=setting.run,
        op=case.op,
        shape=case.shape,
        dtype=str(setting.dtype).removeprefix("torch."),
        threads=setting.threads,
        device=setting.device.torch.type,
        watch=setting.watch,
        mode=setting.mode,
        memory=setting.memory,
        seconds={name: spread(seconds[name]) for name in timed},
        ratio={name: spread(multiples(seconds[name], own)) for name in timed if own and name != PACKAGE},
        empty=middle[ceilings.EMPTY],
        unit=ceiling.unit,
        rate=rate,
        ceiling={"name": ceiling.name, "value": ceiling.value},
        share=None if rate is None else rate / ceiling.value,
        targets={name: target for name, target in targets.items() if name in seconds},
        rounds=setting.rounds,
        wrong=admitted.wrong,
        first_call=admitted.first_call,
        backend=setting.device.backend,
        peak=admitted.peak or None,
        date=provenance.now(),
        **setting.environment,
    )
