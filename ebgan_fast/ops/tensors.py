"""The tensors of the ops as kernels read them: the dtype of sums, samples as runs of memory, and gradients.

The elements of a sample may lie in any order, as long as both tensors of a pair and their gradients have the same
order. Contiguous, channels_last and batch-sliced tensors are read in place. Tensors of any other layout are copied
once, and so are tensors that are not `readable`. Gradients have the strides of `torch.empty_like(input)`, as autograd
expects.
"""

from __future__ import annotations

import contextlib
from typing import TypeAlias

import torch
from torch import Tensor

DTYPES = {torch.float64: 0, torch.float32: 1, torch.bfloat16: 2, torch.float16: 3}
"""The number of each dtype in the compiled kernels (`csrc/kernels.h`)."""

# A margin, a weight or an upstream gradient: a number, or a 0-d tensor. Nothing waits for a tensor's value.
Coefficient: TypeAlias = Tensor | float


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which sums over values of `dtype` run. It is also the dtype of energies and losses."""
    return torch.float64 if dtype == torch.float64 else torch.float32


_WITH_AUTOCAST = frozenset(("cpu", "cuda"))


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a context without autocast, which would run matrix products in 16 bits.

    Some devices (meta) have no autocast, and the context does nothing.
    """
    # torch.compile up to torch 2.9 can trace torch.autocast but not is_autocast_available.
    if device.type in _WITH_AUTOCAST or torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def sample_rows(batch: Tensor) -> Tensor:
    """Return a batch [N, ...] as rows [N, K] in the accumulation dtype. A batch of scalars has K = 1."""
    wide = batch.to(accumulation_dtype(batch.dtype))
    return wide.unsqueeze(1) if wide.dim() == 1 else wide.flatten(1)


# For each dtype of sums: (bound, factor) pairs for the largest number of a row. A row whose largest number is below the
# bound (up), or above it (down), is multiplied by the factor. A second derivative divides by fourth powers of lengths,
# and float32 ends at 2^-126 and 2^127. So the largest number of a scaled row lies between 2^-25 and 2^24, and in
# float64 between 2^-200 and 2^224. The kernels compute a first derivative only and have a wider range:
# csrc/row_scale.h.
_STEPS_UP = {
    torch.float32: ((2.0**-24, 2.0**44), (2.0**-64, 2.0**84), (2.0**-104, 2.0**124)),
    torch.float64: ((2.0**-200, 2.0**400), (2.0**-600, 2.0**800), (2.0**-1000, 2.0**1000)),
}
_STEPS_DOWN = {
    torch.float32: ((2.0**24, 2.0**-44), (2.0**64, 2.0**-84), (2.0**104, 2.0**-124)),
    torch.float64: ((2.0**200, 2.0**-400), (2.0**600, 2.0**-800)),
}


def row_scales(rows: Tensor) -> Tensor:
    """Return a scale [N, 1] for the rows [N, K]: 1, or a power of two so that the row's squares stay in range.

    A cosine does not depend on the lengths of its vectors. So it may be computed from the scaled rows. The scales are
    constants to autograd.
    """
    largest = rows.detach().abs().amax(1, keepdim=True)
    scale = torch.ones_like(largest)
    for bound, power in _STEPS_UP[rows.dtype]:
        scale = scale.masked_fill(largest < bound, power)
    for bound, power in _STEPS_DOWN[rows.dtype]:
        scale = scale.masked_fill(largest > bound, power)
    return scale


def readable(tensor: Tensor) -> Tensor:
    """Return the tensor with its numbers in memory, as a copy where needed.

    torch may negate a tensor by a flag (`is_neg`), so that memory holds numbers of the opposite sign. Zeros that a
    derivative returns may have no memory at all (`_is_zerotensor`).
    """
    return tensor.clone() if tensor._is_zerotensor() else tensor.resolve_neg()


