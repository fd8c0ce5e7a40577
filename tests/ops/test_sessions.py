"""Every session of the op tests is run by `make test`, and runs on the backend or set that it names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ebgan_fast

from . import sessions

ROOT = Path(__file__).parents[2]


def _asked_for(**options: str) -> Any:
    """Return a stand-in for pytest's configuration, with what a session reads of it."""
    source = pytest.Config.ArgsSource.ARGS
    return SimpleNamespace(getoption=lambda name: options.get(name.lstrip("-")), args_source=source, args=[])


def test_the_files_of_every_session_are_there() -> None:
    for name, files in sessions.FILES.items():
        assert files, name
        assert all((sessions.HERE / file).is_file() for file in files), name


def test_make_test_runs_every_session() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (recipe,) = (line for line in makefile.splitlines() if line.startswith("\t$(SIDE_BY_SIDE) lint test-inter"))
    for name in sessions.FILES:
        assert f"test-{name}" in recipe.replace("test-isas", "test-isa")
    (sets,) = (line for line in makefile.splitlines() if line.startswith("ISAS = "))
    assert "test-isa-" in sets
    assert "python -m tests.ops.sessions" in sets


def test_every_other_instruction_set_has_a_session() -> None:
    if not ebgan_fast.backends()["cpu"].available:
        pytest.skip(f"backend cpu: {ebgan_fast.backends()['cpu'].reason}")
    from ebgan_fast import _C

    info = _C.build_info()
    assert {*sessions.other_instruction_sets(), info["isa"]} == set(info["isas_supported"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"isa": "avx9"}, "--isa: got 'avx9', expected one of"), ({"isa": "baseline", "backend": "simt"}, "two sessions")],
)
def test_a_session_that_is_none_is_refused(
    options: dict[str, str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not ebgan_fast.backends()["cpu"].available:
        pytest.skip(f"backend cpu: {ebgan_fast.backends()['cpu'].reason}")
    if "backend" not in options:
        monkeypatch.setenv(sessions.ISA, options["isa"])  # add_options has set it by then
    with pytest.raises(pytest.UsageError, match=complaint):
        sessions.begin(_asked_for(**options))


@pytest.mark.slow
def test_a_session_with_a_path_runs_on_its_backend() -> None:
    """`--isa` holds although pytest imports the folder's conftest.py, and ebgan_fast, before it reads the options."""
    if not ebgan_fast.backends()["cpu"].available:
        pytest.skip(f"backend cpu: {ebgan_fast.backends()['cpu'].reason}")
    options = ["--collect-only", "-q", "-n0", "--isa=baseline", "tests/ops/test_values.py"]
    command = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[cpu" in done.stdout
    assert "[reference" not in done.stdout


def test_a_process_that_was_told_too_late_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sessions.ISA, "another")
    with pytest.raises(pytest.UsageError, match=r"--isa=another: the process runs "):
        sessions.check()
