"""The device that a benchmark runs on: its kernels, its watches, and the files of its results."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ebgan_fast.ops.backends import backends, choose

from .cuda_timing import Called, Replayed
from .provenance import ROOT
from .timing import WallClock, Watch

RESULTS = ROOT / "bench" / "results"
# Enough turns that no large input waits in the cache for its next one; small ones stay there, as after a layer.
_MOST_COPIES = 16


@dataclass(frozen=True)
class Device:
    torch: torch.device
    watches: Mapping[str, Watch]
    """By what they time: "called", "replayed"."""
    name: str
    """In the names of result files."""
    backend: str
    """The one that runs ebgan_fast's ops."""
    others: tuple[str, ...] = ()
    """Its other kernels that can run here."""
    cache: int = 0
    """Bytes that inputs must exceed not to be found in the last cache; 0 where that isn't known."""

    def results(self, command: str) -> Path:
        return RESULTS / f"{command}-{self.name}.jsonl"

    def copies(self, size: int) -> int:
        """Over how many copies of inputs of `size` bytes to take turns."""
        return max(1, min(_MOST_COPIES, -(-2 * self.cache // size))) if self.cache else 1


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def cpu() -> Device:
    """Raises ValueError where the kernels that are to be measured are missing."""
    backend = _backend("cpu", ("cpu",))
    return Device(torch.device("cpu"), {"called": WallClock()}, "cpu", backend, (), _last_cache())


def _last_cache() -> int:
    """Bytes of the processor's last cache, or 0."""
    try:
        return max(0, os.sysconf("SC_LEVEL3_CACHE_SIZE"))
    except (AttributeError, OSError, ValueError):  # Windows, macOS
        return 0


def named(device_type: str) -> Device:
    """`cpu` or `gpu`."""
    return cpu() if device_type == "cpu" else gpu()


def gpu() -> Device:
    """The current GPU. Raises ValueError where there is none, or the kernels that are to be measured are missing."""
    if not torch.cuda.is_available():
        raise ValueError(f"torch {torch.__version__} sees no GPU, and this needs one: `ebgan-fast doctor` says more")
    kernels = ("triton", "cuda")
    backend = _backend("cuda", kernels)
    device = torch.device("cuda", torch.cuda.current_device())
    properties = torch.cuda.get_device_properties(device)
    watches = {"called": Called(), "replayed": Replayed()}
    others = tuple(name for name in kernels if name != backend and backends()[name].available)
    return Device(device, watches, slug(properties.name), backend, others, properties.L2_cache_size)


def _backend(device_type: str, expected: tuple[str, ...]) -> str:
    """The one that takes its tensors."""
    backend = choose(device_type)
    if backend not in expected:
        why = "; ".join(f"{name}: {backends()[name].reason}" for name in expected)
        raise ValueError(
            f"got ebgan_fast's backend {backend}, expected {' or '.join(expected)} ({why}): see `ebgan-fast doctor`"
        )
    return backend
