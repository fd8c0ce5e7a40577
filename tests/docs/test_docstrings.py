"""Every public name has a docstring, and those of the losses and Modules have every section that a reader looks for."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import ebgan_fast
from ebgan_fast import functional, game
from ebgan_fast.ops import ranks
from tests.packaging.test_loading_rules import PUBLIC

from .language import entries, sections

_FOLLOWED = ("ebgan_fast.functional", "ebgan_fast._checks", "ebgan_fast.game")
"""The modules whose functions are followed for their errors. `use_backend` documents those of backends."""


def _parameters(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def _raised(function: Callable[..., Any], seen: set[Callable[..., Any]]) -> set[str]:
    """Return the names of the errors that the source of a function raises, and of the functions that it calls."""
    if function in seen:
        return set()
    seen.add(function)
    errors: set[str] = set()
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            errors.add(node.exc.func.id)
        if isinstance(node, ast.Call):
            called = _named(node.func, function.__globals__)
            if inspect.isfunction(called) and called.__module__ in _FOLLOWED:
                errors |= _raised(called, seen)
    return errors


def _named(expression: ast.expr, names: dict[str, Any]) -> Any:
    """Return the value of `name` or `module.name`, or None for any other expression."""
    if isinstance(expression, ast.Name):
        return names.get(expression.id)
    if isinstance(expression, ast.Attribute) and isinstance(expression.value, ast.Name):
        module = names.get(expression.value.id)
        return getattr(module, expression.attr, None) if inspect.ismodule(module) else None
    return None


def _complaints(function: Callable[..., Any], text: str, headings: tuple[str, ...]) -> list[str]:
    """Return what the docstring of a function lacks: sections, parameters under Args, and errors under Raises."""
    found = sections(text)
    missing = [f"no section {name}" for name in headings if not found.get(name, "").strip()]
    expected, explained = set(_parameters(function)), entries(found.get("Args", ""))
    missing += [f"no parameter {name} under Args" for name in sorted(expected - explained)]
    missing += [f"{name} under Args, which is no parameter" for name in sorted(explained - expected)]
    raised = _raised(function, set())
    if "process_group" in expected:
        raised |= _raised(ranks.pulling_away_term, set())
    undocumented = raised - entries(found.get("Raises", ""))
    return missing + [f"no {name} under Raises" for name in sorted(undocumented)]


def _documented() -> Iterator[tuple[str, Any]]:
    """Yield every public function and class, and the public methods of the classes, with its name."""
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


DOCUMENTED = list(_documented())
CORE = ("functional", "game", "nn", "ops.backends", "ops.reference")
"""The modules, below `ebgan_fast`, whose methods explain their parameters too, and whose Raises are checked."""


def _is_core(function: Callable[..., Any]) -> bool:
    return function.__module__.removeprefix("ebgan_fast.") in CORE


def _named_parameters(pairs: list[tuple[str, Any]]) -> Any:
    return pytest.mark.parametrize(("name", "value"), [pytest.param(*pair, id=pair[0]) for pair in pairs])


@_named_parameters(DOCUMENTED)
def test_a_public_name_has_a_docstring_of_its_own(name: str, value: Any) -> None:
    text = inspect.getdoc(value) or ""
    assert text, f"{name} has no docstring"
    if inspect.isclass(value) and issubclass(value, tuple):
        assert text != inspect.getdoc(tuple)


@_named_parameters(
    [
        (name, value)
        for name, value in DOCUMENTED
        if inspect.isfunction(value) and (_is_core(value) or "." not in value.__qualname__)
    ]
)
def test_a_public_function_explains_its_parameters_and_errors(name: str, value: Any) -> None:
    text = inspect.getdoc(value) or ""
    missing = _complaints(value, text, ())
    assert not [each for each in missing if _is_core(value) or "Raises" not in each], name


LOSSES = [name for name in functional.__all__ if inspect.isfunction(getattr(functional, name))]
FUNCTIONS = [*(getattr(functional, name) for name in LOSSES), game.EBGAN.backward, game.one_pass_backward]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__qualname__)
def test_a_loss_or_step_has_every_section(function: Callable[..., Any]) -> None:
    text = inspect.getdoc(function) or ""
    assert _complaints(function, text, ("Args", "Returns", "Raises", "Example")) == []
    assert re.search(r"\[[NM], \.\.\.\]|\[[NM]\]", sections(text)["Args"]), "no shape such as [N, ...] under Args"


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_names_its_equation_dtype_and_unit(name: str) -> None:
    found = sections(inspect.getdoc(getattr(functional, name)) or "")
    assert re.search(r"\bequations?\s\d", found[""], re.IGNORECASE), "no equation of the paper before Args"
    assert {"float32", "float64"} <= set(re.findall(r"float\d\d", found["Returns"])), "no dtypes under Returns"
    assert re.search(r"\bunits\b|\[0, 1\]", found["Returns"]), "no unit or range under Returns"


def test_the_source_of_the_equations_is_named() -> None:
    for module in (functional, ebgan_fast.ops.reference):
        assert "arXiv:1609.03126" in (inspect.getdoc(module) or "")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_a_refused_batch_raises_an_error_that_raises_names(name: str, error: type[Exception]) -> None:
    function = getattr(functional, name)
    parameters = inspect.signature(function).parameters.values()
    needed = [parameter for parameter in parameters if parameter.default is parameter.empty]
    wrong: object = [1.0] if error is TypeError else torch.zeros(())
    with pytest.raises(error):
        function(*(1.0 if parameter.name == "margin" else wrong for parameter in needed))
    assert error.__name__ in entries(sections(inspect.getdoc(function) or "")["Raises"])


@pytest.mark.parametrize("name", ebgan_fast.nn.__all__)
def test_a_module_points_to_its_function(name: str) -> None:
    module = getattr(ebgan_fast.nn, name)
    assert issubclass(module, nn.Module)
    own = inspect.getdoc(module) or ""
    points_to = [function for function in LOSSES if f"`functional.{function}`" in own]
    assert [function.replace("_", "") for function in points_to] == [name.lower()]
    assert entries(sections(own)["Args"]) == set(inspect.signature(module).parameters)
    assert sections(own)["Example"].strip()


@pytest.mark.parametrize("name", ebgan_fast.nn.__all__)
def test_a_module_s_forward_names_shapes_the_equation_and_the_errors_of_its_function(name: str) -> None:
    module = getattr(ebgan_fast.nn, name)
    (loss,) = (loss for loss in LOSSES if loss.replace("_", "") == name.lower())
    forward = inspect.getdoc(module.forward) or ""
    assert _complaints(module.forward, forward, ("Args", "Raises")) == []
    assert re.search(r"\[[NM], \.\.\.\]|\[[NM]\]", sections(forward)["Args"])
    assert re.search(r"\bequations?\s\d", sections(forward)[""], re.IGNORECASE)
    errors = entries(sections(inspect.getdoc(getattr(functional, loss)) or "")["Raises"])
    assert errors <= entries(sections(forward)["Raises"])


@pytest.mark.parametrize(
    ("part", "instead", "complaint"),
    [
        (r"^Returns:$", "It gives", "no section Returns"),
        (r"^Raises:$.*?(?=^Example)", "", "no section Raises"),
        (r"^Example:$", "So:", "no section Example"),
        (r"^    code: ", "    the code: ", "no parameter code under Args"),
        (r"^    code: ", "    codes: ", "codes under Args, which is no parameter"),
        (r"^    TypeError: ", "    else: ", "no TypeError under Raises"),
        (r"^    RuntimeError: ", "    else: ", "no RuntimeError under Raises"),
    ],
)
def test_a_gap_in_a_docstring_is_found(part: str, instead: str, complaint: str) -> None:
    text = inspect.getdoc(functional.generator_loss) or ""
    with_gap = re.sub(part, instead, text, flags=re.MULTILINE | re.DOTALL)
    assert with_gap != text
    headings = ("Args", "Returns", "Raises", "Example")
    assert complaint in _complaints(functional.generator_loss, with_gap, headings)
