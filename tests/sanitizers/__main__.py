"""Run the kernels under AddressSanitizer and UndefinedBehaviorSanitizer, and between guard pages: `make sanitize`.

    python tests/sanitizers            compile, then run
    python tests/sanitizers compile    compile only; needs no package but pybind11 and CMake
    python tests/sanitizers run        run an earlier build

The cases of run_kernels.py run in two builds. The one with the sanitizers runs on arrays from malloc. The other,
compiled as for a wheel, runs on arrays between guard pages. Each vector width runs every case. An instruction set that
takes kernels from another set does not repeat their cases. Where the sanitizers cannot run, the program prints why and
exits with status 0.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from builds import HERE, SOURCES, Build, CannotRunError, FailedError, build, compiler

RUNNER = HERE / "run_kernels.py"
SANITIZERS = {
    # Python itself leaks. With a small quarantine, freed memory is soon used again, and stays in cache.
    "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:abort_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
}


def _library(compiler: str, name: str) -> str:
    asked = subprocess.run([compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    path = Path(asked.stdout.strip())
    if not path.is_absolute():
        raise CannotRunError(f"{compiler} comes without {name}")
    return str(path.resolve())


def _loaded() -> dict[str, str]:
    """Return the environment variables under which Python loads a module with sanitizers."""
    # libstdc++ is needed too: AddressSanitizer looks for it at its own start. Without it a C++ exception ends the
    # process.
    preload = " ".join(_library(compiler(), name) for name in ("libasan.so", "libstdc++.so.6"))
    return {"LD_PRELOAD": preload, **SANITIZERS}


def _run(module: Path, arguments: Sequence[str], environment: dict[str, str]) -> str:
    """Return the last line that the runner printed; raise FailedError with the output of a case that failed."""
    command = [sys.executable, RUNNER, module, *arguments]
    # There are more threads than cores, so the kernels' threads must sleep while they wait. numpy needs only one.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        isa = environment.get("EBGAN_FAST_CPU_ISA", "")
        raise FailedError(f"{isa} {arguments[0]}: {done.stdout[done.stdout.rfind('case ') :]}")
    return done.stdout.splitlines()[-1]


def _cases(made: Build, placement: str, isa: str, environment: dict[str, str]) -> str:
    """Run the cases of an instruction set's own kernels in one build, and return a line about them."""
    families = made.own(isa)
    rest = [family for family in SOURCES if family not in families]
    said = _run(made.module, [placement, *families], {**environment, "EBGAN_FAST_CPU_ISA": isa})
    return said + (f"; {' and '.join(rest)}: another set's code" if rest else "")


def _compiled(anew: bool) -> tuple[Build, Build]:
    """Return the build with the sanitizers and the plain one, from this compile or an earlier one."""
    path = compiler()
    _loaded()  # raises if the compiler comes without the sanitizers
    start = time.monotonic()
    # The plain build is the one of setup.py.
    switches = {"sanitized": "-DEBGAN_SANITIZE=ON", "plain": "-DCMAKE_BUILD_TYPE=Release"}
    sanitized, plain = (build(path, name, switch, anew=anew) for name, switch in switches.items())
    if anew:
        print(f"sanitize: compiled in {time.monotonic() - start:.0f} s", flush=True)
    return sanitized, plain


def _ran(sanitized: Build, plain: Build) -> bool:
    """Run all cases, print the result of each run, and return False if one failed."""
    loaded = _loaded()
    sets = _run(sanitized.module, ["--list"], loaded).split()
    passed = True
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [
            pool.submit(_cases, made, placement, isa, environment)
            for isa in sets
            for made, placement, environment in ((sanitized, "malloc", loaded), (plain, "guard-pages", {}))
        ]
        for run in runs:
            error = run.exception()
            print(f"sanitize: {error or run.result()}", flush=True)
            passed &= error is None
    return passed


def main(arguments: Sequence[str]) -> int:
    if len(arguments) > 1 or not {*arguments} <= {"compile", "run"}:
        print(f"got {' '.join(arguments)!r}, expected 'compile', 'run', or nothing for both", file=sys.stderr)
        return 2
    try:
        builds = _compiled(anew="run" not in arguments)
        return 0 if "compile" in arguments or _ran(*builds) else 1
    except CannotRunError as reason:
        print(f"sanitize: SKIPPED: {reason}")
        return 0
    except FailedError as failure:
        print(failure, "sanitize: the build failed, or its module does not load", sep="\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
