"""The pulling-away term over the batches of all ranks of a process group.

The ranks exchange the smaller of two things. If the global batch is at most as large as a code is wide, they exchange
the codes (all-gather). Otherwise they exchange the d x d Gram matrix of the normalized codes (all-reduce). Backward
needs no communication.

A rank must know from its own codes what the others will send. Ranks with different sizes would each compute a different
number, or wait for each other. So the ranks compare their sizes first, and if they differ, every rank raises the same
error.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx
from torch.compiler import is_compiling

from .detours import in_transform
from .op import LIBRARY, NAMESPACE, Function, in_capture, raw
from .tensors import DTYPES, accumulation_dtype, row_scales, sample_rows, without_autocast

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


# ---- The comparison of sizes and dtypes


_AGREED: weakref.WeakSet[ProcessGroup] = weakref.WeakSet()
"""The groups whose ranks have already compared their sizes, once for all calls. Every rank holds the same groups."""

_NAMED_RANKS = 4  # named in an error for each size


def _compare(n: int, d: int, dtype: torch.dtype, device: torch.device, group: ProcessGroup) -> None:
    """Raise the same ValueError on every rank if the ranks' codes don't have the same sizes and dtype of sums.

    The comparison takes 0.2 ms between two processes with one core each. If reading the result waits for a device, the
    ranks compare only once per group.

    Args:
        n, d, dtype, device: the batch size, width, dtype and device of this rank's codes.
        group: the process group. All of its ranks must call this function.
    """
    at_once = _reads_at_once(device, group)
    if not at_once:
        if group in _AGREED:
            return
        if in_capture(device):
            raise RuntimeError(
                "pulling_away_term with a process group: got the group's first call within a CUDA graph's capture, "
                "expected it before, because there the ranks compare their batch sizes, which waits for the device. "
                "Call it once on every rank, with codes of the same shape, before the capture"
            )
    own = (n, d, DTYPES[dtype])
    everyone = _gathered_numbers(own, torch.device("cpu") if at_once else device, group)
    if everyone.count(own) < len(everyone):
        _check_alike(everyone, group)
    if not at_once:
        _AGREED.add(group)


def _reads_at_once(device: torch.device, group: ProcessGroup) -> bool:
    """Return True if the ranks can exchange numbers without waiting for a device.

    They then exchange the numbers on the CPU, which gloo can also do for codes on a GPU. A group of gloo and NCCL goes
    by the codes' device.
    """
    return device.type == "cpu" or group.name() == "gloo"


def _gathered_numbers(own: Sequence[int], device: torch.device, group: ProcessGroup) -> list[tuple[int, ...]]:
    """Return the numbers of every rank, in the order of the group."""
    numbers = torch.tensor(own, device=device)
    everyone = numbers.new_empty((group.size(), len(own)))
    dist.all_gather(list(everyone.unbind()), numbers, group=group)
    return list(map(tuple, everyone.tolist()))


def _check_alike(everyone: Sequence[tuple[int, ...]], group: ProcessGroup) -> None:
    """Raise a ValueError if ranks differ in (batch size, width, number of the dtype in `DTYPES`).

    Dtypes whose sums run in the same dtype may differ, as happens under autocast.
    """
    dtypes = list(DTYPES)
    sizes, widths, numbers = (set(column) for column in zip(*everyone, strict=True))
    expected, ways_out = [], []
    if len(sizes) > 1:
        expected.append("one batch size")
        ways_out.append("DataLoader(drop_last=True) leaves out a smaller last batch")
    if len(widths) > 1:
        expected.append("one width")
        ways_out.append("take the codes from one encoder")
    if len({accumulation_dtype(dtypes[number]) for number in numbers}) > 1:
        expected.append("one dtype")
        ways_out.append("convert with .to()")
    if not expected:
        return
    owners: dict[str, list[int]] = {}
    for rank, (n, d, number) in zip(_global_ranks(group), everyone, strict=True):
        owners.setdefault(f"[{n}, {d}] in {dtypes[number]}", []).append(rank)
    got = " and ".join(f"{what} on {_named(ranks)}" for what, ranks in owners.items())
    raise ValueError(
        f"code: got {got}, expected {' and '.join(expected)} over all ranks of process_group ({'; '.join(ways_out)})"
    )


def _global_ranks(group: ProcessGroup) -> Sequence[int]:
    try:
        return dist.get_process_group_ranks(group)
    except KeyError:  # torch doesn't know a group that was destroyed or made by hand
        return range(group.size())


def _named(ranks: Sequence[int]) -> str:
    """Return the ranks as text: the first few, and the number of the others."""
    *others, last = map(str, ranks[:_NAMED_RANKS])
    if len(ranks) > _NAMED_RANKS:
        others, last = [*others, last], f"{len(ranks) - _NAMED_RANKS} more"
    return f"ranks {', '.join(others)} and {last}" if others else f"rank {last}"


# In a graph, `_compare` is an op. The collectives behind it read its result, so they can't be moved before it.


def _compared_by_name(unit: Tensor, dtype: int, group: str) -> Tensor:
    n, d = unit.shape
    _compare(n, d, list(DTYPES)[dtype], unit.device, dist.distributed_c10d._resolve_process_group(group))  # type: ignore[arg-type]
    return unit.clone()


LIBRARY.define("compared_over_ranks(Tensor unit, int dtype, str group) -> Tensor")
LIBRARY.impl("compared_over_ranks", _compared_by_name, "CompositeExplicitAutograd")
torch.library.register_fake(
    f"{NAMESPACE}::compared_over_ranks", lambda unit, dtype, group: torch.empty_like(unit), lib=LIBRARY
)


def _compared(unit: Tensor, dtype: torch.dtype, group: ProcessGroup) -> Tensor:
    """Return the unit rows of a code of this dtype, after the comparison of all ranks' sizes and dtypes."""
    if is_compiling() or unit.is_meta or type(unit) is not Tensor:
        compared: Tensor = raw("compared_over_ranks")(unit, DTYPES[dtype], group.group_name)
        return compared
    n, d = unit.shape
    _compare(n, d, dtype, unit.device, group)
    return unit


