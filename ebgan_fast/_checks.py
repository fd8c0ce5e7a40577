"""Checks of what users pass. Each error gives what came, what was expected, and the way out."""

from __future__ import annotations

import math
import numbers
import sys
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from .ops.energy import NORMS
from .ops.tensors import Coefficient

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

FLOATING = frozenset((torch.float64, torch.float32, torch.bfloat16, torch.float16))
REDUCTIONS = ("none", "mean", "sum")
_LARGEST = sys.float_info.max  # an int may be finite and larger


def check_norm(norm: str) -> None:
    if norm not in NORMS:
        raise ValueError(f"norm: got {norm!r}, expected one of {', '.join(map(repr, NORMS))}")


def check_batch(name: str, batch: Tensor) -> None:
    """A floating-point, dense, ordinary tensor of at least one dimension, samples of at least one element."""
    # The usual case in one line: five checks of four tensors would cost as much as a small kernel.
    if (
        type(batch) is Tensor
        and batch.dtype in FLOATING
        and batch.layout is torch.strided
        and batch.numel()
        and batch.dim()
    ):
        return
    if not isinstance(batch, Tensor):
        raise TypeError(f"{name}: got {type(batch).__name__}, expected a torch.Tensor")
    if hasattr(batch, "full_tensor"):
        raise TypeError(
            f"{name}: got a DTensor, expected a local tensor. Pass {name}.to_local() (and process_group= for a "
            f"pulling-away term over all ranks) or {name}.full_tensor()"
        )
    if batch.dtype not in FLOATING:
        raise TypeError(
            f"{name}: got {batch.dtype}, expected float64, float32, bfloat16 or float16 (convert with .to())"
        )
    if batch.layout != torch.strided:
        raise TypeError(f"{name}: got layout {batch.layout}, expected a dense tensor (convert with .to_dense())")
    if batch.dim() == 0:
        raise ValueError(f"{name}: got a 0-d tensor, expected [N, ...] with the samples along dimension 0")
    if batch.dim() > 1 and 0 in batch.shape[1:]:
        raise ValueError(f"{name}: got shape {tuple(batch.shape)}, expected samples of at least one element")


def check_same(name: str, batch: Tensor, other_name: str, other: Tensor) -> None:
    """Both tensors of a pair have one shape and one device."""
    if batch.shape != other.shape:
        raise ValueError(
            f"{name} and {other_name}: got shapes {tuple(batch.shape)} and {tuple(other.shape)}, expected the same "
            "(nothing is broadcast)"
        )
    check_same_device(name, batch, other_name, other)


def check_same_device(name: str, batch: Tensor, other_name: str, other: Tensor) -> None:
    if batch.device != other.device:
        raise ValueError(
            f"{name} and {other_name}: got tensors on {batch.device} and {other.device}, expected one device"
        )


def check_same_batch_size(name: str, batch: Tensor, other_name: str, other: Tensor) -> None:
    if batch.shape[0] != other.shape[0]:
        raise ValueError(
            f"{name} and {other_name}: got batches of {batch.shape[0]} and {other.shape[0]} samples, expected one size"
        )


def check_energies(name: str, energies: Tensor) -> None:
    check_batch(name, energies)
    if energies.dim() != 1:
        raise ValueError(
            f"{name}: got shape {tuple(energies.shape)}, expected [N]: one energy per sample "
            "(reconstruction_energy gives them)"
        )


def check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: got {reduction!r}, expected one of {', '.join(map(repr, REDUCTIONS))}")


def has_others(process_group: ProcessGroup) -> bool:
    """Return True for a process group, checked, in which this process is not alone."""
    if isinstance(process_group, dist.ProcessGroup) or hasattr(process_group, "allgather"):
        return process_group.size() > 1
    if isinstance(process_group, int) and process_group == dist.GroupMember.NON_GROUP_MEMBER:
        raise ValueError(
            "process_group: got a group that this process is not in, expected one that it is in, or None for the term "
            "of its own codes"
        )
    raise TypeError(
        f"process_group: got {type(process_group).__name__}, expected a torch.distributed.ProcessGroup "
        "(dist.new_group() makes one, and get_group() of a DeviceMesh gives one)"
    )


def coefficient(name: str, value: Coefficient) -> Coefficient:
    """Return a margin or weight as the ops take it, checked: a number >= 0, or a 0-d tensor, whose value is not looked
    at (that would wait for the device)."""
    if type(value) is float and 0 <= value < math.inf:  # the usual case, in 0.2 us
        return value
    value = _scalar(name, value)
    if not isinstance(value, Tensor) and not 0 <= value <= _LARGEST:
        raise ValueError(f"{name}: got {value}, expected a finite number >= 0")
    return value


def upstream(value: Coefficient | None) -> Coefficient | None:
    """Return an upstream gradient as the ops take it, checked: None, a finite number other than 0, or a 0-d tensor,
    whose value is not looked at."""
    if value is None:
        return None
    meaning = "the gradient that the loss will get in backward (leave it out where that is not known)"
    return factor("upstream", value, meaning)


def factor(name: str, value: Coefficient, meaning: str) -> Coefficient:
    """Return what gradients are multiplied by, checked: a finite number other than 0, or a 0-d tensor."""
    value = _scalar(name, value)
    if not isinstance(value, Tensor) and not 0 < abs(value) <= _LARGEST:
        raise ValueError(f"{name}: got {value}, expected a finite number other than 0: {meaning}")
    return value


def weighs(pt_weight: Coefficient) -> bool:
    """Return True for a weight that asks for a code; the value of a tensor is not looked at."""
    return isinstance(pt_weight, Tensor) or pt_weight != 0


def check_weighs_nothing(pt_weight: Coefficient) -> None:
    """A weight that somebody gave beside no code would be passed over in silence, so it must be 0."""
    if weighs(pt_weight):
        got = "a tensor" if isinstance(pt_weight, Tensor) else pt_weight
        raise ValueError(
            f"pt_weight: got {got} without a code, expected a code too (code=, what the encoder makes of the generated "
            "batch), or no pt_weight: left out, it is 0.1 with a code and nothing without"
        )


def _scalar(name: str, value: Coefficient) -> Coefficient:
    """A number as torch and the kernels take it (NumPy's and fractions become a float), or a 0-d tensor."""
    if isinstance(value, Tensor):
        if value.dim() != 0:
            raise ValueError(f"{name}: got a tensor of shape {tuple(value.shape)}, expected a number or a 0-d tensor")
        if not value.dtype.is_floating_point:
            raise TypeError(f"{name}: got a tensor of {value.dtype}, expected a floating-point 0-d tensor")
        return value
    if type(value) in (float, int) or isinstance(value, (torch.SymFloat, torch.SymInt)):
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        if getattr(value, "ndim", None) == 0 and hasattr(value, "__array__"):  # torch.compile sees NumPy's numbers so
            tensor = torch.as_tensor(value)
            return _scalar(name, tensor if tensor.dtype == torch.bool else tensor.double())
        raise TypeError(f"{name}: got {type(value).__name__}, expected a number or a 0-d tensor")
    try:
        return float(value)
    except OverflowError:
        return math.inf
