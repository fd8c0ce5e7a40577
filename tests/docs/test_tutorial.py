"""The tutorial does what it says, from its first block to its last."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ebgan_fast.metrics import DigitClassifier

from .pages import ROOT, blocks_of

# What the reader does once, and whoever runs the tests has done.
INSTALLATION = ("pip",)


@pytest.mark.slow
def test_the_tutorial(tmp_path: Path, digit_classifier: DigitClassifier) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for block in blocks_of(ROOT / "docs" / "tutorial.md"):
        if block.language == "python":
            commands = [[sys.executable, "-c", block.text]]
        elif block.language == "sh":
            lines = [shlex.split(line) for line in block.text.splitlines()]
            commands = [
                [sys.executable, "-m", "ebgan_fast", *line[1:]] for line in lines if line[0] not in INSTALLATION
            ]
        else:
            continue
        for command in commands:
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}: {done.stderr}"
    run = tmp_path / "runs" / "first"
    left = {"config.json", "metrics.jsonl", "curves.png", "samples", "checkpoint.pt", "score.json", "report.html"}
    assert left <= {path.name for path in run.iterdir()}
    assert {"digits.png", "points.png"} <= {path.name for path in tmp_path.iterdir()}
