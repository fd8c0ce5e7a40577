"""Tests that a compiler runs if and only if something that it reads has changed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gpuless import compiling, tools
from gpuless.compiling import compiled

if shutil.which(tools.compiler()) is None:
    pytest.skip(f"no C++ compiler ({tools.compiler()})", allow_module_level=True)

OPTIONS = ("-x", "c++", "-c", "-O1")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Sequence[str]]:
    """Return the list of commands that were run, which starts empty. The cache is empty too."""
    monkeypatch.setenv("GPULESS_CACHE", str(tmp_path / "kept"))
    commands: list[Sequence[str]] = []
    run = compiling.run
    monkeypatch.setattr(compiling, "run", lambda command: commands.append(command) or run(command))
    return commands


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a folder with a source. The source includes a header beside it, which includes one from another folder."""
    root = tmp_path / "tree"
    (root / "include").mkdir(parents=True)
    (root / "source.cpp").write_text('#include "beside.h"\nint number() { return kNumber; }\n')
    (root / "beside.h").write_text("#pragma once\n#  include <far.h>\n")
    (root / "include" / "far.h").write_text("constexpr int kNumber = 7;\n")
    return root


def build(tree: Path, **changes: Any) -> bytes:
    arguments: dict[str, Any] = {"options": OPTIONS, "headers": [tree / "include"], **changes}
    return compiled(tools.compiler(), [tree / "source.cpp"], **arguments)


def test_the_same_is_compiled_once(runs: list[Sequence[str]], tree: Path) -> None:
    first = build(tree)
    assert first
    assert build(tree) == first
    assert len(runs) == 1


@pytest.mark.parametrize("name", ["source.cpp", "beside.h", "include/far.h"])
def test_a_changed_file_is_a_miss(runs: list[Sequence[str]], tree: Path, name: str) -> None:
    first = build(tree)
    path = tree / name
    text = path.read_text()
    path.write_text(text + "int another() { return 1; }\n")
    assert build(tree) != first
    path.write_text(text)
    assert build(tree) == first
    assert len(runs) == 2


def test_a_header_that_comes_before_another_is_a_miss(runs: list[Sequence[str]], tree: Path) -> None:
    first = build(tree)
    (tree / "first").mkdir()
    (tree / "first" / "far.h").write_text("constexpr int kNumber = 8;\n")
    assert build(tree, headers=[tree / "first", tree / "include"]) != first
    assert len(runs) == 2


def test_a_header_of_the_system_is_a_miss_when_it_changes(
    runs: list[Sequence[str]], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"headers": [], "system_headers": [tree / "include"]}
    first = build(tree, **arguments)
    assert build(tree, **arguments) == first
    assert len(runs) == 1
    (tree / "include" / "far.h").write_text("constexpr int kNumber = 89;\n")
    compiling.forget()  # a process reads system headers only once
    assert build(tree, **arguments) != first


@pytest.mark.parametrize("options", [("-x", "c++", "-c", "-O0"), (*OPTIONS, "-DNDEBUG"), (*OPTIONS, "-march=x86-64")])
def test_another_option_is_a_miss(runs: list[Sequence[str]], tree: Path, options: Sequence[str]) -> None:
    build(tree)
    build(tree, options=options)
    assert len(runs) == 2


def test_another_version_is_a_miss(runs: list[Sequence[str]], tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tree)
    monkeypatch.setattr(compiling, "version", lambda compiler: "99.0")
    build(tree)
    assert len(runs) == 2


def test_so_is_one_of_a_host_compiler(runs: list[Sequence[str]], tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tree, host_compiler=tools.compiler())
    build(tree)
    assert len(runs) == 2


def test_an_environment_variable_of_compilers_is_a_miss(
    runs: list[Sequence[str]], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tree)
    monkeypatch.setenv("CPATH", str(tree))
    build(tree)
    assert len(runs) == 2


@pytest.mark.parametrize("options", [("-include", "beside.h"), ("-I.",), ("-isystem", "x"), ("-march=native",)])
def test_options_that_name_files_are_not_kept(
    runs: list[Sequence[str]], tree: Path, options: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    for _ in range(2):
        build(tree, options=[*OPTIONS, *options])
    assert len(runs) == 2


def test_an_include_that_a_macro_names_is_not_kept(runs: list[Sequence[str]], tree: Path) -> None:
    (tree / "beside.h").write_text("#define NAME <far.h>\n#include NAME\n")
    for _ in range(2):
        build(tree)
    assert len(runs) == 2


def test_equal_trees_are_one(runs: list[Sequence[str]], tree: Path) -> None:
    """Equal trees share an entry if each is compiled with its root. Without a root the path is part of the entry,
    because messages hold it.
    """
    other = tree.with_name("other")
    shutil.copytree(tree, other)
    for root in (tree, other):
        build(root, root=root, options=[*OPTIONS, "-g", f"-ffile-prefix-map={root}/="])
    assert len(runs) == 1
    for root in (tree, other):
        build(root)
    assert len(runs) == 3


def test_text_does_not_name_the_tree(runs: list[Sequence[str]], tree: Path) -> None:
    """Text compiled with take_root_out does not hold the tree's path: a kept text could name a file that is gone."""
    options = ["-x", "c++", "-S", "-g"]
    named = build(tree, options=options)
    assert str(tree).encode() in named
    text = build(tree, options=options, root=tree, take_root_out=True)
    assert b"source.cpp" in text
    assert f"{tree}/".encode() not in text


def test_an_entry_that_was_cut_short_is_compiled_anew(runs: list[Sequence[str]], tree: Path, tmp_path: Path) -> None:
    first = build(tree)
    (entry,) = (path for path in (tmp_path / "kept").iterdir() if not path.name.startswith("."))
    entry.write_bytes(entry.read_bytes()[:-100])
    assert build(tree) == first
    assert len(runs) == 2


def test_a_failure_is_told_and_not_kept(runs: list[Sequence[str]], tree: Path) -> None:
    (tree / "source.cpp").write_text("int number() { return kNumber; }\n")
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"(?s)source\.cpp.*kNumber"):
            build(tree)
    assert len(runs) == 2


def test_off(runs: list[Sequence[str]], tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPULESS_CACHE", "")
    assert build(tree) == build(tree)
    assert len(runs) == 2


def test_a_compiler_that_is_not_there() -> None:
    with pytest.raises(RuntimeError, match="no compiler 'nonexistent'"):
        compiled("nonexistent", [])
