"""The pulling-away term of one batch. `ranks.py` computes the term over the batches of several processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import reference
from .op import Op, scalar_like
from .tensors import CodeLayout, Coefficient, Gradient, accumulation_dtype

if TYPE_CHECKING:
    from .backends.protocol import Kernels


@dataclass(slots=True, eq=False)
class Term:
    """The pulling-away term of a code, to be filled in by a kernel. All tensors are acc, the code's accumulation dtype.

    Only the gradient needs `lengths` and `residual`. The kernels' own files define the content of `residual`.
    """

    code: CodeLayout
    lengths: Tensor
    """The lengths of the scaled codes and the scales, [2, N]. A scale is a power of two that keeps squares in range."""
    residual: Tensor
    """A matrix that the gradient needs, [m, m] with m = min(N, d)."""
    value: Tensor
    loss: Tensor | None
    """The scalar to which weight times the term is added, or None."""
    weight: Coefficient

    def packed(self, weight: tuple[int, float]) -> tuple[object, ...]:
        """Return the term as `ebgan_fast._C` takes it: the members of PullingAway in csrc/kernels.h."""
        loss = 0 if self.loss is None else self.loss.data_ptr()
        return (
            self.code.packed(),
            self.lengths.data_ptr(),
            self.residual.data_ptr(),
            self.value.data_ptr(),
            loss,
            *weight,
        )

    def gradient_packed(self, upstream: tuple[int, float], grad: Gradient) -> tuple[object, ...]:
        """Return the term's gradient as `ebgan_fast._C` takes it: the members of PullingAwayGradient."""
        forward = self.lengths.data_ptr(), self.residual.data_ptr()
        return self.code.packed(), *forward, *upstream, grad.filled.data_ptr(), grad.stride


def launch(kernels: Kernels, code: Tensor, loss: Tensor | None = None, weight: Coefficient = 0.0) -> Term:
    """Compute the term of a code, and add weight times the term to `loss` if it is given."""
    layout = CodeLayout(code)
    n, wide, device = layout.n, accumulation_dtype(code.dtype), code.device
    side = min(n, layout.elements)
    lengths = torch.empty_strided((2, n), (n, 1), dtype=wide, device=device)
    residual = torch.empty_strided((side, side), (max(side, 1), 1), dtype=wide, device=device)
    value = torch.empty_strided((), (), dtype=wide, device=device)
    term = Term(layout, lengths, residual, value, loss, weight)
    if n < 2 or layout.elements == 0:
        for tensor in (lengths, residual, value):
            tensor.zero_()
    else:
        kernels.term(term)
    return term


def launch_gradient(kernels: Kernels, term: Term, code: Tensor, upstream: Coefficient) -> Tensor:
    """Return the gradient to the code. `term` must have the layout of this code."""
    layout = term.code
    grad = layout.gradient(code)
    if layout.n < 2 or layout.elements == 0:
        grad.filled.zero_()
    else:
        kernels.term_gradient(term, upstream, grad)
    return grad.finish()


def _pulling_away_term(kernels: Kernels, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    term = launch(kernels, code)
    return term.value, term.lengths, term.residual


def _pulling_away_term_backward(
    kernels: Kernels, upstream: Tensor, code: Tensor, lengths: Tensor, residual: Tensor
) -> Tensor:
    term = Term(CodeLayout(code), lengths.contiguous(), residual.contiguous(), upstream, None, 0.0)
    return launch_gradient(kernels, term, code, upstream)


def _shapes(code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    wide = accumulation_dtype(code.dtype)
    n = code.shape[0]
    d = 1
    for size in code.shape[1:]:
        d = d * size
    side = torch.sym_min(n, d)
    return scalar_like(code), code.new_empty((2, n), dtype=wide), code.new_empty((side, side), dtype=wide)


def products(code: Sequence[int], count: int) -> int:
    """Return the number of operations of `count` matrix products.

    One product makes the smaller Gram matrix of a code of this shape, and another makes its gradient. Each counts in
    full, as in torch's counter, though a kernel computes only half of a symmetric matrix.
    """
    n, d = code[0], math.prod(code[1:])
    if n < 2:  # no kernel runs
        return 0
    return count * 2 * min(n, d) ** 2 * max(n, d)


PULLING_AWAY_TERM = Op(
    schema="pulling_away_term(Tensor code) -> (Tensor value, Tensor lengths, Tensor residual)",
    launch=_pulling_away_term,
    shapes=_shapes,
    tensors=1,
    formula=reference.pulling_away_term,
    flops=lambda code: products(code, 1),
    backward=Op(
        schema="pulling_away_term_backward(Tensor upstream, Tensor code, Tensor lengths, Tensor residual) -> Tensor",
        launch=_pulling_away_term_backward,
        shapes=lambda upstream, code, lengths, residual: torch.empty_like(code),
        flops=lambda upstream, code, lengths, residual: products(code, 1),
    ),
)
