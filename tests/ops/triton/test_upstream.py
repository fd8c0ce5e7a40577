"""Gradients made for the upstream of the forward pass, and scaled to the actual upstream, in the simulator."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from .stand_ins import simulated  # isort: skip  (skips the module where there is no Triton)

from ..cases import every_norm
from ..launches import Launches
from . import upstream as checks

ops = Launches("triton")

LONG = 16384 + 8192 + 37  # cut into chunks

every_length = pytest.mark.parametrize("elements", [96, LONG])


@every_length
@every_norm
@pytest.mark.parametrize("check", [checks.multiplies_gradients_alone, checks.is_zeros_for_a_weight_of_zero])
def test_in_every_norm(check: Callable[[int, str], None], norm: str, elements: int) -> None:
    with simulated():
        check(elements, norm)


@every_length
@pytest.mark.parametrize(
    "check",
    [checks.comes_before_the_rounding, checks.is_nan_at_an_infinite_difference, checks.is_zeros_for_equal_batches],
)
def test_in_float16_or_l2(check: Callable[[int], None], elements: int) -> None:
    with simulated():
        check(elements)


@pytest.mark.parametrize("shape", [(6, 33), (33, 6)], ids=["primal", "dual"])
def test_the_generators_code(shape: tuple[int, int]) -> None:
    """The code's gradient is for weight times upstream, as numbers or tensors; the loss is for the weight alone."""
    generator = torch.Generator().manual_seed(0)
    recon, fake, code = (torch.randn(size, generator=generator) for size in ((shape[0], 40), (shape[0], 40), shape))
    with simulated() as simulation:
        once = ops.generator_loss(recon, fake, code, 0.3, "mse", 1.0, [True] * 3)
        launches = len(simulation.launches)
        for weight in (0.3, torch.tensor(0.3)):
            for upstream in (2.0, torch.tensor(2.0)):
                twice = ops.generator_loss(recon, fake, code, weight, "mse", upstream, [True] * 3)
                for value, of_one in zip(twice[:3], once[:3], strict=True):
                    assert torch.equal(value, of_one)
                for gradient, of_one in zip(twice[3:], once[3:], strict=True):
                    assert torch.equal(gradient, 2 * of_one)
        assert len(simulation.launches) == 5 * launches


@pytest.mark.parametrize("is_pointer", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
def test_gradients_of_an_expected_upstream(dtype: torch.dtype, is_pointer: bool) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    gradients = [torch.randn(count, generator=torch.Generator().manual_seed(count)).to(dtype) for count in (5, 5000)]
    upstream, expected = torch.tensor(0.7, dtype=wide), torch.tensor(0.3, dtype=wide)
    value = expected if is_pointer else 0.3
    truth = [(it.to(wide) * (upstream / expected)).to(dtype) for it in gradients]
    with simulated():
        apart = ops.scale_gradients(gradients, upstream, value)
        assert all(map(torch.equal, apart, truth))
        ops.scale_gradients_(gradients, upstream, value)
        assert all(map(torch.equal, gradients, truth))


@pytest.mark.parametrize("upstream", [0.3, 0.0, torch.inf])
def test_nothing_moves_for_the_expected_upstream(upstream: float) -> None:
    """In-place scaling moves nothing if the upstream is the expected one, also if both are 0 or infinite.

    0 / 0 must not be computed. NaN never counts as the expected upstream.
    """
    gradient = torch.arange(4.0)
    with simulated() as simulation:
        ops.scale_gradients_([gradient], torch.tensor(upstream), upstream)
        assert gradient.tolist() == [0.0, 1.0, 2.0, 3.0]
        assert not any(read or written for name, (read, written) in simulation.traffic(0).items() if "_from_" in name)
        (apart,) = ops.scale_gradients([gradient], torch.tensor(upstream), torch.tensor(upstream))
        assert torch.equal(apart, gradient)
        ops.scale_gradients_([gradient], torch.tensor(torch.nan), torch.nan)
        assert gradient.isnan().all()
