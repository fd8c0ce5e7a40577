"""Every public function and class has an example in its docstring, which prints what the docstring shows."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.packaging.test_loading_rules import PUBLIC

_READS_MNIST = re.compile(r"\b(load_mnist\(\)|train\()")


def _public() -> Iterator[tuple[str, Any]]:
    """Give every public function and class once, with the first of its names."""
    seen: set[int] = set()
    for module_name in PUBLIC:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            value = getattr(module, name)
            if (inspect.isfunction(value) or inspect.isclass(value)) and id(value) not in seen:
                seen.add(id(value))
                yield f"{module_name}.{name}", value


def _complaint(name: str, value: Any) -> str | None:
    """Run a docstring's examples without any imports but their own; return what is wrong, or None."""
    (test,) = doctest.DocTestFinder(recurse=False, exclude_empty=False).find(value, name, module=False, globs={})
    if not test.examples:
        return f"{name} has no example: expected a section 'Example:' of >>> lines in its docstring"
    report: list[str] = []
    with torch.random.fork_rng(devices=[]):
        doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    return "".join(report) or None


@pytest.mark.parametrize(("name", "value"), [pytest.param(*pair, id=pair[0]) for pair in _public()])
def test_its_example_prints_what_it_says(
    name: str, value: Any, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if _READS_MNIST.search(value.__doc__ or ""):
        digits = request.getfixturevalue("mnist")  # read once for all runs; skips where there is none
        monkeypatch.setattr("ebgan_fast.data.training_set.load_mnist", lambda folder: digits)
    monkeypatch.chdir(tmp_path)
    complaint = _complaint(name, value)
    assert complaint is None, complaint


def _without_one() -> None:
    """Do nothing here."""


def _with_a_wrong_one() -> None:
    """Add two numbers.

    Example:
        >>> 1 + 1
        3
    """


def _with_one_that_imports_nothing() -> None:
    """Read a name.

    Example:
        >>> Path("a").name
        'a'
    """


def _with_one() -> None:
    """Read a name.

    Example:
        >>> from pathlib import Path
        >>> Path("a").name
        'a'
    """


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (_without_one, "has no example"),
        (_with_a_wrong_one, "Expected:\n    3\nGot:\n    2\n"),
        (_with_one_that_imports_nothing, "NameError: name 'Path' is not defined"),
        (_with_one, None),
    ],
)
def test_what_is_wrong_with_an_example_is_found(value: Any, said: str | None) -> None:
    complaint = _complaint(value.__name__, value)
    assert (complaint is None) == (said is None), complaint
    assert (said or "") in (complaint or "")