# ---- The term


def _unit_rows(code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows of a code with length 1, the scale of each row, and 1 / the length of each scaled row.

    A zero row stays zero, and its 1/length is 0.
    """
    rows = sample_rows(code.detach())
    scale = row_scales(rows)
    rows = rows * scale
    lengths = rows.square().sum(1, keepdim=True).sqrt()
    inverse = torch.where(lengths == 0, 0.0, 1.0 / lengths)
    return rows * inverse, scale, inverse


def _gathered(unit: Tensor, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """Return N(N-1) times the term, and W, computed from the codes of all ranks.

    The gradient is 4 (W - (w_i.u_i) u_i) / length_i.
    """
    local = unit.shape[0]
    everyone = unit.new_empty((local * group.size(), unit.shape[1]))
    dist.all_gather(list(everyone.chunk(group.size())), unit, group=group)
    cosines = everyone @ everyone.T
    cosines.fill_diagonal_(0.0)
    first = group.rank() * local
    return cosines.square().sum(), cosines[first : first + local] @ everyone


def _reduced(unit: Tensor, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """Return the same as `_gathered`, computed from the d x d Gram matrix summed over ranks."""
    d = unit.shape[1]
    # One message: with 64 codes of width 32 it took 0.34 ms, and two messages 0.55 (gloo, two processes with a core
    # each).
    sums = unit.new_empty(d * d + 1)
    gram, itself = sums[:-1].view(d, d), sums[-1]
    torch.mm(unit.T, unit, out=gram)
    itself.copy_(unit.square().sum(1).square().sum())
    dist.all_reduce(sums, group=group)
    return gram.square().sum() - itself, unit @ gram


class _GlobalPullingAwayTerm(Function):
    """The pulling-away term over the global batch: (code, process_group) -> value, the same on every rank."""

    @staticmethod
    def forward(ctx: FunctionCtx, code: Tensor, group: ProcessGroup) -> Tensor:
        ranks = group.size()
        with without_autocast(code.device):
            unit, scale, inverse = _unit_rows(code)
            unit = _compared(unit, code.dtype, group)
            count = unit.shape[0] * ranks
            pull = _gathered if count <= unit.shape[1] else _reduced
            total, weighted = pull(unit, group)
        pairs = count * (count - 1)
        radial = (weighted * unit).sum(1, keepdim=True)
        # Data-parallel training divides the sum of the gradients by the number of ranks, so this gradient is multiplied
        # by it.
        gradient = (weighted - radial * unit) * inverse * (4.0 * ranks / max(pairs, 1))
        ctx.save_for_backward(gradient, scale)
        ctx.code_shape, ctx.code_dtype = code.shape, code.dtype  # type: ignore[attr-defined]
        return total / max(pairs, 1)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "pulling_away_term with a process group: got create_graph=True, expected a first derivative only; for "
                "second derivatives leave process_group out"
            )
        gradient, scale = ctx.saved_tensors
        return (gradient * grad_value * scale).reshape(ctx.code_shape).to(ctx.code_dtype), None


def pulling_away_term(code: Tensor, process_group: ProcessGroup) -> Tensor:
    """Return the pulling-away term over the codes of all ranks (equation 14).

    Args:
        code: [N, ...], this rank's codes. Every rank must have the same batch size and width.
        process_group: the group: NCCL for codes on a GPU, gloo on the CPU.

    Returns:
        Scalar, equal on all ranks. The gradient is the global one times the number of ranks.

    Raises:
        ValueError: if the ranks' codes differ in batch size, width or dtype of sums. All ranks raise the same error.
        RuntimeError: in a transform or forward mode, in backward with create_graph, or if the group's first call is
            within a CUDA graph's capture.
    """
    # The ranks exchange plain numbers, without what a transform or forward mode adds to them.
    if in_transform() or forward_ad.unpack_dual(code).tangent is not None:
        raise RuntimeError(
            "pulling_away_term with a process group: got a code inside a transform of torch.func or forward mode, "
            "expected plain tensors; leave process_group out there, for the term of this rank's codes"
        )
    value: Tensor = _GlobalPullingAwayTerm.apply(code, process_group)
    return value
