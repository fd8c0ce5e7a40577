"""The tests of this folder again, on the Triton kernels, in Triton's interpreter.

The interpreter is a choice for the whole process, made before Triton is imported.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SWITCH = "TRITON_INTERPRET"

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed (Linux only)"),
    pytest.mark.skipif(SWITCH in os.environ, reason="already in the interpreter"),
]


def _in_the_interpreter(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, SWITCH: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", ["test_contract", "test_scaling", "test_transforms", "test_values", "test_repeatability"]
)
def test_the_op_tests_pass(file: str) -> None:
    done = _in_the_interpreter(
        "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", str(HERE / f"{file}.py")
    )
    tail = "\n".join(done.stdout.splitlines()[-60:])
    assert done.returncode == 0, tail
    passed = re.search(r"(\d+) passed", tail)
    assert passed is not None, tail
    assert int(passed[1]) > 0, tail


def test_the_backend_says_that_it_is_interpreted() -> None:
    done = _in_the_interpreter("-c", "import ebgan_fast; print(ebgan_fast.backends()['triton'])")
    assert "BackendStatus(available=True" in done.stdout
    assert "interpreter" in done.stdout
