"""A zip of images, such as the data sets of StyleGAN and EDM."""

from __future__ import annotations

import errno
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError, no_images
from .members import from_root, images_among
from .names import HEAD_BYTES
from .reading import check_size, open_member, packed_otherwise, quoted
from .source import NO_SUFFIX, Tally
from .splits import chosen_split

_PACKED = "members without a suffix, packed by {}, which isn't read: pack the zip again"
_LONGEST_PATH = 4096  # bytes of a path that a link can name


def _beginning(archive: zipfile.ZipFile, info: zipfile.ZipInfo, count: int) -> bytes:
    """Return the first bytes of a member, or b"" if it can't be read. In that case `read` later gives the reason."""
    try:
        with open_member(archive, info) as file:
            return file.read(count)
    except Exception:  # zipfile may raise any error for damage or a password
        return b""


class ZipSource:
    """The images of a zip, in the order of their names. The labels in dataset.json are ignored.

    If two members have one name, the last is taken, which unpacking would leave on the disk.

    Args:
        path: the zip.
        split: the split to take, if folders in the zip are named after splits.

    Raises:
        DataError: the file is no zip, or the zip has no images, or it has several splits and none was chosen.
    """

    def __init__(self, path: Path, split: str | None = None) -> None:
        self._path = path
        self._zip: zipfile.ZipFile | None = None
        self.aside = Tally()
        try:
            with zipfile.ZipFile(path) as archive:
                found = self._list(archive)
        except Exception as error:  # zipfile's own errors, and any other that a damaged zip makes it raise
            raise DataError(f"{path}: got a file that can't be read ({quoted(error)}), expected a whole zip") from error
        if not found:
            raise no_images(path, "a zip", str(self.aside))
        names = sorted(found)
        taken = chosen_split(names, "images", split, path)
        self._names = [name for name, wanted in zip(names, taken, strict=True) if wanted]
        self._members = [found[name] for name in self._names]

    def _tell(self, kind: str, name: str) -> None:
        self.aside.add(kind, f"{self._path.name}/{name}")

    def _list(self, archive: zipfile.ZipFile) -> dict[str, str]:
        """Return the name of each image with the name of the member that holds its bytes."""
        files: dict[str, zipfile.ZipInfo] = {}
        links: dict[str, str] = {}
        for info in archive.infolist():
            name, target = info.filename, b""
            if not name:  # is_dir of Python 3.11 would raise an IndexError
                raise zipfile.BadZipFile("a member without a name")
            if info.is_dir():
                continue
            if stat.S_ISLNK(info.external_attr >> 16) and info.file_size <= _LONGEST_PATH:
                target = _beginning(archive, info, _LONGEST_PATH)
            for earlier in (files, links):
                earlier.pop(name, None)
            if target:
                links[name] = from_root(name, target.decode(errors="replace"))
            else:
                files[name] = info

        def head(name: str) -> bytes:
            return _beginning(archive, files[name], HEAD_BYTES)

        def tell(kind: str, name: str) -> None:
            method = packed_otherwise(files[name]) if kind == NO_SUFFIX and name in files else None
            self._tell(kind if method is None else _PACKED.format(method), name)

        return images_among(files, links, [*files, *links], head, tell)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return f"{self._path}/{self._names[index]}"

    def read(self, index: int) -> bytes:
        if self._zip is None:
            self._zip = zipfile.ZipFile(self._path)
        info = self._zip.getinfo(self._members[index])
        check_size(info.file_size)
        try:
            with open_member(self._zip, info) as file:
                return file.read(info.file_size)
        except OSError as error:
            if error.errno == errno.EINVAL:  # the archive is at fault, not the disk
                raise DataError("got a member that lies outside of its zip, expected a whole zip") from error
            raise

    def files(self) -> Iterator[str]:
        yield str(self._path)

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()
            self._zip = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None}
