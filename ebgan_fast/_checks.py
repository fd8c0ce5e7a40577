"""Checks of users' arguments. Each error says what was given, what was expected, and how to fix it."""

from __future__ import annotations

import math
import numbers
import sys
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor
from torch.compiler import is_compiling

from .ops.energy import NORMS
from .ops.tensors import Coefficient

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

FLOATING = frozenset((torch.float64, torch.float32, torch.bfloat16, torch.float16))
REDUCTIONS = ("none", "mean", "sum")
_LARGEST = sys.float_info.max  # an int can be larger and finite


def check_norm(norm: str) -> None:
    if norm not in NORMS:
        raise ValueError(f"norm: got {norm!r}, expected one of {', '.join(map(repr, NORMS))}")


def check_batch(name: str, batch: Tensor) -> None:
    """Raise an error unless `batch` is a dense floating-point tensor, [N, ...], whose samples have at least one
    element.

    Raises:
        TypeError: if it is no tensor, not dense, or not float64, float32, bfloat16 or float16.
        ValueError: if it has no dimension, or its samples have no element.
    """
    # The usual case is one expression: six separate checks of four tensors would take as long as a small kernel.
    if (
        type(batch) is Tensor
        and batch.dtype in FLOATING
        and batch.layout is torch.strided
        and batch.numel()
        and batch.dim()
        and not batch.is_nested
    ):
        return
    if not isinstance(batch, Tensor):
        raise TypeError(f"{name}: got {type(batch).__name__}, expected a torch.Tensor")
    _check_kind(name, batch)
    if batch.dtype not in FLOATING:
        way_out = ".dequantize()" if batch.is_quantized else ".to()"
        raise TypeError(
            f"{name}: got {batch.dtype}, expected float64, float32, bfloat16 or float16 (convert with {way_out})"
        )
    if batch.dim() == 0:
        raise ValueError(f"{name}: got a 0-d tensor, expected [N, ...] with the samples along dimension 0")
    if batch.dim() > 1 and 0 in batch.shape[1:]:
        raise ValueError(f"{name}: got shape {tuple(batch.shape)}, expected samples of at least one element")


def _check_kind(name: str, tensor: Tensor) -> None:
    """Raise a TypeError if the kernels can't read the tensor's numbers: it is nested, sparse, masked or a DTensor."""
    if tensor.is_nested:
        raise TypeError(
            f"{name}: got a nested tensor, expected a dense one. Pad its parts (.to_padded_tensor(0.0)), or call the "
            "op for each of them (.unbind())"
        )
    if hasattr(tensor, "full_tensor"):
        raise TypeError(
            f"{name}: got a DTensor, expected a local tensor. Pass {name}.to_local() (and process_group= for a "
            f"pulling-away term over all ranks) or {name}.full_tensor()"
        )
    if hasattr(tensor, "get_mask"):
        raise TypeError(
            f"{name}: got a MaskedTensor, expected a plain tensor. Pass {name}.get_data(), or {name}.to_tensor(value), "
            "which has the value where it is masked"
        )
    if tensor.layout != torch.strided:
        raise TypeError(f"{name}: got layout {tensor.layout}, expected a dense tensor (convert with .to_dense())")


def check_same(name: str, batch: Tensor, other_name: str, other: Tensor) -> None:
    """Raise a ValueError unless both tensors of a pair have the same shape and device."""
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
    if (  # the usual case, and an empty batch
        type(energies) is Tensor
        and energies.dtype in FLOATING
        and energies.layout is torch.strided
        and energies.dim() == 1
        and not energies.is_nested
    ):
        return
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
    """Return True if the process group has other processes than this one.

    Raises:
        ValueError: if this process is not in the group.
        TypeError: if `process_group` is no process group.
    """
    # Tests and launchers pass wrappers around a group, which are no ProcessGroup by type but have its methods.
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


def coefficient(name: str, value: Coefficient, beside: object = None) -> Coefficient:
    """Return a checked margin or weight in the form that the ops take: a number >= 0, or a 0-d tensor.

    The value of a tensor is not read, as that would wait for the device. `beside` is the batch that the coefficient is
    used with. It is not checked.
    """
    if type(value) is float and 0 <= value < math.inf:  # the usual case, in 0.2 us
        return value
    value = _scalar(name, value, beside)
    if not isinstance(value, Tensor) and not 0 <= value <= _LARGEST:
        raise ValueError(f"{name}: got {value}, expected a finite number >= 0")
    return value


