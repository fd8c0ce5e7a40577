"""A check that a saved state has the form of the state that it replaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


def check_fits(given: object, like: object, name: str) -> None:
    """Raise an error if a value has another form than expected. torch would broadcast some, and read past the end of
    others.

    Tensors must have the same shape and dtype, and numbers and texts the same type. Lists must have the same length,
    and parts that fit. Dicts must have the keys of `like`, with values that fit. Integers must be at least 0. Keys that
    `like` lacks are ignored: a later version may write more.

    Args:
        given: tensors and plain values, as a checkpoint holds them.
        like: a value of the right form.
        name: the name of the value in an error.

    Raises:
        ValueError: if the value doesn't fit. The message names the part.
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
    """Return (name, (value of `like`, value given)) for each part of a container, and nothing for other values."""
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
