"""Compiling an op's launch ahead of time gives what Triton's JIT would compile at that launch."""

from __future__ import annotations

import re
from unittest import mock

import pytest
import torch

from tests.older_versions import OLDEST_TRITON

triton = pytest.importorskip("triton", minversion=OLDEST_TRITON, reason="triton is not installed (Linux only)")

import triton.language as tl  # noqa: E402

from ebgan_fast.ops.backends.triton import launch as launching  # noqa: E402
from ebgan_fast.ops.backends.triton.launch import Launch  # noqa: E402
from gpuless.triton import jit_specializations  # noqa: E402

from ..launches import Launches  # noqa: E402
from .compiling import TARGETS, compile_launch, specialize  # noqa: E402

ops = Launches("triton")


def recorded_launches() -> list[Launch]:
    """Return the launches of every op, in float32 and bfloat16."""
    launches: list[Launch] = []
    with mock.patch.object(launching, "run", launches.append):
        for dtype in (torch.float32, torch.bfloat16):
            for elements in (784, 49152):
                batch = torch.zeros(3, elements, dtype=dtype)
                ops.discriminator_loss(batch, batch, batch, batch, 1.0, "l2", 1.0, [True] * 4)
            for n, d in ((6, 1000), (200, 24)):
                code = torch.zeros(n, d, dtype=dtype)
                _, lengths, residual = ops.pulling_away_term(code)
                ops.pulling_away_term_backward(torch.ones(()), code, lengths, residual)
    return launches


@pytest.mark.parametrize("target", TARGETS)
def test_launches_are_specialized_as_by_the_jit(target: str) -> None:
    launches = recorded_launches()
    assert len({launch.kernel for launch in launches}) > 5
    with jit_specializations(target) as found:
        for launch in launches:
            launching.run(launch)
    assert found == [specialize(launch, target) for launch in launches]


@triton.jit
def rounded(p, a, b):
    tl.store(p, tl.load(p) * a + b)


@pytest.mark.parametrize("environment", ["0", "1"])
def test_multiply_and_add_stay_two_roundings(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A multiplication and an addition stay two roundings, whatever Triton's release or the environment set.

    The ops ask for it, and compiling ahead of time must take over their option.
    """
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", environment)
    ptx = compile_launch(Launch(rounded, (1,), {"p": torch.empty(4), "a": 2.0, "b": 3.0}, 1), "sm_80").ptx
    assert "fma" not in ptx
    assert re.search(r"mul(\.rn)?\.f32", ptx)
    assert re.search(r"add(\.rn)?\.f32", ptx)
