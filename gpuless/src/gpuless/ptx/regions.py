"""The pieces of global memory that a kernel may touch, one for each array among its arguments."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import arrays
from ..arrays import ArrayLike
from .formats import Array
from .races import History
from .report import BufferTraffic

# Regions lie 2^40 bytes apart, so no wrong offset reaches another region. The low bits of an address are those of the
# array's own address, which keeps its alignment.
_SPACING_BITS = 40
_LOW_BITS = 0xFFFF


def number_of(address: int) -> int:
    """Return the number of the region that holds an address or lies next to it."""
    return address + (1 << _SPACING_BITS - 1) >> _SPACING_BITS


class Region:
    """The memory that a kernel may touch through one pointer. No region has number 0, which is for null pointers."""

    def __init__(self, number: int, name: str, real_address: int, size: int, keep_alive: Any) -> None:
        self.name = name
        self.base = (number << _SPACING_BITS) + (real_address & _LOW_BITS)
        self.size = size
        self.real_address = real_address
        self.traffic = BufferTraffic()
        self.history = History(0)
        self.history_start = 0  # the device address of granule 0
        self.constant = False
        self.read_only = False
        self._keep_alive = keep_alive
        self._views: dict[tuple[np.dtype[Any], int], tuple[Array, int]] = {}

    def view(self, dtype: np.dtype[Any], count: int) -> tuple[Array, int]:
        """Return the bytes as elements, or rows of `count` elements, at multiples of their size, and the address of the
        first.

        An incomplete first or last element is part of the view, but bounds are checked before, so it is never touched.
        """
        found = self._views.get((dtype, count))
        if found is None:
            width = dtype.itemsize * count
            lead = self.base % width
            elements = -(-(lead + self.size) // width)
            raw = (ctypes.c_uint8 * (elements * width)).from_address(self.real_address - lead)
            flat = np.frombuffer(memoryview(raw), dtype)
            found = (flat if count == 1 else flat.reshape(-1, count), self.base - lead)
            self._views[dtype, count] = found
        return found


def lay_out(given: dict[int, ArrayLike], constants: bytes, granule: int) -> tuple[dict[int, Region], Region]:
    """Return all regions by number, and the region of the constants. The number of an array's region is its argument's
    plus 1.
    """
    regions = {}
    for number, array in given.items():
        region = Region(number + 1, f"argument {number}", arrays.address(array), arrays.extent_of(array), array)
        region.read_only = not arrays.is_writable(array)
        regions[number + 1] = region
    _share_histories(regions.values(), granule)
    data = np.frombuffer(bytearray(constants) + bytearray(16), np.uint8)
    last = max(regions, default=0) + 1
    own = regions[last] = Region(last, "the kernel's constants", data.ctypes.data, len(constants), data)
    own.constant = own.read_only = True
    return regions, own


def _share_histories(regions: Iterable[Region], granule: int) -> None:
    """Give one history to each group of arrays whose bytes overlap."""
    groups: list[list[Region]] = []
    end = -1
    for region in sorted(regions, key=lambda region: region.real_address):
        if region.real_address >= end:
            groups.append([])
        groups[-1].append(region)
        end = max(end, region.real_address + region.size)
    for group in groups:
        start = group[0].real_address // granule * granule
        last = max(region.real_address + region.size for region in group)
        history = History(-(-(last - start) // granule) + 1)
        for region in group:
            region.history = history
            region.history_start = region.base - (region.real_address - start)
