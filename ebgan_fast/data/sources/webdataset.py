"""Tar files of webdataset: the members of a sample share their name up to its first dot."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from .folder import is_image


class _Member(NamedTuple):
    file: Path
    name: str
    offset: int
    size: int


class TarSource:
    """The first image of each sample, file by file, in the order of the tars.

    Args:
        files: tars, uncompressed, so that an image is read where it lies.
    """

    def __init__(self, files: list[Path]) -> None:
        self._members: list[_Member] = []
        for file in files:
            self._members += _images_of(file)
        if not self._members:
            raise DataError(f"{files[0]}: got tars without images, expected at least one")

    def __len__(self) -> int:
        return len(self._members)

    def name(self, index: int) -> str:
        member = self._members[index]
        return f"{member.file}/{member.name}"

    def read(self, index: int) -> bytes:
        member = self._members[index]
        with member.file.open("rb") as file:
            file.seek(member.offset)
            return file.read(member.size)


def _images_of(file: Path) -> list[_Member]:
    found: dict[str, _Member] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                if member.isfile() and is_image(member.name):
                    folder, _, base = member.name.rpartition("/")
                    key = f"{folder}/{base.partition('.')[0]}"
                    found.setdefault(key, _Member(file, member.name, member.offset_data, member.size))
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{file}: got a file that can't be read ({error}), expected an uncompressed tar") from error
    return list(found.values())