def number(coefficient: Coefficient) -> float:
    """Return the value of a coefficient. For a tensor on a GPU this waits for the device."""
    return coefficient.item() if isinstance(coefficient, Tensor) else coefficient


def product(a: Coefficient, b: Coefficient, dtype: torch.dtype) -> Coefficient:
    """Return the product of two coefficients in `dtype`, on the GPU if one of them is a tensor there.

    torch would multiply a number and a bfloat16 tensor in bfloat16.
    """
    if isinstance(b, (int, float)) and b == 1:
        return a
    a, b = (it.to(dtype) if isinstance(it, Tensor) else it for it in (a, b))
    return a * b


# The strides of the dimensions behind the batch, or None for a sample that is not one run of memory.
Order = tuple[int, ...] | None


def order_of(tensor: Tensor) -> Order:
    """Return the order of a sample's elements in memory, or None if they are not adjacent or samples overlap."""
    sizes = tensor.shape[1:]
    order = tuple(stride if size > 1 else 0 for size, stride in zip(sizes, tensor.stride()[1:], strict=True))
    run = 1
    for stride, size in sorted((stride, size) for stride, size in zip(order, sizes, strict=True) if size != 1):
        if stride != run:
            return None
        run *= size
    return order if tensor.shape[0] < 2 or tensor.stride(0) >= run else None


# The channels_last formats, by the number of dimensions of a batch.
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def are_alike(recon: Tensor, target: Tensor) -> bool:
    """Return True for a usual pair: both contiguous or both channels_last, samples adjacent, not negated by a flag.

    This check takes 1 us a pair. The general one takes 20 and gives the same answer.
    """
    if recon.is_neg() or target.is_neg():
        return False
    if recon.is_contiguous() and target.is_contiguous():
        return True
    last = _CHANNELS_LAST.get(recon.dim())
    return last is not None and recon.is_contiguous(memory_format=last) and target.is_contiguous(memory_format=last)


class Gradient:
    """A gradient that a kernel fills in the order in which it reads the input.

    The kernel writes `filled`, with samples `stride` elements apart. If `filled` is not laid out as
    `torch.empty_like(input)`, `finish` copies it into such a tensor.
    """

    __slots__ = ("_result", "filled", "stride")

    def __init__(self, like: Tensor, order: Order, elements: int) -> None:
        """Allocate the gradient of `like` in an order of the elements. None: contiguous."""
        self.stride = elements
        filled = self._result = torch.empty_like(like)
        if order is None:
            if not filled.is_contiguous():
                filled = torch.empty_like(like, memory_format=torch.contiguous_format)
        elif order_of(filled) == order:
            self.stride = filled.stride(0) if filled.shape[0] > 1 else elements
        else:
            flat = like.new_empty(like.shape[0] * elements)
            filled = flat.as_strided(like.shape, (elements, *like.stride()[1:]))
        self.filled = filled

    def finish(self) -> Tensor:
        """Return the gradient with the strides of `torch.empty_like(input)`, once the kernel has run."""
        if self.filled is not self._result:
            self._result.copy_(self.filled)
        return self._result


