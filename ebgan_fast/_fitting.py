"""The form of a saved state, held against that of the state which it is to replace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


def check_fits(given: object, like: object, name: str) -> None:
    """Refuse a value of another form: torch would broadcast some, and read past the end of others.

    Tensors fit by shape and dtype, numbers and texts by type, lists by length and parts, dicts by the keys of `like`
    and their values. Whole numbers are at least 0. Keys that `like` lacks are let pass: a later version may write more.

    Args:
        given: tensors and plain values, as a checkpoint holds them.
        like: a value of the right form.
        name: what an error calls it.

    Raises:
        ValueError: it doesn't fit; names the part.
    """
    if isinstance(like, Tensor):
        fits = isinstance(given, Tensor) and given.shape == like.shape and given.dtype == like.dtype
    elif isinstance(like, Mapping):
        fits = isinstance(given, Mapping) and like.keys() <= given.keys()
    elif isinstance(like, Sequence) and not isinstance(like, str):
        fits = isinstance(given, (list, tuple)) and len(given) == len(like)
    elif type(like) is int:
        fits = type(given) is int and given >= 0
    elif isinstance(like, float):
        fits = type(given) in (int, float)
    else:
        fits = type(given) is type(like)
    if not fits:
        raise ValueError(f"{name}: got {_form(given)}, expected {_form(like)}")
    for part, (ours, theirs) in _parts(given, like):
        check_fits(theirs, ours, f"{name}.{part}")


def _parts(given: Any, like: Any) -> list[tuple[str, tuple[Any, Any]]]:
    """(name, (value of `like`, value given)) of each part of a container."""
    if isinstance(like, Mapping):
        return [(str(name), (value, given[name])) for name, value in like.items()]
    if isinstance(like, Sequence) and not isinstance(like, str):
        return [(str(index), pair) for index, pair in enumerate(zip(like, given, strict=True))]
    return []


def _form(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"values of the names {', '.join(map(str, value))}" if value else "no values"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{len(value)} values"
    if type(value) is int:
        return "a whole number of at least 0" if value >= 0 else str(value)
    return "a number" if isinstance(value, float) else type(value).__name__
