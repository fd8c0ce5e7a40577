"""Checks that run in a process under Triton's interpreter, with every tensor beside a guard page.

This holds for the ops' own tensors too. Memory that no kernel has written is NaN.
"""

from __future__ import annotations

import contextlib
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import ebgan_fast
from ebgan_fast.ops import reference
from ebgan_fast.ops.backends.triton import tables
from gpuless.guard_pages import guarded, guarded_allocations
from gpuless.sparse import sparse

from .. import eager
from ..against_reference import check, check_discriminator_loss, check_generator_loss
from ..budget import energy_sums
from . import upstream as checks


def _drawn(shape: tuple[int, ...], dtype: str, begins: bool, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(getattr(torch, dtype))
    return guarded(values, begins=begins)


def launch_each() -> None:
    """Launch each kernel once at a small size, on ordinary tensors."""
    codes = [torch.randn(shape, requires_grad=True) for shape in ((2, 3), (3, 2))]
    with ebgan_fast.use_backend("triton"):
        for code in codes:
            loss, _, _ = ebgan_fast.discriminator_loss(code, code, code, code, 1.0, norm="mse")
            energy = ebgan_fast.hinge_margin_loss(
                ebgan_fast.reconstruction_energy(code, code, norm="mse"), code[:, 0], 1.0
            )
            (loss + energy + ebgan_fast.pulling_away_term(code)).backward()


def each(cases: list[tuple[str, list[Any]]]) -> None:
    """Run functions of this file, by their names and arguments. The last line printed names the one that failed."""
    for name, arguments in cases:
        print(f"{name}{tuple(arguments)}", flush=True)
        globals()[name](*arguments)


def discriminator_loss(elements: int, norm: str, dtype: str, begins: bool) -> None:
    batches = [_drawn((n, elements), dtype, begins, seed) for seed, n in enumerate((3, 3, 5, 5))]
    margin = reference.reconstruction_energy(batches[2].double(), batches[3].double(), norm).median().item() * 1.001
    with guarded_allocations(), ebgan_fast.use_backend("triton"):
        check_discriminator_loss(batches, margin, norm)


def generator_loss(n: int, d: int, dtype: str, begins: bool) -> None:
    recon, fake = (_drawn((n, 130), dtype, begins, seed) for seed in range(2))
    code = _drawn((n, d), dtype, begins, 2)
    with guarded_allocations(), ebgan_fast.use_backend("triton"):
        check_generator_loss(recon, fake, code)


def hinge_and_energy(elements: int, norm: str, dtype: str, begins: bool) -> None:
    recon, target = (_drawn((3, elements), dtype, begins, seed) for seed in range(2))
    with guarded_allocations(), ebgan_fast.use_backend("triton"):
        check(
            lambda r, t: ebgan_fast.hinge_margin_loss(ebgan_fast.reconstruction_energy(r, t, norm=norm), r[:, 0], 1.0),
            lambda r, t: reference.hinge_margin_loss(reference.reconstruction_energy(r, t, norm), r[:, 0], 1.0),
            lambda r, t: eager.hinge_margin_loss(eager.reconstruction_energy(r, t, norm), r[:, 0], 1.0),
            (recon, target),
            torch.tensor(1.0),
            [elements * 4.0, None, None],
            energy_sums(recon),
        )


def upstream(elements: int, norm: str) -> None:
    with guarded_allocations(), ebgan_fast.use_backend("triton"):
        checks.multiplies_gradients_alone(elements, norm)
        checks.is_zeros_for_a_weight_of_zero(elements, norm)
        if norm == "l2":
            checks.is_nan_at_an_infinite_difference(elements)
            checks.is_zeros_for_equal_batches(elements)


def far_samples(op: str) -> None:
    """Check samples more than 2^31 elements away from the first: every offset of a sample must have 64 bits."""
    stride = 2**30 + 16
    elements = 40
    far, other = (sparse((3, elements), torch.float32, (stride, 1), fill=0.0) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    far.copy_(torch.randn(3, elements, generator=generator))
    other.copy_(torch.randn(3, elements, generator=generator))
    near, near_other = far.clone(), other.clone()
    run = {
        "tile": lambda a, b: ebgan_fast.discriminator_loss(a, b, b, a, 0.9, norm="mse")[0],
        "rows": lambda a, b: ebgan_fast.discriminator_loss(a, b, b, a, 0.9, norm="mse")[0],
        "chunks": lambda a, b: ebgan_fast.discriminator_loss(a, b, b, a, 0.9, norm="mse")[0],
        "gradient": lambda a, b: ebgan_fast.reconstruction_energy(a, b, norm="mse").sum(),
        "primal": lambda a, b: ebgan_fast.pulling_away_term(a) + ebgan_fast.pulling_away_term(b),
        "dual": lambda a, b: ebgan_fast.pulling_away_term(a[:, :2]) + ebgan_fast.pulling_away_term(b[:, :2]),
    }[op]
    # The tables give so few elements a tile of several samples. The others are one program a sample, and chunks.
    tile = {"rows": tables.EnergyTile(1, 64, 4), "chunks": tables.EnergyTile(0, 16, 4)}.get(op)
    forced = mock.patch.object(tables, "energy_tile", return_value=tile) if tile else contextlib.nullcontext()
    with ebgan_fast.use_backend("triton"), forced:
        results = []
        for pair in ((far, other), (near, near_other)):
            leaves = [batch.detach().requires_grad_() for batch in pair]
            value = run(*leaves)
            results.append((value, *torch.autograd.grad(value, leaves)))
    assert far.stride(0) == stride
    assert all(map(torch.equal, *results)), "samples far apart give other results than the same side by side"
