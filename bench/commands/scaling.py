"""The command `scaling`: find how the time grows with N, d, K and threads, beside the expected exponents."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..results.rows import EAGER, PACKAGE, Result, ScalingRow
from ..subjects import cases
from ..subjects.cases import Case
from ..timing import providers
from ..timing.measure import measure
from .session import Advance, Describe, DeviceName, Session, check_least

ROUNDS = 11


@dataclass(frozen=True)
class Curve:
    """A loss over one size, while the others are fixed."""

    axis: str
    fixed: str
    values: Sequence[int]
    case: Callable[[int], Case]
    """Makes the case of a size."""
    package: float
    """The exponent of ebgan_fast's operations, or bytes, on the axis."""
    eager: float
    """The exponent of eager torch's operations, or bytes, on the axis."""

    def threads(self, value: int) -> int:
        """Return the number of threads at a point of the curve."""
        return value if self.axis == "threads" else 1


def curves(cores: int) -> tuple[Curve, ...]:
    """Return the curves for a machine of so many cores."""
    counts = [count for count in (1, 2, 4, 8, 16, 32, 64) if count <= cores]
    return (
        Curve("K", "N = 64", (3072, 12288, 49152, 196608), lambda k: cases.discriminator(64, k), 1, 1),
        Curve("N", "K = 12288", (16, 32, 64, 128, 256), lambda n: cases.discriminator(n, 12288), 1, 1),
        # The N x N Gram matrix is the smaller one here. Eager torch always takes that one.
        Curve("N", "d = 8192", (32, 64, 128, 256, 512), lambda n: cases.pulling_away(n, 8192), 2, 2),
        Curve("d", "N = 64", (2048, 4096, 8192, 16384, 32768), lambda d: cases.pulling_away(64, d), 1, 1),
        # The d x d Gram matrix is the smaller one here.
        Curve("N", "d = 128", (512, 1024, 2048, 4096), lambda n: cases.pulling_away(n, 128), 1, 2),
        Curve("d", "N = 2048", (64, 128, 256, 512, 1024), lambda d: cases.pulling_away(2048, d), 2, 1),
        Curve("threads", "64x3x128x128", counts, lambda _: cases.discriminator(64, 3, 128, 128), -1, -1),
        Curve("threads", "2048x512", counts, lambda _: cases.pulling_away(2048, 512), -1, -1),
    )


def scaling(device: DeviceName = "cpu", rounds: int = ROUNDS, out: Path | None = None) -> int:
    """Time losses over a range of N, d, K and threads, against eager torch, and fit the exponents.

    Args:
        device: Where the tensors are. The curves over threads are of the CPU alone.
        rounds: Times each point is timed.
        out: File of JSON lines to add to. None: bench/results/scaling-cpu.jsonl, or scaling-NAME.jsonl with the GPU's
            name, which takes whole runs only.
    """
    check_least(1, rounds=rounds)
    session = Session.begin("scaling", device, out)
    wanted = [curve for curve in curves(os.cpu_count() or 1) if device == "cpu" or curve.axis != "threads"]
    points = [(curve, value, curve.case(value)) for curve in wanted for value in curve.values]

    def measurements(describe: Describe, advance: Advance) -> Iterator[Result]:
        for curve, value, case in points:
            describe(f"{case.name}, {curve.axis} {value}")
            contestants = [one for one in providers.of(case, session.device, False) if one.name in (PACKAGE, EAGER)]
            row = measure(case, session.setting(rounds, threads=curve.threads(value)), contestants, advance)
            expected = {PACKAGE: curve.package, EAGER: curve.eager}
            yield ScalingRow(**vars(row), axis=curve.axis, value=value, fixed=curve.fixed, expected=expected)

    partial = [f"under {ROUNDS} rounds"] * (rounds < ROUNDS)
    return session.finish(len(points) * rounds, measurements, partial)
