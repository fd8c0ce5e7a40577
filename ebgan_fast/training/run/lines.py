"""Files of one JSON object a line: a run's metrics and scores."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from ..._files import naming, replacing

Line = dict[str, Any]


_BLOCK = 1 << 16


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
        numbers: fields that every line must have as numbers, besides its step.
        words: fields that every line must have as text.
    """

    def __init__(self, path: Path, numbers: Sequence[str] = (), words: Sequence[str] = ()) -> None:
        self.path = path
        self._kinds: dict[str, tuple[type[Any] | tuple[type[Any], ...], str]] = {
            "step": (int, "a whole number"),
            **dict.fromkeys(numbers, ((int, float), "a number")),
            **dict.fromkeys(words, (str, "text")),
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
            ValueError: another line isn't one that a run writes; the message names the file.
            OSError: the file can't be read.
        """
        if not self.path.is_file():
            return []
        found = []
        texts = self.path.read_bytes().splitlines()
        for number, text in enumerate(texts, start=1):
            try:
                line = json.loads(text)
            except ValueError as error:
                if number == len(texts):
                    break  # the run ended while it wrote
                raise ValueError(
                    f"{self.path}: got a bad line {number} ({error}), expected one JSON object a line"
                ) from error
            found.append(self._checked(line, number))
        return found

    def _checked(self, line: object, number: int) -> Line:
        if not isinstance(line, dict):
            raise ValueError(
                f"{self.path}: got a JSON {type(line).__name__} in line {number}, expected one JSON object a line"
            )
        for name, (kind, expected) in self._kinds.items():
            value = line.get(name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{self.path}: got {name} {value!r} in line {number}, expected {expected}")
        return line

    def rewind(self, step: int, every: int = 1) -> None:
        """Drop what was written after `step`, and the line of a last step that cut an interval of `every` short."""
        if not self.path.exists():
            return
        kept = [line for line in self.lines() if line["step"] <= step and line["step"] % every == 0]
        content = "".join(json.dumps(line) + "\n" for line in kept).encode()
        if content != self.path.read_bytes():
            with replacing(self.path) as file:
                file.write(content)
