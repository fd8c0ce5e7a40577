"""One case from its inputs to its row: every provider checked, then all of them timed together."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import ceilings, provenance
from .cases import Arguments, Case, Targets, on
from .correctness import Judge, leaves, results
from .devices import Device
from .rows import COMPILE, EAGER, PACKAGE, Row
from .timing import Step, Watch, interleaved

Loss = Callable[..., Tensor]


def _providers(case: Case, with_compile: bool) -> dict[str, Loss]:
    chosen: dict[str, Loss] = {PACKAGE: case.package, EAGER: case.formula}
    if with_compile:
        # Else the eighth shape of a formula meets the limit of recompilations, and runs in eager mode unnoticed.
        torch._dynamo.reset()
        chosen[COMPILE] = torch.compile(case.formula, dynamic=False)
    return chosen


def _complaint(loss: Loss, arguments: Arguments, judge: Judge) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's compiler about torch's own functions
            got = results(loss, arguments)
    except Exception as error:  # whatever a provider may raise: the others are still worth their time
        return f"cannot run: {_first_line(error)}"
    return judge.complaint(got)


def step(loss: Loss, copies: Sequence[Arguments]) -> Step:
    """Forward and backward on each of the copies in turn."""
    turns = [(arguments, list(leaves(arguments).values())) for arguments in copies]

    def run() -> None:
        for arguments, inputs in turns:
            torch.autograd.grad(loss(**arguments), inputs)

    return run


def inputs_on(device: Device, case: Case, dtype: torch.dtype) -> list[Arguments]:
    """As many copies of a case's inputs as the device's cache calls for."""
    drawn = case.inputs(dtype)
    size = sum(value.nbytes for value in drawn.values() if isinstance(value, Tensor))
    return [on(drawn, device.torch) for _ in range(device.copies(size))]


def prepared(steps: Mapping[str, Step], watch: Watch) -> tuple[dict[str, Step], dict[str, str]]:
    """The steps as they are timed, and those that cannot be, with the reason."""
    ready, complaints = {}, {}
    for name, wanted in steps.items():
        try:
            ready[name] = watch.prepared(wanted)
        except Exception as error:  # whatever a provider may raise: the others are still worth their time
            complaints[name] = f"cannot be captured: {_first_line(error)}"
    return ready, complaints


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _targets(case: Case, dtype: torch.dtype, threads: int) -> Targets | None:
    """They were set for float32; two threads share the memory's bandwidth, and are held to nine tenths."""
    share = {1: 1.0, 2: 0.9}.get(threads)
    if case.targets is None or dtype != torch.float32 or share is None:
        return None
    return Targets(share * case.targets.eager, share * case.targets.compile)


def measure(
    case: Case,
    dtype: torch.dtype,
    device: Device,
    watch: str,
    threads: int,
    *,
    rounds: int,
    with_compile: bool,
    memory: str,
    environment: dict[str, Any],
    after_round: Callable[[], None] = lambda: None,
) -> Row:
    """Time forward and backward of one case by one of the device's watches; sets torch's number of threads."""
    torch.set_num_threads(threads)
    copies = inputs_on(device, case, dtype)
    judge = Judge(case, copies[0])
    providers = _providers(case, with_compile)
    complaints = {name: _complaint(loss, copies[0], judge) for name, loss in providers.items()}
    del judge  # a copy of every gradient in float64
    right = {name: step(loss, copies) for name, loss in providers.items() if complaints[name] is None}
    steps, refused = prepared(right, device.watches[watch])
    complaints.update(refused)
    bounds, _ = prepared(ceilings.steps(case.work, dtype, copies[0]), device.watches[watch])

    seconds = interleaved({**steps, **bounds}, rounds, after_round, device.watches[watch])
    for name in steps:
        seconds[name] = [value / len(copies) for value in seconds[name]]
    best = {name: min(values) for name, values in seconds.items()}
    ceiling = ceilings.ceiling(case.work, dtype, device.torch.type, best)
    rate = ceilings.amount(case.work, dtype, ceiling.unit) / best[PACKAGE] if PACKAGE in best else None
    targets = _targets(case, dtype, threads) if device.torch.type == "cpu" else None

    def ratio(provider: str) -> float | None:
        return best[provider] / best[PACKAGE] if {provider, PACKAGE} <= best.keys() else None

    return Row(
        op=case.op,
        shape=case.shape,
        dtype=str(dtype).removeprefix("torch."),
        threads=threads,
        device=device.torch.type,
        watch=watch,
        memory=memory,
        seconds={name: best[name] for name in steps},
        median={name: statistics.median(seconds[name]) for name in steps},
        empty=best[ceilings.EMPTY],
        ratio_eager=ratio(EAGER),
        ratio_compile=ratio(COMPILE),
        unit=ceiling.unit,
        rate=rate,
        ceiling={"name": ceiling.name, "value": ceiling.value},
        share=None if rate is None else rate / ceiling.value,
        target_eager=targets.eager if targets else None,
        target_compile=targets.compile if targets and with_compile else None,
        rounds=rounds,
        wrong={name: complaint for name, complaint in complaints.items() if complaint is not None},
        date=provenance.now(),
        **environment,
    )
