"""The provenance of a figure: the source, the versions and the machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import ebgan_fast
from ebgan_fast.doctor import processor
from ebgan_fast.ops.backends import backends
from ebgan_fast.ops.backends.availability import triton_version
from ebgan_fast.ops.backends.gpu import architecture

from . import tf32

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions in every row of results: `environment`, and when."""

    source_hash: str
    """`source_hash`, of all that was measured."""
    versions: dict[str, str]
    processor: str
    isa: str
    omp_wait_policy: str | None
    omp_num_threads: str | None
    date: str
    """UTC, ISO 8601."""
    tf32: dict[str, bool] | None = None
    """By "matmul" and "cudnn", whether float32 products could be rounded to it. None: not told (older rows)."""


def now() -> str:
    """A row's date."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _compiled_sources(root: Path) -> list[Path]:
    return [*(path for path in (root / "csrc").rglob("*") if path.is_file()), root / "CMakeLists.txt"]


def _sources(root: Path, whole: bool) -> list[Path]:
    package = root / "ebgan_fast"
    python = [*package.rglob("*.py"), *package.rglob("*.json")]
    if not whole:  # what runs in a call of an op
        alone = {package / "functional.py", package / "_checks.py"}
        python = [path for path in python if path.is_relative_to(package / "ops") or path in alone]
    return sorted([*_compiled_sources(root), *python])


def source_hash(root: Path = ROOT, whole: bool = False) -> str:
    """16 hex digits that change with the name or a byte of any file that the ops, or the whole package, are made of."""
    digest = hashlib.sha256()
    for path in _sources(root, whole):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def stale_extension(root: Path = ROOT) -> str | None:
    """The source file that is newer than the built extension, so that the hash would not tell what ran."""
    from ebgan_fast import _C

    built = Path(str(_C.__file__)).stat().st_mtime
    newer = [path for path in sorted(_compiled_sources(root)) if path.stat().st_mtime > built]
    return newer[0].relative_to(root).as_posix() if newer else None


def environment(device: torch.device, backend: str, whole: bool = False) -> dict[str, Any]:
    """The part of a row that is the same for a whole run, of the ops or of the whole package."""
    versions = {"ebgan_fast": ebgan_fast.__version__, "torch": torch.__version__, "python": platform.python_version()}
    return {
        "source_hash": source_hash(whole=whole),
        **(_of_gpu(device, backend, versions) if device.type == "cuda" else _of_processor(versions)),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "tf32": tf32.state(device),
    }


def _of_processor(versions: dict[str, str]) -> dict[str, Any]:
    from ebgan_fast import _C

    build = _C.build_info()
    return {
        "versions": {**versions, "compiler": build["compiler"]},
        "processor": processor(),
        "isa": build["isa"],
    }


def _of_gpu(device: torch.device, backend: str, versions: dict[str, str]) -> dict[str, Any]:
    return {
        "versions": {**versions, "compiler": _compilers(), "driver": _driver()},
        "processor": f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}",
        "isa": f"{architecture(device)}, backend {backend}",
    }


def _compilers() -> str:
    """The compilers of all kernels that can run here."""
    found = []
    if backends()["triton"].available:
        found.append(f"Triton {triton_version()}")
    if backends()["cuda"].available:
        from ebgan_fast import _C

        found.append(_C.cuda.compiler)
    return "; ".join(found)


def _driver() -> str:
    """The version of the GPU's driver, "unknown" where its tool does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told[0] if told else "unknown"
