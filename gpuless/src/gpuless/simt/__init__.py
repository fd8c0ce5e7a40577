"""CUDA kernels as C++: a fiber for each thread, in an order drawn from a seed, under the sanitizers of the compiler.

A .cu file includes "gpuless.cuh" and launches by gpu::launch, so that nvcc takes the same source. The headers are
CUDA's own, or those in Triton's wheel. simt.h says what is there, and what is not seen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..compiling import compiled, write_executable
from ..tools import compiler, cuda_headers

INCLUDE = Path(__file__).parent


def missing() -> str | None:
    """The reason why nothing can be built here; None if it can."""
    if not Path("/proc/self/maps").exists():
        return "the SIMT simulator is written for Linux"
    if shutil.which(compiler()) is None:
        return f"the SIMT simulator needs a C++ compiler ({compiler()})"
    if cuda_headers() is None:
        return "the SIMT simulator needs CUDA's headers (nvcc, CUDA_HOME or Triton's wheel)"
    return None


def build(sources: Sequence[Path], output: Path, *, sanitizers: str = "", root: Path | None = None) -> Path:
    """Compile kernels and their host code: an executable, or a shared library if `output` ends in .so.

    sanitizers are as GCC names them: "address,undefined". With a root, reports name the files relative to it, and
    another tree with the same files is not compiled again. RuntimeError where something is missing, or with what the
    compiler printed.
    """
    headers = cuda_headers()
    if (reason := missing()) or headers is None:
        raise RuntimeError(reason)
    # One translation unit after another costs the headers of CUDA each time: 2 seconds, 4 with sanitizers.
    options = [
        *("-std=c++17", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
        "-U_FORTIFY_SOURCE",  # where a distribution sets it, a longjmp to another stack ends the process
    ]
    if sanitizers:
        options += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=undefined"]
    if output.suffix == ".so":
        options += ["-shared", "-fPIC", "-fno-gnu-unique"]  # several in one process each have their own block
    if root:
        options += [f"-ffile-prefix-map={root.resolve()}/="]
    made = compiled(
        compiler(),
        sources,
        options=[*options, "-x", "c++"],
        headers=[INCLUDE],
        system_headers=[headers],
        last_headers=[INCLUDE / "stand_in"],
        root=root,
    )
    return write_executable(output, made)


def run(executable: Path, *arguments: str, seed: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program with the threads in an order drawn from `seed`.

    AddressSanitizer warns of fibers, but is told of every switch. subprocess.TimeoutExpired after a minute.
    """
    options = {"ASAN_OPTIONS": "detect_stack_use_after_return=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    environment = {**os.environ, **options, "SIMT_SEED": str(seed)}
    return subprocess.run([executable, *arguments], env=environment, capture_output=True, text=True, timeout=60)
