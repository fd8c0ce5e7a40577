"""Read images from an LMDB, the format in which LSUN is published: every value is an encoded image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DataError, ImageError, no_images
from .lmdb_pages import PageError, read_entries, read_value
from .reading import quoted
from .source import Tally


class LmdbSource:
    """The images of an LMDB, in the order of its keys.

    Args:
        path: the folder that holds data.mdb, or a database in one file.

    Raises:
        DataError: the path is no LMDB, or the database is damaged or empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self.aside = Tally()
        try:
            self._entries = read_entries(self._opened())
        except (PageError, OSError) as error:
            raise DataError(
                f"{path}: got a database that can't be read ({quoted(error)}), expected a whole LMDB"
            ) from error
        finally:
            self.close()
        if not self._entries.keys:
            raise no_images(path, "an empty database")

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = Path(next(self.files())).open("rb")  # noqa: SIM115  `close` does
        return self._file

    def __len__(self) -> int:
        return len(self._entries.keys)

    def name(self, index: int) -> str:
        return f"{self._path}, key {self._entries.keys[index].decode(errors='backslashreplace')}"

    def read(self, index: int) -> bytes:
        try:
            return read_value(self._opened(), self._entries, index)
        except PageError as error:
            raise ImageError("no whole value in its database", str(error)) from error

    def files(self) -> Iterator[str]:
        yield str(self._path / "data.mdb" if self._path.is_dir() else self._path)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}
