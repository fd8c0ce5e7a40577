"""Run the nets that score images in full float32, so that scores from a GPU and a CPU can be compared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Compute convolutions and matrix products in full float32 until the block ends.

    By default torch rounds the factors of a GPU's convolutions to tf32, which keeps 10 of float32's 23 bits. A CPU's
    products lose even more bits if the program has called `torch.set_float32_matmul_precision("medium")`. The features
    of the training images may come from a cache that another device filled. A difference of rounding would then count
    as a difference of the images.
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
    """Return torch's switches for precision: the object, the attribute's name, and the value for full float32.

    Since 2.9 the switches have new names, and torch wants a program to use either the old or the new ones.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # torch 2.9
        mkldnn = getattr(torch.backends, "mkldnn", None)
        places = (cudnn.conv, matmul, getattr(mkldnn, "conv", None), getattr(mkldnn, "matmul", None))
        return [(place, "fp32_precision", "ieee") for place in places if hasattr(place, "fp32_precision")]
    return [(cudnn, "allow_tf32", False), (matmul, "allow_tf32", False)]
