"""Gradients of upstream 1, multiplied by the upstream gradient that only the device knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..reference import accumulation_dtype
from . import launch, scaling_kernels
from .energy import acc_of
from .launch import Launch

_BLOCK = 4096
_NUM_WARPS = 8  # 16 elements a thread: four 128-bit loads of float32
# A launch for an upstream of 1 only starts and ends its programs: those that a large GPU holds at once, and no more.
MOST_PROGRAMS = 1024
_SLOTS = 4  # as many gradients as any op has


def scale_gradients(gradients: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """The gradients times the 0-d upstream gradient, rounded once. Each fills one run of memory."""
    to = [torch.empty_like(gradient) for gradient in gradients]
    _run(gradients, to, upstream, in_place=False)
    return to


def scale_gradients_(gradients: list[Tensor], upstream: Tensor) -> None:
    """Multiply the gradients by the 0-d upstream gradient where they lie; for 1 nothing is moved."""
    _run(gradients, gradients, upstream, in_place=True)


def _run(gradients: list[Tensor], to: list[Tensor], upstream: Tensor, in_place: bool) -> None:
    """Multiply them, in one launch for as many gradients as an op has."""
    for first in range(0, len(gradients), _SLOTS):
        some, of_some = gradients[first : first + _SLOTS], to[first : first + _SLOTS]
        longest = max(gradient.numel() for gradient in some)
        if longest == 0:
            continue
        missing = [None] * (_SLOTS - len(some))
        pointers = {
            f"p_{name}_{slot}": tensor
            for name, tensors in (("from", some), ("to", of_some))
            for slot, tensor in enumerate([*tensors, *missing])
        }
        counts = [*(gradient.numel() for gradient in some), *(0 for _ in missing)]
        arguments: dict[str, Any] = {
            "p_upstream": upstream,
            **pointers,
            **{f"count_{slot}": count for slot, count in enumerate(counts)},
            "IN_PLACE": in_place,
            "ACC": acc_of(accumulation_dtype(some[0].dtype)),
            "BLOCK": _BLOCK,
        }
        programs = min(-(-longest // _BLOCK), MOST_PROGRAMS)
        launch.run(Launch(scaling_kernels.multiply_gradients, (programs,), arguments, _NUM_WARPS))
