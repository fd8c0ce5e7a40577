"""The compilers and headers of this machine that the simulators can use."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path


def nvcc() -> str | None:
    """The path of nvcc: on PATH, or in CUDA_HOME, CUDA_PATH or /usr/local/cuda. None where there is none."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")


def compiler() -> str:
    """The C++ compiler: CXX, or c++."""
    return os.environ.get("CXX", "c++")


def _candidates() -> Iterator[Path]:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if home := os.environ.get(name):
            yield Path(home) / "include"
    if compiler := nvcc():
        # It may be a script in another folder than CUDA, and says where it looks. The file need not exist.
        dry = subprocess.run([compiler, "--dryrun", "-c", "none.cu"], capture_output=True, text=True).stderr
        yield from (Path(path) for path in re.findall(r'INCLUDES=.*?"-I([^"]+)"', dry))
    yield Path("/usr/local/cuda/include")
    triton = find_spec("triton")  # does not import it
    for folder in (triton.submodule_search_locations or ()) if triton else ():
        yield Path(folder) / "backends" / "nvidia" / "include"


@cache
def cuda_headers() -> Path | None:
    """The folder of CUDA's headers: the toolkit's, or those in Triton's wheel. None where there are none."""
    return next((path for path in _candidates() if (path / "cuda_bf16.h").exists()), None)
