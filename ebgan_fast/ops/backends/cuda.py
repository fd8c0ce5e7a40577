"""The launches of the ops on an NVIDIA GPU, compiled ahead of time: thin calls into `ebgan_fast._C.cuda`.

`protocol.py` defines them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _C
from ..energy import NORMS, Loss
from ..pulling_away import Term
from ..tensors import DTYPES, Batch, Coefficient, Gradient, readable
from .gpu import allows_tf32, counters, here


def stream(device: torch.device) -> int:
    """Return the address of the device's current stream."""
    return torch.cuda.current_stream(device).cuda_stream


class _Coefficient:
    """A margin, weight or upstream gradient as a kernel takes it: device memory, or a number.

    The object must live until the launch.
    """

    def __init__(self, value: Coefficient, like: Tensor) -> None:
        """Prepare a coefficient. `like` has the device of the kernel, and acc as its dtype."""
        if isinstance(value, Tensor) and value.device.type == "cpu" and like.device.type != "cpu":
            value = value.item()  # a value on the CPU is read without waiting
        self.packed: tuple[int, float]
        if isinstance(value, Tensor):
            self._tensor = readable(value.to(like))
            self.packed = self._tensor.data_ptr(), 0.0
        else:
            self.packed = 0, value


class _Workspace:
    """Scratch memory and counters of a launch.

    The object must live until the launch. Memory that is reused later is used after the launch on the same stream.
    """

    def __init__(self, size: tuple[int, int], like: Tensor) -> None:
        partials, count = size
        self._partials = torch.empty(partials, dtype=like.dtype, device=like.device)
        self._counters = counters(like.device, count) if count else None
        self.packed = (self._partials.data_ptr(), 0 if self._counters is None else self._counters.data_ptr())


def loss(it: Loss) -> None:
    energy, dtype = it.real.energy, DTYPES[it.real.recon.dtype]
    device = energy.device
    with here(device):
        margin, upstream = _Coefficient(it.margin, energy), _Coefficient(it.upstream, energy)
        arguments = it.packed(margin.packed, upstream.packed)
        workspace = _Workspace(_C.cuda.loss_workspace(dtype, arguments), energy)
        _C.cuda.loss(dtype, arguments, *workspace.packed, stream(device))


def gradient(batch: Batch, upstream: Tensor, norm: str) -> None:
    upstream, device = upstream.to(batch.energy.dtype), batch.energy.device
    arguments = NORMS[norm], batch.packed(), upstream.data_ptr(), upstream.stride()[0]
    with here(device):
        _C.cuda.energy_gradient(DTYPES[batch.recon.dtype], arguments, stream(device))


def hinge(real: Tensor, fake: Tensor, margin: Coefficient, value: Tensor, grad_real: Tensor, grad_fake: Tensor) -> None:
    energies = real.data_ptr(), fake.data_ptr(), grad_real.data_ptr(), grad_fake.data_ptr()
    with here(real.device):
        coefficient = _Coefficient(margin, value)
        arguments = *energies, real.shape[0], fake.shape[0], *coefficient.packed, value.data_ptr()
        _C.cuda.hinge(DTYPES[value.dtype], arguments, stream(real.device))


def term(term: Term) -> None:
    dtype, device = DTYPES[term.code.code.dtype], term.value.device
    with here(device):
        weight = _Coefficient(term.weight, term.value)
        arguments = term.packed(weight.packed)
        workspace = _Workspace(_C.cuda.pulling_away_workspace(dtype, arguments), term.value)
        _C.cuda.pulling_away(dtype, arguments, allows_tf32(), *workspace.packed, stream(device))


def term_gradient(term: Term, upstream: Coefficient, grad: Gradient) -> None:
    device = term.lengths.device
    with here(device):
        coefficient = _Coefficient(upstream, term.lengths)
        arguments = term.gradient_packed(coefficient.packed, grad)
        _C.cuda.pulling_away_gradient(DTYPES[term.code.code.dtype], arguments, allows_tf32(), stream(device))


_MOST_GRADIENTS = 4  # in one launch: as many as an op has


def scale(gradients: list[Tensor], to: list[Tensor], upstream: Tensor, expected: Coefficient) -> None:
    each = [(one.data_ptr(), other.data_ptr(), one.numel()) for one, other in zip(gradients, to, strict=True)]
    device = upstream.device
    with here(device):
        awaited = _Coefficient(expected, upstream)
        for first in range(0, len(each), _MOST_GRADIENTS):
            some = each[first : first + _MOST_GRADIENTS]
            dtype, is_in_place = DTYPES[gradients[0].dtype], to is gradients
            _C.cuda.scale_gradients(dtype, some, upstream.data_ptr(), *awaited.packed, is_in_place, stream(device))
