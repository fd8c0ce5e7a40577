"""Tests that kernels disassembled in one run have the same instructions as when each is disassembled alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed (Linux only)")

from gpuless import sass
from gpuless.resources import measure, measure_all
from gpuless.triton import Artifact
from planted_compile import GOOD

TARGETS = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")


@pytest.fixture(scope="module")
def kernels() -> dict[str, list[Artifact]]:
    """Return compiled kernels for each target, each with its own listing. Compiles and listings may come from the
    cache.
    """
    compiled = {target: [make().compile(target) for make in GOOD.values()] for target in TARGETS}
    for artifacts in compiled.values():
        assert all(artifact.sass for artifact in artifacts)
    return compiled


@pytest.fixture(autouse=True)
def _nothing_kept(kernels: dict[str, list[Artifact]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use an empty cache, so that every test disassembles anew."""
    monkeypatch.setattr(sass.cache, "folder", lambda: tmp_path)


def _codes(artifacts: list[Artifact]) -> list[bytes]:
    return [code for artifact in artifacts for code in sass.code_of(artifact.binary).values()]


@pytest.mark.parametrize("target", TARGETS)
def test_many_at_once_are_as_listed_one_by_one(kernels: dict[str, list[Artifact]], target: str) -> None:
    listed = [sass.names_in(artifact.sass) for artifact in kernels[target]]
    assert all(len(names) > 20 for names in listed)
    assert sass.instructions(target, _codes(kernels[target])) == listed


def test_a_function_has_its_name_and_all_its_code(kernels: dict[str, list[Artifact]]) -> None:
    for artifact in kernels["sm_80"]:
        ((name, code),) = sass.code_of(artifact.binary).items()
        assert name == artifact.name
        assert len(code) == 16 * len(sass.names_in(artifact.sass))


def test_what_is_kept_is_not_disassembled_again(
    kernels: dict[str, list[Artifact]], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    original = subprocess.run

    def counted(command: list[str], **how: object) -> object:
        runs.append(Path(command[-1]).stat().st_size)
        return original(command, **how)  # type: ignore[call-overload]

    monkeypatch.setattr(sass.subprocess, "run", counted)
    first, second, third = _codes(kernels["sm_80"])[:3]
    alone = sass.instructions("sm_80", [second])
    assert sass.instructions("sm_80", [first, second, third, second])[1::2] == [*alone, *alone]
    assert runs == [len(second), len(first) + len(third)]
    sass.instructions("sm_86", [second])
    assert runs[2:] == [len(second)]


def test_resources_come_in_the_order_of_the_kernels(kernels: dict[str, list[Artifact]]) -> None:
    amd = [make().compile("gfx942") for make in GOOD.values()]
    mixed = [it for group in zip(kernels["sm_90"], amd, kernels["sm_80"], strict=True) for it in group]
    assert measure_all(mixed) == [measure(artifact) for artifact in mixed]


def test_other_files_are_refused(kernels: dict[str, list[Artifact]]) -> None:
    with pytest.raises(ValueError, match="cubin: got a file that begins with b'#!/bin'"):
        sass.code_of(b"#!/bin/sh")
    whole = kernels["sm_80"][0].binary
    for length in (6, 60, 500, len(whole) // 2):
        with pytest.raises(ValueError, match=f"cubin: got {length} bytes, expected more"):
            sass.code_of(whole[:length])


def test_codes_of_half_an_instruction_are_an_error() -> None:
    """Codes of 24 and 8 bytes together are two instructions long, but the cut lies inside of an instruction."""
    with pytest.raises(RuntimeError, match=r"got codes of \[24, 8\] bytes, expected multiples of 16"):
        sass.instructions("sm_80", [bytes(24), bytes(8)])


@pytest.mark.parametrize("code", [bytes(64), b"\xff" * 32])
def test_what_is_no_code_is_an_error(code: bytes) -> None:
    with pytest.raises(RuntimeError, match=f"of {len(code) // 16} instructions"):
        sass.instructions("sm_80", [code])
