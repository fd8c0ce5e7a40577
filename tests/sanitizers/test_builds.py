"""Instruction sets share the cases of a source where, and only where, its machine code is the same."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .builds import SOURCES, Build

pytestmark = [
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler on this machine"),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="reads machine code with objdump (binutils)"),
]

# A function of a set's namespace that calls another; what differs between two sets is a number, or the one called.
SOURCE = """
namespace NAMESPACE { int other(int); int another(int); int it(int a) { return other(a) + 1; } }
"""


@pytest.fixture
def made(tmp_path: Path) -> Build:
    """Objects of two sets whose sources differ in `pulling_away` alone."""
    for isa in ("avx512", "avx512bf16"):
        for source in {source for sources in SOURCES.values() for source in sources}:
            text = SOURCE.replace("+ 1", "+ 2") if (isa, source) == ("avx512bf16", "pulling_away") else SOURCE
            compile_(tmp_path, isa, source, text)
    return Build(tmp_path)


def compile_(folder: Path, isa: str, source: str, text: str) -> None:
    to = folder / "CMakeFiles" / f"kernels_{isa}.dir" / "csrc" / "cpu" / f"{source}.cpp.o"
    to.parent.mkdir(parents=True, exist_ok=True)
    command = ["c++", "-O1", f"-DNAMESPACE=ebgan_{isa}", "-x", "c++", "-c", "-o", str(to), "-"]
    subprocess.run(command, input=text, text=True, check=True)


def test_the_same_machine_code_is_run_by_one_set(made: Build) -> None:
    assert made.shared("avx512bf16", ["avx512"]) == {"energy": "avx512", "hinge": "avx512"}
    assert made.shared("avx512", []) == {}


def test_code_that_calls_another_function_is_other_code(made: Build) -> None:
    """The bytes of both are the same: a linker puts the address in."""
    compile_(made.folder, "avx512bf16", "energy", SOURCE.replace("return other", "return another"))
    assert made.shared("avx512bf16", ["avx512"]) == {"hinge": "avx512"}


def test_without_the_objects_or_a_disassembler_nothing_is_shared(made: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    assert made.shared("avx512bf16", ["avx2"]) == {}
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert Build(made.folder).shared("avx512bf16", ["avx512"]) == {}
