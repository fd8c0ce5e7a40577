"""A process that decodes and crops images: it is told which by its standard input, and answers on its output.

It ends as its input does, so that it never outlives the one who asks, however that one ends.
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

# What the system says of one file. Anything else, such as a failing disk, isn't the image's fault.
_OF_A_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class Failure:
    """An image without pixels.

    Attributes:
        name: of the image.
        reason: shared by images with the same trouble.
        text: all that there is to say.
    """

    name: str
    reason: str
    text: str


@dataclass(frozen=True)
class Breakdown:
    """A trouble of the machine at an image, of which nobody knows if it can be decoded."""

    name: str
    text: str


Square: TypeAlias = "bytes | Failure | Breakdown"
"""The pixels of an image, size x size x 3 bytes, or why there are none."""


def decoded_squares(source: Source, size: int, wanted: range) -> list[Square]:
    """Return the squares of the images wanted."""
    results: list[Square] = []
    for index in wanted:
        try:
            results.append(center_crop(decode(source.read(index)), size).tobytes())
        except MemoryError:
            results.append(
                Breakdown(source.name(index), "no memory is left; fewer workers or a smaller size take less")
            )
        except Exception as error:  # whatever a damaged file makes Pillow or an archive raise
            reason, text = trouble_of(error)
            number = error.errno if isinstance(error, OSError) else None
            failed = number is None or number in _OF_A_FILE
            results.append(
                (Failure(source.name(index), reason, text)) if failed else Breakdown(source.name(index), text)
            )
    return results


def serve() -> None:
    """Answer until nobody asks."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    tasks = sys.stdin.buffer
    try:
        source, size, (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) = pickle.load(tasks)
        while True:
            pickle.dump(decoded_squares(source, size, pickle.load(tasks)), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
    except (EOFError, OSError, pickle.UnpicklingError):  # the one who asks has ended, perhaps half-way through
        os._exit(0)
