"""Tests that importing the package is cheap, and that the package tells which tools are missing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import gpuless
from gpuless import tools

Run = Callable[..., "subprocess.CompletedProcess[str]"]

NO_TORCH = "import sys; sys.modules['torch'] = sys.modules['triton'] = None\n"  # as if they weren't installed


def test_importing_it_imports_nothing_heavy(run_python: Run) -> None:
    """Importing gpuless imports neither torch, triton nor NumPy. Importing its pytest plugin doesn't either: pytest
    loads the plugin in every run.
    """
    program = "import sys; before = set(sys.modules); import gpuless, gpuless.tools; print(*set(sys.modules) - before)"
    heavy = {"torch", "triton", "numpy"}
    assert not heavy & set(run_python("-c", program).stdout.split())
    program = program.replace("gpuless.tools", "gpuless.pytest_plugin")
    found = run_python("-c", program).stdout.split()
    assert "gpuless.pytest_plugin" in found
    assert not heavy & set(found)


def test_modules_are_imported_when_used(run_python: Run) -> None:
    program = NO_TORCH + "import gpuless; print(gpuless.ptx.simulate.__name__, 'simt' in dir(gpuless))"
    assert run_python("-c", program).stdout == "simulate True\n"
    with pytest.raises(AttributeError, match="no attribute 'ptxx'"):
        _ = gpuless.ptxx  # type: ignore[attr-defined]


def test_numpy_is_enough_to_simulate(run_python: Run) -> None:
    program = NO_TORCH + (
        "import numpy as np, gpuless.ptx, gpuless.simt, gpuless.cuda, gpuless.resources, gpuless.interpreter\n"
        "from ptx_snippets import kernel\n"
        "from gpuless.guard_pages import guarded\n"
        "from gpuless.sparse import sparse\n"
        "to = guarded(np.zeros(1, np.int32))\n"
        "gpuless.ptx.simulate(kernel(1, '', 'st.global.b32 [%address0], 7;'), grid=1, threads=32, arguments=[to])\n"
        "print(to[0], sparse((2**31 + 1,), np.float16, fill=2)[-1])\n"
    )
    done = run_python("-c", program)
    assert done.stdout == "7 2.0\n", done.stderr


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import gpuless.triton", "gpuless.triton needs triton and torch"),
        ("import gpuless\nwith gpuless.guard_pages.guarded_allocations(): pass", "guarded_allocations needs torch"),
    ],
)
def test_what_is_missing_is_said_with_the_way_out(run_python: Run, program: str, message: str) -> None:
    last = run_python("-c", NO_TORCH + program).stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {message}")
    assert "pip install" in last


def test_every_tool_is_found_or_missing() -> None:
    found = gpuless.available()
    assert [tool.name for tool in found] == ["torch", "triton", "nvcc", "C++ compiler", "CUDA headers"]
    assert all(bool(tool.found) != bool(tool.missing) for tool in found)


def test_an_empty_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setattr(tools, "cuda_headers", lambda: None)
    missing = {tool.name: tool.missing for tool in gpuless.available()}
    assert missing["nvcc"] == "nvcc is not installed (CUDA toolkit): on PATH or in CUDA_HOME"
    assert missing["C++ compiler"] == "no '/nonexistent/c++': install g++, or set CXX"
    assert missing["CUDA headers"]
    assert gpuless.cuda.missing() == "nvcc is not installed (CUDA toolkit)"
    assert gpuless.simt.missing() == "the SIMT simulator needs a C++ compiler (/nonexistent/c++)"
    with pytest.raises(RuntimeError, match="nvcc is not installed"):
        gpuless.cuda.ptx("any.cu")
    with pytest.raises(RuntimeError, match="needs a C\\+\\+ compiler"):
        gpuless.simt.build([Path("any.cu")], Path("any.so"))


def test_the_command_prints_the_table(run_python: Run) -> None:
    done = run_python("-m", "gpuless")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"gpuless {gpuless.__version__}"
    for tool in gpuless.available():
        assert tool.name in done.stdout
        assert (tool.found or tool.missing) in done.stdout


def test_every_file_of_the_simulator_is_in_the_package() -> None:
    """The package holds every header. A header that pyproject.toml's pattern misses would be absent only in an
    installed package.
    """
    folder = Path(gpuless.__file__).parent
    names = {path.name for path in (folder / "simt").iterdir()}
    assert {"simt.h", "engine.h", "record.h", "tensor_cores.h", "gpuless.cuh", "stand_in"} <= names
    assert (folder / "simt" / "stand_in" / "nv" / "target").is_file()
    assert (folder / "py.typed").is_file()
