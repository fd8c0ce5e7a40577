"""The pulling-away term: of one batch, and over the batches of all ranks of a process group.

Ranks exchange whichever is smaller: the codes (all-gather, while the global batch is at most as large as a code is
wide) or the d x d Gram matrix of the normalised codes (all-reduce). Backward needs no communication.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from . import reference
from .op import Function, Op, scalar_like
from .tensors import CodeLayout, Coefficient, Gradient, accumulation_dtype, sample_rows, without_autocast

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from .backends.protocol import Kernels


@dataclass(slots=True, eq=False)
class Term:
    """The term of a code, all of it acc (the code's accumulation dtype), to be filled in by a kernel.

    `lengths` and `residual` are for the gradient alone; the kernels' own files say what `residual` holds.
    """

    code: CodeLayout
    lengths: Tensor
    """[2, N]: of the codes times their scales, and the scales, powers of two that keep their squares in range."""
    residual: Tensor
    """[m, m] with m = min(N, d)."""
    value: Tensor
    loss: Tensor | None
    """[], to which weight times the term is added."""
    weight: Coefficient

    def packed(self, weight: tuple[int, float]) -> tuple[object, ...]:
        """The term as `ebgan_fast._C` takes it: the members of PullingAway in csrc/kernels.h."""
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
        """The term's gradient as `ebgan_fast._C` takes it: the members of PullingAwayGradient."""
        forward = self.lengths.data_ptr(), self.residual.data_ptr()
        return self.code.packed(), *forward, *upstream, grad.filled.data_ptr(), grad.stride


def launch(kernels: Kernels, code: Tensor, loss: Tensor | None = None, weight: Coefficient = 0.0) -> Term:
    """Compute the term of a code, and add weight times it to the loss, if there is one."""
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
    """The gradient to the code, of whose layout the term is."""
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
    """The operations of that many matrix products: one makes the smaller Gram matrix of a code of this shape, another
    its gradient.

    A product counts in full, as in torch's counter, though a kernel makes half of a symmetric matrix.
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

# ---- Over a process group


def _unit_rows(code: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of length 1 (a zero row stays zero) and 1/length per row (0 for a zero row)."""
    rows = sample_rows(code.detach())
    lengths = rows.square().sum(1, keepdim=True).sqrt()
    inverse = torch.where(lengths == 0, 0.0, 1.0 / lengths)
    return rows * inverse, inverse


def _gathered(unit: Tensor, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """(N(N-1) times the term, W) with the gradient 4 (W - (w_i.u_i) u_i) / length_i, from the codes of all ranks."""
    local = unit.shape[0]
    everyone = unit.new_empty((local * group.size(), unit.shape[1]))
    dist.all_gather(list(everyone.chunk(group.size())), unit, group=group)
    cosines = everyone @ everyone.T
    cosines.fill_diagonal_(0.0)
    first = group.rank() * local
    return cosines.square().sum(), cosines[first : first + local] @ everyone


def _reduced(unit: Tensor, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """The results of `_gathered`, from the d x d Gram matrix summed over ranks."""
    gram = unit.T @ unit
    dist.all_reduce(gram, group=group)
    itself = unit.square().sum(1).square().sum()
    dist.all_reduce(itself, group=group)
    return gram.square().sum() - itself, unit @ gram


class _GlobalPullingAwayTerm(Function):
    """(code, process_group) -> value over the global batch, the same on every rank."""

    @staticmethod
    def forward(ctx: FunctionCtx, code: Tensor, group: ProcessGroup) -> Tensor:
        ranks = group.size()
        with without_autocast(code.device):
            unit, inverse = _unit_rows(code)
            count = unit.shape[0] * ranks
            pull = _gathered if count <= unit.shape[1] else _reduced
            total, weighted = pull(unit, group)
        pairs = count * (count - 1)
        radial = (weighted * unit).sum(1, keepdim=True)
        # Data-parallel training divides the summed gradient by the number of ranks; the term's gradient is a sum.
        gradient = (weighted - radial * unit) * inverse * (4.0 * ranks / max(pairs, 1))
        ctx.save_for_backward(gradient.reshape(code.shape))
        ctx.code_dtype = code.dtype  # type: ignore[attr-defined]
        return total / max(pairs, 1)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "pulling_away_term with a process group: got create_graph=True, expected a first derivative only; for "
                "second derivatives leave process_group out"
            )
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_value).to(ctx.code_dtype), None


def over_ranks(code: Tensor, process_group: ProcessGroup) -> Tensor:
    """Equation 14 over the codes of all ranks; every rank must pass the same batch size.

    Args:
        code: [N, ...], this rank's codes.
        process_group: the group; NCCL for codes on a GPU, gloo on the CPU.

    Returns:
        Scalar, equal on all ranks. The gradient is the global one times the number of ranks; it cannot be
        differentiated again (a second backward raises).
    """
    value: Tensor = _GlobalPullingAwayTerm.apply(code, process_group)
    return value
