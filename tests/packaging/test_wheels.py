"""What pip makes of the source tree: with a compiler, without one, and when told not to look for one."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT, Build, Builder

DATA = (".json", ".pyi", ".typed")
NO_COMPILER = {"CXX": "/nonexistent/c++"}
# The group keeps builds on one worker: two at a time would only slow each other down.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("build")]


def _use(wheel: Build, folder: Path) -> str:
    """Imports the package from an unpacked wheel, takes one energy, and tells which kernels there are."""
    with zipfile.ZipFile(str(wheel.wheel)) as archive:
        archive.extractall(folder)
    program = (
        # An editable install of this tree would lend its own _C to the unpacked package.
        "import sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, '__module__', '').startswith('__editable__')]\n"
        "import torch, ebgan_fast\n"
        "assert ebgan_fast.reconstruction_energy(torch.ones(2, 3), torch.zeros(2, 3)).tolist() == [1, 1]\n"
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
    assert not [name for name in inside if name.startswith("gpuless")]  # a package of its own


def test_a_compiled_wheel_runs_its_kernels(compiled: Build, tmp_path: Path) -> None:
    assert "ebgan_fast: built the compiled kernels" in compiled.log
    data = {str(path.relative_to(ROOT)) for path in (ROOT / "ebgan_fast").rglob("*") if path.suffix in DATA}
    tables = {"ebgan_fast/ops/first_choice.json", "ebgan_fast/ops/triton/tables.json"}
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


@pytest.mark.parametrize(
    ("name", "environment", "line"),
    [
        ("told-not-to", {"EBGAN_FAST_BUILD_EXT": "0"}, "EBGAN_FAST_BUILD_EXT=0: installing without"),
        ("no-compiler", NO_COMPILER, "ebgan_fast: WARNING: building the compiled kernels failed"),
    ],
)
def test_a_wheel_without_kernels_says_so_and_works(
    build: Builder, tmp_path: Path, name: str, environment: dict[str, str], line: str
) -> None:
    made = build(name, environment)
    assert made.code == 0, made.log
    assert line in made.log
    assert not [file for file in made.names() if "_C." in file and not file.endswith(".pyi")]
    assert _use(made, tmp_path) == "False"


def test_kernels_that_are_asked_for_must_build(build: Builder) -> None:
    made = build("must-build", {"EBGAN_FAST_BUILD_EXT": "1", **NO_COMPILER})
    assert made.code != 0
    assert made.wheel is None
    assert "EBGAN_FAST_BUILD_EXT=1 asks for them" in made.log


def test_a_switch_that_is_no_switch_is_refused(build: Builder) -> None:
    made = build("misspelt", {"EBGAN_FAST_BUILD_EXT": "yes"})
    assert made.code != 0
    assert "EBGAN_FAST_BUILD_EXT: got 'yes', expected 'auto', '0' or '1'" in made.log
