"""Tests that the examples run, and that README.md shows them unchanged."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import gpuless.cuda

Run = Callable[..., "subprocess.CompletedProcess[str]"]

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("with_*.py"))


def printed(run_python: Run, name: str, **environment: str) -> list[str]:
    done = run_python(str(ROOT / "examples" / name), **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_tested() -> None:
    assert EXAMPLES == ["with_cuda.py", "with_triton.py"]


def test_a_kernel_of_triton(run_python: Run) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("triton", reason="triton is not installed (Linux only)")
    right, race, too_far = printed(run_python, "with_triton.py")
    assert right == "right: True"
    assert re.match(r"Race: load at byte 0 of argument 1, written by thread \d+ of CTA .*with_triton\.py:\d+", race)
    assert re.match(r"OutOfBounds: load of 4 bytes at byte 4000 of argument 0, which has 4000 .*with_triton", too_far)


def test_a_kernel_of_cuda(run_python: Run) -> None:
    if reason := gpuless.cuda.missing():
        pytest.skip(reason)
    right, race, too_far = printed(run_python, "with_cuda.py")
    assert right == "right: True"
    assert re.match(r"Race: .* byte 0 of argument 1 .*total\.cu:\d+", race)
    assert re.match(r"OutOfBounds: load of 4 bytes at byte 4000 of argument 0, which has 4000 .*total\.cu", too_far)


def test_without_nvcc_the_example_says_so_and_ends(run_python: Run, tmp_path: Path) -> None:
    lines = printed(run_python, "with_cuda.py", PATH=str(tmp_path), CUDA_HOME=str(tmp_path))
    assert lines == ["skipped: nvcc is not installed (CUDA toolkit)"]


@pytest.mark.parametrize("name", [*EXAMPLES, "total.cu"])
def test_the_readme_shows_it(name: str) -> None:
    blocks = re.findall(r"```\w+\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    text = (ROOT / "examples" / name).read_text()
    body = text.split('"""\n\n', 1)[1] if name.endswith(".py") else text
    assert body in blocks


def test_the_readme_begins_with_a_race_that_is_found(run_python: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("triton", reason="triton is not installed (Linux only)")
    readme = (ROOT / "README.md").read_text()
    (tmp_path / "race.py").write_text(re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0])
    last = run_python(str(tmp_path / "race.py")).stderr.splitlines()[-1]
    shown = without_ptx(" ".join(re.findall(r"```text\n(.*?)```", readme, re.DOTALL)[0].split()))
    assert without_ptx(last) == shown


def without_ptx(text: str) -> str:
    """Return reports without PTX line numbers and registers, which differ between releases of nvcc."""
    return re.sub(r"PTX line \d+ (\([^)]*\)): .*", r"\1", text)


def test_the_readme_prints_what_the_example_prints(run_python: Run) -> None:
    if reason := gpuless.cuda.missing():
        pytest.skip(reason)
    readme = without_ptx((ROOT / "README.md").read_text())
    assert without_ptx("\n".join(printed(run_python, "with_cuda.py"))) in readme
