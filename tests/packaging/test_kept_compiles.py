"""A compile is taken from the cache if nothing that it reads has changed, and only then."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import kept_compiles

# It logs each compile, prints the variable SAYS, and ends with STATUS.
COMPILER = """#!/bin/sh
case "$*" in *--version*) echo "version 1"; exit;; esac
echo "$*" >> {log}
printf "$SAYS"
[ "$STATUS" = 0 ] && cat csrc/cpu/a.cpp > "{made}"
exit $STATUS
"""

Compile = Callable[..., int]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a source, a header of the project, a header of another package, and a compiler."""
    monkeypatch.setenv("GPULESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SAYS", "")
    monkeypatch.setenv("STATUS", "0")
    for name in ("csrc/cpu/a.cpp", "csrc/cpu/a.h", "other/b.h"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    compiler = tmp_path / "tree" / "compiler"
    compiler.write_text(COMPILER.format(log=tmp_path / "log", made="a.o"))
    compiler.chmod(0o755)
    monkeypatch.chdir(tmp_path / "tree")
    return tmp_path / "tree"


def compile_it(*flags: str, source: str = "csrc/cpu/a.cpp", include: str = "other") -> int:
    command = ["./compiler", *flags, "-isystem", include, "-MD", "-MF", "a.d", "-o", "a.o", "-c", source]
    return kept_compiles.main(command)


def compiles(tree: Path) -> int:
    log = tree.parent / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_the_same_compile_is_made_once(tree: Path) -> None:
    assert compile_it("-O3") == 0
    made = (tree / "a.o").read_bytes()
    (tree / "a.o").unlink()
    assert compile_it("-O3") == 0
    assert compiles(tree) == 1
    assert (tree / "a.o").read_bytes() == made == b"csrc/cpu/a.cpp"
    assert (tree / "a.d").exists()


def test_another_place_is_no_other_compile(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_it()
    tree.rename(tree.with_name("moved"))
    monkeypatch.chdir(tree.with_name("moved"))
    assert compile_it(include=str(tree.with_name("moved") / "other")) == 0
    assert compiles(tree) == 1


CHANGES: dict[str, Callable[[Path], object]] = {
    "the source": lambda tree: (tree / "csrc/cpu/a.cpp").write_text("other"),
    "a header of the project": lambda tree: (tree / "csrc/cpu/a.h").write_text("other"),
    "a new header": lambda tree: (tree / "csrc/c.h").touch(),
    "a header of another package": lambda tree: (tree / "other/b.h").write_text("other"),
    "the compiler's version": lambda tree: (tree / "compiler").write_text(
        (tree / "compiler").read_text().replace("version 1", "version 2")
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_compile_is_made_again_after_a_change_of(tree: Path, change: str) -> None:
    compile_it()
    CHANGES[change](tree)
    compile_it()
    assert compiles(tree) == 2


def test_other_flags_are_another_compile(tree: Path) -> None:
    compile_it("-O2")
    compile_it("-O3")
    compile_it("-O3", "-DNAME=1")
    assert compiles(tree) == 3


def test_another_search_path_is_another_compile(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_it()
    monkeypatch.setenv("CPLUS_INCLUDE_PATH", str(tree / "other"))
    compile_it()
    assert compiles(tree) == 2


@pytest.mark.parametrize("flag", ["-march=native", "-include=b.h", "-iquote.", "@options"])
def test_a_compile_that_reads_more_is_not_kept(tree: Path, flag: str) -> None:
    for _ in range(2):
        compile_it(flag)
    assert compiles(tree) == 2


@pytest.mark.parametrize(("says", "status"), [("warning", "0"), ("", "1")], ids=["a warning", "a failure"])
def test_a_verdict_is_not_kept(
    tree: Path, says: str, status: str, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setenv("SAYS", says)
    monkeypatch.setenv("STATUS", status)
    assert [compile_it(), compile_it()] == [int(status)] * 2
    assert compiles(tree) == 2
    assert capfdbinary.readouterr().out == 2 * says.encode()


def test_a_file_outside_the_sources_is_not_kept(tree: Path) -> None:
    (tree / "b.cpp").touch()
    for _ in range(2):
        compile_it(source="b.cpp")
    assert compiles(tree) == 2


def test_the_launcher_finds_its_cache_where_pip_hides_the_packages_of_this_environment(tree: Path) -> None:
    (tree / "other" / "sitecustomize.py").write_text(
        "import sys, sysconfig\n"
        "of_python = (it for it in sys.path if it.startswith(sysconfig.get_path('stdlib')))\n"
        "sys.path[:] = [it for it in of_python if 'site-packages' not in it]\n"
    )
    launcher = kept_compiles.launched()["CMAKE_CXX_COMPILER_LAUNCHER"].split(";")
    command = [*launcher, "./compiler", "-o", "a.o", "-c", "csrc/cpu/a.cpp"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": "other"})
    assert compiles(tree) == 1
