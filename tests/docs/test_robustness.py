"""The tests that docs/robustness.md names exist."""

from __future__ import annotations

import re

from .commands import TARGETS
from .pages import ROOT

PAGE = ROOT / "docs" / "robustness.md"


def _rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in lines]
    return [row for row in cells if row[-1] != "tests"]


def _tests(row: list[str]) -> list[str]:
    return re.findall(r"`([^`]+)`", row[-1])


def test_every_line_names_its_tests() -> None:
    assert len(_rows()) > 20
    for row in _rows():
        assert len(row) == 3, row
        assert _tests(row), row


def test_the_tests_are_there() -> None:
    """Each name is a folder of tests, a target of make, or one function.

    For example: `tests/test_apple.py::test_the_means_of_a_log_interval`.
    """
    for row in _rows():
        for name in _tests(row):
            if name.startswith("make "):
                assert name.removeprefix("make ") in TARGETS, name
                continue
            path, _, function = name.partition("::")
            if function:
                assert f"\ndef {function}(" in (ROOT / path).read_text(encoding="utf-8"), name
            else:
                assert any((ROOT / path).rglob("test_*.py")), name
