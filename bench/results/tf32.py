"""The switches that let float32 products round their factors to tf32: read, and set for a while.

torch has two sets of switches. After a program has used the newer set, the older set's getters may raise (torch 2.9 and
later: "mix of the legacy and new APIs"). So this module never reads one set alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

MATMUL, CUDNN = "matmul", "cudnn"


def state(device: torch.device) -> dict[str, bool]:
    """Return True for "matmul" and "cudnn" if tf32 is on there for tensors of the device; never on the CPU."""
    if device.type != "cuda":
        return {MATMUL: False, CUDNN: False}
    return {MATMUL: _matmul(), CUDNN: _cudnn()}


def _matmul() -> bool:
    newer = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
    return torch.get_float32_matmul_precision() != "highest" if newer is None else newer == "tf32"


def _cudnn() -> bool:
    conv = getattr(torch.backends.cudnn, "conv", None)  # before torch 2.9 there is none
    newer = getattr(conv, "fp32_precision", None)
    return bool(torch.backends.cudnn.allow_tf32) if newer is None else newer == "tf32"


@contextlib.contextmanager
def switched(on: bool) -> Iterator[None]:
    """Compute products and convolutions with tf32, or without, inside the block."""
    try:
        matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        with _switched_anew(on):
            yield
        return
    # Both sets can be read after the older switches were set.
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn


@contextlib.contextmanager
def _switched_anew(on: bool) -> Iterator[None]:
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "tf32" if on else "ieee"
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
