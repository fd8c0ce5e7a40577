"""Find the compilers and headers of this machine that the simulators can use."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

NO_NVCC = "nvcc is not installed (CUDA toolkit)"


def nvcc() -> str | None:
    """Return the path of nvcc: from PATH, or from CUDA_HOME, CUDA_PATH or /usr/local/cuda. None if it is in none of
    them.
    """
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")


def compiler() -> str:
    """Return the C++ compiler's name: the variable CXX, or "c++"."""
    return os.environ.get("CXX", "c++")


def _candidates() -> Iterator[Path]:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if home := os.environ.get(name):
            yield Path(home) / "include"
    if compiler := nvcc():
        # nvcc may be a script outside the CUDA folder. A dry run prints where it looks for headers; its file need not
        # exist.
        dry = subprocess.run([compiler, "--dryrun", "-c", "none.cu"], capture_output=True, text=True).stderr
        yield from (Path(path) for path in re.findall(r'INCLUDES=.*?"-I([^"]+)"', dry))
    yield Path("/usr/local/cuda/include")
    triton = find_spec("triton")  # find_spec does not import triton
    for folder in (triton.submodule_search_locations or ()) if triton else ():
        yield Path(folder) / "backends" / "nvidia" / "include"


@cache
def cuda_headers() -> Path | None:
    """Return the folder of CUDA's headers: the toolkit's, or the one in Triton's wheel. None if there is neither."""
    return next((path for path in _candidates() if (path / "cuda_bf16.h").exists()), None)


class Tool(NamedTuple):
    """A program or package that gpuless can use. Exactly one of `found` and `missing` is not empty."""

    name: str
    purpose: str
    found: str  # its version or path
    missing: str  # the reason, and how to get it


def available() -> list[Tool]:
    """Look for every optional tool, without importing any."""
    return [
        _package("torch", "tensors as arguments, bfloat16 among them", "pip install torch"),
        _package("triton", "gpuless.triton and gpuless.interpreter", "pip install 'gpuless[triton]', on Linux"),
        _nvcc(),
        _compiler(),
        _headers(),
    ]


def _package(name: str, purpose: str, remedy: str) -> Tool:
    try:
        return Tool(name, purpose, importlib.metadata.version(name), "")
    except importlib.metadata.PackageNotFoundError:
        return Tool(name, purpose, "", f"not installed: {remedy}")


def _nvcc() -> Tool:
    path = nvcc()
    release = re.search(r"release ([\d.]+)", _version(path)) if path else None
    found = f"{path}{f' {release[1]}' if release else ''}" if path else ""
    return Tool("nvcc", "gpuless.cuda", found, "" if path else f"{NO_NVCC}: on PATH or in CUDA_HOME")


def _compiler() -> Tool:
    purpose = "gpuless.simt"
    path = shutil.which(compiler())
    if path is None:
        return Tool("C++ compiler", purpose, "", f"no {compiler()!r}: install g++, or set CXX")
    lines = _version(path).splitlines()
    return Tool("C++ compiler", purpose, lines[0] if lines else path, "")


def _headers() -> Tool:
    path = cuda_headers()
    missing = "" if path else "neither nvcc, CUDA_HOME nor triton's wheel is here to bring them"
    return Tool("CUDA headers", "gpuless.simt", str(path or ""), missing)


def _version(path: str) -> str:
    return subprocess.run([path, "--version"], capture_output=True, text=True).stdout
