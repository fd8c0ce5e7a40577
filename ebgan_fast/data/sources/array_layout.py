"""The layouts of images in an array: the shapes that are taken, the reasons against others, and a choice of arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ... import _console
from ..errors import DataError, NoImagesError
from .reading import quoted
from .source import Pixels, Tally

EXPECTED = "uint8 [N, H, W, C] or [N, C, H, W] with C = 1, 3 or 4, or [N, H, W] of gray"

Shape: TypeAlias = tuple[int, ...]
DType: TypeAlias = "np.dtype[Any]"

_USUAL = "image"
_CHANNELS = (1, 3, 4)
_MOST_PIXELS = 178_956_970  # pixels of an image, Pillow's limit too: a small file may claim any size
_MOST_LISTED = 12
_MOST_SIGNS = 300  # characters of a text that may come from a stranger's file


class Rows(Protocol):
    """The rows of one array on the disk. They can be pickled, but without their open files."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return one row in its stored layout. The caller has checked the index."""

    def close(self) -> None:
        """Close the files that `read` has opened. A later `read` opens them again."""


@dataclass(frozen=True)
class Layout:
    """The layout of images in an array: their number, the shape of one, and True if its channels come first."""

    count: int
    row: Shape
    channels_first: bool = False

    @property
    def shape(self) -> Shape:
        """The shape of the whole array."""
        return (self.count, *self.row)

    @property
    def row_bytes(self) -> int:
        """The number of bytes of one image."""
        return math.prod(self.row)

    def pixels(self, row: NDArray[np.uint8]) -> Pixels:
        """Return a row as pixels with channels last. The result is a copy, so that it keeps no file or block alive."""
        return np.array(np.moveaxis(row, 0, 2) if self.channels_first else row, order="C")


@dataclass(frozen=True)
class Found:
    """An opened array: its name in the file or None, its layout, its rows, and the count of what lies beside it."""

    column: str | None
    layout: Layout
    rows: Rows
    aside: Tally


def shortened(text: object) -> str:
    """Return a text as one printable line of at most 300 characters."""
    return _console.shortened(str(text), _MOST_SIGNS)


def unreadable(path: Path, error: Exception, expected: str) -> DataError:
    """Return the error of a file that is damaged, or isn't of the format that its reader expects.

    Args:
        path: the file.
        error: the error that the reader raised.
        expected: words for what was expected.
    """
    return DataError(f"{path}: got a file that can't be read ({quoted(error, _MOST_SIGNS)}), {expected}")


def listed(names: Iterable[str]) -> str:
    """Return the first names, at most 12, joined for a message."""
    names = list(names)
    more = ", ..." if len(names) > _MOST_LISTED else ""
    return ", ".join(shortened(name) for name in names[:_MOST_LISTED]) + more


def described(shape: Shape, dtype: DType) -> str:
    """Return the dtype and shape of an array for a message: "uint8 [10, 28, 28]"."""
    return f"{shortened(dtype)} [{shortened(', '.join(map(str, shape)))}]"


def layout_of(shape: Shape, dtype: DType) -> Layout | str:
    """Return the layout of an array of images. If the array isn't one, return the words that follow "got"."""
    got = described(shape, dtype)
    if min(shape, default=1) < 1:
        return f"{got}, expected at least one image of at least one pixel"
    if len(shape) not in (3, 4):
        flat = "; way out: give rows their sides back, as by a.reshape(-1, H, W)" if len(shape) == 2 else ""
        return f"{got}, expected {EXPECTED}{flat}"
    if dtype != np.uint8:
        return f"{got}, expected {EXPECTED}{_way_to_uint8(dtype)}"
    if len(shape) == 3:
        if shape[2] in _CHANNELS:
            way = "way out: save a[None], or np.stack of several"
            return f"{got}, which is one image [H, W, C], expected {EXPECTED}; {way}"
        layout, pixels = Layout(shape[0], shape[1:]), shape[1] * shape[2]
    else:
        first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
        if first and last:
            return f"{got}, whose channels could be axis 1 or axis 3, expected one of the two; {_way_to_one(shape)}"
        if not (first or last):
            return f"{got}, whose channels are neither axis 1 nor axis 3, expected {EXPECTED}"
        layout = Layout(shape[0], shape[1:], first)
        pixels = layout.row_bytes // (shape[1] if first else shape[3])
    if pixels > _MOST_PIXELS:
        return f"{got}, images of {pixels} pixels, expected at most {_MOST_PIXELS}; way out: save smaller ones"
    return layout


def _way_to_one(shape: Shape) -> str:
    """Return the way out for an array with two axes that could be the channels."""
    if shape[2] in _CHANNELS:  # both transposes would again have two such axes
        return "way out: pad the images to more than 4 pixels a side"
    return "way out: save a.transpose(0, 2, 3, 1) if axis 1 are the channels, else a.transpose(0, 3, 1, 2)"


def _way_to_uint8(dtype: DType) -> str:
    """Return the way out for an array of another dtype, or "" if there is none."""
    if dtype.kind == "f":
        way = 'save (255 * a).round().astype("uint8") if its values are 0 to 1'
    elif dtype.kind == "b":
        way = 'save 255 * a.astype("uint8")'
    elif dtype.kind in "iu":
        wide = ', (a // 257).astype("uint8") if they are 0 to 65535' if dtype == np.uint16 else ""
        way = f'save a.astype("uint8") if its values are 0 to 255{wide}'
    elif dtype.kind == "O":
        way = "save np.stack(list(a)) if it holds images of one size"
    else:
        return ""
    return f"; way out: {way}"


def choose(path: Path, arrays: Mapping[str, tuple[Shape, DType]]) -> tuple[str, Layout]:
    """Return the name and layout of the array of images in a file: that named "image", or the only one.

    Args:
        path: the file, for messages.
        arrays: the shape and dtype of each array in the file, by name.

    Raises:
        DataError: no array holds images, or several do and none of these is named "image".
    """
    layouts = {name: layout_of(*array) for name, array in arrays.items()}
    fitting = [(name, layout) for name, layout in layouts.items() if isinstance(layout, Layout)]
    usual = [array for array in fitting if array[0] == _USUAL]
    if len(fitting) == 1 or usual:
        return (usual or fitting)[0]
    if fitting:
        several = listed(f"{name}: {described(*arrays[name])}" for name, _ in fitting)
        raise DataError(
            f"{path}: got {len(fitting)} arrays of images ({several}), expected one; way out: --column NAME"
        )
    if not arrays:
        raise NoImagesError(f"{path}: got a file without arrays, expected {EXPECTED}")
    largest = max(arrays, key=lambda name: math.prod(arrays[name][0]))
    among = f"{len(arrays)} arrays of which none holds images, the largest " if len(arrays) > 1 else ""
    raise NoImagesError(f"{path}: got {among}{shortened(largest)} of {layouts[largest]}")


def layout_of_column(path: Path, column: str, shape: Shape, dtype: DType) -> Layout:
    """Return the layout of an array that the user has named.

    Raises:
        DataError: the array doesn't hold images.
    """
    layout = layout_of(shape, dtype)
    if isinstance(layout, str):
        raise DataError(f"{path}: got {shortened(column)} of {layout}")
    return layout


def no_such_column(path: Path, column: str, names: Iterable[str]) -> DataError:
    """Return the error of a name `column` that none of the arrays `names` has."""
    return DataError(
        f"{path}: got no array {shortened(column)}, expected one of those that are there: {listed(names) or 'none'}"
    )
