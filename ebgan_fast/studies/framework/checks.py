"""Checks of a study's settings. Each error is one sentence that names the setting."""

from __future__ import annotations

from collections.abc import Iterable

from ..._settings import NOT_NEGATIVE, POSITIVE, SHARE, Rule


def _check(rule: Rule, settings: object, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(settings, name)
        if not rule.holds(value):
            raise ValueError(f"{name}: got {value}, expected {rule.expected}")


def check_counts(settings: object, *names: str) -> None:
    """Raise a ValueError if one of the named settings is below 1."""
    _check(Rule(lambda value: value >= 1, "at least 1"), settings, names)


def check_positive(settings: object, *names: str) -> None:
    """Raise a ValueError if one of the named settings isn't a finite number above 0."""
    _check(POSITIVE._replace(expected="a positive number"), settings, names)


def check_not_negative(settings: object, *names: str) -> None:
    """Raise a ValueError if one of the named settings isn't a finite number of at least 0."""
    _check(NOT_NEGATIVE, settings, names)


def check_shares(settings: object, *names: str) -> None:
    """Raise a ValueError if one of the named settings isn't in [0, 1)."""
    _check(SHARE, settings, names)


def check_given(settings: object, *names: str) -> None:
    """Raise a ValueError if one of the named settings, which are lists, is empty."""
    for name in names:
        if not getattr(settings, name):
            raise ValueError(f"{name}: got no value, expected at least one")


def check_batch(batch_size: int, why: str, name: str = "batch_size") -> None:
    """Raise a ValueError if a batch has fewer than two images. The error ends in `why`, the reason for two."""
    if batch_size < 2:
        raise ValueError(f"{name}: got {batch_size}, expected at least 2, {why}")


def check_enough(name: str, batch_size: int, count: int) -> None:
    """Raise a ValueError if a batch is larger than the set of `count` samples. `name` is the setting's."""
    if batch_size > count:
        raise ValueError(f"{name}: got {batch_size}, expected at most {count}, the number of samples")


def check_seed(seed: int) -> None:
    """Raise a ValueError if a seed isn't an integer from 0 to 2^63 - 1."""
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"seed: got {seed}, expected an integer from 0 to {(1 << 63) - 1}")
