"""Files with one JSON object per line: a run's metrics and scores."""

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
# A line has 500 bytes. A run of a million steps that logs every step has half a gigabyte of lines.
_LONGEST_LINE, _LARGEST_FILE = 1 << 20, 1 << 31
_STEP = integer(0, 2**63 - 1, "a whole number of 0 to 2^63 - 1")


def _end_of_lines(file: BinaryIO | FileIO) -> int:
    """Return the offset after the last newline, or 0 if there is none."""
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
    """A file of lines in the order of their steps. Each line is a JSON object with a step.

    Args:
        path: the file, which need not exist.
        numbers: the fields that every line must have as finite numbers, besides its step.
        words: the fields that every line must have as text.
        optional: the fields that must be numbers in lines that have them. A null counts as a missing field.
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
        """Add a line to the file.

        If the last line is incomplete, because of a kill or a full disk, it is removed first.

        Args:
            line: the object to write.
            lasting: wait until the line is on the disk.

        Raises:
            OSError: the line can't be written. The error names the file, which keeps the lines from before.
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
        """Return all complete lines; none if there is no file. After a crash, the last line may be incomplete.

        Raises:
            ValueError: another line isn't one that a run writes, or the path isn't a plain file. The message names it.
            OSError: the file can't be read.
        """
        return [line for _, line in self._read()]

    def rewind(self, step: int, every: int = 1) -> None:
        """Remove the lines after `step`, and the line of a last step that ended a log interval early.

        Args:
            step: the last step whose line may stay.
            every: the number of steps of a log interval.
        """
        kept = [whole for whole, line in self._read() if line["step"] <= step and line["step"] % every == 0]
        content = b"".join(kept)
        if self.path.exists() and content != content_of(self.path, _LARGEST_FILE):
            with replacing(self.path) as file:
                file.write(content)

    def _read(self) -> Iterator[tuple[bytes, Line]]:
        """Yield each complete line as its bytes and its object."""
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
                            return  # the run was stopped while it wrote this line
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
