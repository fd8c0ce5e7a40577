"""The compiled kernels handle rows too long or too short for their squares, on each path of a launch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.older_versions import OLDEST_TRITON

pytest.importorskip("triton", minversion=OLDEST_TRITON, reason="triton is not installed (Linux only)")

from ebgan_fast.ops import pulling_away, reference
from ebgan_fast.ops.backends import triton

from .. import eager
from ..budget import assert_within_budget, pulling_away_diagonal, pulling_away_sums, pulling_away_terms
from .stand_ins import recorded, simulated

DTYPES = (torch.float32, torch.bfloat16)
# A kernel that runs for each shape: one program alone, many splits, dual.
SHAPES = {(3, 7): "gram_matrix", (9, 1100): "finish_rows", (7, 3): "row_lengths"}


def _code(n: int, d: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a code with a row of zeros, and a power of two for each row that brings most rows out of range."""
    code = torch.randn(n, d, generator=torch.Generator().manual_seed(n)).to(dtype)
    code[1] = 0
    powers = 2.0 ** (60.0 * (-1) ** torch.arange(n, dtype=torch.float64))
    powers[::3] = 1.0
    return code, powers[:, None]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradient(shape: tuple[int, int], dtype: torch.dtype) -> None:
    code, powers = _code(*shape, dtype)
    scaled = (code.double() * powers).to(dtype)
    with simulated(seed=1):
        value, *state = pulling_away.PULLING_AWAY_TERM.launch(triton, scaled)
        gradient = pulling_away._pulling_away_term_backward(triton, torch.tensor(1.0), scaled, *state)
    truth = _expected(reference.pulling_away_term, code.double())
    yardstick = _expected(eager.pulling_away_term, code)
    sums = pulling_away_sums(code)
    assert_within_budget(value, truth[0], yardstick[0], "value", pulling_away_diagonal(code), sums)
    terms = pulling_away_terms(code) / powers[:, 0]
    assert_within_budget(gradient, truth[1] / powers, yardstick[1].double() / powers, "gradient", terms, sums)


def _expected(formula: Callable[..., torch.Tensor], code: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = code.clone().requires_grad_()
    value = formula(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize(("shape", "kernel"), SHAPES.items(), ids=str)
def test_each_shape_meets_its_kernel(shape: tuple[int, int], kernel: str) -> None:
    with recorded("sm_90") as launches:
        pulling_away.PULLING_AWAY_TERM.launch(triton, torch.empty(shape))
    names = [launch.kernel.__name__ for launch in launches]
    assert kernel in names
    assert (names == [kernel]) == (kernel == "gram_matrix")
