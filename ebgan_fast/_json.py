"""Reading of JSON files that other programs or people may have made. Any invalid content raises a ValueError."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ._console import shown
from ._files import content_of

# The program's own files have five levels. Python's limit depends on its stack and differs between versions, and a
# value that could be read may still be too deep for later processing.
_DEEPEST = 50
_MOST_DIGITS = 4300  # Python 3.11 and later convert no more digits to an integer


def parsed(content: bytes) -> object:
    """Return the value of a JSON text, given in UTF-8 with or without a byte order mark.

    Infinity and NaN are read as Python writes them. A number beyond float's range becomes infinite.

    Raises:
        ValueError: if the text is not UTF-8 or not JSON, or one object has a name twice. Also for more than 50 levels,
            and for an integer of more than 4300 digits.
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
        # With few brackets no value can be deep. This spares lines of a log, which are many and have one bracket, the
        # check.
        too_deep = text.count("[") + text.count("{") > _DEEPEST and _is_deep(value)
    if too_deep:
        raise ValueError(f"more than {_DEEPEST} levels of brackets")
    return value


def read(path: Path, most: int) -> object:
    """Return the value of a JSON file of at most `most` bytes.

    Raises:
        ValueError: if the file is no plain file, too large or not JSON. The message names the file.
        OSError: if the file can't be read. Names the file.
    """
    content = content_of(path, most)
    try:
        return parsed(content)
    except ValueError as error:
        raise ValueError(f"{path}: got a file that isn't JSON ({error}), expected an object") from error


def read_object(path: Path, most: int) -> dict[str, Any]:
    """Return the object in a JSON file of at most `most` bytes.

    Raises:
        ValueError: as `read` does, and if the value is no object.
        OSError: if the file can't be read. Names the file.
    """
    found = read(path, most)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: got a JSON {type(found).__name__}, expected an object")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dictionary.

    Raises:
        ValueError: if a name is there twice. Programs differ in which of the two values they use.
    """
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
    """Return True if the value is nested more than `_DEEPEST` levels deep in lists and objects."""
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
