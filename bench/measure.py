"""One case from its inputs to its row: every provider checked, then all of them timed together."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import torch
from torch import Tensor

from . import ceilings
from .cases import Arguments, Case, Targets
from .correctness import Judge, leaves, results
from .rows import COMPILE, EAGER, PACKAGE, Row
from .timing import Step, interleaved

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
        return f"cannot run: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return judge.complaint(got)


def _step(loss: Loss, arguments: Arguments) -> Step:
    inputs = list(leaves(arguments).values())

    def step() -> None:
        torch.autograd.grad(loss(**arguments), inputs)

    return step


def _targets(case: Case, dtype: torch.dtype, threads: int) -> Targets | None:
    """They were set for float32; two threads share the memory's bandwidth, and are held to nine tenths."""
    share = {1: 1.0, 2: 0.9}.get(threads)
    if case.targets is None or dtype != torch.float32 or share is None:
        return None
    return Targets(share * case.targets.eager, share * case.targets.compile)


def measure(
    case: Case,
    dtype: torch.dtype,
    threads: int,
    *,
    rounds: int,
    with_compile: bool,
    memory: str,
    environment: dict[str, Any],
    after_round: Callable[[], None] = lambda: None,
) -> Row:
    """Time forward and backward of one case; sets torch's number of threads."""
    torch.set_num_threads(threads)
    arguments = case.inputs(dtype)
    judge = Judge(case, arguments)
    providers = _providers(case, with_compile)
    complaints = {name: _complaint(loss, arguments, judge) for name, loss in providers.items()}
    steps = {name: _step(loss, arguments) for name, loss in providers.items() if complaints[name] is None}
    del judge  # a copy of every gradient in float64

    seconds = interleaved({**steps, **ceilings.steps(case.work, dtype, arguments)}, rounds, after_round)
    best = {name: min(values) for name, values in seconds.items()}
    ceiling = ceilings.ceiling(case.work, dtype, best)
    rate = ceilings.amount(case.work, dtype) / best[PACKAGE] if PACKAGE in best else None
    targets = _targets(case, dtype, threads)

    def ratio(provider: str) -> float | None:
        return best[provider] / best[PACKAGE] if {provider, PACKAGE} <= best.keys() else None

    return Row(
        op=case.op,
        shape=case.shape,
        dtype=str(dtype).removeprefix("torch."),
        threads=threads,
        memory=memory,
        seconds={name: best[name] for name in steps},
        median={name: statistics.median(seconds[name]) for name in steps},
        empty=best[ceilings.EMPTY],
        ratio_eager=ratio(EAGER),
        ratio_compile=ratio(COMPILE),
        unit=ceilings.unit(case.work),
        rate=rate,
        ceiling=ceiling._asdict(),
        share=None if rate is None else rate / ceiling.value,
        target_eager=targets.eager if targets else None,
        target_compile=targets.compile if targets and with_compile else None,
        rounds=rounds,
        wrong={name: complaint for name, complaint in complaints.items() if complaint is not None},
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **environment,
    )
