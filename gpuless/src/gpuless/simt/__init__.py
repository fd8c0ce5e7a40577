"""Run CUDA kernels as C++ on the CPU: each thread is a fiber, in an order drawn from a seed, under the compiler's
sanitizers.

A .cu file includes "gpuless.cuh" and launches kernels by gpu::launch, so nvcc compiles the same source. The headers
come from the CUDA toolkit or from Triton's wheel. simt.h lists the CUDA functions that exist, and the bugs that are not
seen.
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
    """Return the reason why nothing can be built here; None if it can."""
    if not Path("/proc/self/maps").exists():
        return "the SIMT simulator is written for Linux"
    if shutil.which(compiler()) is None:
        return f"the SIMT simulator needs a C++ compiler ({compiler()})"
    if cuda_headers() is None:
        return "the SIMT simulator needs CUDA's headers (nvcc, CUDA_HOME or Triton's wheel)"
    return None


def build(sources: Sequence[Path], output: Path, *, sanitizers: str = "", root: Path | None = None) -> Path:
    """Compile kernels and their host code into `output`, and return its path.

    The result is a shared library if `output` ends in .so, else an executable.

    Args:
        sources: The .cu and C++ files.
        output: The file to write.
        sanitizers: Sanitizers as GCC names them: "address,undefined".
        root: If given, reports name files relative to this folder. Another tree with the same files then shares the
            cache entry.

    Raises:
        RuntimeError: If a tool is missing, or the compiler fails: with the text that it printed.
    """
    headers = cuda_headers()
    if (reason := missing()) or headers is None:
        raise RuntimeError(reason)
    # Each source costs the time to compile CUDA's headers: 2 seconds, or 4 with sanitizers.
    options = [
        *("-std=c++17", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
        "-U_FORTIFY_SOURCE",  # some distributions set it, and then a longjmp to another stack ends the process
    ]
    if sanitizers:
        options += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=undefined"]
    if output.suffix == ".so":
        # -fno-gnu-unique gives each library in a process a simt::block of its own.
        options += ["-shared", "-fPIC", "-fno-gnu-unique"]
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
    """Run a program whose threads run in an order drawn from `seed`.

    AddressSanitizer prints a warning about fibers, although it is told of every switch. Raise subprocess.TimeoutExpired
    after a minute.
    """
    options = {"ASAN_OPTIONS": "detect_stack_use_after_return=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    environment = {**os.environ, **options, "SIMT_SEED": str(seed)}
    return subprocess.run([executable, *arguments], env=environment, capture_output=True, text=True, timeout=60)
