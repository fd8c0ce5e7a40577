"""The energies and losses on a GPU: which kernel runs, with which tile.

Functions take tensors of float64, float32, bfloat16 or float16 in any layout (`layout.py`), know nothing of autograd,
check nothing (`functional.py` does), write no input and never wait for the device. Sums run in float32 (float64 for
float64), which is also the dtype of energies and losses: "acc" below.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from ..layout import Pair
from ..reference import accumulation_dtype
from ..workspace import counters
from . import energy_kernels, launch, tables
from .launch import Launch

_NORMS = {"mse": 0, "sse": 1, "l2": 2}
_BATCH_BLOCK = 1024
_CHUNKS_BLOCK = 128


def acc_of(wide: torch.dtype) -> Any:
    """Triton's name of an accumulation dtype."""
    return tl.float64 if wide == torch.float64 else tl.float32


def coefficient(value: Tensor | float, wide: torch.dtype, device: torch.device) -> tuple[Tensor | float, bool]:
    """A margin or weight as a kernel takes it, and whether it is a pointer. Numbers travel as float32, so float64 ones
    go by way of a tensor. A tensor may be on the processor, whose number is there to be read without waiting."""
    if isinstance(value, Tensor) and value.device.type == "cpu" and device.type != "cpu":
        value = value.item()
    if isinstance(value, Tensor):
        return value.to(device), True
    if wide == torch.float64:
        return torch.full((), value, dtype=wide, device=device), True
    return float(value), False


def _batch_arguments(suffix: str, pair: Pair | None, energy: Tensor | None, with_gradients: bool) -> dict[str, Any]:
    """One batch's arguments of a loss kernel, named for the real batch or for the fake one."""
    names = [f"p_recon_{suffix}", f"p_{suffix}", f"p_grad_recon_{suffix}", f"p_grad_{suffix}", f"p_energy_{suffix}"]
    names += [f"recon_{suffix}_stride", f"{suffix}_stride", f"grad_recon_{suffix}_stride", f"grad_{suffix}_stride"]
    names += [f"n_{suffix}", f"elements_{suffix}"]
    if pair is None:
        return dict(zip(names, (None, None, None, None, None, 0, 0, 0, 0, 0, 1), strict=True))
    grad_recon, grad_target = (pair.grad_recon, pair.grad_target) if with_gradients else (None, None)
    values = (
        *(pair.recon, pair.target, grad_recon, grad_target, energy),
        *(pair.recon_stride, pair.target_stride, pair.grad_recon_stride, pair.grad_target_stride),
        *(pair.n, pair.elements),
    )
    return dict(zip(names, values, strict=True))


