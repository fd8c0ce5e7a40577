"""A zip of images, such as the data sets of StyleGAN and EDM."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ..errors import DataError
from .folder import is_image


class ZipSource:
    """The images of a zip, in the order of their names; labels in dataset.json are left aside."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{path}: got a file that can't be read ({error}), expected a whole zip") from error
        self._names = sorted(name for name in self._zip.namelist() if is_image(name))
        if not self._names:
            raise DataError(f"{path}: got a zip without images, expected at least one")

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return f"{self._path}/{self._names[index]}"

    def read(self, index: int) -> bytes:
        return self._zip.read(self._names[index])
