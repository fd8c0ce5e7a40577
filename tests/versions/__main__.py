"""Run the op tests on one wheel, built once, with other versions of torch and Triton, and write docs/versions.md.

    make test-versions

It takes gigabytes of packages and half an hour on two cores, so it is no part of `make test`. The tests run from a copy
of the repository without the package, so that they import the installed wheel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from . import record
from .record import Environment, Result

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "versions"
TREE = WORK / "tests"

ENVIRONMENTS = (
    Environment("torch 2.6.0", ("torch==2.6.0",)),  # the oldest that pyproject.toml allows; its Triton is too old
    Environment("torch 2.14.1", ("torch==2.14.1",)),
    # The oldest Triton for the kernels. Its interpreter makes numbers of one-element arrays, which numpy 2.4 refuses.
    Environment("triton 3.5.1", ("torch==2.13.0", "triton==3.5.1", "numpy<2.4")),
)
TOOLS = ("pytest<9.2", "pytest-xdist", "hypothesis")
# Prints the path and the versions of the installed package, as the tests of one environment import it.
_SEEN = (
    "import importlib.metadata as m, platform, torch, ebgan_fast; "
    "print(ebgan_fast.__file__, torch.__version__, m.version('triton'), m.version('numpy'), platform.python_version(), "
    "ebgan_fast.backends()['cpu'].available)"
)


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> None:
    """Run a command; raise SystemExit if it fails."""
    print("$", *command, flush=True)
    done = subprocess.run([str(word) for word in command], cwd=cwd, env={**os.environ, **environment}, check=False)
    if done.returncode:
        sys.exit(f"tests.versions: {command[0]} ended with status {done.returncode}")


def built_wheel() -> Path:
    """Build and return a wheel with the CPU kernels; Triton's kernels are part of it as source."""
    shutil.rmtree(WORK / "wheel", ignore_errors=True)
    switches = {"EBGAN_FAST_BUILD_EXT": "1", "EBGAN_FAST_CUDA": "0"}
    run(sys.executable, "-m", "build", "--wheel", "--outdir", WORK / "wheel", ROOT, **switches)
    (wheel,) = (WORK / "wheel").glob("*.whl")
    return wheel


def copied_tests() -> None:
    """Copy all tracked files except those of the package and the documentation."""
    shutil.rmtree(TREE, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if not name.startswith(("ebgan_fast/", "docs/")) and (ROOT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, TREE / name)


def installed(environment: Environment, wheel: Path) -> Path:
    """Install the wheel in a new virtual environment, and return the environment's Python."""
    folder = WORK / environment.name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, *environment.requirements)
    run(*pip, f"{wheel}[train]", *environment.requirements, *TOOLS, ROOT / "gpuless")
    return python


def tested(environment: Environment, python: Path, tests: Sequence[str]) -> Result:
    """Run the tests in an environment; raise SystemExit if they would run on anything but the wheel."""
    seen = subprocess.run([python, "-c", _SEEN], cwd=TREE, check=True, capture_output=True, text=True).stdout.split()
    home, torch, triton, numpy, release, has_kernels = seen
    if not Path(home).is_relative_to(python.parents[1]) or has_kernels != "True":
        sys.exit(f"tests.versions: got ebgan_fast from {home}, kernels {has_kernels}; expected the wheel's")
    report = WORK / f"{python.parents[1].name}.xml"
    options = ("-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider", f"--junitxml={report}")
    command = [str(python), "-m", "pytest", "-q", *options, *tests]
    print("$", *command, flush=True)
    start = time.monotonic()
    status = subprocess.run(command, cwd=TREE, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode
    minutes = (time.monotonic() - start) / 60
    versions = {"torch": torch, "triton": triton, "numpy": numpy, "python": release}
    return Result.read(report, environment.name, versions, minutes, status)


def main(tests: Sequence[str]) -> int:
    """Test every environment and return the exit status, 1 if any test failed. Only all of tests/ops is recorded."""
    wheel = built_wheel()
    copied_tests()
    results = [
        tested(environment, installed(environment, wheel), tests or ["tests/ops"]) for environment in ENVIRONMENTS
    ]
    page = record.page(wheel.name, datetime.now(timezone.utc).date().isoformat(), results)
    print(page)
    if not tests:
        (ROOT / record.PAGE).write_text(page, encoding="utf-8")
    return int(any(result.failed for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
