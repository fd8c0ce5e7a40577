"""The command `latency`: what a call costs where there is next to nothing to compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from . import cases, providers
from .cases import Case
from .measure import measure
from .rows import LatencyRow, Result
from .session import DeviceName, Session, check_counts
from .steps import BOTH, FORWARD

ROUNDS = 20
TINY: tuple[Case, ...] = (
    cases.discriminator(8, 16),
    cases.generator(8, 16, d=16),
    cases.energy(8, 16),
    cases.hinge(8),
    # Without the loops of public code, which are no matter of one call.
    dataclasses.replace(cases.pulling_away(8, 16), published={}),
)


def latency(device: DeviceName = "cpu", rounds: int = ROUNDS, compile: bool = True, out: Path | None = None) -> int:
    """Time calls of every loss on 8 samples of 16 numbers, one thread: forward without gradients, and with backward.

    Args:
        device: Where the tensors are.
        rounds: Times each call is timed, some hundred calls each.
        compile: Time torch.compile too.
        out: File of JSON lines to add to. None: bench/results/latency-cpu.jsonl, or latency-NAME.jsonl of the GPU's
            name, for a whole run alone.
    """
    check_counts(rounds=(rounds,))
    session = Session.begin("latency", device, out)

    def measurements(describe: Callable[[str], None], advance: Callable[[], None]) -> Iterator[Result]:
        for mode in (FORWARD, BOTH):
            for case in TINY:
                describe(f"{case.name}, {mode}")
                contestants = providers.of(case, session.device, compile)
                row = measure(case, session.setting(rounds, mode=mode), contestants, advance)
                yield LatencyRow(**vars(row))

    partial = [*(["--no-compile"] * (not compile)), *([f"under {ROUNDS} rounds"] * (rounds < ROUNDS))]
    return session.finish(2 * len(TINY) * rounds, measurements, partial)
