"""Sessions run the op tests on another backend or instruction set, chosen before any test is imported.

    pytest --backend=interpreter    Triton's kernels in its interpreter;
    pytest --backend=simt           the CUDA kernels compiled as C++, where each GPU thread is a fiber;
    pytest --isa=avx2               the CPU's kernels on another instruction set.

Each session runs those files of this folder that can use its choice. `make test` runs all sessions.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# The variables that hold the choice. Triton and the compiled module read the first two by themselves.
INTERPRET, ISA, SIMULATED_CUDA = "TRITON_INTERPRET", "EBGAN_FAST_CPU_ISA", "EBGAN_FAST_TEST_SIMULATED_CUDA"
# This variable names a backend whose tests fail, instead of being skipped, where the backend cannot run.
REQUIRED = "EBGAN_FAST_TEST_REQUIRED"

# Checks, errors, transforms and the choice of a backend are the same code in every session: their tests run once,
# without a session.
VALUES = (
    "test_contract.py",
    "test_values.py",
    "test_infinite.py",
    "test_upstream.py",
    "test_scaling.py",
    "test_options.py",
    "test_lazy_tensors.py",
    "test_row_scale.py",
    "test_fuzz.py",
)
FILES = {
    "interpreter": (*VALUES, "test_library.py"),
    "simt": (*VALUES, "test_library.py"),
    "isa": (*VALUES, "test_repeatability.py", "test_cpu_kernels.py", "test_cpu_streaming.py"),
}


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("ebgan_fast", "sessions of the op tests (tests/ops/sessions.py)")
    group.addoption("--backend", choices=("interpreter", "simt"), help="run the op tests on the simulated GPU kernels")
    group.addoption("--isa", metavar="NAME", help="run the op tests on this instruction set of the processor")
    # If the command line names a path, pytest imports that folder's conftest.py, and with it ebgan_fast, before it has
    # parsed these options.
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--backend", nargs="?")
    early.add_argument("--isa", nargs="?")
    told, _ = early.parse_known_args(sys.argv[1:])
    if told.isa or told.backend in FILES:
        _tell("isa" if told.isa else told.backend, told.isa)


def _tell(name: str, isa: str | None) -> None:
    """Set the environment variables of a session, if it can run on this machine."""
    if isa:
        os.environ[ISA] = isa
    elif importlib.util.find_spec("gpuless") and not _missing(name):
        os.environ[INTERPRET if name == "interpreter" else SIMULATED_CUDA] = "1"


def asked_for(config: pytest.Config) -> str | None:
    """Return the session's name, a key of FILES, or None for a run without a session."""
    backend: str | None = config.getoption("--backend")
    isa: str | None = config.getoption("--isa")
    if backend and isa:
        raise pytest.UsageError("--backend and --isa are two sessions: got both, expected one")
    return "isa" if isa else backend


def begin(config: pytest.Config) -> None:
    """Set up the session that the command line names. A session that cannot run here prints why and exits with status
    0."""
    name = asked_for(config)
    if name is not None and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args[:] = [str(HERE)]
    if name is None:
        return
    if name == "isa":
        _check_isa(config.getoption("--isa"))
    elif reason := _missing(name):
        pytest.exit(f"--backend={name}: SKIPPED: {reason}", returncode=0)
    before = dict(os.environ)
    _tell(name, config.getoption("--isa"))
    if os.environ != before and f"{__package__}.cases" in sys.modules:
        option = "--isa" if name == "isa" else f"--backend={name}"
        raise pytest.UsageError(f"{option}: the op tests were imported before the session began; leave out the path")
    os.environ[REQUIRED] = {"isa": "cpu", "interpreter": "triton", "simt": "cuda"}[name]


def check() -> None:
    """Fail if the variables were set too late: ebgan_fast reads them when it is imported."""
    from ebgan_fast import backends

    asked = os.environ.get(ISA)
    if asked and f"instruction set {asked} " not in backends()["cpu"].reason:
        raise pytest.UsageError(f"--isa={asked}: the process runs {backends()['cpu'].reason}")
    if os.environ.get(INTERPRET) == "1" and "interpreter" not in backends()["triton"].reason:
        raise pytest.UsageError(f"--backend=interpreter: the process runs {backends()['triton'].reason}")


def is_left_out(path: Path, config: pytest.Config) -> bool:
    """Return True for a test file that takes no part in the session."""
    name = asked_for(config)
    if name is None or not path.name.startswith("test_") or path.is_dir():
        return False
    return path.parent != HERE or path.name not in FILES[name]


def other_instruction_sets() -> list[str]:
    """Return the instruction sets that this processor has beside the one that the package chooses."""
    try:
        from ebgan_fast import _C
    except ImportError:
        return []
    info = _C.build_info()
    return [name for name in info["isas_supported"] if name != info["isa"]]


def _check_isa(name: str) -> None:
    asked = [sys.executable, "-c", "from ebgan_fast import _C; print(*_C.build_info()['isas_supported'])"]
    told = {variable: value for variable, value in os.environ.items() if variable != ISA}  # add_options may have set it
    done = subprocess.run(asked, capture_output=True, text=True, env=told)
    if done.returncode:
        pytest.exit(f"--isa={name}: SKIPPED: the compiled module is not installed", returncode=0)
    if name not in done.stdout.split():
        raise pytest.UsageError(f"--isa: got {name!r}, expected one of this processor's: {done.stdout.strip()}")


def _missing(name: str) -> str | None:
    if name == "interpreter":
        return None if importlib.util.find_spec("triton") else "triton is not installed (Linux only)"
    from .cuda import building

    return building.missing()


if __name__ == "__main__":
    print(*other_instruction_sets())
