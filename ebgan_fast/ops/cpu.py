"""The ops on the CPU: thin calls into the compiled module `ebgan_fast._C`.

Functions take CPU tensors of float64, float32, bfloat16 or float16 in any layout, know nothing of autograd,
check nothing (`functional.py` does) and write no input. Sums run in float32 (float64 for float64), which is
also the dtype of energies and losses: "acc" below. Scale factors and sums over a batch run in float64. Every
result is bitwise the same at any thread count.

`layout.py` says how tensors are read.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .. import _C
from .extension import DTYPES, NORMS, code_arguments, pair_arguments
from .layout import Code, Pair
from .reference import accumulation_dtype

_CPU = torch.device("cpu")

# tensor.new_empty takes 3.4 us, this 1.3; the device is named because a user may have set another default.
_empty = functools.partial(torch.empty, device=_CPU)


def reconstruction_energy(recon: Tensor, target: Tensor, norm: str) -> Tensor:
    """Per-sample energy: [N, ...] and [N, ...] -> acc [N]; norm is "mse", "sse" or "l2"."""
    pair = Pair(recon, target)
    energy = _empty(recon.shape[0], dtype=accumulation_dtype(recon.dtype))
    threads = torch.get_num_threads()
    _C.energy_forward(DTYPES[recon.dtype], NORMS[norm], pair_arguments(pair), energy.data_ptr(), threads)
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
    `torch.empty_like(input)`; one that is not needed is None. A sample with upstream gradient 0
    gets exact zeros and is not read.
    """
    pair = Pair(recon, target, need_recon, need_target)
    if grad_energy.dtype is not energy.dtype:
        grad_energy = grad_energy.to(energy.dtype)
    energy = energy.contiguous()
    _C.energy_backward(
        DTYPES[recon.dtype],
        NORMS[norm],
        pair_arguments(pair),
        energy.data_ptr(),
        grad_energy.data_ptr(),
        grad_energy.stride(0),
        torch.get_num_threads(),
    )
    return pair.gradients()


def _number(coefficient: Tensor | float) -> float:
    """A margin or weight; the kernels round a margin to the dtype of the energies, so that E == margin can hold."""
    return coefficient.item() if isinstance(coefficient, Tensor) else coefficient


def hinge_margin_loss(
    energy_real: Tensor, energy_fake: Tensor, margin: Tensor | float
) -> tuple[Tensor, Tensor, Tensor]:
    """mean(E_real) + mean([margin - E_fake]+) -> (loss, grad_real [Nr], grad_fake [Nf]).

    The gradients are for upstream 1 and have the dtypes of the energies. Energies may have any stride; margin
    is a number or a 0-d tensor of any float dtype.
    """
    wide = accumulation_dtype(energy_real.dtype)
    if not (energy_real.dtype is wide and energy_fake.dtype is wide):  # four .to() that change nothing take 2 us
        loss, grad_real, grad_fake = hinge_margin_loss(energy_real.to(wide), energy_fake.to(wide), margin)
        return loss, grad_real.to(energy_real.dtype), grad_fake.to(energy_fake.dtype)
    real, fake = energy_real.contiguous(), energy_fake.contiguous()
    loss = _empty((), dtype=wide)
    grad_real, grad_fake = torch.empty_like(real), torch.empty_like(fake)
    _C.hinge(
        DTYPES[wide],
        real.data_ptr(),
        real.shape[0],
        fake.data_ptr(),
        fake.shape[0],
        _number(margin),
        loss.data_ptr(),
        grad_real.data_ptr(),
        grad_fake.data_ptr(),
    )
    return loss, grad_real, grad_fake


