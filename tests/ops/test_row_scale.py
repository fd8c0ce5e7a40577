"""The pulling-away term does not depend on the length of any code, as a cosine does not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import ebgan_fast
from ebgan_fast.ops import reference

from . import eager
from .budget import assert_within_budget, pulling_away_diagonal, pulling_away_sums, pulling_away_terms, sums_dtype
from .cases import DEVICE, DTYPES, INTERPRETED, SIMULATED, every_backend, normal

IS_SLOW = INTERPRETED or SIMULATED
# Primal and dual forms, of one block or tile and of several.
SHAPES = [(6, 40), (40, 6)] if IS_SLOW else [(6, 40), (40, 6), (150, 190), (190, 150)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
# Exponents of the longest and the shortest row whose squares are summed unscaled, by dtype of the sums:
# csrc/row_scale.h.
SAFE = {torch.float32: (-40, 50), torch.float64: (-400, 450)}
_INTERPRETER = "Triton's interpreter multiplies matrices of bfloat16 as integers; triton/test_simulated.py has them"
every_dtype = pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(dtype, marks=pytest.mark.skipif(INTERPRETED and dtype == torch.bfloat16, reason=_INTERPRETER))
        for dtype in DTYPES
    ],
    ids=lambda dtype: str(dtype).removeprefix("torch."),
)
FORMS = {"primal": (3, 5), "dual": (5, 3), "one number": (3, 1)}


def _code(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Return numbers from about 1/8 to 8, with one row of zeros and two rows that are nearly parallel."""
    values = normal(*shape, seed=shape[0])
    values = torch.where(values.abs() < 0.125, 0.125, values)
    values[1] = 0.0
    values[2] = values[0] + values[2] / 16
    return values.to(dtype)


def _exponents(code: Tensor) -> range:
    """Return the exponents of the powers of two that keep all numbers of the code normal and finite."""
    limits, sizes = torch.finfo(code.dtype), code[code != 0].double().abs()
    lowest = math.ceil(math.log2(limits.smallest_normal) - math.log2(sizes.min().item()))
    return range(lowest, math.floor(math.log2(limits.max) - math.log2(sizes.max().item())) + 1)


