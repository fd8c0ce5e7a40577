"""The losses read each batch once and a code twice, and write each gradient once, backward included.

Only l2 reads long samples twice. The upstream gradient may be on the device, where the program cannot read it.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.older_versions import OLDEST_TRITON

pytest.importorskip("triton", minversion=OLDEST_TRITON, reason="triton is not installed (Linux only)")
pytest.importorskip("ebgan_fast._C", reason="the compiled module is not installed")

import ebgan_fast
from ebgan_fast.ops import reference

from .budget import assert_within_budget
from .cases import INTERPRETED
from .cuda import building
from .cuda.stand_ins import needs_nvcc
from .simulated_cuda import SIMULATED

if INTERPRETED or SIMULATED:
    pytest.skip("simulates both backends itself", allow_module_level=True)

from .traffic import moved_by

pytestmark = pytest.mark.slow

_CUDA_MARKS = (
    needs_nvcc,
    pytest.mark.skipif(building.missing() is not None, reason=building.missing() or ""),
)
every_backend = pytest.mark.parametrize("backend", ["triton", pytest.param("cuda", marks=_CUDA_MARKS)])
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])

N = 4
SHORT, LONG = 784, 3 * 8192  # one program for each sample; samples in chunks
CODE = 1040  # N codes have a number of elements that no other tensor has


def _batches(count: int, elements: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(N, elements, generator=generator).to(dtype) for _ in range(count)]


@every_backend
@every_dtype
@pytest.mark.parametrize(
    ("norm", "elements", "reads"),
    [("mse", SHORT, 2), ("l2", SHORT, 2), ("mse", LONG, 2), ("l2", LONG, 4)],
)
def test_the_discriminator_loss(backend: str, dtype: torch.dtype, norm: str, elements: int, reads: int) -> None:
    """The discriminator loss reads each batch once, or long samples with l2 twice, and writes each gradient once.

    No sample is past the margin. The gradient of l2 needs the finished energy, so long samples are read again for it.
    """
    batches = _batches(4, elements, dtype)
    for recon in batches[::2]:
        recon.requires_grad_()
    moved = moved_by(backend, lambda *it: ebgan_fast.discriminator_loss(*it, 1e3, norm=norm)[0], batches)
    assert moved.passes(N * elements) == (2 * reads, 2)


@every_backend
@every_dtype
def test_the_generator_loss(backend: str, dtype: torch.dtype) -> None:
    inputs = [*_batches(2, SHORT, dtype), *_batches(1, CODE, dtype)]
    moved = moved_by(
        backend,
        lambda *it: ebgan_fast.generator_loss(*it, norm="mse")[0],
        [tensor.requires_grad_() for tensor in inputs],
    )
    assert moved.passes(N * SHORT) == (2, 2)
    assert moved.passes(N * CODE) == (2, 1)


@every_backend
@pytest.mark.parametrize("keep", [False, True], ids=["freed", "kept"])
def test_another_upstream_costs_a_read_and_a_write(backend: str, keep: bool) -> None:
    """An upstream other than 1 costs one more read and write of each gradient.

    A graph that is kept pays this also for 1: its gradients are copied, as the caller may change them.
    """
    inputs = [tensor.requires_grad_() for tensor in _batches(2, SHORT, torch.float32)]
    upstream = 1.0 if keep else 3.0
    moved = moved_by(backend, lambda *it: ebgan_fast.generator_loss(*it, norm="mse")[0], inputs, upstream, keep)
    assert moved.passes(N * SHORT) == (4, 4)
    wide = [tensor.detach().double().requires_grad_() for tensor in inputs]
    truth = torch.autograd.grad(upstream * reference.generator_loss(*wide, None, 0.0, "mse")[0], wide)
    eager = torch.autograd.grad(upstream * reference.generator_loss(*inputs, None, 0.0, "mse")[0], inputs)
    for name, *gradients in zip(("recon", "fake"), moved.gradients, truth, eager, strict=True):
        assert_within_budget(*gradients, name)
