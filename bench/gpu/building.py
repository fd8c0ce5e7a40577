"""A program that builds the compiled kernels into this tree: those of the CPU, and those of one GPU.

    python -m bench.gpu.building FOLDER ARCHITECTURE

The program calls CMake itself, because pip would build for every GPU and hides what fails. It ends with status 1 if the
CUDA kernels could not be built. The CPU kernels are then built alone. Kernels of an earlier build are moved away first.
If this build is killed, nothing can then take them for kernels of these sources.
"""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .machine import ROOT, tool

NOT_BUILT = "cuda: NOT BUILT"


def options(folder: Path, architecture: str | None, nvcc: str | None) -> list[str]:
    """Return CMake's options, without CUDA if there is no architecture.

    Args:
        folder: The folder to build in.
        architecture: The GPU's architecture as CMake names it, such as "90".
        nvcc: The path of nvcc.
    """
    import pybind11

    chosen = [
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={folder / 'out'}",
        f"-DEBGAN_CUDA={'ON' if architecture else 'OFF'}",
    ]
    if shutil.which("ninja"):
        chosen.append("-GNinja")
    if architecture:
        chosen += [f"-DCMAKE_CUDA_COMPILER={nvcc}", f"-DCMAKE_CUDA_ARCHITECTURES={architecture}-real"]
    return chosen


def build(folder: Path, architecture: str | None, nvcc: str | None) -> Path:
    """Configure and compile the extension, and return its path. Files that have not changed are not compiled again.

    Args:
        folder: The folder to build in.
        architecture: The GPU's architecture. None: build the CPU kernels alone.
        nvcc: The path of nvcc.

    Raises:
        CalledProcessError: CMake failed.
        OSError: CMake could not be started.
    """
    jobs = str(os.cpu_count() or 1)
    subprocess.run(["cmake", "-S", str(ROOT), "-B", str(folder), *options(folder, architecture, nvcc)], check=True)
    subprocess.run(["cmake", "--build", str(folder), "--parallel", jobs], check=True)
    (built,) = (folder / "out").glob("_C.*")
    return built


def install(built: Path) -> None:
    """Put the extension into the package in one step, because a program may import it at this moment."""
    partial = ROOT / "ebgan_fast" / f".{built.name}.new"
    shutil.copy2(built, partial)
    partial.replace(ROOT / "ebgan_fast" / built.name)


def set_aside(folder: Path) -> None:
    """Move the extension that is in the package into a folder."""
    for ending in importlib.machinery.EXTENSION_SUFFIXES:
        earlier = ROOT / "ebgan_fast" / f"_C{ending}"
        if earlier.exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.move(earlier, folder / earlier.name)
            print(f"moved away, until there is a new one: {folder / earlier.name}", flush=True)


_SEEN = """
import torch
from ebgan_fast import _C
cuda = getattr(_C, "cuda", None)
print("built: CPU kernels for", ", ".join(_C.build_info()["isas_compiled"]), end="; ")
print(f"CUDA kernels for sm_{cuda.architectures} ({cuda.compiler})" if cuda else "no CUDA kernels")
raise SystemExit(cuda is None)
"""


def main(folder: Path, architecture: str) -> int:
    """Build and install the extension, and return the exit status."""
    set_aside(folder / "earlier")
    nvcc = tool("nvcc")
    why = "nvcc is not found (PATH, CUDA_HOME, CUDACXX)" if nvcc is None else ""
    if nvcc is not None:
        try:
            install(build(folder / "cuda", architecture, nvcc))
        except (OSError, subprocess.CalledProcessError) as error:
            why = str(error)
    if why:
        print(f"{NOT_BUILT}: {why}; now those of the CPU alone", flush=True)
        install(build(folder / "cpu", None, None))
    seen = subprocess.run([sys.executable, "-c", _SEEN], cwd=ROOT, check=False).returncode
    if why:
        print(f"{NOT_BUILT}: {why}")
    return int(bool(why) or seen != 0)


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]).absolute(), sys.argv[2]))
    except (ImportError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"{NOT_BUILT}: {error}")
