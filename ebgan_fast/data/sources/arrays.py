"""Read images from arrays of bytes: a .npy, one array of an .npz, or one dataset of an HDF5 file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .array_layout import Found, unreadable
from .hdf5 import is_hdf5, open_hdf5
from .npy import MAGIC, open_npy, open_npz
from .source import Pixels, Source

_ZIP = (b"PK\3\4", b"PK\5\6")  # the first bytes of a zip with members, and of an empty one


class ArraySource:
    """The images of one array in a file, in the array's order."""

    def __init__(self, path: Path, found: Found) -> None:
        self._path = path
        self._column = found.column
        self._layout = found.layout
        self._rows = found.rows
        self.aside = found.aside

    def __len__(self) -> int:
        return self._layout.count

    def name(self, index: int) -> str:
        return f"{self._path}, {'image' if self._column is None else self._column} {index}"

    def read(self, index: int) -> Pixels:
        if not 0 <= index < len(self):
            raise IndexError(f"{self._path}: got index {index}, expected 0 to {len(self) - 1}")
        return self._layout.pixels(self._rows.read(index))

    def files(self) -> Iterator[str]:
        yield str(self._path)

    def close(self) -> None:
        self._rows.close()


def open_array(path: Path, column: str | None = None) -> Source:
    """Open the images of an array. The first bytes of the file decide its kind, not its suffix.

    Args:
        path: a .npy, an .npz or an HDF5 file.
        column: the name of the array in an .npz, or the path of the dataset within an HDF5 file. None: the array named
            "image", or the only one that holds images.

    Raises:
        DataError: the file can't be read, or the array to take isn't clear. The message says what to do.
    """
    expected = "expected a .npy, an .npz or an HDF5 file"
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
            hdf5 = is_hdf5(file)
    except OSError as error:
        raise unreadable(path, error, expected) from error
    if head.startswith(MAGIC):
        if column is not None:
            raise DataError(f"{path}: got a .npy, which has no columns, expected none named; leave out --column")
        return ArraySource(path, open_npy(path))
    if head.startswith(_ZIP):
        return ArraySource(path, open_npz(path, column))
    if hdf5:
        return ArraySource(path, open_hdf5(path, column))
    raise DataError(f"{path}: got a file that begins as none of these, {expected}")
