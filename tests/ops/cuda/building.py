"""Compiles the kernels of csrc/cuda for the simulators: as C++ and as PTX.

gpuless keeps what it compiled in the user's cache folder. A planted bug is a change of text in a copy of the sources.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

import gpuless.cuda
from gpuless import simt, tools
from gpuless.compiling import compiled, write_executable

HERE = Path(__file__).parent
CSRC = HERE.parents[2] / "csrc"
KERNELS = tuple(sorted(path.name for path in (CSRC / "cuda").glob("*.cu")))
# Those of CMakeLists.txt, with EBGAN_WERROR.
_OPTIONS = ["-fmad=false", "-Xcompiler=-Wall,-Wextra", "-Werror=all-warnings"]


@cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="ebgan_fast_cuda_")  # goes when the process ends
    _kept.append(folder)
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def missing() -> str | None:
    """Why the kernels cannot be built for the SIMT simulator here."""
    if importlib.util.find_spec("pybind11") is None:
        return "pybind11 is not installed, which the bindings of the kernels need"
    return simt.missing()


def missing_nvcc() -> str | None:
    return gpuless.cuda.missing()


def library(folder: Path, csrc: Path = CSRC, sources: tuple[str, ...] = KERNELS, sanitizers: str = "") -> Path:
    """The kernels and their host code for the SIMT simulator, in a shared library."""
    paths = [csrc / "cuda" / name for name in sources]
    return simt.build(paths, folder / "libkernels.so", sanitizers=sanitizers, root=csrc)


def module(folder: Path, csrc: Path = CSRC) -> Path:
    """csrc/bindings_cuda.cpp over the folder's `library`, as _simulated.so, whose `cuda` is as ebgan_fast._C.cuda."""
    import pybind11

    headers = tools.cuda_headers(), pybind11.get_include(), sysconfig.get_path("include")
    made = compiled(
        tools.compiler(),
        [HERE / "simulated_module.cpp", csrc / "bindings_cuda.cpp"],
        options=[
            *("-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"),
            *('-DEBGAN_CUDA_COMPILER="simulator"', '-DEBGAN_CUDA_ARCHITECTURES="none"', "-DEBGAN_CUDA_HAS_PTX=0"),
            "-Wl,-rpath,$ORIGIN",  # it may move with its library
        ],
        headers=[csrc],
        system_headers=[Path(path) for path in headers if path],
        libraries=[folder / "libkernels.so"],
        root=csrc,
    )
    return write_executable(folder / "_simulated.so", made)


@cache
def simulated() -> Path:
    """The folder of libkernels.so and _simulated.so, unchanged. Undefined behavior ends the process."""
    folder = _folder() / "simulated"
    folder.mkdir()
    library(folder, sanitizers="undefined")
    module(folder)
    return folder


def load(path: Path) -> ModuleType:
    """A module's name in Python is that of its init function, for every copy of it."""
    spec = importlib.util.spec_from_file_location("_simulated", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@cache
def ptx(source: str, csrc: Path = CSRC, architecture: str = "sm_80") -> str:
    """Of a file in csrc/cuda."""
    return gpuless.cuda.ptx(csrc / "cuda" / source, architecture, options=_OPTIONS, root=csrc)


def planted(name: str, changes: Mapping[str, tuple[str, str]], *, every_dtype: bool = False) -> Path:
    """A copy of csrc with a bug in it: file in csrc/cuda -> (text that is there once, text in its place). Kernels are
    there for float32 alone unless for `every_dtype`, which takes three times as long to compile."""
    copy = _folder() / "planted" / name
    shutil.copytree(CSRC, copy)
    if not every_dtype:
        dtypes = copy / "cuda" / "dtypes.cuh"
        fewer, count = re.subn(r"(case DType::k(?!Float32).*:) return .*;", r"\1 break;", dtypes.read_text())
        assert count == 3, f"{count} other dtypes in dtypes.cuh, expected 3"
        dtypes.write_text(fewer)
    for file, (text, other) in changes.items():
        path = copy / "cuda" / file
        source = path.read_text()
        assert source.count(text) == 1, f"{text!r} is {source.count(text)} times in {file}"
        path.write_text(source.replace(text, other))
    return copy


def ended(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m tests.ops.cuda.MODULE`, which may end at any line."""
    return subprocess.run(
        [sys.executable, "-m", f"tests.ops.cuda.{module}", *arguments],
        cwd=CSRC.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


def address_sanitizer() -> dict[str, str] | None:
    """The environment in which Python loads a library that was built with it; None where the compiler has none."""
    asked = subprocess.run(
        [tools.compiler(), "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    )
    library = Path(asked.stdout.strip())
    if not library.is_absolute():
        return None
    return {"LD_PRELOAD": str(library), "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0"}


def main() -> None:
    """Compile the PTX that most tests of a process, and of those beside it, run: 12 s, for which all would wait."""
    if reason := missing_nvcc():
        print(f"no PTX: {reason}")
        return
    for source in KERNELS:
        ptx(source)


if __name__ == "__main__":
    main()
