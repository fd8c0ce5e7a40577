"""Wheels built from the source tree: with a compiler, without one, and when told not to look for one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT, Build, Builder

DATA = (".json", ".pyi", ".typed")
# This environment's programs come first, as cmake may have been installed by pip.
PROGRAMS = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
NO_COMPILER = {"CXX": "/nonexistent/c++", "PATH": PROGRAMS}
# One worker builds the wheel that these tests and those of the CUDA kernels look at.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("build")]


def _use(wheel: Build, folder: Path) -> str:
    """Import the package from an unpacked wheel, compute one energy, and return "True" if the kernels are there."""
    wheel.unpack(folder)
    program = (
        # An editable install of this tree would lend its own _C to the unpacked package.
        "import sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, '__module__', '').startswith('__editable__')]\n"
        "import torch, ebgan_fast\n"
        "assert ebgan_fast.reconstruction_energy(torch.ones(2, 3), torch.zeros(2, 3), norm='mse').tolist() == [1, 1]\n"
        "print(ebgan_fast.__file__, ebgan_fast.backends()['cpu'].available)"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    file, available = done.stdout.split()
    assert Path(file).is_relative_to(folder)
    return available


def test_the_source_archive_holds_what_a_build_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    needed = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    assert needed
    needed |= {"CMakeLists.txt", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    assert needed | {"ebgan_fast/py.typed", "ebgan_fast/_C.pyi"} <= inside
    assert not [name for name in inside if name.endswith((".so", ".pyc"))]
    assert not [name for name in inside if name.startswith("gpuless")]  # gpuless is a package of its own


def test_a_compiled_wheel_runs_its_kernels(compiled: Build, tmp_path: Path) -> None:
    assert "ebgan_fast: built the compiled kernels" in compiled.log
    data = {str(path.relative_to(ROOT)) for path in (ROOT / "ebgan_fast").rglob("*") if path.suffix in DATA}
    tables = {"ebgan_fast/ops/backends/first_choice.json", "ebgan_fast/ops/backends/triton/tables.json"}
    assert {"ebgan_fast/py.typed", *tables} <= data <= set(compiled.names())
    assert not [name for name in compiled.names() if name.startswith(("csrc", "tests", "gpuless"))]
    assert _use(compiled, tmp_path) == "True"


def test_the_extension_links_nothing_of_torch(
    compiled: Build, tmp_path: Path, dynamic: Callable[[Path], str], needed: Callable[[Path], list[str]]
) -> None:
    (name,) = (name for name in compiled.names() if name.startswith("ebgan_fast/_C.") and name.endswith(".so"))
    with zipfile.ZipFile(str(compiled.wheel)) as archive:
        extension = Path(archive.extract(name, tmp_path))
    libraries = needed(extension)
    assert any(library.startswith("libc.") for library in libraries)
    assert not [library for library in libraries if "torch" in library or "c10" in library]
    assert "RPATH" not in dynamic(extension)
    assert "RUNPATH" not in dynamic(extension)


def _has_no_kernels(wheel: Build) -> bool:
    return not [file for file in wheel.names() if "_C." in file and not file.endswith(".pyi")]


def test_a_wheel_without_kernels_says_so_and_works(build: Builder, tmp_path: Path) -> None:
    made = build({"EBGAN_FAST_BUILD_EXT": "0"})
    assert made.code == 0, made.log
    assert "EBGAN_FAST_BUILD_EXT=0: installing without" in made.log
    assert _has_no_kernels(made)
    assert _use(made, tmp_path / "site") == "False"


@pytest.fixture
def cmake() -> None:
    """Skip the test where cmake or pybind11 is missing: a build needs both before it looks for a compiler."""
    pytest.importorskip("pybind11", reason="pybind11 is not installed, which the bindings need")
    if shutil.which("cmake", path=PROGRAMS) is None:
        pytest.skip("cmake is not installed")


@pytest.mark.usefixtures("cmake")
def test_without_a_compiler_a_wheel_is_built_without_kernels(build: Builder) -> None:
    made = build(NO_COMPILER)
    assert made.code == 0, made.log
    assert "ebgan_fast: WARNING: building the compiled kernels failed" in made.log
    assert NO_COMPILER["CXX"] in made.log
    assert _has_no_kernels(made)


@pytest.mark.usefixtures("cmake")
def test_kernels_that_are_asked_for_must_build(build: Builder) -> None:
    made = build({"EBGAN_FAST_BUILD_EXT": "1", **NO_COMPILER})
    assert made.code != 0
    assert made.wheel is None
    assert "EBGAN_FAST_BUILD_EXT=1 asks for them" in made.log
    assert NO_COMPILER["CXX"] in made.log
