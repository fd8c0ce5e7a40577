"""The tutorial does what it says, from its first block to its last."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ebgan_fast import cli
from ebgan_fast.metrics import DigitClassifier

from .pages import ROOT, blocks_of

# What the reader does once, and whoever runs the tests has done.
INSTALLATION = ("pip",)


@pytest.mark.slow
def test_the_tutorial(tmp_path: Path, digit_classifier: DigitClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, for a dozen others would each import torch: test_cli.py starts the program as a user does."""
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(ROOT / "docs" / "tutorial.md"):
        if block.language == "python":
            exec(compile(block.text, "docs/tutorial.md", "exec"), {"__name__": "a_block"})
        elif block.language == "sh":
            for program, *arguments in map(shlex.split, block.text.splitlines()):
                if program not in INSTALLATION:
                    assert program == "ebgan-fast"
                    assert cli.main(arguments) == 0, arguments
    run = tmp_path / "runs" / "first"
    left = {"config.json", "metrics.jsonl", "curves.png", "samples", "checkpoint.pt", "score.json", "report.html"}
    assert left <= {path.name for path in run.iterdir()}
    assert {"digits.png", "points.png"} <= {path.name for path in tmp_path.iterdir()}
