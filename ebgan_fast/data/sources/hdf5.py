"""Read one dataset of an HDF5 file, block by block. The file may be a stranger's, so nothing outside of it is read."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, needed
from .array_layout import (
    DType,
    Found,
    Layout,
    Shape,
    choose,
    layout_of_column,
    no_such_column,
    shortened,
    unreadable,
)
from .source import Tally

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_BLOCK_ROWS = 16  # the fewest rows of a block, if they aren't too large
_BLOCK_BYTES = 64 << 20  # the largest size of a block of several rows
_CHUNK_BYTES = 1 << 30  # HDF5 unpacks a chunk as a whole, and a small file may hold a chunk of 4 GiB
_MOST_CHUNKS = 1 << 11  # chunks in one read: HDF5 takes 6.6 kB for each, and a small file may claim millions
_MOST_LINKS = 16  # soft links that are followed to one dataset, because links may form a loop


def is_hdf5(file: IO[bytes]) -> bool:
    """Return True if a file is HDF5.

    The signature stands at byte 0 or, after a block of the user, at byte 512, 1024, 2048 and so on.
    """
    size = file.seek(0, 2)
    place = 0
    while place < size:
        file.seek(place)
        if file.read(len(_SIGNATURE)) == _SIGNATURE:
            return True
        place = max(512, 2 * place)
    return False


def open_hdf5(path: Path, column: str | None) -> Found:
    """Open one dataset of an HDF5 file.

    Args:
        path: the file.
        column: the path of the dataset within the file. None: the dataset "image", or the only one that holds images.

    Raises:
        DataError: h5py isn't installed, the file can't be read or has no such dataset, or the dataset to take isn't
            clear or can't be read here.
    """
    h5py = needed("h5py", "data", f"{path}: an HDF5 file")
    aside = Tally()
    try:
        with h5py.File(path, "r") as file:
            if column is None:
                arrays = {}
                for name, dataset in _walk(h5py, file, aside):
                    if away := _kept_elsewhere(dataset):
                        aside.add(away, name)
                    elif (array := _array_of(dataset)) is not None:
                        arrays[name] = array
                column, layout = choose(path, arrays)
                beside = [name for name in arrays if name != column]
                dataset = _dataset_at(h5py, file, path, column)
            else:
                column = column.strip("/")
                dataset = _dataset_at(h5py, file, path, column)
                array = _array_of(dataset)
                if array is None:
                    raise DataError(f"{path}: got {shortened(column)} without a shape, expected an array of images")
                layout = layout_of_column(path, column, *array)
                beside = [name for name, other in _walk(h5py, file, Tally()) if other != dataset]
            _check_storage(h5py, path, column, dataset)
            rows = DatasetRows(path, column, layout, dataset.chunks[0] if dataset.chunks else 1)
    except DataError:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError, TypeError and others on damaged files
        raise unreadable(path, error, "expected a whole HDF5 file") from error
    for name in beside:
        aside.add("arrays", name)
    return Found(column, layout, rows, aside)


def _walk(h5py: Any, file: Any, aside: Tally) -> Iterator[tuple[str, Any]]:
    """Give each dataset of a file once, with its path.

    Only hard links are followed: the target of a soft link also has a hard link elsewhere in the file.
    """
    seen = {_address(h5py, file)}
    left = [("", file)]
    while left:
        place, group = left.pop()
        for name in group:
            link = group.get(name, getlink=True)
            path = f"{place}{name}"
            if isinstance(link, h5py.ExternalLink):
                aside.add("links to other files", path)
            if not isinstance(link, h5py.HardLink):
                continue
            found = group[name]
            address = _address(h5py, found)
            if address in seen:
                continue  # a second name, or a loop
            seen.add(address)
            if isinstance(found, h5py.Group):
                left.append((f"{path}/", found))
            elif isinstance(found, h5py.Dataset):
                yield path, found


def _address(h5py: Any, found: Any) -> int:
    address: int = h5py.h5o.get_info(found.id).addr
    return address


def _dataset_at(h5py: Any, file: Any, path: Path, column: str) -> Any:
    """Return the dataset at a path within the file, through groups and soft links.

    h5py isn't asked for the whole path, because it would follow links to other files.

    Raises:
        DataError: there is no dataset at this path, or it lies in another file.
    """
    here = file["/"]
    left = [part for part in column.split("/") if part not in ("", ".")][::-1]
    links = 0
    while left:
        part = left.pop()
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            raise DataError(
                f"{path}: got {shortened(column)} in another file ({shortened(link.filename)}), expected an array in "
                "this one; way out: name the other file"
            )
        if isinstance(link, h5py.SoftLink) and links < _MOST_LINKS:
            links += 1
            if link.path.startswith("/"):
                here = file["/"]
            left += [part for part in link.path.split("/") if part not in ("", ".")][::-1]
        elif isinstance(link, h5py.HardLink):
            here = here[part]
        else:
            here = None
            break
    if not isinstance(here, h5py.Dataset):
        raise no_such_column(path, column, [name for name, _ in _walk(h5py, file, Tally())])
    return here


def _kept_elsewhere(dataset: Any) -> str | None:
    """Return the kind, for a tally, of a dataset whose values lie in other files; None for any other dataset."""
    return "datasets of other files" if dataset.is_virtual or dataset.external else None


def _array_of(dataset: Any) -> tuple[Shape, DType] | None:
    """Return the shape and dtype of a dataset; None if it has no shape, or a type that numpy doesn't have."""
    try:
        shape, dtype = dataset.shape, dataset.dtype
    except TypeError:
        return None
    return None if shape is None else (shape, dtype)


