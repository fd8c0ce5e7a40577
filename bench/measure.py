"""One case from its inputs to its row: every provider checked, then all of them timed together."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from . import ceilings, provenance, providers
from .cases import Arguments, Case
from .correctness import Judge
from .devices import Device
from .peak import rise
from .providers import Provider
from .rows import COMPILE, EAGER, PACKAGE, Row, spread
from .steps import BOTH, first_line, step
from .timing import Clock, Watch, interleaved_clocks


class Elsewhere(Protocol):
    """A process that times ebgan_fast, as this commit or another one has it."""

    name: str

    def prepare(self, case: Case, setting: Setting, copies: int) -> str | None:
        """Return why it gets no time, or None."""

    def clock(self, repeats: int) -> float:
        """Return the seconds of the case that was prepared."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The way in which a case is timed."""

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
        return self.device.watches[self.watch]


def targets_of(case: Case, setting: Setting) -> dict[str, float]:
    """They were set for float32; two threads share the memory's bandwidth, and are held to nine tenths."""
    share = {1: 1.0, 2: 0.9}.get(setting.threads)
    is_theirs = setting.dtype == torch.float32 and setting.device.torch.type == "cpu" and setting.mode == BOTH
    if case.targets is None or share is None or not is_theirs:
        return {}
    return {EAGER: share * case.targets.eager, COMPILE: share * case.targets.compile}


@dataclass
class _Admitted:
    """Whose results are right, and how each is timed."""

    clocks: dict[str, Clock] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    """Calls in one step of a clock."""
    first_call: dict[str, float] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    def here(self, one: Provider, setting: Setting, copies: Sequence[Arguments], judge: Judge) -> None:
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
            except Exception as error:  # whatever a provider may raise: the others are still worth their time
                complaint = f"cannot be captured: {first_line(error)}"
        self.wrong[one.name] = complaint

    def there(self, other: Elsewhere, case: Case, setting: Setting, copies: int) -> None:
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
    elsewhere: Sequence[Elsewhere] = (),
) -> Row:
    """Time one case by one of the device's watches; sets torch's number of threads.

    A contestant that has the name of a process elsewhere is timed there alone.
    """
    torch.set_num_threads(setting.threads)
    copies = providers.inputs_on(setting.device, case, setting.dtype)
    judge = Judge(case, copies[0])
    admitted = _Admitted()
    for one in contestants:
        if all(one.name != other.name for other in elsewhere):
            admitted.here(one, setting, copies, judge)
    del judge  # a copy of every gradient in float64
    for other in elsewhere:
        admitted.there(other, case, setting, len(copies))
    bounds = {
        name: Provider(name, case.package).clock(bound, setting.stopwatch)
        for name, bound in ceilings.steps(case.work, setting.dtype, copies[0]).items()
    }
    clocks = {**admitted.clocks, **bounds}
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
        ratio={
            name: spread([other / mine for other, mine in zip(seconds[name], own, strict=True)])
            for name in timed
            if own and name != PACKAGE
        },
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
