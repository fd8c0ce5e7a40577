"""The launch that multiplies gradients if backward gets another upstream gradient than expected.

Only the device knows the upstream that came.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...tensors import Coefficient, accumulation_dtype
from . import launch, scaling_kernels
from .energy import acc_of, coefficient
from .launch import Launch

_BLOCK = 4096
_NUM_WARPS = 8  # 16 elements a thread: four 128-bit loads of float32
# If the upstream is the expected one, the programs only start and end. So there are no more than a large GPU holds at
# once.
MOST_PROGRAMS = 1024
_SLOTS = 4  # gradients in one launch: as many as an op has


def scale(gradients: list[Tensor], to: list[Tensor], upstream: Tensor, expected: Coefficient) -> None:
    """Multiply gradients by upstream / expected, with one launch for up to four gradients."""
    if not gradients:
        return
    wide = accumulation_dtype(gradients[0].dtype)
    value, is_pointer = coefficient(expected, wide, upstream.device)
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
            "expected": value,
            **pointers,
            **{f"count_{slot}": count for slot, count in enumerate(counts)},
            "EXPECTED_IS_POINTER": is_pointer,
            "IN_PLACE": to is gradients,
            "ACC": acc_of(wide),
            "BLOCK": _BLOCK,
        }
        programs = min(-(-longest // _BLOCK), MOST_PROGRAMS)
        launch.run(Launch(scaling_kernels.multiply_gradients, (programs,), arguments, _NUM_WARPS))
