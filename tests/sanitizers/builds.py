"""The builds that the cases run in, and the kernels that an instruction set has of its own there."""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent.resolve()
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from tests import kept_compiles  # noqa: E402

FOLDER = ROOT / "build" / "sanitize"
# This environment's programs come first.
PROGRAMS = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
# The source in csrc/cpu that each family of cases in run_kernels.py tests.
SOURCES = {"energy": "energy", "hinge": "energy", "code": "pulling_away"}
# The families that remain for a set that takes kernels from another set: sources_ISA in CMakeLists.txt.
OWN = {"avx512bf16": ["code"]}


class CannotRunError(Exception):
    """The sanitizers cannot run here, for the reason in the message; the kernels are not judged."""


class FailedError(Exception):
    """The build or a run failed; the message is the output of the compiler or the runner."""


def compiler() -> str:
    """Return the path of GCC."""
    if sys.platform != "linux":
        raise CannotRunError("loads the sanitizers with LD_PRELOAD, as on Linux")
    name = os.environ.get("CXX", "c++")
    path = shutil.which(name)
    if path is None:
        raise CannotRunError(f"no C++ compiler ({name})")
    # Clang has another runtime, which is linked into the program.
    if "Free Software Foundation" not in subprocess.run([path, "--version"], capture_output=True, text=True).stdout:
        raise CannotRunError(f"takes GCC, and {name} is another compiler")
    return path


@dataclass(frozen=True)
class Build:
    """The compiled module of one build, and the folder of its objects."""

    folder: Path

    @property
    def module(self) -> Path:
        return self.folder / "out" / f"_C{importlib.machinery.EXTENSION_SUFFIXES[0]}"

    def own(self, isa: str) -> list[str]:
        """Return the families of cases for the set's own kernels: all, unless the set takes kernels from another.

        Raises:
            FailedError: if no family is left, or if a set that takes from no other lacks a source.
        """
        objects = self.folder / "CMakeFiles" / f"kernels_{isa}.dir" / "csrc" / "cpu"
        own = [family for family, source in SOURCES.items() if (objects / f"{source}.cpp.o").exists()]
        expected = OWN.get(isa, list(SOURCES))
        if own != expected:
            raise FailedError(f"{isa}: got objects of {own or 'none'}, expected {expected} in {objects}")
        return own


def build(path: str, name: str, switch: str, *, anew: bool) -> Build:
    """Configure and build the kernels if `anew`, or if there is no such build yet, and return the build.

    Objects that were compiled before come from the user's cache folder.
    """
    cmake = shutil.which("cmake", path=PROGRAMS)
    try:
        import pybind11
    except ImportError:
        raise CannotRunError("no pybind11: pip install pybind11") from None
    if cmake is None:
        raise CannotRunError("no cmake: pip install cmake")
    made = Build(FOLDER / name)
    if made.module.exists() and not anew:
        return made
    shutil.rmtree(made.folder, ignore_errors=True)
    options = [
        switch,
        f"-DCMAKE_CXX_COMPILER={path}",
        f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={made.folder / 'out'}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]
    if ninja := shutil.which("ninja", path=PROGRAMS):
        options += ["-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    jobs = str(os.cpu_count() or 1)
    environment = {**os.environ, **kept_compiles.launched()}
    for command in ([cmake, "-S", ROOT, "-B", made.folder, *options], [cmake, "--build", made.folder, "-j", jobs]):
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise FailedError(done.stdout)
    return made
