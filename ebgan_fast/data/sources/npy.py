"""Read NumPy's files row by row: the array of a .npy, or one array of an .npz, which is a zip of .npy files."""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ..errors import DataError, ImageError, NoImagesError
from .array_layout import (
    DType,
    Found,
    Layout,
    Shape,
    choose,
    layout_of,
    layout_of_column,
    no_such_column,
    shortened,
    unreadable,
)
from .reading import open_member
from .source import Tally

MAGIC = npy_format.MAGIC_PREFIX

_MOST_HEADER = 10_000  # bytes, which is numpy's limit
_STEP = 1 << 20
_SUFFIX = ".npy"


class Header(NamedTuple):
    """The header of a .npy: the shape, order and dtype of its array, and the size of the header itself in bytes."""

    shape: Shape
    fortran: bool
    dtype: DType
    size: int

    @property
    def whole(self) -> int:
        """The number of bytes of the header and the array together."""
        return self.size + math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes]) -> Header:
    """Read the header of a .npy of any version. No pickle is loaded.

    Raises:
        ValueError: the header is missing or damaged.
    """
    start = file.read(12)
    if len(start) < 12 or not start.startswith(MAGIC):
        raise ValueError("no .npy header")
    first = start[6] == 1
    size = 10 + struct.unpack_from("<H", start, 8)[0] if first else 12 + struct.unpack_from("<I", start, 8)[0]
    if size > _MOST_HEADER:  # numpy would read all of it before it refuses: up to 4 GiB, from a zip of 4 MiB
        raise ValueError(f"a header of {size} bytes")
    text = io.BytesIO(start + file.read(max(0, size - 12)))
    try:
        version = npy_format.read_magic(text)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"version {version} of the format")
        # Version 3 differs from 2 in the encoding of field names, UTF-8. These appear only in messages here.
        read = npy_format.read_array_header_1_0 if first else npy_format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns if Python 2 wrote the file
            shape, fortran, dtype = read(text)
    except Exception as error:  # numpy parses the text as Python: SyntaxError, RecursionError, TokenError and others
        raise ValueError(f"a damaged header, {shortened(error)}") from error
    return Header(tuple(map(int, shape)), bool(fortran), dtype, size)


def open_npy(path: Path) -> Found:
    """Open the array of a .npy.

    Raises:
        DataError: the file can't be read, or its array holds no images.
    """
    try:
        with path.open("rb") as file:
            header = read_header(file)
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:
        raise unreadable(path, error, "expected a whole .npy") from error
    layout = layout_of(header.shape, header.dtype)
    if isinstance(layout, str):
        raise NoImagesError(f"{path}: got {layout}")
    if size != header.whole:
        raise DataError(
            f"{path}: got {size} bytes, expected {header.whole} by its header; way out: get the file again, or save "
            "one array in each file"
        )
    return Found(None, layout, MappedRows(path, layout, header), Tally())


class MappedRows:
    """The rows of a .npy, read by memory map."""

    def __init__(self, path: Path, layout: Layout, header: Header) -> None:
        self._path = path
        self._shape = layout.shape
        self._offset = header.size
        self._fortran = header.fortran
        self._array: NDArray[np.uint8] | None = None

    def read(self, index: int) -> NDArray[np.uint8]:
        if self._array is None:  # np.load with mmap_mode="r" would do so, but here with the header that was checked
            order: Literal["C", "F"] = "F" if self._fortran else "C"
            self._array = np.memmap(self._path, np.uint8, "r", self._offset, self._shape, order)
        row: NDArray[np.uint8] = self._array[index]
        return row

    def close(self) -> None:
        self._array = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}


def open_npz(path: Path, column: str | None) -> Found:
    """Open one array of an .npz.

    Args:
        path: the file.
        column: the name of the array. None: the array named "image", or the only one that holds images.

    Raises:
        DataError: the file can't be read, has no array of this name, or the array to take isn't clear.
    """
    aside = Tally()
    headers: dict[str, Header] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
            members = {name[: -len(_SUFFIX)]: info for name, info in infos.items() if name.endswith(_SUFFIX)}
            for name in infos:
                if not name.endswith(_SUFFIX):
                    aside.add("files in it that are no .npy", name)
            if column is not None and column not in members:
                raise no_such_column(path, column, members)
            for name in members if column is None else [column]:
                headers[name] = _read_member_header(path, archive, members[name])
    except DataError:
        raise
    except Exception as error:  # BadZipFile, OSError, and others that odd fields of a zip raise
        raise unreadable(path, error, "expected a whole .npz") from error
    if column is None:
        column, layout = choose(path, {name: (header.shape, header.dtype) for name, header in headers.items()})
    else:
        layout = layout_of_column(path, column, headers[column].shape, headers[column].dtype)
    header = headers[column]
    if header.fortran:
        raise DataError(
            f"{path}: got {shortened(column)} in Fortran order, whose images lie scattered, expected C order; "
            "way out: save np.ascontiguousarray(a)"
        )
    if (size := members[column].file_size) != header.whole:
        raise DataError(f"{path}: got {shortened(column)} of {size} bytes, expected {header.whole} by its header")
    for name in members:
        if name != column:
            aside.add("arrays", name)
    return Found(column, layout, MemberRows(path, members[column].filename, header.size, layout), aside)


def _read_member_header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Header:
    try:
        with open_member(archive, info) as member:
            return read_header(member)
    except ImageError as error:
        raise DataError(f"{path}: got {shortened(info.filename)} in it {error}") from error
    except Exception as error:  # also zlib.error, NotImplementedError, and RuntimeError if a password is needed
        raise DataError(
            f"{path}: got {shortened(info.filename)} in it unreadable ({shortened(error)}), expected a whole .npz"
        ) from error


class MemberRows:
    """The rows of one array of an .npz. Reading, or unpacking, goes on from the end of the row that was read last."""

    def __init__(self, path: Path, member: str, offset: int, layout: Layout) -> None:
        self._path = path
        self._member = member
        self._offset = offset
        self._layout = layout
        self._archive: zipfile.ZipFile | None = None
        self._open: IO[bytes] | None = None

    def read(self, index: int) -> NDArray[np.uint8]:
        size = self._layout.row_bytes
        try:
            if self._open is None:
                self._archive = zipfile.ZipFile(self._path)
                self._open = open_member(self._archive, self._archive.getinfo(self._member))
            place = self._offset + index * size
            if place < self._open.tell():
                self._open.seek(0)  # a packed member can only be unpacked from its start
            while self._open.tell() < place:  # in steps: one long seek would unpack 16 MiB at once
                self._open.seek(min(place, self._open.tell() + _STEP))
            row, done = np.empty(size, np.uint8), 0
            # In steps: one read of a whole row that is packed well would copy it again for each kilobyte of the file.
            while done < size and (part := self._open.read(min(_STEP, size - done))):
                row[done : done + len(part)] = np.frombuffer(part, np.uint8)
                done += len(part)
        except Exception:
            self.close()  # the unpacking stopped at an unknown place, from which it can't go on
            raise
        if done != size:
            self.close()
            raise DataError(f"{self._path}: got {done} bytes of image {index}, expected {size}")
        return row.reshape(self._layout.row)

    def close(self) -> None:
        for file in (self._open, self._archive):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
        self._open = self._archive = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None, "_archive": None}
