"""Wheels as pip makes them of the source tree, each once for a run of the tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from gpuless.tools import nvcc

ROOT = Path(__file__).parents[2]
SOURCES = [
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "CMakeLists.txt",
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "csrc",
    "ebgan_fast",
]


@dataclass(frozen=True)
class Build:
    """What one run of pip wheel did."""

    code: int
    log: str
    wheel: Path | None

    def names(self) -> list[str]:
        assert self.wheel is not None, self.log
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.namelist()


def _copy_sources(to: Path) -> None:
    ignore = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=ignore)
        elif source.exists():
            shutil.copy2(source, to / name)


def _run(folder: Path, source: str, environment: dict[str, str]) -> Build:
    clean = {name: value for name, value in os.environ.items() if name not in ("EBGAN_FAST_BUILD_EXT", "PYTHONPATH")}
    command = [sys.executable, "-m", "pip", "wheel", source, "--no-deps", "-v", "-w", "wheels"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=clean | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    wheel = next((folder / "wheels").glob("*.whl"), None)
    return Build(done.returncode, done.stdout, wheel)


Builder = Callable[..., Build]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Builder:
    """Builds under a name, once per test run even when pytest-xdist spreads the tests over processes."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def build_once(name: str, environment: dict[str, str], source: Path | None = None) -> Build:
        folder = shared / f"build-{name}"
        with FileLock(f"{folder}.lock"):
            record = folder / "record.json"
            if not record.exists():
                folder.mkdir()
                _copy_sources(folder)
                made = _run(folder, str(source or "."), environment)
                if "Could not find a version that satisfies the requirement" in made.log:
                    pytest.skip("pip reaches no package registry, which an isolated build takes its tools from")
                record.write_text(json.dumps([made.code, made.log, str(made.wheel) if made.wheel else None]))
        code, log, wheel = json.loads(record.read_text())
        return Build(code, log, Path(wheel) if wheel else None)

    return build_once


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77", reason="making a source archive takes setuptools >= 77")
    folder = tmp_path_factory.mktemp("sdist")
    _copy_sources(folder)
    program = "import setuptools.build_meta as backend; backend.build_sdist('dist')"
    environment = {**os.environ, "EBGAN_FAST_BUILD_EXT": "0"}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (archive,) = (folder / "dist").glob("*.tar.gz")
    return archive


@pytest.fixture(scope="session")
def dynamic() -> Callable[[Path], str]:
    """The dynamic section of an ELF file."""
    readelf = shutil.which("readelf")
    if sys.platform != "linux" or readelf is None:
        pytest.skip("reads what an ELF file links with readelf")
    return lambda file: subprocess.run([readelf, "-d", file], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def needed(dynamic: Callable[[Path], str]) -> Callable[[Path], list[str]]:
    """The libraries that an ELF file needs."""

    def read(file: Path) -> list[str]:
        return [line.split("[")[1].rstrip("]") for line in dynamic(file).splitlines() if "(NEEDED)" in line]

    return read


@pytest.fixture(scope="session")
def compiled(build: Builder, sdist: Path) -> Build:
    """Built from the source archive, so that a file missing there fails here; where there is nvcc, with the kernels for
    every GPU, which makes minutes of it."""
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler on this machine")
    switches = {"EBGAN_FAST_BUILD_EXT": "1", "EBGAN_FAST_CUDA": "1" if nvcc() else "0", "EBGAN_FAST_WERROR": "1"}
    made = build("compiled", switches, sdist)
    assert made.code == 0, made.log[-4000:]
    return made
