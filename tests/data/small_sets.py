"""Sets of images of 8 x 8, as the tests of `prepare` pack them."""

from __future__ import annotations

from pathlib import Path

SIZE = 8
IMAGE_BYTES = 3 * SIZE * SIZE
TWO_IMAGES = 2 * IMAGE_BYTES


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
