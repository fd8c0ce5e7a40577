"""Load the examples as modules. They are no package, since a user copies one file."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"


# DistributedDataParallel keeps gloo's threads after destroy_process_group (torch 2.13). A thread that asks for the
# interpreter's lock while the interpreter shuts down aborts the process (CPython 3.11). This happened in 5 of 137 runs,
# after everything was printed.
LATE_ABORT = "terminate called without an active exception"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def output_of(arguments: list[str]) -> str:
    """Return what `python ARGUMENTS` prints; run it again, up to three times in all, if it ends in a late abort."""
    for _ in range(3):
        ran = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if ran.returncode == 0 or LATE_ABORT not in ran.stderr:
            break
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
