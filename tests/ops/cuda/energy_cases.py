"""Batches in the layouts that backend cuda reads, and checks of its losses against the float64 reference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ebgan_fast.ops import reference
from ebgan_fast.ops.tensors import Coefficient
from gpuless.guard_pages import guarded

from .. import eager
from ..budget import assert_within_budget, energy_sums
from .stand_ins import on_cuda

ALL = (True, True, True, True)
Simulator = Callable[[Sequence[Tensor], int], contextlib.AbstractContextManager[Any]]
"""One of the two simulators, `in_simt` or `in_ptx`."""


def random(n: int, k: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn((n, k), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def laid_out(values: Tensor, layout: str) -> Tensor:
    """Return the values at other addresses, beside guard pages, with NaN between them.

    In "wide_rows" every row begins at a multiple of 16 bytes, in "odd_rows" only the first, in "offset" none.
    """
    n, k = values.shape
    if layout == "offset":
        room = values.new_full((n * k + 1,), torch.nan)
        placed = guarded(room)
        view = placed[:-1] if placed.data_ptr() % 16 else placed[1:]
        return view.view(n, k).copy_(values)
    step = {"plain": k, "wide_rows": (k // 8 + 2) * 8, "odd_rows": k + 1}[layout]
    room = values.new_full((n, step), torch.nan)
    room[:, :k] = values
    return guarded(room[:, :k], begins=layout != "plain")


def batches(sizes: Sequence[int], dtype: torch.dtype, layout: str = "plain") -> list[Tensor]:
    """Return recon_real, real, recon_fake and fake for the sizes n_real, k_real, n_fake, k_fake."""
    n_real, k_real, n_fake, k_fake = sizes
    shapes = [(n_real, k_real)] * 2 + [(n_fake, k_fake)] * 2
    return [laid_out(random(n, k, seed, dtype), layout) for seed, (n, k) in enumerate(shapes)]


def leaves_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return copies of the tensors in float64 that require gradients."""
    return [tensor.detach().clone().double().requires_grad_() for tensor in tensors]


def margin_of(recon: Tensor, target: Tensor, norm: str) -> float:
    """Return a margin that some samples are past and none is near."""
    energies = reference.reconstruction_energy(recon.double(), target.double(), norm).sort().values
    middle = len(energies) // 2
    return ((energies[middle - 1] + energies[middle]) / 2).item() if len(energies) > 1 else 2 * energies.sum().item()


def check_discriminator_loss(
    got: Sequence[Tensor | None],
    tensors: Sequence[Tensor],
    margin: float,
    norm: str,
    need: Sequence[bool] = ALL,
    upstream: float = 1.0,
) -> None:
    """Fail unless `got`, the results of backend cuda's discriminator_loss, lies within its budget."""
    leaves = leaves_of(tensors)
    loss, *energies = reference.discriminator_loss(*leaves, margin, norm)
    truth = [loss, *energies, *torch.autograd.grad(loss, leaves, torch.full_like(loss, upstream))]
    plain = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    loss = eager.discriminator_loss(*plain, margin, norm)
    energies = [eager.reconstruction_energy(*pair, norm) for pair in (plain[:2], plain[2:])]
    yardstick = [loss, *energies, *torch.autograd.grad(loss, plain, torch.full_like(loss, upstream))]
    sums = max(map(energy_sums, tensors))
    for name, value, *others in zip(
        ("loss", "energy_real", "energy_fake", "grad_recon_real", "grad_real", "grad_recon_fake", "grad_fake"),
        *(got, truth, yardstick),
        strict=True,
    ):
        wanted = dict(zip(("grad_recon_real", "grad_real", "grad_recon_fake", "grad_fake"), need, strict=True))
        if not wanted.get(name, True):
            assert value is None
            continue
        assert value is not None
        assert_within_budget(value, *others, name, 2 * margin if name == "loss" else None, sums)
    is_shut = margin - truth[2] <= 0
    for gradient in got[5:]:
        assert gradient is None or bool((gradient[is_shut] == 0).all()), "a sample past the margin has a gradient"


def run_and_check(
    simulator: Simulator,
    tensors: Sequence[Tensor],
    norm: str,
    need: Sequence[bool] = ALL,
    seed: int = 0,
    upstream: Coefficient = 1.0,
) -> tuple[Tensor, ...]:
    margin = margin_of(tensors[2], tensors[3], norm)
    inputs = [*tensors, upstream] if isinstance(upstream, Tensor) else tensors
    with simulator(inputs, seed):
        got: tuple[Tensor, ...] = on_cuda.discriminator_loss(*tensors, margin, norm, upstream, list(need))
    check_discriminator_loss(got, tensors, margin, norm, need, float(upstream))
    return got
