"""A worker process that decodes and crops images: it reads tasks from standard input and writes answers to its output.

The process ends when its input ends. So it never outlives the process that asks, however that process ends.
"""

from __future__ import annotations

import errno
import os
import pickle
import sys
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image, ImageFile

from .crop import center_crop
from .decoding import decode, trouble_of
from .sources.source import Source

# Errors of the system that one file causes. Any other, such as that of a failing disk, isn't the image's fault.
_OF_A_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class Failure:
    """The report of an image that can't be taken.

    Attributes:
        name: the name of the image.
        reason: the fault in words that all images with this fault share.
        text: the fault of this one image, in one line that may hold names and numbers.
    """

    name: str
    reason: str
    text: str


@dataclass(frozen=True)
class Breakdown:
    """The report of a fault of the machine while it read an image, which may itself be good."""

    name: str
    text: str


Square: TypeAlias = "bytes | Failure | Breakdown"
"""The pixels of an image, size x size x 3 bytes, or the report why there are none."""


def decoded_squares(source: Source, size: int, wanted: range) -> list[Square]:
    """Return the cropped square of each image in `wanted`, or the report of a failure in its place."""
    results: list[Square] = []
    for index in wanted:
        try:
            results.append(center_crop(decode(source.read(index)), size).tobytes())
        except MemoryError:
            results.append(
                Breakdown(source.name(index), "no memory is left; fewer workers or a smaller size take less")
            )
        except Exception as error:  # Pillow and the readers of archives may raise any error for a damaged file
            reason, text = trouble_of(error)
            number = error.errno if isinstance(error, OSError) else None
            failed = number is None or number in _OF_A_FILE
            results.append(
                (Failure(source.name(index), reason, text)) if failed else Breakdown(source.name(index), text)
            )
    return results


def serve() -> None:
    """Read tasks from standard input and answer each, until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that text which a library prints isn't taken for an answer
    tasks = sys.stdin.buffer
    try:
        source, size, (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) = pickle.load(tasks)
        while True:
            pickle.dump(decoded_squares(source, size, pickle.load(tasks)), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
    except (EOFError, OSError, pickle.UnpicklingError):  # the process that asks has ended, perhaps within a task
        os._exit(0)
