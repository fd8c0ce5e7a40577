"""What a path holds, told by what lies there."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Protocol

from ..errors import DataError
from .folder import FolderSource
from .lsun import LmdbSource
from .parquet import ParquetSource
from .webdataset import TarSource
from .zipped import ZipSource

_UNDERSTOOD = (
    "a folder with images at any depth, a zip of images, a .parquet file or a folder of them, a .tar of webdataset or "
    "a folder of them, or an LMDB folder (data.mdb) as of LSUN"
)


class Source(Protocol):
    """Encoded images in a fixed order."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What a user would look for: the path, with the place in the archive."""

    def read(self, index: int) -> bytes:
        """The image as it was stored, such as the bytes of a JPEG."""


def open_source(path: Path) -> Source:
    """Open images by what the path is and holds; nothing is downloaded.

    Args:
        path: a file or folder.

    Raises:
        DataError: nothing there, or nothing that is understood; the message says what would be.
    """
    if path.is_dir():
        return _in_folder(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder, expected {_UNDERSTOOD}")
    suffix = path.suffix.lower()
    # By name as well: a damaged archive is then told from a file of something else.
    if suffix == ".parquet" or _starts_with(path, b"PAR1"):
        return ParquetSource([path])
    if suffix == ".zip" or zipfile.is_zipfile(path):
        return ZipSource(path)
    if suffix == ".tar" or tarfile.is_tarfile(path):
        return TarSource([path])
    raise DataError(f"{path}: got a file of an unknown kind, expected {_UNDERSTOOD}")


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _in_folder(path: Path) -> Source:
    if (path / "data.mdb").is_file():
        return LmdbSource(path)
    for pattern, kind in (("*.parquet", ParquetSource), ("*.tar", TarSource)):
        if files := sorted(file for file in path.glob(pattern) if not file.name.startswith(".")):
            return kind(files)
    source = FolderSource(path)
    if not len(source):
        raise DataError(f"{path}: got a folder without images, expected {_UNDERSTOOD}")
    return source
