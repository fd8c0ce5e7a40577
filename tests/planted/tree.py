"""Copies of the repository to plant bugs in, and the processes that run their tests there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.repository import names_of_files

from . import witness
from .judging import Ended, Note
from .plant import Planted

Sources = Mapping[str, bytes]
"""The contents of the repository's files, by path."""

_SECONDS = 900  # the longest that a test may take; a planted loop may have no end
# This environment's programs come first.
_PROGRAMS = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
# Variables that an outer pytest sets for its own workers.
_NOT_PASSED_ON = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT")


class BuildError(Exception):
    """The compiled module could not be built; the message is the compiler's."""


def sources(root: Path) -> dict[str, bytes]:
    """Return the files that git tracks or does not ignore, as they are in the working tree, by path.

    Raises:
        ValueError: if the folder is not a git checkout.
    """
    return {name: (root / name).read_bytes() for name in names_of_files(root)}


class Tree:
    """A copy of the repository's files. The folder is kept, so that a build compiles only what has changed.

    Args:
        root: the repository, whose compiled module is copied as it is.
        folder: the copy's folder.
        files: the repository's files.
        package: the package that tests import.
    """

    def __init__(self, root: Path, folder: Path, files: Sources, package: str = "ebgan_fast") -> None:
        self.folder = folder
        self._files = files
        self._package = package
        self._extensions = sorted((root / package).glob("_C*.so"))
        for path in folder.rglob("*"):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name not in files and not name.startswith("build/"):
                path.unlink()
        for name in files:
            self._write(name, files[name])
        self._restore_extension()

    def _write(self, name: str, content: bytes) -> None:
        """Write a file unless it has this content already: a build compiles files by their time of change."""
        path = self.folder / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _restore_extension(self) -> None:
        for built in (self.folder / self._package).glob("_C*.so"):
            built.unlink()
        for path in self._extensions:
            shutil.copy2(path, self.folder / self._package)

    @contextlib.contextmanager
    def planted(self, plant: Planted) -> Iterator[None]:
        """Plant the bug in the copy for the length of the `with` block.

        Raises:
            BuildError: if the compiled module cannot be built.
        """
        whole = self._files[plant.file]
        self._write(plant.file, plant.planted(whole.decode()).encode())
        try:
            if plant.needs_extension:
                self._build()
            yield
        finally:
            self._write(plant.file, whole)
            if plant.needs_extension:
                self._restore_extension()

    def _build(self) -> None:
        """Configure and build the compiled module; CMake compiles only what has changed."""
        try:
            import pybind11
        except ImportError:
            raise BuildError("no pybind11: pip install pybind11 cmake ninja") from None
        cmake, ninja = (shutil.which(name, path=_PROGRAMS) for name in ("cmake", "ninja"))
        if cmake is None:
            raise BuildError("no cmake: pip install pybind11 cmake ninja")
        work = self.folder / "build"
        options = [
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={work / 'out'}",
        ]
        if ninja and not (work / "CMakeCache.txt").exists():
            options += ["-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        for command in ([cmake, "-S", self.folder, "-B", work, *options], [cmake, "--build", work]):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            if done.returncode:
                raise BuildError(next((line for line in done.stdout.splitlines() if "rror" in line), done.stdout))
        for old in (self.folder / self._package).glob("_C*.so"):
            old.unlink()
        (built,) = (work / "out").glob("_C*.so")
        shutil.copy2(built, self.folder / self._package)

    def run(self, tests: Sequence[str], *options: str) -> Ended:
        """Run tests in a process of their own, in the copy as it is, and return how the process ended."""
        with tempfile.TemporaryDirectory(prefix="planted_") as place:
            notes = Path(place) / "notes.jsonl"
            notes.touch()
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", witness.__name__]
            status, output = _ended([*command, *options, *tests], self.folder, self._environment(notes))
            lines = notes.read_text(encoding="utf-8").splitlines()
        said = [line for line in output.splitlines() if line.strip()]
        # The exception's own line comes first, then pytest's error, then the last line.
        exceptions, errors = ([line for line in said if line.startswith(mark)] for mark in ("E  ", "ERROR"))
        last = (exceptions or errors or said or ["nothing printed"])[-1]
        return Ended(status, [Note(**json.loads(line)) for line in lines], last)

    def _environment(self, notes: Path) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
        places = [self.folder, *(path for path in [self.folder / "gpuless" / "src"] if path.is_dir())]
        return {
            **kept,
            "PATH": _PROGRAMS,
            "PYTHONPATH": os.pathsep.join(map(str, places)),
            # Compiled code could be out of date: a change that keeps a file's length may come within the same second.
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            witness.NOTES: str(notes),
            witness.PACKAGE: self._package,
        }


_running: set[subprocess.Popen[str]] = set()


def stop() -> None:
    """End the processes that run tests, and all processes that they started."""
    for process in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _ended(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int | None, str]:
    """Return the status and output of a command.

    The status is None if the command took too long. Then it was ended, with all processes that it started.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    _running.add(process)
    try:
        output, _ = process.communicate(timeout=_SECONDS)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None, ""
    finally:
        _running.discard(process)
