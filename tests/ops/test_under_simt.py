"""The tests of this folder again, on backend cuda, its kernels in the SIMT simulator.

Which backend takes tensors of the CPU is a choice for the whole process: simulated_cuda.py makes it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .cuda import building
from .simulated_cuda import SIMULATED, VARIABLE

if reason := building.missing():
    pytest.skip(reason, allow_module_level=True)

HERE = Path(__file__).parent
# One worker builds the simulated kernels, half a minute, for all tests that run them.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("simulated_cuda"),
    pytest.mark.skipif(SIMULATED, reason="already in the simulator"),
]


@pytest.mark.parametrize(
    ("file", "seed"), [("test_contract", 0), ("test_transforms", 1), ("test_values", 2), ("test_scaling", 3)]
)
def test_the_op_tests_pass(file: str, seed: int) -> None:
    """`seed` is of the order in which a block's threads run."""
    module = building.simulated() / "_simulated.so"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(HERE / f"{file}.py")],
        env={**os.environ, VARIABLE: str(module), "SIMT_SEED": str(seed)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    tail = "\n".join(done.stdout.splitlines()[-60:])
    assert done.returncode == 0, tail
    passed = re.search(r"(\d+) passed", tail)
    assert passed is not None, tail
    assert int(passed[1]) > 0, tail
