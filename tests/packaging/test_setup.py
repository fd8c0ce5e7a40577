"""The choice of CUDA kernels to build, with stand-ins for nvcc and nvidia-smi."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import setuptools

from .conftest import ROOT

SwitchedSetup = Callable[..., dict[str, Any]]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only one searched for programs."""
    for name in ("CUDACXX", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    return tmp_path


def _tool(folder: Path, name: str, says: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\nprintf '{says}'\n")
    path.chmod(0o755)


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> SwitchedSetup:
    """Give a function that returns what setup.py defines under these switches."""

    def run(**switches: str) -> dict[str, Any]:
        monkeypatch.setattr(setuptools, "setup", lambda **arguments: None)
        for name in ("EBGAN_FAST_BUILD_EXT", "EBGAN_FAST_CUDA", "EBGAN_FAST_WERROR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in switches.items():
            monkeypatch.setenv(name, value)
        return runpy.run_path(str(ROOT / "setup.py"))

    return run


def test_without_nvcc_there_are_none(tools: Path, setup: SwitchedSetup) -> None:
    _tool(tools, "nvidia-smi", "9.0\\n")
    assert setup()["cuda_options"]() == []


def test_without_a_gpu_there_are_none(tools: Path, setup: SwitchedSetup) -> None:
    _tool(tools, "nvcc", "sm_80\\nsm_90\\n")
    assert setup()["cuda_options"]() == []


def test_auto_builds_for_the_gpus_of_the_machine(tools: Path, setup: SwitchedSetup) -> None:
    _tool(tools, "nvcc", "sm_80\\nsm_90\\n")
    _tool(tools, "nvidia-smi", "12.0\\n9.0\\n9.0\\n")
    options = setup()["cuda_options"]()
    assert options[0] == "-DEBGAN_CUDA=ON"
    assert options[1:] == [f"-DCMAKE_CUDA_COMPILER={tools / 'nvcc'}", "-DCMAKE_CUDA_ARCHITECTURES=90-real;120-real"]
    assert setup(EBGAN_FAST_CUDA="0")["cuda_options"]() == []


def test_1_builds_every_architecture_that_the_compiler_knows(
    tools: Path, setup: SwitchedSetup, capsys: pytest.CaptureFixture[str]
) -> None:
    _tool(tools, "nvcc", "sm_75\\nsm_80\\nsm_86\\nsm_87\\nsm_89\\nsm_90\\n")
    options = setup(EBGAN_FAST_CUDA="1")["cuda_options"]()
    assert options[-1] == "-DCMAKE_CUDA_ARCHITECTURES=75-real;80-real;86-real;89-real;90"
    assert "does not know 100, 120" in capsys.readouterr().err


def test_a_list_builds_these_architectures_or_fails(tools: Path, setup: SwitchedSetup) -> None:
    _tool(tools, "nvcc", "sm_75\\nsm_90\\nsm_120\\n")
    options = setup(EBGAN_FAST_CUDA="120,75")["cuda_options"]()
    assert options[-1] == "-DCMAKE_CUDA_ARCHITECTURES=75-real;120"
    with pytest.raises(RuntimeError, match=r"EBGAN_FAST_CUDA=75,80: .*nvcc does not know 80"):
        setup(EBGAN_FAST_CUDA="75,80")["cuda_options"]()


def test_warnings_are_errors_where_that_is_asked_for(tools: Path, setup: SwitchedSetup) -> None:
    _tool(tools, "nvcc", "sm_90\\n")
    options = {it: setup(EBGAN_FAST_CUDA="1", EBGAN_FAST_WERROR=it)["cuda_options"]() for it in ("0", "1")}
    assert options["1"] == [*options["0"], "-DEBGAN_WERROR=ON"]
    assert setup(EBGAN_FAST_CUDA="1")["cuda_options"]() == options["0"]


@pytest.mark.parametrize("asked", ["1", "90"])
def test_what_is_asked_for_fails_without_nvcc(tools: Path, setup: SwitchedSetup, asked: str) -> None:
    with pytest.raises(RuntimeError, match=f"EBGAN_FAST_CUDA={asked} asks for the CUDA kernels, and nvcc is not found"):
        setup(EBGAN_FAST_CUDA=asked)["cuda_options"]()


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        ({"EBGAN_FAST_BUILD_EXT": "yes"}, "EBGAN_FAST_BUILD_EXT: got 'yes', expected 'auto', '0' or '1'"),
        (
            {"EBGAN_FAST_CUDA": "9.0"},
            "EBGAN_FAST_CUDA: got '9.0', expected 'auto', '0', '1' or architectures such as '80,90'",
        ),
        ({"EBGAN_FAST_WERROR": "auto"}, "EBGAN_FAST_WERROR: got 'auto', expected '0' or '1'"),
        ({"EBGAN_FAST_CUDA": "1", "EBGAN_FAST_BUILD_EXT": "0"}, "EBGAN_FAST_CUDA=1 asks for kernels in the extension"),
    ],
)
def test_switches_that_make_no_sense_are_refused(setup: SwitchedSetup, switches: dict[str, str], words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        setup(**switches)
