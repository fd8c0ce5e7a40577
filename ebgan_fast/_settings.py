"""Dataclass fields that carry a rule for their value, and whether a resumed run may change them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from ._console import shown

_Value = TypeVar("_Value")


class Rule(NamedTuple):
    """A condition on a field's value, and the text for it in an error."""

    holds: Callable[[Any], bool]
    expected: str


Free = bool | Callable[[Any], bool]
"""True if a resumed run may change the field, or a function of the settings that returns this."""


def setting(default: _Value, rule: Rule, *, free: Free = False) -> _Value:
    """Return a dataclass field with a default and a rule. `free` says whether a resumed run may change it."""
    value: _Value = dataclasses.field(default=default, metadata={"rule": rule, "free": free})
    return value


def needed(rule: Rule, *, free: Free = False) -> Any:
    """Return a dataclass field without a default, with a rule. `free` says whether a resumed run may change it."""
    return dataclasses.field(metadata={"rule": rule, "free": free})


def broken_rules(settings: Any) -> Iterator[tuple[str, str]]:
    """Yield the name of each field whose value breaks its rule, and an error text. Checks nested settings too."""
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        rule: Rule | None = item.metadata.get("rule")
        if rule is not None and not rule.holds(value):
            yield item.name, f"{item.name}: got {shown(value)}, expected {rule.expected}"
        elif dataclasses.is_dataclass(value):
            yield from broken_rules(value)


def is_free(item: dataclasses.Field[Any], settings: Any) -> bool:
    """Return True if a resumed run may change this field of the settings."""
    free: Free = item.metadata.get("free", False)
    return free(settings) if callable(free) else free


def integer(least: int, most: int | None = None, expected: str = "") -> Rule:
    """Return the rule of an integer of at least `least` and at most `most`."""

    def holds(value: Any) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and value >= least and (most is None or value <= most)

    return Rule(holds, expected or f"an integer of at least {least}")


def number(holds: Callable[[float], bool], expected: str) -> Rule:
    """Return the rule of a finite number for which `holds` is true."""

    def check(value: Any) -> bool:
        return NUMBER.holds(value) and _is_finite(value) and holds(value)

    return Rule(check, expected)


def _is_finite(value: float) -> bool:
    """Return True if the number is finite as a float. Some integers are too large for a float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def one_of(choices: Any) -> Rule:
    """Return the rule of a value among those of a Literal type."""
    names = get_args(choices)
    return Rule(lambda value: value in names, f"one of {', '.join(map(repr, names))}")


def instance(kind: type[Any], expected: str) -> Rule:
    """Return the rule of a value of a type."""
    return Rule(lambda value: isinstance(value, kind), expected)


def or_none(rule: Rule) -> Rule:
    """Return the rule of a value that is None or satisfies `rule`."""
    comma = "," if rule.expected.startswith(("an integer", "a finite")) else ""
    return Rule(lambda value: value is None or rule.holds(value), f"{rule.expected}{comma} or None")


NUMBER = Rule(lambda value: isinstance(value, (int, float)) and not isinstance(value, bool), "a number")
FINITE = number(lambda value: True, "a finite number")
COUNT = integer(1)
POSITIVE = number(lambda value: value > 0, "a finite number > 0")
NOT_NEGATIVE = number(lambda value: value >= 0, "a finite number >= 0")
SEED = integer(-(2**63), 2**63 - 1, "an integer of 64 bits")
SHARE = number(lambda value: 0 <= value < 1, "a number in [0, 1)")
SWITCH = instance(bool, "True or False")
A_PATH = instance(Path, "a Path")


def text(expected: str) -> Rule:
    """Return the rule of a string that isn't empty."""
    return Rule(lambda value: isinstance(value, str) and value != "", expected)
