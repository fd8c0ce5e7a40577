"""Measured bounds on the error of computations with many roundings: a network, a training step, a score.

The processor decides how torch adds and multiplies: in which order, fused or not, and at low precision with which
roundings in between. A bound holds on every processor only if it is measured on the one where the test runs. There are
two ways to do that. `tests/ops/budget.py` does the same for one op, sample by sample.

* `assert_within_eager`: the truth is the computation in float64. The yardstick is the same computation in eager torch,
  at the dtype of the test and from the same seed. A result may have twice eager torch's error, and a few units more.
* `relative_bound`: for results in float64, which have no wider truth. To first order a formula is off by the same
  number of units in the last place at every precision. So the error of float32 against float64 says how many units
  float64 may be off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from tests.ops.budget import ULPS

Values = Tensor | float | Iterable[Tensor]


def _flat(values: Values) -> Tensor:
    """Return all elements as one float64 vector."""
    if isinstance(values, Tensor):
        return values.detach().double().flatten()
    if isinstance(values, int | float):
        return torch.tensor([values], dtype=torch.float64)
    return torch.cat([_flat(value) for value in values])


def size(values: Values) -> float:
    """Return the length of all elements, taken as one vector."""
    return float(_flat(values).norm())


def distance(one: Values, other: Values) -> float:
    """Return the length of the difference of all elements, taken as one vector."""
    first, second = _flat(one), _flat(other)
    assert first.shape == second.shape, f"{first.numel()} elements beside {second.numel()}"
    return float((first - second).norm())


def assert_within_eager(
    found: Values, truth: Values, eager: Values, dtype: torch.dtype, what: str, units: float = ULPS
) -> None:
    """Fail if `found` is further from `truth` than eager torch's own error allows.

    Args:
        found: the result under test.
        truth: the result in float64.
        eager: the result of eager torch, at `dtype`.
        dtype: the narrowest type to which a value is rounded in the computation.
        what: a name of the result for the message.
        units: roundings of `dtype` that are allowed in addition to twice eager's error, which may be small by luck.
    """
    error, eager_error, length = distance(found, truth), distance(eager, truth), size(truth)
    budget = 2 * eager_error + units * torch.finfo(dtype).eps * length
    assert error <= budget, (
        f"{what}: off by {error:.3e}, budget {budget:.3e} "
        f"(eager torch is off by {eager_error:.3e}, length {length:.3e})"
    )


def at_wider(truth: Values, eager: Values, dtype: torch.dtype) -> Tensor:
    """Return a yardstick for `dtype`: each element has as many units of error as `eager` has in float32.

    This is for computations that `relative_bound` can't run, since they are no formulas of tensors: a training step, a
    run.

    Args:
        truth: the result in float64.
        eager: the result of eager torch in float32.
        dtype: a dtype wider than float32.
    """
    shrunk = torch.finfo(dtype).eps / torch.finfo(torch.float32).eps
    return _flat(truth) + shrunk * (_flat(eager) - _flat(truth))


def units_off(formula: Callable[..., Values], *inputs: Tensor) -> float:
    """Return the error of `formula` in float32 against float64, in units in the last place of the result's length.

    The inputs are rounded to float32 first, so that the rounding of inputs is not counted.
    """
    narrow = [value.float() if value.is_floating_point() else value for value in inputs]
    wide = [value.double() if value.is_floating_point() else value for value in narrow]
    truth = formula(*wide)
    return distance(formula(*narrow), truth) / (torch.finfo(torch.float32).eps * max(size(truth), 1e-300))


def relative_bound(
    formula: Callable[..., Values], *inputs: Tensor, dtype: torch.dtype = torch.float64, units: float = ULPS
) -> float:
    """Return how far two ways to compute `formula` at `dtype` may differ, relative to the length of the result.

    The bound is twice the units that `units_off` measures, and a few more, of `dtype`.
    """
    return (2 * units_off(formula, *inputs) + units) * torch.finfo(dtype).eps


def relative_bound_nearby(
    formula: Callable[..., Values], *inputs: Tensor, dtype: torch.dtype = torch.float64, draws: int = 8
) -> float:
    """Return a `relative_bound` for results of few numbers, where one measurement is often small by luck.

    The bound is the largest of `draws` bounds, each for inputs that are changed at random by about a thousandth. For
    these inputs the formula is as sensitive, but rounds in other ways.
    """
    generator = torch.Generator().manual_seed(0)
    bounds = []
    for _ in range(draws):
        factors = [1 + 1e-3 * torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in inputs]
        nearby = [value.double() * factor for value, factor in zip(inputs, factors, strict=True)]
        bounds.append(relative_bound(formula, *nearby, dtype=dtype))
    return max(bounds)
