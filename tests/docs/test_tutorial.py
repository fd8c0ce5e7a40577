"""The blocks of the tutorial run in order and write the files that it names."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ebgan_fast import cli
from ebgan_fast.metrics import DigitClassifier

from .pages import ROOT, blocks_of

# The programs that install the package: the machine of the tests has it already.
INSTALLATION = ("pip",)


@pytest.mark.slow
def test_the_tutorial(tmp_path: Path, digit_classifier: DigitClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """All commands run in this process, since a dozen others would each import torch. test_cli.py starts processes."""
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
