"""What the reference is made of: every public name is documented, the losses in full."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from torch import nn

import ebgan_fast
from ebgan_fast import functional
from tests.packaging.test_loading_rules import PUBLIC


def _documented() -> Iterator[tuple[str, Any]]:
    """Every public function and class, and the public methods of the classes."""
    for module_name in PUBLIC:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value) or inspect.isclass(value):
                yield f"{module_name}.{name}", value
            if inspect.isclass(value):
                for method, found in vars(value).items():
                    plain = getattr(found, "__func__", getattr(found, "func", getattr(found, "fget", found)))
                    if inspect.isfunction(plain) and not method.startswith("_") and method != "extra_repr":
                        yield f"{module_name}.{name}.{method}", plain


@pytest.mark.parametrize(("name", "value"), [pytest.param(*pair, id=pair[0]) for pair in _documented()])
def test_it_says_what_it_is_and_what_it_takes(name: str, value: Any) -> None:
    text = inspect.getdoc(value) or ""
    assert text, f"{name} has no docstring"
    assert text != (inspect.getdoc(tuple) if issubclass(value, tuple) else None) if inspect.isclass(value) else True
    if inspect.isfunction(value) and name.count(".") == 2 and "reference" not in name:
        for parameter in inspect.signature(value).parameters.keys() - {"self"}:
            assert parameter in text, f"{name} does not speak of {parameter}"


LOSSES = [name for name in functional.__all__ if inspect.isfunction(getattr(functional, name))]


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_says_everything(name: str) -> None:
    function = getattr(functional, name)
    text = inspect.getdoc(function) or ""
    for section in ("Args:", "Returns:", "Raises:"):
        assert section in text
    for parameter in inspect.signature(function).parameters:
        assert f"\n    {parameter}: " in text, f"{parameter} is not explained"
    for words in ("[N", "float32 (float64 for float64", "equation", "ValueError", "TypeError"):
        assert words in text, f"{name} does not speak of {words}"
    assert any(
        unit in text for unit in ("units of the energy", "pixel units", "in [0, 1]", "norm=norm", "the energy, ")
    )


@pytest.mark.parametrize("name", ebgan_fast.nn.__all__)
def test_a_module_points_to_its_function(name: str) -> None:
    module = getattr(ebgan_fast.nn, name)
    assert issubclass(module, nn.Module)
    own = inspect.getdoc(module) or ""
    points_to = [function for function in LOSSES if f"`functional.{function}`" in own]
    assert [function.replace("_", "") for function in points_to] == [name.lower()]
    for parameter in list(inspect.signature(module).parameters):
        assert f"{parameter}: " in own
    forward = inspect.getdoc(module.forward) or ""
    assert "[N" in forward
    assert "equation" in forward
