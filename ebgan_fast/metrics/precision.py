"""Full float32 for the nets that judge, so that a GPU's scores compare with a CPU's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions and products in full float32.

    torch rounds the factors of a GPU's convolutions to tf32's 11 bits by default. The training images' features may
    come from a cache that another device filled: what tf32 alters would count as a difference of the images.
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
    """Where torch keeps them, under which name, and what turns tf32 off. Newer versions want one name only used."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # torch 2.9
        return [(cudnn.conv, "fp32_precision", "ieee"), (matmul, "fp32_precision", "ieee")]
    return [(cudnn, "allow_tf32", False), (matmul, "allow_tf32", False)]
