"""LMDB as LSUN is published: every value is an encoded image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError, needed, no_images
from .reading import check_size, quoted
from .source import Tally


class LmdbSource:
    """The values of a database, in the order of its keys.

    Args:
        path: the folder that holds data.mdb, or a database of one file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: Any = None
        self.aside = Tally()
        lmdb = needed("lmdb", "data", f"{path}: an LMDB")
        try:
            self._check_length(self._opened())
            with self._opened().begin() as reading:
                self._keys = [bytes(key) for key in reading.cursor().iternext(keys=True, values=False)]
        except lmdb.Error as error:
            raise DataError(
                f"{path}: got a database that can't be read ({quoted(error)}), expected a whole LMDB"
            ) from error
        finally:
            self.close()
        if not self._keys:
            raise no_images(path, "an empty database")

    def _check_length(self, database: Any) -> None:
        """Raise a DataError for a file that is cut short: to read a page that is gone would kill the process."""
        size = Path(next(self.files())).stat().st_size
        wanted = (database.info()["last_pgno"] + 1) * database.stat()["psize"]
        if size < wanted:
            raise DataError(
                f"{self._path}: got a database that can't be read (cut short: {size} of {wanted} bytes), expected a "
                "whole LMDB"
            )

    def _opened(self) -> Any:
        if self._database is None:
            lmdb = needed("lmdb", "data", f"{self._path}: an LMDB")
            self._database = lmdb.open(
                str(self._path), subdir=self._path.is_dir(), readonly=True, lock=False, readahead=False, meminit=False
            )
        return self._database

    def __len__(self) -> int:
        return len(self._keys)

    def name(self, index: int) -> str:
        return f"{self._path}, key {self._keys[index].decode(errors='backslashreplace')}"

    def read(self, index: int) -> bytes:
        with self._opened().begin(buffers=True) as reading:
            value = reading.get(self._keys[index])
            check_size(len(value))
            return bytes(value)

    def files(self) -> Iterator[str]:
        yield str(self._path / "data.mdb" if self._path.is_dir() else self._path)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_database": None}
