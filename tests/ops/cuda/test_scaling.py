"""Backend cuda scales gradients from one upstream to another, in the simulators."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from . import marks  # isort: skip  (skips the module where no simulator can be built)

from ebgan_fast.ops.tensors import accumulation_dtype

from ..cases import every_dtype
from .energy_cases import Simulator, laid_out, random
from .stand_ins import in_ptx, needs_nvcc, on_cuda

pytestmark = marks.slow

in_memory = pytest.mark.parametrize("in_memory", [False, True], ids=["number", "in memory"])

# Five gradients, where a launch takes four: packets with a rest, without a rest, no packet, and several blocks.
SIZES = [(1, 7), (3, 11), (2, 16), (1, 1), (2, 5000)]


def _gradients(dtype: torch.dtype) -> list[Tensor]:
    """Return random gradients; every other one is not aligned to packets."""
    layouts = ("plain", "offset")
    return [laid_out(random(*size, seed, dtype), layouts[seed % 2]) for seed, size in enumerate(SIZES)]


def _coefficient(number: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor(number, dtype=accumulation_dtype(dtype))


@marks.everywhere
@every_dtype
@in_memory
@pytest.mark.parametrize(
    ("came", "awaited"), [(0.3, 3.0), (3.0, 2.0**16), (0.0, 3.0), (2.0**16, 1.0), (0.3, 0.3)], ids=str
)
def test_a_gradient_is_rounded_once(
    simulator: Simulator, dtype: torch.dtype, in_memory: bool, came: float, awaited: float
) -> None:
    """A gradient is its product with upstream / expected, both in the accumulation dtype, rounded once."""
    upstream, expected = _coefficient(came, dtype), _coefficient(awaited, dtype)
    gradients = _gradients(dtype)
    right = [(gradient.to(upstream.dtype) * (upstream / expected)).to(dtype) for gradient in gradients]
    awaited_there = expected if in_memory else expected.item()
    with simulator([*gradients, upstream, expected], 0):
        apart = on_cuda.scale_gradients(gradients, upstream, awaited_there)
    with simulator([upstream, expected], 0):
        in_place = _gradients(dtype)
        on_cuda.scale_gradients_(in_place, upstream, awaited_there)
    assert all(map(torch.equal, apart, right))
    assert all(map(torch.equal, in_place, right))


@needs_nvcc
@every_dtype
@in_memory
def test_an_upstream_that_was_expected_moves_nothing_in_place(dtype: torch.dtype, in_memory: bool) -> None:
    gradients, upstream, expected = _gradients(dtype), _coefficient(0.3, dtype), _coefficient(0.3, dtype)
    with in_ptx([*gradients, upstream, expected]) as simulation:
        on_cuda.scale_gradients_(gradients, upstream, expected if in_memory else expected.item())
    assert len(simulation.reports) == 2
    for report, traffic in zip(simulation.reports, simulation.traffic, strict=True):
        assert report.bytes_written == 0
        assert all(it.bytes_read == 0 for it in traffic if it.tensor.numel() > 1)


@marks.everywhere
def test_nan_as_upstream_reaches_every_gradient(simulator: Simulator) -> None:
    """An upstream of NaN makes every gradient NaN, even where NaN was expected."""
    for awaited in (1.0, torch.nan):
        upstream = torch.tensor(torch.nan)
        with simulator([upstream], 0):
            gradients = _gradients(torch.float32)
            on_cuda.scale_gradients_(gradients, upstream, awaited)
        assert all(gradient.isnan().all() for gradient in gradients)
