"""The sizes of the small sets that the tests of `prepare` pack, of images of 8 x 8, and a reader of their files."""

from __future__ import annotations

from pathlib import Path

SIZE = 8
IMAGE_BYTES = 3 * SIZE * SIZE
TWO_IMAGES = 2 * IMAGE_BYTES


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
