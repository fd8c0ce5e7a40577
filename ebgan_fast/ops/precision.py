"""The user's word on float32 products, from torch's switches."""

from __future__ import annotations

import torch


def allows_tf32() -> bool:
    """Return True if float32 products on a GPU may round their factors to tf32, as torch's own products do then.

    `torch.backends.cuda.matmul.fp32_precision` (torch 2.9) says "tf32" whichever way that was asked for: there, in
    `torch.backends.fp32_precision`, which it inherits from, or by `torch.set_float32_matmul_precision`. The getter of
    that last function raises once a program has used the switches, so only an older torch is asked by it.
    """
    precision = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
    if precision is None:
        return torch.get_float32_matmul_precision() != "highest"
    return bool(precision == "tf32")
