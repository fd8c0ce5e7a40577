"""The ops on an NVIDIA GPU, compiled ahead of time: thin calls into `ebgan_fast._C.cuda`.

Functions take tensors of float64, float32, bfloat16 or float16 in any layout (`layout.py`), know nothing of autograd,
check nothing (`functional.py` does), write no input and never wait for the device. Sums run in float32 (float64 for
float64), which is also the dtype of energies and losses: "acc" below. Results are the same bits in every run.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from .. import _C
from .extension import DTYPES, NO_PAIR, NORMS, PairArguments, code_arguments, pair_arguments
from .layout import Code, Pair
from .precision import allows_tf32
from .reference import accumulation_dtype
from .workspace import counters


def here(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The kernels launch on CUDA's current device."""
    if device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)


def stream(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream


class _Coefficient:
    """A margin, weight or upstream gradient: memory of the device, or a number. Keep it until the launch."""

    def __init__(self, value: Tensor | float, like: Tensor) -> None:
        """`like` has the device, and acc as its dtype."""
        if isinstance(value, Tensor) and value.device.type == "cpu" and like.device.type != "cpu":
            value = value.item()  # there to be read without waiting
        self.arguments: tuple[int, float]
        if isinstance(value, Tensor):
            self._tensor = value.to(like)
            self.arguments = self._tensor.data_ptr(), 0.0
        else:
            self.arguments = 0, value


class _Workspace:
    """Scratch memory and counters. Keep it until the launch: later use of that memory comes after it on the stream."""

    def __init__(self, size: tuple[int, int], like: Tensor) -> None:
        partials, count = size
        self._partials = torch.empty(partials, dtype=like.dtype, device=like.device)
        self._counters = counters(like.device, count) if count else None
        self.arguments = (self._partials.data_ptr(), 0 if self._counters is None else self._counters.data_ptr())


def _loss(
    dtype: torch.dtype,
    norm: str,
    real: PairArguments,
    fake: PairArguments,
    margin: Tensor | float,
    loss: Tensor | None,
    energy_real: Tensor,
    energy_fake: Tensor | None,
) -> None:
    kind, device = (DTYPES[dtype], NORMS[norm]), energy_real.device
    with here(device):
        workspace = _Workspace(_C.cuda.loss_workspace(*kind, real, fake), energy_real)
        coefficient = _Coefficient(margin, energy_real)
        _C.cuda.loss(
            *kind,
            real,
            fake,
            *coefficient.arguments,
            0 if loss is None else loss.data_ptr(),
            energy_real.data_ptr(),
            0 if energy_fake is None else energy_fake.data_ptr(),
            *workspace.arguments,
            stream(device),
        )


def reconstruction_energy(recon: Tensor, target: Tensor, norm: str) -> Tensor:
    """Per-sample energy: [N, ...] and [N, ...] -> acc [N]; norm is "mse", "sse" or "l2"."""
    pair = Pair(recon, target)
    energy = recon.new_empty(pair.n, dtype=accumulation_dtype(recon.dtype))
    _loss(recon.dtype, norm, pair_arguments(pair), NO_PAIR, 0.0, None, energy, None)
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
    upstream, energy = grad_energy.to(energy.dtype), energy.contiguous()
    with here(energy.device):
        _C.cuda.energy_backward(
            DTYPES[recon.dtype],
            NORMS[norm],
            pair_arguments(pair),
            energy.data_ptr(),
            upstream.data_ptr(),
            upstream.stride(0),
            stream(energy.device),
        )
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
    coefficient = _Coefficient(margin, loss)
    with here(real.device):
        _C.cuda.hinge(
            DTYPES[wide],
            real.data_ptr(),
            real.shape[0],
            fake.data_ptr(),
            fake.shape[0],
            *coefficient.arguments,
            loss.data_ptr(),
            grad_real.data_ptr(),
            grad_fake.data_ptr(),
            stream(real.device),
        )
    return loss, grad_real.to(energy_real.dtype), grad_fake.to(energy_fake.dtype)


def pulling_away_term(code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1/(N(N-1)) sum over i != j of cos^2(s_i, s_j): [N, ...] -> (value, norms, gram), all acc.

    norms is [N], the lengths of the codes; gram is [m, m] with m = min(N, d), d the elements of a code. Both are for
    `pulling_away_term_backward` alone (csrc/cuda/pulling_away.cu says what gram holds).
    """
    return _pulling_away(Code(code), None, 0.0)


def _pulling_away(view: Code, loss: Tensor | None, weight: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Also adds weight times the value to the loss, if there is one."""
    code, wide = view.code, accumulation_dtype(view.code.dtype)
    side = min(view.n, view.elements)
    norms, gram = code.new_empty(view.n, dtype=wide), code.new_empty((side, side), dtype=wide)
    value = code.new_empty((), dtype=wide)
    if view.n < 2 or view.elements == 0:
        return value.zero_(), norms.zero_(), gram.zero_()
    with here(code.device):
        workspace = _Workspace(_C.cuda.pulling_away_workspace(*code_arguments(view)), value)
        coefficient = _Coefficient(weight, value)
        _C.cuda.pulling_away_forward(
            *code_arguments(view),
            allows_tf32(),
            norms.data_ptr(),
            gram.data_ptr(),
            value.data_ptr(),
            0 if loss is None else loss.data_ptr(),
            *coefficient.arguments,
            *workspace.arguments,
            stream(code.device),
        )
    return value, norms, gram


def pulling_away_term_backward(grad: Tensor, code: Tensor, norms: Tensor, gram: Tensor) -> Tensor:
    """Gradient of `pulling_away_term` to the code for the 0-d upstream gradient grad."""
    return pulling_away_gradient(grad, code, Code(code), norms.contiguous(), gram.contiguous())


def pulling_away_gradient(upstream: Tensor | float, code: Tensor, view: Code, norms: Tensor, gram: Tensor) -> Tensor:
    output = view.gradient(code)
    if view.n < 2 or view.elements == 0:
        output.filled.zero_()
        return output.finish()
    coefficient = _Coefficient(upstream, norms)
    with here(code.device):
        _C.cuda.pulling_away_backward(
            *code_arguments(view),
            allows_tf32(),
            norms.data_ptr(),
            gram.data_ptr(),
            *coefficient.arguments,
            output.filled.data_ptr(),
            output.stride,
            stream(code.device),
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
    """The hinge margin loss of both energies and every gradient, in one launch (l2 of long samples: several).

    need says which of the first four tensors get a gradient (for upstream 1); the others' are None.
    Returns (loss, energy_real [Nr], energy_fake [Nf], grad_recon_real, grad_real, grad_recon_fake, grad_fake).
    """
    wide = accumulation_dtype(recon_real.dtype)
    pair_real = Pair(recon_real, real, need[0], need[1])
    pair_fake = Pair(recon_fake, fake, need[2], need[3])
    energy_real = recon_real.new_empty(pair_real.n, dtype=wide)
    energy_fake = recon_fake.new_empty(pair_fake.n, dtype=wide)
    loss = recon_real.new_empty((), dtype=wide)
    pairs = pair_arguments(pair_real), pair_arguments(pair_fake)
    _loss(recon_real.dtype, norm, *pairs, margin, loss, energy_real, energy_fake)
    return loss, energy_real, energy_fake, *pair_real.gradients(), *pair_fake.gradients()


def generator_loss(
    recon_fake: Tensor,
    fake: Tensor,
    code: Tensor | None,
    pt_weight: Tensor | float,
    norm: str,
    need: list[bool],
) -> tuple[Tensor | None, ...]:
    """mean(E_fake) + pt_weight * PT(code) and every gradient (for upstream 1); without a code, PT is 0.

    One launch for the energies; the pulling-away term's adds to their loss. need says which of recon_fake, fake and
    code get a gradient; the others' are None.
    Returns (loss, energy [N], pulling_away, grad_recon, grad_fake, grad_code).
    """
    wide = accumulation_dtype(recon_fake.dtype)
    pair = Pair(recon_fake, fake, need[0], need[1])
    energy, loss = recon_fake.new_empty(pair.n, dtype=wide), recon_fake.new_empty((), dtype=wide)
    _loss(recon_fake.dtype, norm, pair_arguments(pair), NO_PAIR, 0.0, loss, energy, None)
    if code is None:
        return loss, energy, loss.new_zeros(()), *pair.gradients(), None
    view = Code(code)
    pulling_away, norms, gram = _pulling_away(view, loss, pt_weight)
    grad_code = pulling_away_gradient(pt_weight, code, view, norms, gram) if need[2] else None
    return loss, energy, pulling_away, *pair.gradients(), grad_code


_MOST_GRADIENTS = 4  # of one launch: as many as an op has


def scale_gradients(gradients: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """The gradients times the 0-d upstream gradient, rounded once. Each fills one run of memory."""
    to = [torch.empty_like(gradient) for gradient in gradients]
    _scale(gradients, to, upstream, in_place=False)
    return to


def scale_gradients_(gradients: list[Tensor], upstream: Tensor) -> None:
    """Multiply the gradients by the 0-d upstream gradient where they lie; for 1 nothing is moved."""
    _scale(gradients, gradients, upstream, in_place=True)


def _scale(gradients: list[Tensor], to: list[Tensor], upstream: Tensor, in_place: bool) -> None:
    each = [(one.data_ptr(), other.data_ptr(), one.numel()) for one, other in zip(gradients, to, strict=True)]
    with here(upstream.device):
        for first in range(0, len(each), _MOST_GRADIENTS):
            _C.cuda.scale_gradients(
                DTYPES[gradients[0].dtype],
                each[first : first + _MOST_GRADIENTS],
                upstream.data_ptr(),
                in_place,
                stream(upstream.device),
            )
