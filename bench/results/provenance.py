"""The provenance of a figure: the source, the versions and the machine, and the names of processors for a reader."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch

import ebgan_fast
from ebgan_fast.doctor import processor
from ebgan_fast.ops.backends import backends
from ebgan_fast.ops.backends.availability import triton_version
from ebgan_fast.ops.backends.gpu import architecture

from . import tf32

ROOT = Path(__file__).resolve().parents[2]
"""The root of the repository."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions in every row of results: those that `environment` finds, and the date."""

    source_hash: str
    """The `source_hash` of all that was measured."""
    versions: dict[str, str]
    processor: str
    isa: str
    omp_wait_policy: str | None
    omp_num_threads: str | None
    date: str
    """UTC, ISO 8601."""
    tf32: dict[str, bool] | None = None
    """True for "matmul" or "cudnn" if its float32 products could be rounded to tf32. None: not noted (older rows)."""


def now() -> str:
    """Return the date of a row, UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _compiled_sources(root: Path) -> list[Path]:
    return [*(path for path in (root / "csrc").rglob("*") if path.is_file()), root / "CMakeLists.txt"]


def _sources(root: Path, whole: bool) -> list[Path]:
    package = root / "ebgan_fast"
    python = [*package.rglob("*.py"), *package.rglob("*.json")]
    if not whole:  # the files that run in a call of an op
        alone = {package / "functional.py", package / "_checks.py"}
        python = [path for path in python if path.is_relative_to(package / "ops") or path in alone]
    return sorted([*_compiled_sources(root), *python])


def source_hash(root: Path = ROOT, whole: bool = False) -> str:
    """Return 16 hex digits that change with the name or a byte of any source file.

    Args:
        root: The root of the repository.
        whole: True for the files of the whole package, False for those of the ops.
    """
    digest = hashlib.sha256()
    for path in _sources(root, whole):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def stale_extension(root: Path = ROOT) -> str | None:
    """Return a source file that is newer than the built extension, or None. The hash then tells another story than the
    extension that runs."""
    from ebgan_fast import _C

    built = Path(str(_C.__file__)).stat().st_mtime
    newer = [path for path in sorted(_compiled_sources(root)) if path.stat().st_mtime > built]
    return newer[0].relative_to(root).as_posix() if newer else None


def environment(device: torch.device, backend: str, whole: bool = False) -> dict[str, Any]:
    """Return the conditions that are the same for a whole run.

    Args:
        device: The device that is measured.
        backend: The backend that runs the ops there.
        whole: True if the whole package is measured, False for the ops.
    """
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
    """Return the names and versions of the compilers of all kernels that can run here."""
    found = []
    if backends()["triton"].available:
        found.append(f"Triton {triton_version()}")
    if backends()["cuda"].available:
        from ebgan_fast import _C

        found.append(_C.cuda.compiler)
    return "; ".join(found)


def _driver() -> str:
    """Return the version of the GPU's driver, or "unknown" if nvidia-smi does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return said[0] if said else "unknown"


# ---- Processors

_NO_NAMES = re.compile(r"\([^)]*\)|\b\d+th Gen\b|@.*")


class Processor(NamedTuple):
    """A model with an instruction set. The same model counts as another one if other kernels run on it."""

    model: str
    isa: str

    @classmethod
    def of(cls, row: Conditions) -> Processor:
        """Return the processor that a row was measured on."""
        return cls(row.processor, row.isa)

    @property
    def short(self) -> str:
        """The model's first two words and the instruction set: "Intel Xeon, avx512bf16"."""
        return f"{' '.join(_NO_NAMES.sub(' ', self.model).split()[:2])}, {self.isa}"


def titles(processors: Iterable[Processor]) -> dict[Processor, str]:
    """Return the short name of each processor, in the order given; the full name where two share the short one."""
    known = list(dict.fromkeys(processors))
    short = Counter(processor.short for processor in known)
    return {one: one.short if short[one.short] == 1 else f"{one.model}, {one.isa}" for one in known}
