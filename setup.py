"""The build of the compiled kernels (`ebgan_fast._C`) with CMake. pyproject.toml has all other settings.

EBGAN_FAST_BUILD_EXT selects if the kernels are built:
    auto  (default) build them; if that fails, warn and install without: plain torch then runs every op
    1     build them, or fail
    0     do not build them

EBGAN_FAST_CUDA selects the kernels for NVIDIA GPUs that are built with them:
    auto  (default) for this machine's GPUs, if it has one and nvcc is found; without, if that fails
    1     for every architecture of the list ARCHITECTURES below that nvcc knows, or fail
    0     none
    75,90 for these architectures (compute capabilities without the dot), in machine code, or fail

For 1 and for a list, the newest architecture is also built as PTX, which later GPUs compile at their first use.

EBGAN_FAST_WERROR=1 makes every warning of the CUDA compilers an error. The tests set it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SWITCH = "EBGAN_FAST_BUILD_EXT"
CUDA_SWITCH = "EBGAN_FAST_CUDA"
WERROR_SWITCH = "EBGAN_FAST_WERROR"
ARCHITECTURES = ("75", "80", "86", "89", "90", "100", "120")
ROOT = Path(__file__).parent.resolve()


def announce(text: str) -> None:
    """Print a line that pip shows with -v, and in the log of a build that fails."""
    print(f"ebgan_fast: {text}", file=sys.stderr, flush=True)


def nvcc() -> str | None:
    if named := os.environ.get("CUDACXX"):
        return named
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(home) / "bin"))


def _printed(*command: str) -> str:
    """Return the output of a command, or "" if it fails or does not exist."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def cuda_architectures(compiler: str, asked: str) -> list[str]:
    """Return the architectures in CMake's form: "80-real" is machine code, "120" machine code and PTX.

    Raises:
        RuntimeError: if an architecture was requested by its number and the compiler does not know it.
    """
    if asked == "auto":
        capabilities = _printed("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
        numbers = {int(major + minor) for major, minor in re.findall(r"(\d+)\.(\d+)", capabilities)}
        return [f"{number}-real" for number in sorted(numbers)]
    known = set(re.findall(r"sm_(\d+)", _printed(compiler, "--list-gpu-code")))
    wanted = ARCHITECTURES if asked == "1" else sorted(set(asked.split(",")), key=int)
    chosen = [number for number in wanted if number in known]
    if left_out := [number for number in wanted if number not in known]:
        if asked != "1":
            raise RuntimeError(f"{CUDA_SWITCH}={asked}: {compiler} does not know {', '.join(left_out)}")
        announce(f"WARNING: {compiler} does not know {', '.join(left_out)}: no machine code for these GPUs")
    return [*(f"{number}-real" for number in chosen[:-1]), *chosen[-1:]]


def cuda_options() -> list[str]:
    """Return CMake's options for the CUDA kernels, or an empty list for none.

    Raises:
        RuntimeError: if the kernels are requested and cannot be built.
    """
    if cuda_switch == "0":
        return []
    compiler = nvcc()
    if compiler is None:
        if cuda_switch != "auto":
            raise RuntimeError(
                f"{CUDA_SWITCH}={cuda_switch} asks for the CUDA kernels, and nvcc is not found (CUDA_HOME or CUDACXX)"
            )
        return []
    architectures = cuda_architectures(compiler, cuda_switch)
    if not architectures:
        return []
    strictly = ", every warning an error" if werror else ""
    announce(f"CUDA kernels for {', '.join(architectures)} with {compiler}{strictly}")
    return [
        "-DEBGAN_CUDA=ON",
        f"-DCMAKE_CUDA_COMPILER={compiler}",
        f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(architectures)}",
        *(["-DEBGAN_WERROR=ON"] if werror else []),
    ]


class CMakeBuild(build_ext):
    """The build command, which runs CMake for the only extension."""

    def run(self) -> None:
        try:
            super().run()
        except (OSError, ImportError, RuntimeError, subprocess.CalledProcessError) as error:
            for name, value in ((SWITCH, switch), (CUDA_SWITCH, cuda_switch)):
                if value not in ("auto", "0"):
                    announce(f"building the compiled kernels failed, and {name}={value} asks for them: {error}")
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
        cuda = cuda_options()
        try:
            self._compile(work, [*options, *cuda])
        except subprocess.CalledProcessError as error:
            if not cuda or cuda_switch != "auto":
                raise
            announce(
                f"WARNING: building the CUDA kernels failed ({error}); building without them. Triton runs instead."
            )
            self._compile(work, options)
        (built,) = (work / "out").glob("_C.*")
        shutil.copy2(built, target)
        announce(f"built the compiled kernels: {target.name}")

    def _compile(self, work: Path, options: list[str]) -> None:
        # CMake would keep the compiler of an earlier configuration, even of a failed one.
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        jobs = str(self.parallel or os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or os.cpu_count() or 1)
        subprocess.run(["cmake", "-S", str(ROOT), "-B", str(work), *options], check=True)
        subprocess.run(["cmake", "--build", str(work), "--parallel", jobs], check=True)

    def get_outputs(self) -> list[str]:
        """Return only files that were built: an installation without the kernels lists no extension."""
        return [path for path in super().get_outputs() if Path(path).exists()]


def read_switch(name: str, values: tuple[str, ...] = ("auto", "0", "1"), pattern: str = "", words: str = "") -> str:
    """Return the value of an environment variable. The first of `values` is the default.

    Other values may match `pattern`, which `words` describe in the error.
    """
    value = os.environ.get(name, values[0])
    if value not in values and not (pattern and re.fullmatch(pattern, value)):
        *others, last = [*map(repr, values), *([words] if words else [])]
        raise SystemExit(f"{name}: got {value!r}, expected {', '.join(others)} or {last}")
    return value


switch = read_switch(SWITCH)
cuda_switch = read_switch(CUDA_SWITCH, pattern=r"\d{2,3}(,\d{2,3})*", words="architectures such as '80,90'")
werror = read_switch(WERROR_SWITCH, ("0", "1")) == "1"
if switch == "0" and cuda_switch not in ("auto", "0"):
    raise SystemExit(f"{CUDA_SWITCH}={cuda_switch} asks for kernels in the extension that {SWITCH}=0 leaves out")
if switch == "0":
    announce(f"{SWITCH}=0: installing without the compiled kernels")

setup(
    ext_modules=[] if switch == "0" else [Extension("ebgan_fast._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