def recordable(name: str, value: Coefficient) -> Coefficient:
    """Return a checked margin or weight in a form that torch's own ops can save for backward."""
    if isinstance(value, Tensor):
        _check_kind(name, value)
        if torch.is_grad_enabled() and not is_compiling() and value.is_inference():
            return value.clone()  # torch refuses to save an inference tensor for backward
    return value


def upstream(value: Coefficient | None, beside: object) -> Coefficient | None:
    """Return a checked upstream gradient in the form that the ops take: None, a finite number other than 0, or a 0-d
    tensor.

    The value of a tensor is not read. `beside` is the batch that the gradient is used with.
    """
    if value is None:
        return None
    meaning = "the gradient that the loss will get in backward (leave it out where that is not known)"
    return factor("upstream", value, meaning, beside)


def factor(name: str, value: Coefficient, meaning: str, beside: object) -> Coefficient:
    """Return a checked factor of gradients: a finite number other than 0, or a 0-d tensor.

    `meaning` ends the error message. `beside` is a tensor that the factor is used with.
    """
    value = _scalar(name, value, beside)
    if not isinstance(value, Tensor) and not 0 < abs(value) <= _LARGEST:
        raise ValueError(f"{name}: got {value}, expected a finite number other than 0: {meaning}")
    return value


def weighs(pt_weight: Coefficient) -> bool:
    """Return True if the weight needs a code: a number other than 0, or any tensor, whose value is not read."""
    return isinstance(pt_weight, Tensor) or pt_weight != 0


def check_weighs_nothing(pt_weight: Coefficient) -> None:
    """Raise a ValueError if a weight other than 0 is given without a code, as it would have no effect."""
    if weighs(pt_weight):
        got = "a tensor" if isinstance(pt_weight, Tensor) else pt_weight
        raise ValueError(
            f"pt_weight: got {got} without a code, expected a code too (code=, what the encoder makes of the generated "
            "batch), or no pt_weight: left out, it is 0.1 with a code and nothing without"
        )


def _scalar(name: str, value: Coefficient, beside: object) -> Coefficient:
    """Return a 0-d tensor, or a number that torch and the kernels take. NumPy's and fractions become a float."""
    if isinstance(value, Tensor):
        is_usual = type(value) is Tensor and value.layout is torch.strided and not value.is_meta
        if is_usual and value.dim() == 0 and value.dtype in FLOATING:
            return value
        if value.is_nested:
            raise TypeError(f"{name}: got a nested tensor, expected a number or a 0-d tensor")
        _check_kind(name, value)
        if value.is_meta and isinstance(beside, Tensor) and not beside.is_meta:
            raise ValueError(
                f"{name}: got a tensor on meta, which has no value, beside a batch on {beside.device}, expected a "
                "number or a tensor there (a Module that was made on meta: .to_empty(device=...), and load its state)"
            )
        if value.dim() != 0:
            raise ValueError(f"{name}: got a tensor of shape {tuple(value.shape)}, expected a number or a 0-d tensor")
        if not value.dtype.is_floating_point:
            raise TypeError(f"{name}: got a tensor of {value.dtype}, expected a floating-point 0-d tensor")
        return value
    if type(value) in (float, int) or isinstance(value, (torch.SymFloat, torch.SymInt)):
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        # torch.compile traces NumPy's numbers as 0-d arrays, which lack `__array__` up to torch 2.9. Before 2.9, torch
        # refuses NumPy's bool with a message of its own, so a bool is not converted here.
        is_array = getattr(value, "ndim", None) == 0 and (is_compiling() or hasattr(value, "__array__"))
        if is_array and type(value).__name__ not in ("bool", "bool_"):
            tensor = torch.as_tensor(value)
            return _scalar(name, tensor if tensor.dtype == torch.bool else tensor.double(), beside)
        raise TypeError(f"{name}: got {type(value).__name__}, expected a number or a 0-d tensor")
    try:
        return float(value)
    except OverflowError:
        return math.inf
