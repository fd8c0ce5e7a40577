"""A tree of image files: any folder of pictures, ImageNet's, CelebA's aligned ones."""

from __future__ import annotations

import os
from pathlib import Path

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})


def is_image(name: str) -> bool:
    """Whether a file's name is an image's, and not a hidden one's."""
    base = name.rpartition("/")[2]
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in SUFFIXES


class FolderSource:
    """The images under a folder, at any depth, in the order of their paths; hidden files and folders are left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        found = []
        for folder, folders, files in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = os.path.relpath(folder, path)
            found += [os.path.normpath(os.path.join(inside, name)) for name in files if is_image(name)]
        self._names = sorted(found)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return str(self._path / self._names[index])

    def read(self, index: int) -> bytes:
        return (self._path / self._names[index]).read_bytes()
