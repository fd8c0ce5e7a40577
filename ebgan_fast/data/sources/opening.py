"""What a path holds, told by what lies there."""

from __future__ import annotations

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
    if suffix == ".zip":
        return ZipSource(path)
    if suffix == ".parquet":
        return ParquetSource([path])
    if suffix == ".tar":
        return TarSource([path])
    raise DataError(f"{path}: got a file of an unknown kind, expected {_UNDERSTOOD}")


def _in_folder(path: Path) -> Source:
    if (path / "data.mdb").is_file():
        return LmdbSource(path)
    for pattern, kind in (("*.parquet", ParquetSource), ("*.tar", TarSource)):
        if files := sorted(path.glob(pattern)):
            return kind(files)
    source = FolderSource(path)
    if not len(source):
        raise DataError(f"{path}: got a folder without images, expected {_UNDERSTOOD}")
    return source
