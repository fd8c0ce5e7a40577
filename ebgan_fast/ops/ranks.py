"""The pulling-away term over the batches of all ranks of a process group.

Ranks exchange whichever is smaller: the codes (all-gather, while the global batch is at most as large as a code is
wide) or the d x d Gram matrix of the normalised codes (all-reduce). Backward needs no communication.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .op import Function
from .tensors import sample_rows, without_autocast

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


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


def pulling_away_term(code: Tensor, process_group: ProcessGroup) -> Tensor:
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
