"""Arithmetic that all Triton kernels share."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def quotient(a, b):
    """Return a / b rounded to nearest. The plain division of float32 is off by 2 units."""
    if a.dtype == tl.float32:
        return tl.div_rn(a, b + tl.zeros_like(a))
    else:
        return a / b


@triton.jit
def root(a):
    if a.dtype == tl.float32:
        return tl.sqrt_rn(a)
    else:
        return tl.sqrt(a)


@triton.jit
def scalar(p_scalar, IS_POINTER: tl.constexpr, ACC: tl.constexpr):
    """Return a coefficient in ACC, given as a number or as a pointer to a 0-d tensor."""
    if IS_POINTER:
        return tl.load(p_scalar).to(ACC)
    else:
        # The compiler drops a product with 1. It would keep 0 + x, in a register of every thread.
        return (tl.full((), 1.0, tl.float32) * p_scalar).to(ACC)
