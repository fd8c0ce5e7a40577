"""Files of one JSON object a line: a run's metrics and scores."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from ..._console import shown
from ..._files import content_of, naming, opened, replacing
from ..._json import parsed
from ..._settings import FINITE, NUMBER, Rule, instance, integer, or_none

Line = dict[str, Any]

_BLOCK = 1 << 16
# A line has 500 bytes. A run of a million steps that logs each has half a gigabyte of them.
_LONGEST_LINE, _LARGEST_FILE = 1 << 20, 1 << 31
_STEP = integer(0, 2**63 - 1, "a whole number of 0 to 2^63 - 1")


def _end_of_lines(file: BinaryIO | FileIO) -> int:
    """Return the place after the last end of a line, 0 where there is none."""
    place = file.seek(0, os.SEEK_END)
    while place > 0:
        start = max(0, place - _BLOCK)
        file.seek(start)
        found = (file.read(place - start) or b"").rfind(b"\n")
        if found >= 0:
            return start + found + 1
        place = start
    return 0


class LinesFile:
    """Lines in the order of their steps, each an object with a step.

    Args:
        path: the file, which needn't be there.
        numbers: fields that every line must have as finite numbers, besides its step.
        words: fields that every line must have as text.
        optional: fields that are numbers where a line has them. A null says nothing, as if the field weren't there.
    """

    def __init__(
        self, path: Path, numbers: Sequence[str] = (), words: Sequence[str] = (), optional: Sequence[str] = ()
    ) -> None:
        self.path = path
        self._rules: dict[str, Rule] = {
            "step": _STEP,
            **dict.fromkeys(numbers, FINITE),
            **dict.fromkeys(words, instance(str, "text")),
            **dict.fromkeys(optional, or_none(NUMBER)),
        }

    def append(self, line: Mapping[str, Any], *, lasting: bool = False) -> None:
        """Add a line; `lasting` waits until it is on the disk.

        The end of a line that was cut short, by a kill or a full disk, is dropped.

        Raises:
            OSError: it can't be written; names the file, whose lines are those of before.
        """
        with naming(self.path), self.path.open("ab+", buffering=0) as file:
            end = _end_of_lines(file)
            file.truncate(end)
            try:
                text = (json.dumps(line) + "\n").encode()
                if file.write(text) != len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                file.truncate(end)
                raise
            if lasting:
                os.fsync(file.fileno())

    def lines(self) -> list[Line]:
        """All whole lines, none if there is no file; a crash can leave the last one cut short.

        Raises:
            ValueError: another line isn't one that a run writes, or something else than a file; the message names it.
            OSError: the file can't be read.
        """
        return [line for _, line in self._read()]

    def rewind(self, step: int, every: int = 1) -> None:
        """Drop what was written after `step`, and the line of a last step that cut an interval of `every` short."""
        kept = [whole for whole, line in self._read() if line["step"] <= step and line["step"] % every == 0]
        content = b"".join(kept)
        if self.path.exists() and content != content_of(self.path, _LARGEST_FILE):
            with replacing(self.path) as file:
                file.write(content)

    def _read(self) -> Iterator[tuple[bytes, Line]]:
        """Each whole line: its bytes, and what they say."""
        try:
            with opened(self.path, _LARGEST_FILE) as file:
                number = 0
                while content := file.readline(_LONGEST_LINE + 1):
                    number += 1
                    if len(content) > _LONGEST_LINE:
                        raise ValueError(
                            f"{self.path}: got more than {_LONGEST_LINE:,} bytes in line {number}, expected one JSON "
                            "object a line"
                        )
                    try:
                        found = parsed(content)
                    except ValueError as error:
                        if not file.read(1):
                            return  # the run ended while it wrote
                        raise ValueError(
                            f"{self.path}: got a bad line {number} ({error}), expected one JSON object a line"
                        ) from error
                    yield content.rstrip(b"\r\n") + b"\n", self._checked(found, number)
        except FileNotFoundError:
            return

    def _checked(self, found: object, number: int) -> Line:
        if not isinstance(found, dict):
            raise ValueError(
                f"{self.path}: got a JSON {type(found).__name__} in line {number}, expected one JSON object a line"
            )
        line = {name: value for name, value in found.items() if value is not None}
        for name, rule in self._rules.items():
            value = line.get(name)
            if not rule.holds(value):
                raise ValueError(f"{self.path}: got {name} {shown(value)} in line {number}, expected {rule.expected}")
        return line
