"""Compiles CUDA kernels for the simulator with a C++ compiler, and the headers of CUDA or those in Triton's wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..tools import compiler, cuda_headers

INCLUDE = Path(__file__).parent


def missing() -> str | None:
    """Why nothing can be built here."""
    if not Path("/proc/self/maps").exists():
        return "the SIMT simulator is written for Linux"
    if shutil.which(compiler()) is None:
        return f"the SIMT simulator needs a C++ compiler ({compiler()})"
    if cuda_headers() is None:
        return "the SIMT simulator needs CUDA's headers (nvcc, CUDA_HOME or Triton's wheel)"
    return None


def build(sources: Sequence[Path], output: Path, *, sanitizers: str = "") -> Path:
    """An executable, or a shared library if `output` ends in .so. Sanitizers are as GCC names them."""
    headers = cuda_headers()
    assert headers is not None, missing()
    # One translation unit after another costs the headers of CUDA each time: 2 seconds, 4 with sanitizers.
    command = [compiler(), "-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    if sanitizers:
        command += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=undefined"]
    if output.suffix == ".so":
        command += ["-shared", "-fPIC", "-fno-gnu-unique"]  # several in one process each have their own block
    command += [f"-I{INCLUDE}", "-isystem", str(headers), "-idirafter", str(INCLUDE / "stand_in"), "-x", "c++"]
    command += [*map(str, sources), "-o", str(output)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
    return output


def run(executable: Path, *arguments: str, seed: int = 0) -> subprocess.CompletedProcess[str]:
    """With the threads in an order drawn from `seed`. AddressSanitizer warns of fibers, but is told of every switch."""
    options = {"ASAN_OPTIONS": "detect_stack_use_after_return=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    environment = {**os.environ, **options, "SIMT_SEED": str(seed)}
    return subprocess.run([executable, *arguments], env=environment, capture_output=True, text=True, timeout=60)
