"""Full float32 for the nets that judge, so that a GPU's scores compare with a CPU's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Take convolutions and products in full float32.

    torch rounds the factors of a GPU's convolutions to tf32 by default, which stores 10 bits of float32's 23. A CPU's
    products lose more where a program allows it by `torch.set_float32_matmul_precision("medium")`. The training images'
    features may come from a cache that another device filled: what rounding alters would count as a difference of the
    images.
    """
    switches = _switches()
    before = [getattr(place, name) for place, name, _ in switches]
    try:
        for place, name, exact in switches:
            setattr(place, name, exact)
        yield
    finally:
        for (place, name, _), value in zip(switches, before, strict=True):
            setattr(place, name, value)


def _switches() -> list[tuple[Any, str, object]]:
    """The places where torch keeps them, with the name and the value that asks for full float32.

    Newer versions want one name only used.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # torch 2.9
        mkldnn = getattr(torch.backends, "mkldnn", None)
        places = (cudnn.conv, matmul, getattr(mkldnn, "conv", None), getattr(mkldnn, "matmul", None))
        return [(place, "fp32_precision", "ieee") for place in places if hasattr(place, "fp32_precision")]
    return [(cudnn, "allow_tf32", False), (matmul, "allow_tf32", False)]