class Batch:
    """The tensors recon and target as a kernel reads them, their energies, and the gradients that are needed.

    Strides count the elements from one sample to the next. The stride of a gradient that is not needed has no meaning.
    """

    __slots__ = (
        "_recon_at",
        "_target_at",
        "_unfinished",
        "elements",
        "energy",
        "grad_recon",
        "grad_recon_stride",
        "grad_target",
        "grad_target_stride",
        "n",
        "recon",
        "recon_stride",
        "target",
        "target_stride",
    )

    def __init__(
        self,
        recon: Tensor,
        target: Tensor,
        need_recon: bool = False,
        need_target: bool = False,
        energy: Tensor | None = None,
    ) -> None:
        """Prepare the memory of a batch. `energy` is what the forward returned; None allocates it for a kernel."""
        n = self.n = recon.shape[0]
        elements = self.elements = recon.numel() // n if n else 1
        if energy is None:  # torch.empty takes 0.2 us more for [n], 0.9 for a 0-d tensor
            wide = torch.float64 if recon.dtype is torch.float64 else torch.float32
            energy = torch.empty_strided((n,), (1,), dtype=wide, device=recon.device)
        self.energy = energy
        self.recon_stride = self.target_stride = self.grad_recon_stride = self.grad_target_stride = elements
        self.recon, self.target, self._unfinished = recon, target, None
        self._recon_at, self._target_at = recon.data_ptr(), target.data_ptr()
        if self._recon_at and self._target_at and are_alike(recon, target):  # without the objects of the general case
            self.grad_recon = torch.empty_like(recon) if need_recon else None
            self.grad_target = torch.empty_like(target) if need_target else None
            return
        self.recon, self.target = recon, target = readable(recon), readable(target)
        order = order_of(recon)
        if order is None or order != order_of(target):
            order, self.recon, self.target = None, recon.contiguous(), target.contiguous()
        elif n > 1:
            self.recon_stride, self.target_stride = recon.stride(0), target.stride(0)
        self._recon_at, self._target_at = self.recon.data_ptr(), self.target.data_ptr()
        of_recon = Gradient(recon, order, elements) if need_recon else None
        of_target = Gradient(target, order, elements) if need_target else None
        self.grad_recon = self.grad_target = None
        if of_recon is not None:
            self.grad_recon, self.grad_recon_stride = of_recon.filled, of_recon.stride
        if of_target is not None:
            self.grad_target, self.grad_target_stride = of_target.filled, of_target.stride
        self._unfinished = of_recon, of_target

    def packed(self) -> tuple[int, ...]:
        """Return the batch as `ebgan_fast._C` takes it: the members of Batch in csrc/kernels.h."""
        grad_recon, grad_target = self.grad_recon, self.grad_target
        return (
            self._recon_at,
            self._target_at,
            0 if grad_recon is None else grad_recon.data_ptr(),
            0 if grad_target is None else grad_target.data_ptr(),
            self.energy.data_ptr(),
            self.recon_stride,
            self.target_stride,
            self.grad_recon_stride,
            self.grad_target_stride,
            self.n,
            self.elements,
        )

    @property
    def wants_gradient(self) -> bool:
        """True if a kernel must fill in at least one gradient."""
        return self.grad_recon is not None or self.grad_target is not None

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients to recon and target once the kernel has run, None for one that is not needed."""
        if self._unfinished is None:
            return self.grad_recon, self.grad_target
        of_recon, of_target = self._unfinished
        return (
            None if of_recon is None else of_recon.finish(),
            None if of_target is None else of_target.finish(),
        )


class CodeLayout:
    """A code [n, elements] as a kernel reads it from the memory of `code`, with samples `stride` elements apart.

    The dual Gram matrix depends on the order of the elements. So forward and backward must use the same order, which
    depends only on the code's own layout.
    """

    __slots__ = ("_at", "code", "elements", "n", "order", "stride")

    def __init__(self, code: Tensor) -> None:
        self._at = code.data_ptr()
        if not self._at or code.is_neg():
            code = readable(code)
            self._at = code.data_ptr()
        n = self.n = code.shape[0]
        self.elements = self.stride = code.numel() // n if n else code.shape[1:].numel()
        self.order: Order = None
        if not code.is_contiguous():
            self.order = order_of(code)
            if self.order is None:
                code = code.contiguous()
                self._at = code.data_ptr()
            elif n > 1:
                self.stride = code.stride(0)
        self.code = code

    def packed(self) -> tuple[int, ...]:
        """Return the code as `ebgan_fast._C` takes it: the members of Code in csrc/kernels.h."""
        return self._at, self.stride, self.n, self.elements

    def gradient(self, like: Tensor) -> Gradient:
        """Return memory for the gradient to `like`, the tensor that this code reads."""
        return Gradient(like, self.order, self.elements)
