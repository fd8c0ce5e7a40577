"""Every kernel in Triton's interpreter, beside guard pages and against the float64 reference (guarded.py)."""

from __future__ import annotations

import os

import pytest

from tests.older_versions import OLDEST_TRITON

pytest.importorskip("triton", minversion=OLDEST_TRITON, reason="triton is not installed (Linux only)")
if "TRITON_INTERPRET" in os.environ:
    pytest.skip("starts processes under the interpreter itself", allow_module_level=True)

from gpuless.interpreter import Outcome, interpreted

from ..cases import NORMS
from . import guarded

LONG = 16384 + 8192 + 37  # cut into chunks
DTYPES = ("float32", "float16", "bfloat16", "float64")

# The dtype's size decides the tile. float64 takes the interpreter minutes for more than these small ones.
CODES = {
    "float32": ((2, 1), (5, 9), (9, 5), (33, 130), (70, 40), (137, 150)),
    "float16": ((2, 1), (9, 5), (33, 130), (150, 137)),
    "float64": ((2, 1), (5, 9), (33, 130), (70, 40)),
}

TOGETHER = 6  # cases in a child: with a process for each, they took half as long again


def _cases() -> dict[str, list[tuple[object, ...]]]:
    """Return the calls by group: ragged shapes for every kernel and configuration.

    The interpreter cannot compute matrix products of bfloat16, so test_simulated.py has those.
    """
    # The size decides which addresses are touched; for long samples the norm does too, as l2 reads them twice. The
    # norms of short samples alternate: the simulator checks the values of the compiled code for every norm.
    losses = [
        (guarded.discriminator_loss, elements, NORMS[(shift + turn) % len(NORMS)], dtype, begins)
        for shift, dtype in enumerate(DTYPES)
        for turn, elements in enumerate((1, 7, 784, 3001))
        for begins in ((False, True) if elements < 100 else (False,))
    ]
    losses += [(guarded.discriminator_loss, LONG, norm, dtype, False) for dtype in DTYPES for norm in ("mse", "l2")]
    energies = [
        (guarded.hinge_and_energy, elements, NORMS[(shift + turn) % len(NORMS)], dtype, False)
        for shift, dtype in enumerate(DTYPES)
        for turn, elements in enumerate((1, 40, LONG))
    ]
    upstreams = [(guarded.upstream, elements, norm) for elements in (40, LONG) for norm in NORMS]
    codes = [
        (guarded.generator_loss, n, d, dtype, begins)
        for dtype, shapes in CODES.items()
        for n, d in shapes
        for begins in ((False, True) if n < 40 else (False,))
    ]
    far = [(guarded.far_samples, op) for op in ("tile", "rows", "chunks", "gradient", "primal", "dual")]
    return {"losses": losses, "energies": energies, "upstreams": upstreams, "codes": codes, "far": far}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[Outcome]]:
    """Return the outcomes of every group; each child process runs some cases.

    All children have one parent, whose start takes 5 seconds.
    """
    named = {
        group: [(function.__name__, arguments) for function, *arguments in cases]  # type: ignore[attr-defined]
        for group, cases in _cases().items()
    }
    shares = {
        group: [cases[begin : begin + TOGETHER] for begin in range(0, len(cases), TOGETHER)]
        for group, cases in named.items()
    }
    calls = [(guarded.each, share) for some in shares.values() for share in some]
    ended = iter(interpreted(*calls, first=guarded.launch_each))
    return {group: [next(ended) for _ in some] for group, some in shares.items()}


@pytest.mark.slow
@pytest.mark.xdist_group("guarded")
@pytest.mark.parametrize("group", ["losses", "energies", "upstreams", "codes", "far"])
def test_right_and_within_bounds(outcomes: dict[str, list[Outcome]], group: str) -> None:
    failed = [f"{outcome.kind}\n{outcome.report}" for outcome in outcomes[group] if outcome.kind != "fine"]
    assert outcomes[group]
    assert not failed, "\n\n".join(failed)
