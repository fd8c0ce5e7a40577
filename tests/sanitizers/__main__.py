"""Builds the kernels with AddressSanitizer and UndefinedBehaviorSanitizer and runs them: `make sanitize`.

Each instruction set that this processor has runs run_kernels.py twice: built with the sanitizers on arrays from malloc,
and as it is installed on arrays between guard pages. Where the sanitizers cannot be had, it says why and passes.
"""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent.resolve()
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "sanitize"
RUNNER = HERE / "run_kernels.py"
# This environment's programs first.
PROGRAMS = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
SANITIZERS = {
    # Python itself leaks. A small quarantine: memory that is freed is soon used again, and stays in cache.
    "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:abort_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
}


class CannotRunError(Exception):
    """Why there are no sanitizers here; says nothing about the kernels."""


class FailedError(Exception):
    """What the compiler or the runner printed."""


def _compiler() -> str:
    if sys.platform != "linux":
        raise CannotRunError("loads the sanitizers with LD_PRELOAD, as on Linux")
    name = os.environ.get("CXX", "c++")
    path = shutil.which(name)
    if path is None:
        raise CannotRunError(f"no C++ compiler ({name})")
    # Clang's runtime is another one, and linked into the program.
    if "Free Software Foundation" not in subprocess.run([path, "--version"], capture_output=True, text=True).stdout:
        raise CannotRunError(f"takes GCC, and {name} is another compiler")
    return path


def _library(compiler: str, name: str) -> str:
    asked = subprocess.run([compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    path = Path(asked.stdout.strip())
    if not path.is_absolute():
        raise CannotRunError(f"{compiler} comes without {name}")
    return str(path.resolve())


def _build(compiler: str) -> Path:
    """Configures and builds; CMake compiles again what has changed."""
    cmake = shutil.which("cmake", path=PROGRAMS)
    try:
        import pybind11
    except ImportError:
        raise CannotRunError("no pybind11: pip install pybind11") from None
    if cmake is None:
        raise CannotRunError("no cmake: pip install cmake")
    options = [
        "-DEBGAN_SANITIZE=ON",
        f"-DCMAKE_CXX_COMPILER={compiler}",
        f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={BUILD / 'out'}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]
    if not (BUILD / "CMakeCache.txt").exists() and (ninja := shutil.which("ninja", path=PROGRAMS)):
        options += ["-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    jobs = str(os.cpu_count() or 1)
    for command in ([cmake, "-S", ROOT, "-B", BUILD, *options], [cmake, "--build", BUILD, "--parallel", jobs]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise FailedError(done.stdout)
    return BUILD / "out" / f"_C{importlib.machinery.EXTENSION_SUFFIXES[0]}"


def _installed() -> Path | None:
    paths = (ROOT / "ebgan_fast" / f"_C{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    return next((path for path in paths if path.exists()), None)


def _run(module: Path, argument: str, environment: dict[str, str]) -> str:
    """What the runner printed last. On failure, the case that it was in and everything after."""
    command = [sys.executable, RUNNER, module, argument]
    # There are more threads than cores: the kernels' are to wait asleep, and numpy needs no more than one.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise FailedError(
            f"{environment.get('EBGAN_FAST_CPU_ISA', '')} {argument}: {done.stdout[done.stdout.rfind('case ') :]}"
        )
    return done.stdout.splitlines()[-1]


def main() -> int:
    start = time.monotonic()
    try:
        compiler = _compiler()
        # libstdc++ as well: AddressSanitizer looks for it at its own start, and a C++ exception ends the process else.
        preload = " ".join(_library(compiler, name) for name in ("libasan.so", "libstdc++.so.6"))
        loaded = {"LD_PRELOAD": preload, **SANITIZERS}
        sanitized = _build(compiler)
        sets = _run(sanitized, "--list", loaded).split()
    except CannotRunError as reason:
        print(f"sanitize: SKIPPED: {reason}")
        return 0
    except FailedError as failure:
        print(failure, "sanitize: the build failed, or its module does not load", sep="\n")
        return 1
    print(f"sanitize: built in {time.monotonic() - start:.0f} s", flush=True)

    jobs = [(sanitized, "malloc", loaded)]
    if installed := _installed():
        jobs.append((installed, "guard-pages", {}))
    else:
        print("sanitize: guard pages SKIPPED: the extension is not installed in this folder (pip install --editable .)")
    failed = False
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [
            pool.submit(_run, module, how, {**environment, "EBGAN_FAST_CPU_ISA": isa})
            for isa in sets
            for module, how, environment in jobs
        ]
        for run in runs:
            error = run.exception()
            print(f"sanitize: {error or run.result()}", flush=True)
            failed |= error is not None
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