def _check_storage(h5py: Any, path: Path, column: str, dataset: Any) -> None:
    """Raise a DataError if a dataset can't be read: it has values in other files, large chunks or a missing filter."""
    if _kept_elsewhere(dataset):
        raise DataError(
            f"{path}: got {shortened(column)} with values in other files, expected them in this one; way out: copy "
            "them in, as by h5repack"
        )
    if dataset.chunks and (size := int(np.prod(dataset.chunks, dtype=object))) > _CHUNK_BYTES:
        raise DataError(
            f"{path}: got {shortened(column)} in chunks of {size} bytes, expected at most {_CHUNK_BYTES}; way out: "
            "h5repack with smaller ones"
        )
    filters = dataset.id.get_create_plist()
    for number in range(filters.get_nfilters()):
        code, _, _, name = filters.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            shown = shortened(name.decode(errors="replace") or code)
            raise DataError(
                f"{path}: got {shortened(column)} packed by the filter {shown}, which HDF5 lacks here, expected one "
                "that it has; way out: h5repack with GZIP"
            )


def _read(dataset: Any, start: int, stop: int) -> NDArray[np.uint8]:
    """Return the rows `start` to `stop` of a dataset, read by at most `_MOST_CHUNKS` chunks at once."""
    whole = (range(start, stop), *map(range, dataset.shape[1:]))
    chunks = dataset.chunks or dataset.shape
    if _number_of_chunks(whole, chunks) <= _MOST_CHUNKS:
        rows: NDArray[np.uint8] = dataset[start:stop]
        return rows
    rows = np.empty([len(side) for side in whole], np.uint8)
    left = [whole]
    while left:
        box = left.pop()
        if _number_of_chunks(box, chunks) > _MOST_CHUNKS:
            left += _halves(box, chunks)
        else:
            place = tuple(slice(side.start, side.stop) for side in box)
            inside = slice(box[0].start - start, box[0].stop - start), *place[1:]
            rows[inside] = dataset[place]
    return rows


def _number_of_chunks(box: Sequence[range], chunks: Shape) -> int:
    return math.prod((side[-1] // long - side[0] // long) + 1 for side, long in zip(box, chunks, strict=True))


def _halves(box: tuple[range, ...], chunks: Shape) -> Iterator[tuple[range, ...]]:
    """Give both halves of a box, cut between two chunks along the first axis that has more than one chunk."""
    for axis, (side, long) in enumerate(zip(box, chunks, strict=True)):
        first, last = side[0] // long, side[-1] // long
        if first < last:
            cut = (first + last + 1) // 2 * long
            for half in (range(side.start, cut), range(cut, side.stop)):
                yield (*box[:axis], half, *box[axis + 1 :])
            return


class DatasetRows:
    """The rows of one dataset, read and kept in blocks.

    A block consists of whole chunks, unless these are too large. If rows are so large that a block is a single row, no
    block is kept.
    """

    def __init__(self, path: Path, column: str, layout: Layout, chunk: int) -> None:
        self._path = path
        self._column = column
        self._layout = layout
        most = max(1, _BLOCK_BYTES // layout.row_bytes)
        wanted = -(-_BLOCK_ROWS // chunk) * chunk
        self._rows = wanted if wanted <= most else most // chunk * chunk or most
        self._file: Any = None
        self._dataset: Any = None
        self._number: int | None = None
        self._block: NDArray[np.uint8] | None = None

    def read(self, index: int) -> NDArray[np.uint8]:
        number, row = divmod(index, self._rows)
        if number != self._number or self._block is None:
            self._block = self._number = None  # freed before the next block is read, so that only one is in memory
            if self._dataset is None:
                self._open()
            block = _read(self._dataset, number * self._rows, min((number + 1) * self._rows, self._layout.count))
            if self._rows == 1:  # a large row, which won't be read again
                alone: NDArray[np.uint8] = block[row]
                return alone
            self._block, self._number = block, number
        found: NDArray[np.uint8] = self._block[row]
        return found

    def _open(self) -> None:
        h5py = needed("h5py", "data", f"{self._path}: an HDF5 file")
        self._file = h5py.File(self._path, "r")
        try:
            dataset = _dataset_at(h5py, self._file, self._path, self._column)
            _check_storage(h5py, self._path, self._column, dataset)
            if dataset.shape != self._layout.shape or dataset.dtype != np.uint8:
                raise DataError(f"{self._path}: got {self._column} changed since it was opened, expected it unchanged")
        except BaseException:
            self.close()
            raise
        self._dataset = dataset

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._file.close()
        self._file = self._dataset = self._block = self._number = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_dataset": None, "_block": None, "_number": None}
