"""Builds the compiled kernels (`ebgan_fast._C`) with CMake; pyproject.toml says everything else.

EBGAN_FAST_BUILD_EXT says whether to:
    auto  (default) build them; if that fails, warn and install without: plain torch then runs every op
    1     build them, or fail
    0     do not
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SWITCH = "EBGAN_FAST_BUILD_EXT"
ROOT = Path(__file__).parent.resolve()


def announce(text: str) -> None:
    """A line that pip shows with -v, and in the log of a build that fails."""
    print(f"ebgan_fast: {text}", file=sys.stderr, flush=True)


class CMakeBuild(build_ext):
    """Runs CMake for the one extension there is."""

    def run(self) -> None:
        try:
            super().run()
        except (OSError, ImportError, subprocess.CalledProcessError) as error:
            if switch == "1":
                announce(f"building the compiled kernels failed, and {SWITCH}=1 asks for them: {error}")
                raise
            self.extensions = []
            announce(
                f"WARNING: building the compiled kernels failed ({error}); installing WITHOUT them. Every op "
                f"still runs, in plain torch and slower. Set {SWITCH}=1 to see this as an error, {SWITCH}=0 "
                "to not try."
            )

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        work = Path(self.build_temp).resolve() / "cmake"
        # CMake keeps the compiler of a first, perhaps failed, configuration.
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        options = [
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={work / 'out'}",
        ]
        if shutil.which("ninja"):
            options.append("-GNinja")
        jobs = str(self.parallel or os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or os.cpu_count() or 1)
        subprocess.run(["cmake", "-S", str(ROOT), "-B", str(work), *options], check=True)
        subprocess.run(["cmake", "--build", str(work), "--parallel", jobs], check=True)
        (built,) = (work / "out").glob("_C.*")
        shutil.copy2(built, target)
        announce(f"built the compiled kernels: {target.name}")

    def get_outputs(self) -> list[str]:
        """Only what was built: a fallback install lists no extension."""
        return [path for path in super().get_outputs() if Path(path).exists()]


switch = os.environ.get(SWITCH, "auto")
if switch not in ("auto", "0", "1"):
    raise SystemExit(f"{SWITCH}: got {switch!r}, expected 'auto', '0' or '1'")
if switch == "0":
    announce(f"{SWITCH}=0: installing without the compiled kernels")

setup(
    ext_modules=[] if switch == "0" else [Extension("ebgan_fast._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