def pulling_away_term(code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1/(N(N-1)) sum over i != j of cos^2(s_i, s_j): [N, ...] -> (value, norms, gram), all acc.

    norms is [N], the lengths of the codes; gram is [m, m] with m = min(N, d), d the elements of a code. Both
    are for `pulling_away_term_backward` alone (csrc/cpu/pulling_away.cpp says what gram holds).
    """
    view = Code(code)
    wide = accumulation_dtype(code.dtype)
    n = code.shape[0]
    side = min(n, view.elements)
    norms = _empty(n, dtype=wide)
    gram = _empty((side, side), dtype=wide)
    value = _C.pulling_away_forward(*code_arguments(view), norms.data_ptr(), gram.data_ptr(), torch.get_num_threads())
    return torch.scalar_tensor(value, dtype=wide, device=_CPU), norms, gram


def pulling_away_term_backward(grad: Tensor, code: Tensor, norms: Tensor, gram: Tensor) -> Tensor:
    """Gradient of `pulling_away_term` to the code for the 0-d upstream gradient grad."""
    return _pulling_away_backward(grad.item(), code, Code(code), norms.contiguous(), gram.contiguous())


def _pulling_away_backward(upstream: float, code: Tensor, view: Code, norms: Tensor, gram: Tensor) -> Tensor:
    output = view.gradient(code)
    _C.pulling_away_backward(
        *code_arguments(view),
        norms.data_ptr(),
        gram.data_ptr(),
        upstream,
        output.filled.data_ptr(),
        output.stride,
        torch.get_num_threads(),
    )
    return output.finish()


def discriminator_loss(
    recon_real: Tensor,
    real: Tensor,
    recon_fake: Tensor,
    fake: Tensor,
    margin: Tensor | float,
    norm: str,
    need: list[bool],
) -> tuple[Tensor | None, ...]:
    """The hinge margin loss of both energies and every gradient, each sample's while it is in cache.

    need says which of the first four tensors get a gradient (for upstream 1); the others' are None.
    Returns (loss, energy_real [Nr], energy_fake [Nf], grad_recon_real, grad_real, grad_recon_fake,
    grad_fake).
    """
    wide = accumulation_dtype(recon_real.dtype)
    pair_real = Pair(recon_real, real, need[0], need[1])
    pair_fake = Pair(recon_fake, fake, need[2], need[3])
    energy_real = _empty(recon_real.shape[0], dtype=wide)
    energy_fake = _empty(recon_fake.shape[0], dtype=wide)
    loss = _empty((), dtype=wide)
    _C.discriminator_loss(
        DTYPES[recon_real.dtype],
        NORMS[norm],
        pair_arguments(pair_real),
        pair_arguments(pair_fake),
        _number(margin),
        loss.data_ptr(),
        energy_real.data_ptr(),
        energy_fake.data_ptr(),
        torch.get_num_threads(),
    )
    return (
        loss,
        energy_real,
        energy_fake,
        *pair_real.gradients(),
        *pair_fake.gradients(),
    )


def generator_loss(
    recon_fake: Tensor,
    fake: Tensor,
    code: Tensor | None,
    pt_weight: Tensor | float,
    norm: str,
    need: list[bool],
) -> tuple[Tensor | None, ...]:
    """mean(E_fake) + pt_weight * PT(code) and every gradient (for upstream 1); without a code, PT is 0.

    need says which of recon_fake, fake and code get a gradient; the others' are None.
    Returns (loss, energy [N], pulling_away, grad_recon, grad_fake, grad_code).
    """
    wide = accumulation_dtype(recon_fake.dtype)
    pair = Pair(recon_fake, fake, need[0], need[1])
    energy = _empty(recon_fake.shape[0], dtype=wide)
    threads = torch.get_num_threads()
    loss = _C.mean_energy(DTYPES[recon_fake.dtype], NORMS[norm], pair_arguments(pair), energy.data_ptr(), threads)
    if code is None:
        pulling_away, grad_code = recon_fake.new_zeros((), dtype=wide), None
    else:
        weight = _number(pt_weight)
        value, norms, gram = pulling_away_term(code)
        pulling_away = value.to(wide)
        loss += weight * pulling_away.item()
        grad_code = _pulling_away_backward(weight, code, Code(code), norms, gram) if need[2] else None
    loss_tensor = torch.scalar_tensor(loss, dtype=wide, device=_CPU)
    return loss_tensor, energy, pulling_away, *pair.gradients(), grad_code


def scale_gradients(gradients: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """The gradients times the 0-d upstream gradient, rounded once."""
    number = upstream.item()
    return [gradient * number for gradient in gradients]


def scale_gradients_(gradients: list[Tensor], upstream: Tensor) -> None:
    """Multiply the gradients by the 0-d upstream gradient where they lie; for 1 nothing is moved."""
    number = upstream.item()
    if number != 1:
        for gradient in gradients:
            gradient.mul_(number)
