"""How tensors reach the compiled kernels of `ebgan_fast._C`: addresses, sizes and strides."""

from __future__ import annotations

import torch

from .layout import Code, Pair

DTYPES = {torch.float64: 0, torch.float32: 1, torch.bfloat16: 2, torch.float16: 3}
NORMS = {"mse": 0, "sse": 1, "l2": 2}

PairArguments = tuple[int, int, int, int, int, int, int, int, int, int]
NO_PAIR: PairArguments = (0, 0, 0, 0, 0, 1, 0, 0, 0, 0)


def pair_arguments(pair: Pair) -> PairArguments:
    return (
        pair.recon.data_ptr(),
        pair.target.data_ptr(),
        pair.recon_stride,
        pair.target_stride,
        pair.n,
        pair.elements,
        0 if pair.grad_recon is None else pair.grad_recon.data_ptr(),
        0 if pair.grad_target is None else pair.grad_target.data_ptr(),
        pair.grad_recon_stride,
        pair.grad_target_stride,
    )


def code_arguments(view: Code) -> tuple[int, int, int, int, int]:
    return DTYPES[view.code.dtype], view.code.data_ptr(), view.stride, view.n, view.elements
