"""LMDB as LSUN is published: every value is an encoded image."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError, needed


class LmdbSource:
    """The values of a database, in the order of its keys.

    Args:
        path: the folder that holds data.mdb.
    """

    def __init__(self, path: Path) -> None:
        lmdb = needed("lmdb", "data", f"{path}: an LMDB")
        self._path = path
        try:
            self._database = lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False)
            with self._database.begin() as reading:
                self._keys = [bytes(key) for key in reading.cursor().iternext(keys=True, values=False)]
        except lmdb.Error as error:
            raise DataError(f"{path}: got a database that can't be read ({error}), expected a whole LMDB") from error
        if not self._keys:
            raise DataError(f"{path}: got an empty database, expected images")

    def __len__(self) -> int:
        return len(self._keys)

    def name(self, index: int) -> str:
        return f"{self._path}, key {self._keys[index].decode(errors='backslashreplace')}"

    def read(self, index: int) -> bytes:
        with self._database.begin() as reading:
            return bytes(reading.get(self._keys[index]))
