"""JSON out of files that other programs, or other people, may have made: whatever they hold ends in a ValueError."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ._console import shown
from ._files import content_of

# The program writes five levels. Python's own limit is of its stack: what was read may be too deep for what is done
# with it, and is another in each version.
_DEEPEST = 50
_MOST_DIGITS = 4300  # as many as Python 3.11 and later turn into an integer


def parsed(content: bytes) -> object:
    """Return the value that a JSON text holds: UTF-8, with or without a byte order mark.

    Infinity and NaN are read as Python writes them; a number beyond float's range becomes infinite.

    Raises:
        ValueError: no such text, a name twice in one object, more than 50 levels, an integer of more than 4300 digits.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} isn't UTF-8") from error
    try:
        value: object = _DECODER.decode(text)
    except RecursionError:
        too_deep = True
    else:
        # Of few brackets none is deep. Lines of a log have one, and are many.
        too_deep = text.count("[") + text.count("{") > _DEEPEST and _is_deep(value)
    if too_deep:
        raise ValueError(f"more than {_DEEPEST} levels of brackets")
    return value


def read(path: Path, most: int) -> object:
    """Return the value of a JSON file of at most `most` bytes.

    Raises:
        ValueError: something else; the message names the file.
        OSError: it can't be read; names the file.
    """
    content = content_of(path, most)
    try:
        return parsed(content)
    except ValueError as error:
        raise ValueError(f"{path}: got a file that isn't JSON ({error}), expected an object") from error


def read_object(path: Path, most: int) -> dict[str, Any]:
    """Return the object of a JSON file, as `read` does."""
    found = read(path, most)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: got a JSON {type(found).__name__}, expected an object")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a dictionary. Of a name that is there twice, each reader would take its own value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{shown(twice)} twice in one object")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _is_deep(value: object) -> bool:
    """Return True if a value lies in more lists and objects than `_DEEPEST`."""
    level: list[object] = [value]
    for _ in range(_DEEPEST):
        level = [part for one in level for part in _parts(one)]
        if not level:
            return False
    return any(isinstance(one, (dict, list)) for one in level)


def _parts(value: object) -> Collection[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
