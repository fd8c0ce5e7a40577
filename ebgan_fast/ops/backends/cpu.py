"""The launches of the ops on the CPU: thin calls into the compiled module `ebgan_fast._C`, as `protocol.py` defines
them.

Sums over a batch and scale factors are float64. The kernels round a margin to the dtype of the energies, so that E ==
margin can hold. Every result is bitwise the same at any number of threads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, get_num_threads

from ... import _C
from ..energy import NORMS, Loss
from ..pulling_away import Term
from ..tensors import DTYPES, Batch, Coefficient, Gradient, number


def loss(it: Loss) -> None:
    margin, upstream = it.margin, it.upstream
    if type(margin) is not float or type(upstream) is not float:  # two calls without a change take 0.3 us
        margin, upstream = number(margin), number(upstream)
    _C.loss(DTYPES[it.real.recon.dtype], it.packed((0, margin), (0, upstream)), get_num_threads())


def gradient(batch: Batch, upstream: Tensor, norm: str) -> None:
    if upstream.dtype is not batch.energy.dtype:
        upstream = upstream.to(batch.energy.dtype)
    stride = upstream.stride()[0]  # stride(0) takes 0.2 us, this half
    arguments = NORMS[norm], batch.packed(), upstream.data_ptr(), stride
    _C.energy_gradient(DTYPES[batch.recon.dtype], arguments, get_num_threads())


def hinge(real: Tensor, fake: Tensor, margin: Coefficient, value: Tensor, grad_real: Tensor, grad_fake: Tensor) -> None:
    energies = real.data_ptr(), fake.data_ptr(), grad_real.data_ptr(), grad_fake.data_ptr()
    _C.hinge(DTYPES[value.dtype], (*energies, real.shape[0], fake.shape[0], 0, number(margin), value.data_ptr()))


def term(term: Term) -> None:
    _C.pulling_away(DTYPES[term.code.code.dtype], term.packed((0, number(term.weight))), get_num_threads())


def term_gradient(term: Term, upstream: Coefficient, grad: Gradient) -> None:
    arguments = term.gradient_packed((0, number(upstream)), grad)
    _C.pulling_away_gradient(DTYPES[term.code.code.dtype], arguments, get_num_threads())


def scale(gradients: list[Tensor], to: list[Tensor], upstream: Tensor, expected: Coefficient) -> None:
    came, awaited = number(upstream), number(expected)
    if to is gradients and came == awaited:
        return
    factor = 1.0
    if came != awaited:
        factor = came / awaited if awaited else math.copysign(math.inf, came)  # 0 times inf is NaN, as on a GPU
    for gradient, scaled in zip(gradients, to, strict=True):
        torch.mul(gradient, factor, out=scaled)
