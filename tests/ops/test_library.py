"""The raw torch.library ops pass torch's checks of schema, aliasing, fake tensors and tracing, in several layouts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import ebgan_fast

from .cases import DTYPES, INTERPRETED, every_dtype, every_kernel, laid_out
from .simulated_cuda import SIMULATED

LAYOUTS = ("contiguous", "channels_last", "sliced_samples", "permuted")
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
# Strides do not depend on the dtype, so each layout is checked with one dtype only.
every_dtype_and_layout = pytest.mark.parametrize(("dtype", "layout"), list(zip(DTYPES, LAYOUTS, strict=True)), ids=str)
SHAPES = ((3, 7), (7, 3), (4, 2, 3, 5), (2, 1))
every_dtype_and_shape = pytest.mark.parametrize(("dtype", "shape"), list(zip(DTYPES, SHAPES, strict=True)), ids=str)

raw = torch.ops.ebgan_fast

# Compiled graphs depend only on shapes and strides, which fake tensors must get right on every backend. So this check
# runs on the CPU and on a GPU. In a simulator it took half of the time of these tests.
CHECKS = [
    *("test_schema", "test_autograd_registration", "test_faketensor"),
    *([] if INTERPRETED or SIMULATED else ["test_aot_dispatch_dynamic"]),
]


def _opcheck(op: Any, arguments: tuple[object, ...]) -> None:
    torch.library.opcheck(op, arguments, test_utils=CHECKS)


def _images(dtype: torch.dtype, layout: str, grad: bool = True) -> Tensor:
    return laid_out(torch.rand(3, 2, 4, 5).to(dtype), layout).detach().requires_grad_(grad)


@pytest.mark.slow
@every_kernel
@every_dtype_and_layout
def test_opcheck_energy(backend: str, dtype: torch.dtype, layout: str) -> None:
    recon, target = _images(dtype, layout), _images(dtype, "contiguous")
    _opcheck(raw.reconstruction_energy.default, (recon, target, "l2", backend))
    energy = raw.reconstruction_energy(recon, target, "l2", backend)
    for need in ((True, True), (True, False), (False, True)):
        arguments = (
            torch.ones_like(energy),
            recon.detach(),
            target.detach(),
            energy.detach(),
            "l2",
            list(need),
            backend,
        )
        _opcheck(raw.reconstruction_energy_backward.default, arguments)


@pytest.mark.slow
@every_kernel
@every_dtype_and_layout
def test_opcheck_losses(backend: str, dtype: torch.dtype, layout: str) -> None:
    images = [_images(dtype, layout) for _ in range(4)]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    scalar = torch.tensor(0.4, dtype=wide)
    for need in ([True] * 4, [False] * 4, [True, False, True, False]):
        _opcheck(raw.discriminator_loss.default, (*images, scalar, "mse", scalar, need, backend))
    for code in (None, torch.rand(3, 7).to(dtype)):
        arguments = (*images[:2], code, scalar, "sse", scalar, [True, True, code is not None], backend)
        _opcheck(raw.generator_loss.default, arguments)


@pytest.mark.slow
@every_kernel
@every_dtype_and_shape
def test_opcheck_pulling_away_and_hinge(backend: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    code = laid_out(torch.rand(shape).to(dtype), "sliced_samples").requires_grad_()
    _opcheck(raw.pulling_away_term.default, (code, backend))
    value, lengths, residual = raw.pulling_away_term(code.detach(), backend)
    arguments = (torch.ones_like(value), code.detach(), lengths, residual, backend)
    _opcheck(raw.pulling_away_term_backward.default, arguments)
    energies = torch.rand(5).to(dtype)
    _opcheck(raw.hinge_margin_loss.default, (energies, energies[:3], torch.tensor(0.5), backend))


@every_kernel
@every_dtype
def test_opcheck_scaling(backend: str, dtype: torch.dtype) -> None:
    gradients = [laid_out(torch.rand(3, 2, 4, 5).to(dtype), "channels_last"), torch.rand(7).to(dtype)]
    upstream = torch.tensor(0.3, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    for op in (raw.scale_gradients, raw.scale_gradients_):
        _opcheck(op.default, ([each.clone() for each in gradients], upstream, upstream / 2, backend))


@every_kernel
@every_layout
def test_gradients_have_the_layout_of_their_inputs(backend: str, layout: str) -> None:
    recon, target = _images(torch.float32, layout), _images(torch.float32, "contiguous")
    with ebgan_fast.use_backend(backend):
        ebgan_fast.generator_loss(recon, target, norm="mse")[0].backward()
    assert recon.grad.stride() == torch.empty_like(recon).stride()
    assert target.grad.stride() == target.stride()
