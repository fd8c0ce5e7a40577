"""Each example has a test, and is one short file whose docstring says how to run it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .loading import EXAMPLES

FILES = sorted(EXAMPLES.glob("*.py"))


def test_there_are_examples() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_example_has_a_test(file: Path) -> None:
    assert (Path(__file__).parent / f"test_{file.name}").is_file()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_example_says_how_it_is_run(file: Path) -> None:
    text = file.read_text()
    assert f"examples/{file.name}" in (ast.get_docstring(ast.parse(text)) or "")
    assert text.count("\n") <= 150, "an example is read in one go"