def _loss(
    real: Pair,
    fake: Pair | None,
    energy_real: Tensor,
    energy_fake: Tensor | None,
    margin: Tensor | float,
    norm: str,
    loss: Tensor | None,
) -> None:
    """Fill in the energies, the gradients that the pairs ask for, and the loss, if there is one."""
    device, wide = energy_real.device, energy_real.dtype
    elements = max(real.elements, fake.elements if fake else 1)
    tile = tables.energy_tile(elements, tables.architecture(device))
    if tile.rows == 0 and norm == "l2" and loss is not None and _wants_gradients(real, fake):
        _long_l2_loss(real, fake, energy_real, energy_fake, margin, loss)
        return
    with_gradients = loss is not None
    margin, is_pointer = coefficient(margin, wide, device)
    arguments = {
        **_batch_arguments("real", real, energy_real, with_gradients),
        **_batch_arguments("fake", fake, energy_fake, with_gradients),
        "margin": margin,
        "p_loss": loss,
    }
    constants = {"MARGIN_IS_POINTER": is_pointer, "NORM": _NORMS[norm], "ACC": acc_of(wide)}
    n_fake = fake.n if fake else 0
    if tile.rows:
        programs_real, programs_fake = -(-real.n // tile.rows), -(-n_fake // tile.rows)
        arguments |= {
            "p_counter": None if loss is None else counters(device, 1),
            "programs_real": programs_real,
            **constants,
            "ROWS": tile.rows,
            "BLOCK": tile.block,
            "BATCH_BLOCK": _BATCH_BLOCK,
        }
        # A loss is due even for no samples.
        programs = max(programs_real + programs_fake, 1)
        launch.run(Launch(energy_kernels.loss_by_rows, (programs,), arguments, tile.num_warps))
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
    elif loss is not None:
        loss.zero_()


def _wants_gradients(*pairs: Pair | None) -> bool:
    return any(pair and (pair.grad_recon is not None or pair.grad_target is not None) for pair in pairs)


def _long_l2_loss(
    real: Pair, fake: Pair | None, energy_real: Tensor, energy_fake: Tensor | None, margin: Tensor | float, loss: Tensor
) -> None:
    """The l2 loss of samples too long for registers. Its gradient is the difference over the finished energy, so the
    samples are read twice: a launch for the energies, one for the loss and one for each batch's gradients."""
    _loss(real, fake, energy_real, energy_fake, 0.0, "l2", None)
    if energy_fake is None:
        energy_fake = energy_real.new_empty(0)
    grad_real, grad_fake = torch.empty_like(energy_real), torch.empty_like(energy_fake)
    _hinge(energy_real, energy_fake, grad_real, grad_fake, margin, loss)
    _gradient(real, energy_real, grad_real, "l2")
    if fake:
        _gradient(fake, energy_fake, grad_fake, "l2")


def _hinge(
    energy_real: Tensor,
    energy_fake: Tensor,
    grad_real: Tensor,
    grad_fake: Tensor,
    margin: Tensor | float,
    loss: Tensor,
) -> None:
    margin, is_pointer = coefficient(margin, loss.dtype, loss.device)
    arguments = {
        "p_energy_real": energy_real,
        "p_energy_fake": energy_fake,
        "p_grad_real": grad_real,
        "p_grad_fake": grad_fake,
        "p_loss": loss,
        "n_real": energy_real.shape[0],
        "n_fake": energy_fake.shape[0],
        "margin": margin,
        "MARGIN_IS_POINTER": is_pointer,
        "ACC": acc_of(loss.dtype),
        "BLOCK": _BATCH_BLOCK,
    }
    launch.run(Launch(energy_kernels.hinge_loss, (1,), arguments, num_warps=4))


def _gradient(pair: Pair, energy: Tensor, upstream: Tensor, norm: str) -> None:
    """Fill in the gradients that the pair asks for."""
    if pair.n == 0 or not _wants_gradients(pair):
        return
    tile = tables.chunk_tile(pair.elements, tables.architecture(energy.device))
    chunks = -(-pair.elements // tile.block)
    arguments = {
        "p_recon": pair.recon,
        "p_target": pair.target,
        "p_grad_recon": pair.grad_recon,
        "p_grad_target": pair.grad_target,
        "p_energy": energy,
        "p_upstream": upstream,
        "recon_stride": pair.recon_stride,
        "target_stride": pair.target_stride,
        "grad_recon_stride": pair.grad_recon_stride,
        "grad_target_stride": pair.grad_target_stride,
        "upstream_stride": upstream.stride(0),
        "elements": pair.elements,
        "chunks": chunks,
        "NORM": _NORMS[norm],
        "ACC": acc_of(energy.dtype),
        "BLOCK": tile.block,
    }
    launch.run(Launch(energy_kernels.energy_gradient, (pair.n * chunks,), arguments, tile.num_warps))


def reconstruction_energy(recon: Tensor, target: Tensor, norm: str) -> Tensor:
    """Per-sample energy: [N, ...] and [N, ...] -> acc [N]; norm is "mse", "sse" or "l2"."""
    pair = Pair(recon, target)
    energy = recon.new_empty(pair.n, dtype=accumulation_dtype(recon.dtype))
    if pair.n:
        _loss(pair, None, energy, None, 0.0, norm, None)
    return energy


def reconstruction_energy_backward(
    grad_energy: Tensor,
    recon: Tensor,
    target: Tensor,
    energy: Tensor,
    norm: str,
    need_recon: bool,
    need_target: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `reconstruction_energy` for the upstream gradient grad_energy [N] (any stride).

    energy is what the forward returned. Gradients have the dtype of their input and the strides of
    `torch.empty_like(input)`; one that is not needed is None. A sample with upstream gradient 0 gets exact zeros and is
    not read.
    """
    pair = Pair(recon, target, need_recon, need_target)
    _gradient(pair, energy.contiguous(), grad_energy, norm)
    return pair.gradients()


def hinge_margin_loss(
    energy_real: Tensor, energy_fake: Tensor, margin: Tensor | float
) -> tuple[Tensor, Tensor, Tensor]:
    """mean(E_real) + mean([margin - E_fake]+) -> (loss, grad_real [Nr], grad_fake [Nf]).

    The gradients are for upstream 1 and have the dtypes of the energies. Energies may have any stride; margin is a
    number or a 0-d tensor of any float dtype.
    """
    wide = accumulation_dtype(energy_real.dtype)
    real, fake = energy_real.to(wide).contiguous(), energy_fake.to(wide).contiguous()
    loss = real.new_empty(())
    grad_real, grad_fake = torch.empty_like(real), torch.empty_like(fake)
    _hinge(real, fake, grad_real, grad_fake, margin, loss)
    return loss, grad_real.to(energy_real.dtype), grad_fake.to(energy_fake.dtype)


def discriminator_loss(
    recon_real: Tensor,
    real: Tensor,
    recon_fake: Tensor,
    fake: Tensor,
    margin: Tensor | float,
    norm: str,
    need: list[bool],
) -> tuple[Tensor | None, ...]:
    """The hinge margin loss of both energies and every gradient, in one launch (l2 of long samples: four).

    need says which of the first four tensors get a gradient (for upstream 1); the others' are None.
    Returns (loss, energy_real [Nr], energy_fake [Nf], grad_recon_real, grad_real, grad_recon_fake, grad_fake).
    """
    wide = accumulation_dtype(recon_real.dtype)
    pair_real = Pair(recon_real, real, need[0], need[1])
    pair_fake = Pair(recon_fake, fake, need[2], need[3])
    energy_real = recon_real.new_empty(pair_real.n, dtype=wide)
    energy_fake = recon_fake.new_empty(pair_fake.n, dtype=wide)
    loss = recon_real.new_empty((), dtype=wide)
    _loss(pair_real, pair_fake, energy_real, energy_fake, margin, norm, loss)
    return loss, energy_real, energy_fake, *pair_real.gradients(), *pair_fake.gradients()


def mean_energy(
    recon: Tensor, target: Tensor, norm: str, need_recon: bool, need_target: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """mean(E) -> (loss, energy [N], grad_recon, grad_target), in one launch; gradients for upstream 1."""
    wide = accumulation_dtype(recon.dtype)
    pair = Pair(recon, target, need_recon, need_target)
    energy = recon.new_empty(pair.n, dtype=wide)
    loss = recon.new_empty((), dtype=wide)
    _loss(pair, None, energy, None, 0.0, norm, loss)
    return loss, energy, *pair.gradients()
