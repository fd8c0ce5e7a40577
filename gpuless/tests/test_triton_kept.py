"""Tests that a kernel is compiled again, in any process, if and only if it, its specialization or the compiler has
changed.
"""

from __future__ import annotations

import linecache
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed (Linux only)")

import triton

import gpuless.triton
from gpuless.resources import measure
from launches import Launch
from planted_compile import GOOD

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Yield the list of targets that were compiled for, which starts empty. The cache is empty too."""
    monkeypatch.setenv("GPULESS_CACHE", str(tmp_path))
    found: list[str] = []
    original = triton.compile

    def counted(source: Any, target: Any, options: Any) -> Any:
        found.append(str(target.arch))
        return original(source, target=target, options=options)

    monkeypatch.setattr(triton, "compile", counted)
    gpuless.triton.forget()
    yield found
    gpuless.triton.forget()


def test_equal_specializations_are_compiled_once(compiles: list[str]) -> None:
    good = GOOD["center"]()
    first = good.compile()
    assert Launch(good.kernel, (3,), {**good.arguments, "n": 1008}, 4).compile() is first
    gpuless.triton.forget()
    assert good.compile() == first
    assert compiles == ["80"]


def test_what_is_kept_is_whole(compiles: list[str]) -> None:
    for target in ("sm_80", "gfx942"):
        fresh = GOOD["total"]().compile(target)
        gpuless.triton.forget()
        kept = GOOD["total"]().compile(target)
        assert kept is not fresh
        assert kept == fresh
        assert measure(kept) == measure(fresh)
    assert compiles == ["80", "gfx942"]


def test_another_process_compiles_nothing(compiles: list[str], run_python: Run) -> None:
    """Another process finds the entry, so its key depends neither on the order of a set nor on an address."""
    artifact = GOOD["center"]().compile()
    assert artifact.sass
    program = (
        "import subprocess, triton\n"
        "run = subprocess.run\n"
        "subprocess.run = lambda command, **how: run(command, **how) if '--version' in command else fail\n"
        "triton.compile = None\n"
        "from planted_compile import GOOD\n"
        "artifact = GOOD['center']().compile()\n"
        "print(artifact.ptx + artifact.sass, end='')\n"
    )
    done = run_python("-c", program)
    assert done.stdout == artifact.ptx + artifact.sass, done.stderr


def test_another_target_option_or_build_is_a_miss(compiles: list[str]) -> None:
    good = GOOD["center"]()
    others = [
        good.compile("sm_90"),
        good.compile(debug=True),
        replace(good, num_warps=8).compile(),
        replace(good, enable_fp_fusion=True).compile(),
        replace(good, arguments={**good.arguments, "n": 1000}).compile(),
    ]
    assert len(compiles) == len(others)
    good.compile()
    assert len(compiles) == len(others) + 1


def test_another_release_of_triton_is_a_miss(compiles: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    GOOD["center"]().compile()
    monkeypatch.setattr(triton, "__version__", "99.0")
    GOOD["center"]().compile()
    assert compiles == ["80", "80"]


def test_a_changed_kernel_is_a_miss(compiles: list[str], tmp_path: Path) -> None:
    source = "import triton\nimport triton.language as tl\n@triton.jit\ndef add(p):\n    tl.store(p, tl.load(p) + 1)\n"
    found = []
    for text in (source, source, source.replace("+ 1", "+ 2")):
        path = tmp_path / "changing.py"
        path.write_text(text)
        linecache.clearcache()  # Triton reads the source through it
        module: dict[str, Any] = {"__name__": "changing"}
        exec(compile(text, str(path), "exec"), module)
        found.append(gpuless.triton.compile(module["add"], {"p": GOOD["center"]().arguments["x"]}).ptx)
    assert len(compiles) == 2
    assert found[0] == found[1] != found[2]


def test_an_entry_that_was_cut_short_is_compiled_anew(compiles: list[str], tmp_path: Path) -> None:
    first = GOOD["center"]().compile()
    (entry,) = (path for path in tmp_path.iterdir() if not path.name.startswith("."))
    entry.write_bytes(entry.read_bytes()[:-1])
    gpuless.triton.forget()
    assert GOOD["center"]().compile() == first
    assert compiles == ["80", "80"]


def test_without_a_cache_a_process_compiles_once(compiles: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPULESS_CACHE", "")
    assert GOOD["center"]().compile() is GOOD["center"]().compile()
    assert compiles == ["80"]
