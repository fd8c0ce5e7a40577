"""The command `latency`: time calls that have next to nothing to compute."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..processes.other_commit import pair
from ..results.rows import LatencyRow, Result
from ..subjects.calls import BOTH, FORWARD
from ..subjects.cases import TINY
from ..timing import providers
from ..timing.measure import measure
from .session import Advance, Describe, DeviceName, Session, check_least

ROUNDS = 20


def latency(
    device: DeviceName = "cpu",
    rounds: int = ROUNDS,
    compile: bool = True,
    compare: str | None = None,
    out: Path | None = None,
) -> int:
    """Time calls of every loss on 8 samples of 16 numbers, one thread: forward without gradients, and with backward.

    Args:
        device: Where the tensors are.
        rounds: Times each call is timed, some hundred calls each.
        compile: Time torch.compile too.
        compare: A commit of this repository. Its package is built, and timed by turns with this one, each in a process
            of its own.
        out: File of JSON lines to add to. None: bench/results/latency-cpu.jsonl, or latency-NAME.jsonl with the GPU's
            name, which takes whole runs only.
    """
    check_least(1, rounds=rounds)
    session = Session.begin("latency", device, out)
    with contextlib.ExitStack() as stack:
        processes = pair(compare, stack) if compare else []

        def measurements(describe: Describe, advance: Advance) -> Iterator[Result]:
            for mode in (FORWARD, BOTH):
                for case in TINY:
                    describe(f"{case.name}, {mode}")
                    contestants = providers.of(case, session.device, compile)
                    row = measure(case, session.setting(rounds, mode=mode), contestants, advance, processes)
                    yield LatencyRow(**vars(row))

        reasons = {"--no-compile": not compile, "--compare": bool(compare), f"under {ROUNDS} rounds": rounds < ROUNDS}
        partial = [reason for reason, holds in reasons.items() if holds]
        return session.finish(2 * len(TINY) * rounds, measurements, partial)
