"""The device that a benchmark runs on: its kernels, its watches, and the files of its results."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ebgan_fast.ops.backends import backends, choose

from ..results.provenance import ROOT
from .watches import Called, Replayed, WallClock, Watch

RESULTS = ROOT / "bench" / "results"
# Turns enough that no large input is still in the cache at its next turn. Small ones stay there, as after a layer.
_MOST_COPIES = 16


@dataclass(frozen=True)
class Device:
    """The device that is measured, and what ebgan_fast runs there."""

    torch: torch.device
    watches: Mapping[str, Watch]
    """The watches by name: "called", "replayed"."""
    name: str
    """The device's part of the names of result files."""
    backend: str
    """The backend that runs ebgan_fast's ops."""
    others: tuple[str, ...] = ()
    """The backends of the device that can run here beside it."""
    cache: int = 0
    """Bytes of the last cache, which holds smaller inputs between two turns; 0 if not known."""

    def results(self, command: str) -> Path:
        """Return the file of a command's committed results."""
        return RESULTS / f"{command}-{self.name}.jsonl"

    def copies(self, size: int) -> int:
        """Return the number of copies to take turns over, of inputs of `size` bytes."""
        return max(1, min(_MOST_COPIES, -(-2 * self.cache // size))) if self.cache else 1


def slug(text: str) -> str:
    """Return a text in lower case, with hyphens for all that is no letter or digit."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def cpu() -> Device:
    """Return this processor. Raises ValueError if the kernels that are to be measured are missing."""
    backend = _backend("cpu", ("cpu",))
    return Device(torch.device("cpu"), {"called": WallClock()}, "cpu", backend, (), _last_cache())


def _last_cache() -> int:
    """Return the bytes of the processor's last cache, or 0 if not known."""
    try:
        return max(0, os.sysconf("SC_LEVEL3_CACHE_SIZE"))
    except (AttributeError, OSError, ValueError):  # Windows, macOS
        return 0


def named(device_type: str) -> Device:
    """Return this processor for "cpu", and the current GPU for "cuda"."""
    return cpu() if device_type == "cpu" else gpu()


def gpu() -> Device:
    """Return the current GPU.

    Raises:
        ValueError: There is no GPU, or the kernels that are to be measured are missing.
    """
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
    """Return the backend that takes the tensors of a type of device. Raises ValueError if it is not expected."""
    backend = choose(device_type)
    if backend not in expected:
        why = "; ".join(f"{name}: {backends()[name].reason}" for name in expected)
        raise ValueError(
            f"got ebgan_fast's backend {backend}, expected {' or '.join(expected)} ({why}): see `ebgan-fast doctor`"
        )
    return backend
