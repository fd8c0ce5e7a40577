"""Compile the kernels of csrc/cuda for the simulators: as C++ and as PTX.

gpuless keeps its compiled files in the user's cache folder. A planted bug is a change of text in a copy of the sources.
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
# The options of CMakeLists.txt, with EBGAN_WERROR.
_OPTIONS = ["-fmad=false", "-Xcompiler=-Wall,-Wextra", "-Werror=all-warnings"]


@cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="ebgan_fast_cuda_")  # removed when the process ends
    _kept.append(folder)
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def missing() -> str | None:
    """Return why the kernels cannot be built for the SIMT simulator here, or None."""
    if importlib.util.find_spec("pybind11") is None:
        return "pybind11 is not installed, which the bindings of the kernels need"
    return simt.missing()


def missing_nvcc() -> str | None:
    return gpuless.cuda.missing()


def library(folder: Path, csrc: Path = CSRC, sources: tuple[str, ...] = KERNELS, sanitizers: str = "") -> Path:
    """Build the kernels and their host code for the SIMT simulator, and return the shared library."""
    paths = [csrc / "cuda" / name for name in sources]
    return simt.build(paths, folder / "libkernels.so", sanitizers=sanitizers, root=csrc)


def module(folder: Path, csrc: Path = CSRC) -> Path:
    """Build csrc/bindings_cuda.cpp over the folder's `library`, and return _simulated.so.

    Its `cuda` has the functions of ebgan_fast._C.cuda.
    """
    import pybind11

    headers = tools.cuda_headers(), pybind11.get_include(), sysconfig.get_path("include")
    made = compiled(
        tools.compiler(),
        [HERE / "simulated_module.cpp", csrc / "bindings_cuda.cpp"],
        options=[
            *("-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"),
            *('-DEBGAN_CUDA_COMPILER="simulator"', '-DEBGAN_CUDA_ARCHITECTURES="none"', "-DEBGAN_CUDA_HAS_PTX=0"),
            "-Wl,-rpath,$ORIGIN",  # the folder may move as a whole
        ],
        headers=[csrc],
        system_headers=[Path(path) for path in headers if path],
        libraries=[folder / "libkernels.so"],
        root=csrc,
    )
    return write_executable(folder / "_simulated.so", made)


@cache
def simulated() -> Path:
    """Return the folder with libkernels.so and _simulated.so of the unchanged sources. Undefined behavior ends the
    process."""
    folder = _folder() / "simulated"
    folder.mkdir()
    library(folder, sanitizers="undefined")
    module(folder)
    return folder


def load(path: Path) -> ModuleType:
    """Load a copy of the module; all copies have the name `_simulated`, which is that of their init function."""
    spec = importlib.util.spec_from_file_location("_simulated", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@cache
def ptx(source: str, csrc: Path = CSRC, architecture: str = "sm_80") -> str:
    """Return the PTX of a file in csrc/cuda."""
    return gpuless.cuda.ptx(csrc / "cuda" / source, architecture, options=_OPTIONS, root=csrc)


def planted(name: str, changes: Mapping[str, tuple[str, str]], *, every_dtype: bool = False) -> Path:
    """Return a copy of csrc with a bug in it.

    Args:
        name: the name of the copy's folder.
        changes: for each file in csrc/cuda, a text that it contains once, and the text to put in its place.
        every_dtype: True for kernels of every dtype, which take three times as long to compile; False for float32 only.
    """
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
    """Run `python -m tests.ops.cuda.MODULE`, which may crash at any line, and return its output and status."""
    return subprocess.run(
        [sys.executable, "-m", f"tests.ops.cuda.{module}", *arguments],
        cwd=CSRC.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


def address_sanitizer() -> dict[str, str] | None:
    """Return the environment in which Python loads a library built with AddressSanitizer; None if the compiler has
    none."""
    asked = subprocess.run(
        [tools.compiler(), "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    )
    library = Path(asked.stdout.strip())
    if not library.is_absolute():
        return None
    return {"LD_PRELOAD": str(library), "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0"}


def main() -> None:
    """Compile the PTX that most tests of parallel processes need; it takes 12 s, for which each process would wait."""
    if reason := missing_nvcc():
        print(f"no PTX: {reason}")
        return
    for source in KERNELS:
        ptx(source)


if __name__ == "__main__":
    main()
