"""The launches of energies and losses: the choice of kernel and tile. `../protocol.py` defines them."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from ...energy import NORMS, Loss
from ...tensors import Batch, Coefficient, readable
from ..gpu import counters
from . import energy_kernels, launch, tables
from .energy_kernels import Batch as KernelBatch
from .launch import Launch
from .norm_kernels import slope_needs_energy

_BATCH_BLOCK = 1024
_CHUNKS_BLOCK = 128


def acc_of(wide: torch.dtype) -> Any:
    """Return Triton's name of an accumulation dtype."""
    return tl.float64 if wide == torch.float64 else tl.float32


def coefficient(value: Coefficient, wide: torch.dtype, device: torch.device) -> tuple[Coefficient, bool]:
    """Return a margin, weight or upstream as a kernel takes it, and True if it is a pointer.

    Numbers are passed as float32. So a float64 number that float32 does not hold is passed in a tensor. A 0-d tensor on
    the CPU is passed as a number, which is read without waiting.
    """
    if isinstance(value, Tensor) and value.device.type == "cpu" and device.type != "cpu":
        value = value.item()
    if isinstance(value, Tensor):
        return readable(value.to(device)), True
    if wide == torch.float64 and ctypes.c_float(value).value != value:
        return torch.full((), value, dtype=wide, device=device), True
    return float(value), False


_NO_BATCH = KernelBatch(*[None] * len(KernelBatch._fields))


def _on_device(batch: Batch | None, with_gradients: bool = True) -> KernelBatch:
    """Return a batch as kernels take it."""
    if batch is None:
        return _NO_BATCH
    grad_recon, grad_target = (batch.grad_recon, batch.grad_target) if with_gradients else (None, None)
    return KernelBatch(
        *(batch.recon, batch.target, grad_recon, grad_target, batch.energy),
        *(batch.recon_stride, batch.target_stride, batch.grad_recon_stride, batch.grad_target_stride),
        batch.elements,
    )


def loss(it: Loss) -> None:
    real, fake, value = it.real, it.fake, it.value
    device, wide = real.energy.device, real.energy.dtype
    elements = max(real.elements, fake.elements if fake else 1)
    tile = tables.energy_tile(elements, tables.architecture(device))
    number = NORMS[it.norm]
    wants_gradient = value is not None and (real.wants_gradient or (fake is not None and fake.wants_gradient))
    if tile.rows == 0 and slope_needs_energy(number) and wants_gradient:
        _loss_in_two_reads(it)
        return
    n_fake = fake.n if fake else 0
    margin, margin_is_pointer = coefficient(it.margin, wide, device)
    upstream, upstream_is_pointer = coefficient(it.upstream, wide, device)
    arguments = {
        "real": _on_device(real, wants_gradient),
        "n_real": real.n,
        "fake": _on_device(fake, wants_gradient),
        "n_fake": n_fake,
        "margin": margin,
        "upstream": upstream,
        "p_loss": value,
    }
    constants = {
        "MARGIN_IS_POINTER": margin_is_pointer,
        "UPSTREAM_IS_POINTER": upstream_is_pointer,
        "NORM": number,
        "ACC": acc_of(wide),
    }
    if tile.rows:
        programs_real, programs_fake = -(-real.n // tile.rows), -(-n_fake // tile.rows)
        arguments |= {
            "p_counter": None if value is None else counters(device, 1),
            "programs_real": programs_real,
            **constants,
            "ROWS": tile.rows,
            "BLOCK": tile.block,
            "BATCH_BLOCK": _BATCH_BLOCK,
        }
        programs = programs_real + programs_fake
        if programs or value is not None:  # without samples there is still a loss
            launch.run(Launch(energy_kernels.loss_by_rows, (max(programs, 1),), arguments, tile.num_warps))
        return
    chunks_real = -(-real.elements // tile.block)
    chunks_fake = -(-fake.elements // tile.block) if fake else 1
    arguments |= {
        "p_counter": counters(device, 1 + real.n + n_fake),
        "programs_real": real.n * chunks_real,
        "chunks_real": chunks_real,
        "chunks_fake": chunks_fake,
        "p_partials_real": torch.empty(real.n * chunks_real, dtype=wide, device=device),
        "p_partials_fake": torch.empty(n_fake * chunks_fake, dtype=wide, device=device),
        **constants,
        "BLOCK": tile.block,
        "CHUNKS_BLOCK": _CHUNKS_BLOCK,
        "BATCH_BLOCK": _BATCH_BLOCK,
    }
    programs = real.n * chunks_real + n_fake * chunks_fake
    if programs:
        launch.run(Launch(energy_kernels.loss_by_chunks, (programs,), arguments, tile.num_warps))
    elif value is not None:
        value.zero_()


def _loss_in_two_reads(it: Loss) -> None:
    """Compute the loss of samples too long for registers, if the norm's gradient needs the finished energy.

    The samples are read twice. There is one launch for the energies, one for the loss, and one for the gradients of
    each batch.
    """
    assert it.value is not None
    loss(replace(it, value=None))
    real = it.real.energy
    fake = real.new_empty(0) if it.fake is None else it.fake.energy
    grad_real, grad_fake = torch.empty_like(real), torch.empty_like(fake)
    hinge(real, fake, it.margin, it.value, grad_real, grad_fake, it.upstream)
    gradient(it.real, grad_real, it.norm)
    if it.fake:
        gradient(it.fake, grad_fake, it.norm)


def hinge(
    real: Tensor,
    fake: Tensor,
    margin: Coefficient,
    value: Tensor,
    grad_real: Tensor,
    grad_fake: Tensor,
    upstream: Coefficient = 1.0,
) -> None:
    margin, margin_is_pointer = coefficient(margin, value.dtype, value.device)
    upstream, upstream_is_pointer = coefficient(upstream, value.dtype, value.device)
    arguments = {
        "p_energy_real": real,
        "p_energy_fake": fake,
        "p_grad_real": grad_real,
        "p_grad_fake": grad_fake,
        "p_loss": value,
        "n_real": real.shape[0],
        "n_fake": fake.shape[0],
        "margin": margin,
        "upstream": upstream,
        "MARGIN_IS_POINTER": margin_is_pointer,
        "UPSTREAM_IS_POINTER": upstream_is_pointer,
        "ACC": acc_of(value.dtype),
        "BLOCK": _BATCH_BLOCK,
    }
    launch.run(Launch(energy_kernels.hinge_loss, (1,), arguments, num_warps=4))


def gradient(batch: Batch, upstream: Tensor, norm: str) -> None:
    if batch.n == 0 or not batch.wants_gradient:
        return
    tile = tables.chunk_tile(batch.elements, tables.architecture(batch.energy.device))
    chunks = -(-batch.elements // tile.block)
    arguments = {
        "batch": _on_device(batch),
        "p_upstream": upstream,
        "upstream_stride": upstream.stride()[0],
        "chunks": chunks,
        "NORM": NORMS[norm],
        "ACC": acc_of(batch.energy.dtype),
        "BLOCK": tile.block,
    }
    launch.run(Launch(energy_kernels.energy_gradient, (batch.n * chunks,), arguments, tile.num_warps))
