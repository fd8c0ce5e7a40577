"""Compiles CUDA kernels for the simulator with a C++ compiler, and the headers of CUDA or those in Triton's wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent


def nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")


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
    return next((path for path in _candidates() if (path / "cuda_bf16.h").exists()), None)


def missing() -> str | None:
    """Why nothing can be built here."""
    if not Path("/proc/self/maps").exists():
        return "the SIMT simulator is written for Linux"
    if shutil.which(compiler()) is None:
        return f"the SIMT simulator needs a C++ compiler ({compiler()})"
    if cuda_headers() is None:
        return "the SIMT simulator needs CUDA's headers (nvcc, CUDA_HOME or Triton's wheel)"
    return None


def compiler() -> str:
    return os.environ.get("CXX", "c++")


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
    command += [f"-I{HERE}", "-isystem", str(headers), "-idirafter", str(HERE / "stand_in"), "-x", "c++"]
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
