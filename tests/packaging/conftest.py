"""Wheels of the source tree: one that pip builds for all tests, and those of builds without the kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpuless.tools import nvcc
from tests import kept_compiles

ROOT = Path(__file__).parents[2]
EVERY_GPU = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
# The oldest and the newest take a minute of a core, all take three and a half.
RELEASE = os.environ.get("EBGAN_FAST_TEST_RELEASE") == "1"
ARCHITECTURES = EVERY_GPU if RELEASE else (EVERY_GPU[0], EVERY_GPU[-1])
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
    """The status, the output and the wheel of one build."""

    code: int
    log: str
    wheel: Path | None

    def names(self) -> list[str]:
        assert self.wheel is not None, self.log
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.namelist()

    def unpack(self, to: Path) -> Path:
        assert self.wheel is not None, self.log
        with zipfile.ZipFile(self.wheel) as archive:
            archive.extractall(to)
        return to


def _copy_sources(to: Path) -> None:
    ignore = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=ignore)
        elif source.exists():
            shutil.copy2(source, to / name)


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> Build:
    """Run a command that leaves its wheel in the folder's `wheels`, and return the build."""
    clean = {name: value for name, value in os.environ.items() if name not in ("EBGAN_FAST_BUILD_EXT", "PYTHONPATH")}
    done = subprocess.run(
        command,
        cwd=folder,
        env=clean | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return Build(done.returncode, done.stdout, next((folder / "wheels").glob("*.whl"), None))


Builder = Callable[[dict[str, str]], Build]


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree, without anything that was built."""
    pytest.importorskip("setuptools", minversion="77", reason="building takes setuptools >= 77")
    folder = tmp_path_factory.mktemp("sources")
    _copy_sources(folder)
    return folder


@pytest.fixture
def build(sources: Path, tmp_path: Path) -> Builder:
    """Give a function that builds a wheel in this environment by the hook that pip calls.

    An environment of pip's own would cost 10 s.
    """

    def run(environment: dict[str, str]) -> Build:
        folder = Path(shutil.copytree(sources, tmp_path / "tree"))
        program = "import setuptools.build_meta as backend; backend.build_wheel('wheels')"
        return _run([sys.executable, "-c", program], folder, environment)

    return run


@pytest.fixture(scope="session")
def sdist(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(sources, tmp_path_factory.mktemp("sdist") / "tree"))
    program = "import setuptools.build_meta as backend; backend.build_sdist('dist')"
    done = _run([sys.executable, "-c", program], folder, {"EBGAN_FAST_BUILD_EXT": "0"})
    assert done.code == 0, done.log
    (archive,) = (folder / "dist").glob("*.tar.gz")
    return archive


@pytest.fixture(scope="session")
def dynamic() -> Callable[[Path], str]:
    """Give a function that returns the dynamic section of an ELF file as text."""
    readelf = shutil.which("readelf")
    if sys.platform != "linux" or readelf is None:
        pytest.skip("reads what an ELF file links with readelf")
    return lambda file: subprocess.run([readelf, "-d", file], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def needed(dynamic: Callable[[Path], str]) -> Callable[[Path], list[str]]:
    """Give a function that returns the names of the libraries that an ELF file needs."""

    def read(file: Path) -> list[str]:
        return [line.split("[")[1].rstrip("]") for line in dynamic(file).splitlines() if "(NEEDED)" in line]

    return read


@pytest.fixture(scope="session")
def compiled(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The wheel that pip builds from the source archive, so that a file or a requirement missing there fails here.

    It has the kernels for GPUs where nvcc is found. The compiled objects are kept in the user's cache folder.
    """
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler on this machine")
    gpus = ",".join(number.removeprefix("sm_") for number in ARCHITECTURES) if nvcc() else "0"
    switches = {"EBGAN_FAST_BUILD_EXT": "1", "EBGAN_FAST_CUDA": gpus, "EBGAN_FAST_WERROR": "1"}
    command = [sys.executable, "-m", "pip", "wheel", str(sdist), "--no-deps", "-v", "-w", "wheels"]
    made = _run(command, tmp_path_factory.mktemp("compiled"), switches | kept_compiles.launched())
    if "Could not find a version that satisfies the requirement" in made.log:
        pytest.skip("pip reaches no package registry, which an isolated build takes its tools from")
    assert made.code == 0, made.log
    return made
