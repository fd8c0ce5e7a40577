"""Tensors of given values in every layout that a user may have."""

from __future__ import annotations

import torch
from numpy.random import Generator
from torch import Tensor

LAYOUTS = (
    "contiguous",
    "channels_last",
    "sliced",
    "transposed",
    "expanded_sample",
    "expanded_element",
    "offset",
    "batch_stride",
    "windows",
)


def laid_out(values: Tensor, layout: str, rng: Generator) -> tuple[Tensor, str]:
    """Return the values at other addresses, with NaN between them, and the name of the layout that they got.

    The name is "contiguous" where the layout does not differ from it for that shape. The expanded layouts and the
    windows repeat some of the values in place of others.
    """
    if values.numel() == 0:
        return values, "contiguous"
    tensor = _placed(values, layout, rng)
    return tensor, layout if tensor.storage_offset() or not tensor.is_contiguous() else "contiguous"


def _placed(values: Tensor, layout: str, rng: Generator) -> Tensor:
    count, trailing = values.shape[0], values.shape[1:]
    if layout == "channels_last" and values.dim() in (4, 5):
        order = torch.channels_last if values.dim() == 4 else torch.channels_last_3d
        return values.contiguous(memory_format=order)
    if layout == "sliced" and trailing:
        room = values.new_full((*values.shape[:-1], values.shape[-1] + 3), float("nan"))
        room[..., 1:-2] = values
        return room[..., 1:-2]
    if layout == "transposed" and trailing:
        order = list(range(values.dim()))[::-1]
        return values.permute(order).contiguous().permute(order)
    if layout == "expanded_sample":
        return values[:1].expand(values.shape)
    if layout == "expanded_element" and trailing:
        return values[..., :1].expand(values.shape)
    if layout == "offset":
        room = values.new_full((values.numel() + 1,), float("nan"))
        room[1:] = values.reshape(-1)
        return room[1:].reshape(values.shape)
    if layout == "batch_stride":
        elements = values[:1].numel()
        room = values.new_full((count, elements + int(rng.integers(1, 2 * elements + 2))), float("nan"))
        room[:, :elements] = values.reshape(count, -1)
        return room.as_strided(values.shape, (room.shape[1], *values[:1].contiguous().stride()[1:]))
    if layout == "windows" and trailing:  # each sample begins one element after the start of the one before
        contiguous = values.contiguous()
        return contiguous.as_strided(values.shape, (1, *contiguous[:1].stride()[1:]))
    return values


def whole(tensor: Tensor) -> Tensor:
    """Return all numbers in a tensor's memory as one row, also those that the tensor does not show."""
    return tensor.new_empty(0).set_(tensor.untyped_storage())


def memory(tensor: Tensor) -> Tensor:
    """Return all bytes of a tensor's memory, with those between its elements; -0 differs from 0 there."""
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def negative_view(values: Tensor) -> Tensor:
    """Return the same values, negated in memory and once more by torch's lazy bit.

    The imaginary part of a conjugate has this bit. Strides, offset and the numbers between the elements stay.
    """
    negated = -whole(values)
    return torch._neg_view(negated.as_strided(values.shape, values.stride(), values.storage_offset()))


def numbers(tensor: Tensor) -> Tensor:
    """Return the values in float64, [N, K], in contiguous rows, as NumPy's sums over such rows are pairwise."""
    values = tensor.detach().resolve_neg().double().contiguous()
    return values.reshape(tensor.shape[0], tensor.shape[1:].numel())