def _some(exponents: range, code: Tensor) -> list[int]:
    """Return both ends, the edges of the safe range, and some exponents between.

    A small code of another dtype than float64 gets all of them.
    """
    edges = (edge + step for edge in SAFE[sums_dtype(code.dtype)] for step in (-3, 0, 3))
    count = 6 if IS_SLOW or code.numel() > 1000 else 60 if code.dtype == torch.float64 else 256
    between = exponents[:: max(1, len(exponents) // count)]
    return sorted({exponents[0], exponents[-1], *between, *(edge for edge in edges if edge in exponents)})


def _times(code: Tensor, exponents: Tensor | int) -> Tensor:
    """Return the code times a power of two, one for all rows or one for each.

    It multiplies in two steps, as float64 cannot hold 2^1100.
    """
    exponents = torch.as_tensor(exponents, dtype=torch.float64, device=code.device)
    half = (exponents / 2).floor()
    return code.double() * torch.exp2(half) * torch.exp2(exponents - half)


class _Expected:
    """The term of a code, and a check of the term after each row is multiplied by a power of two."""

    def __init__(self, code: Tensor) -> None:
        self.code = code
        self.truth, self.eager = (
            _value_and_gradient(formula, code.to(dtype))
            for formula, dtype in ((reference.pulling_away_term, torch.float64), (eager.pulling_away_term, code.dtype))
        )
        self._diagonal, self._sums = pulling_away_diagonal(code), pulling_away_sums(code)

    def check(self, backend: str, exponents: Tensor | int) -> tuple[Tensor, Tensor]:
        scaled = _times(self.code, exponents).to(self.code.dtype)
        with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
            value, gradient = _value_and_gradient(ebgan_fast.pulling_away_term, scaled)
        assert_within_budget(value, self.truth[0], self.eager[0], f"value, 2^{exponents}", self._diagonal, self._sums)
        back = -torch.as_tensor(exponents, dtype=torch.float64)
        truth, yardstick = (_times(it, back) for it in (self.truth[1], self.eager[1]))
        terms = _times(pulling_away_terms(self.code)[:, None], back)[:, 0]
        assert_within_budget(gradient, truth, yardstick, f"gradient, 2^{exponents}", terms, self._sums)
        return value, gradient


def _value_and_gradient(op, code: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    leaf = code.detach().clone().requires_grad_()
    value = op(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@every_backend
@every_dtype
@every_shape
def test_of_codes_times_a_power_of_two(backend: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    expected = _Expected(_code(shape, dtype))
    for exponent in _some(_exponents(expected.code), expected.code):
        expected.check(backend, exponent)


@every_backend
@every_dtype
@every_shape
def test_of_rows_times_a_power_of_two_each(backend: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    expected = _Expected(_code(shape, dtype))
    possible = torch.tensor(_exponents(expected.code), dtype=torch.float64, device=DEVICE)
    for seed in range(2 if IS_SLOW else 4):
        drawn = torch.randint(len(possible), (shape[0], 1), generator=torch.Generator().manual_seed(seed), device="cpu")
        expected.check(backend, possible[drawn.to(DEVICE)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(3, 4), (4, 3)], ids=["primal", "dual"])
def test_second_derivatives(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    """The reference's second derivatives are right at any scale, though their graph divides by fourth powers of
    lengths.

    A power of two changes none of their bits while they are normal numbers. test_ways_to_differentiate.py checks the
    numbers themselves.
    """
    code, along = normal(*shape).to(dtype), normal(*shape, seed=1).to(dtype)

    def second(exponent: int) -> Tensor:
        leaf = _times(code, exponent).to(dtype).requires_grad_()
        (first,) = torch.autograd.grad(reference.pulling_away_term(leaf), leaf, create_graph=True)
        found = torch.autograd.grad((first * _times(along, exponent).to(dtype)).sum(), leaf)[0]
        return _times(found, exponent)

    expected, most = second(0), round(math.log2(torch.finfo(dtype).max)) - 8
    for exponent in range(-most, most, 1 if dtype == torch.float32 else 8):
        assert torch.equal(second(exponent), expected), f"2^{exponent}"


@every_backend
@every_dtype
@every_shape
def test_lengths_within_the_range_change_no_bit(backend: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    """A power of two changes no bit of the term, and multiplies the gradient by exactly its reciprocal."""
    code = _code(shape, dtype)
    lengths = code.double().norm(dim=1)
    shortest, longest = SAFE[sums_dtype(dtype)]
    lowest = shortest - math.floor(math.log2(lengths[lengths > 0].min().item()))
    highest = longest - math.ceil(math.log2(lengths.max().item()))
    # A gradient keeps its bits only while it is a normal number; float16 gradients soon are not.
    with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
        value, gradient = _value_and_gradient(ebgan_fast.pulling_away_term, code)
        for exponent in {max(lowest, _exponents(code)[0]), min(highest, _exponents(code)[-1])}:
            scaled = _times(code, exponent).to(dtype)
            again, its_gradient = _value_and_gradient(ebgan_fast.pulling_away_term, scaled)
            assert torch.equal(again, value), f"2^{exponent}"
            if dtype != torch.float16:
                assert torch.equal(_times(its_gradient, exponent), gradient.double()), f"2^{exponent}"


@every_backend
@every_dtype
@pytest.mark.parametrize("shape", [(4, 9), (9, 4)], ids=["primal", "dual"])
def test_subnormal_codes(backend: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    """Codes of the smallest numbers of each dtype give the right term. They are small integer multiples, so exact."""
    limits = torch.finfo(dtype)
    integers = torch.arange(shape[0] * shape[1], dtype=torch.float64).reshape(shape).remainder(7) - 3
    expected = _Expected(integers.to(DEVICE, dtype))
    expected.check(backend, round(math.log2(limits.smallest_normal) + math.log2(limits.eps)))


@every_backend
@every_dtype
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_of_an_infinite_number_or_nan(backend: str, dtype: torch.dtype, form: str, bad: float) -> None:
    code = normal(*FORMS[form]).to(dtype)
    code[1] = 0.0  # the row beside the bad number is zero
    code[0, 0] = bad
    with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
        assert ebgan_fast.pulling_away_term(code).isnan()
        recon = torch.zeros(code.shape[0], 2, dtype=dtype)
        assert ebgan_fast.generator_loss(recon, recon, code, upstream=1.0).loss.isnan()
