"""A process that decodes and crops images: it is told which by its standard input, and answers on its output.

It ends as its input does, so that it never outlives the one who asks, however that one ends.
"""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import dataclass

from .crop import centre_crop
from .decoding import decode, reason_of
from .sources.source import Source


@dataclass(frozen=True)
class Failure:
    """An image that can't be decoded."""

    name: str
    reason: str


def squares(source: Source, size: int, wanted: range) -> list[bytes | Failure]:
    """Return the pixels, size x size x 3 bytes, of each image wanted, or why there are none."""
    results: list[bytes | Failure] = []
    for index in wanted:
        try:
            results.append(centre_crop(decode(source.read(index)), size).tobytes())
        except Exception as error:  # whatever a damaged file makes Pillow or an archive raise
            results.append(Failure(source.name(index), reason_of(error)))
    return results


def serve() -> None:
    """Answer until nobody asks."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    tasks = sys.stdin.buffer
    try:
        source, size = pickle.load(tasks)
        while True:
            pickle.dump(squares(source, size, pickle.load(tasks)), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
    except (EOFError, OSError, pickle.UnpicklingError):  # the one who asks has ended, perhaps half-way through
        os._exit(0)
