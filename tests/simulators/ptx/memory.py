"""Global memory: the arguments' bytes, each at a device address of its own, far away from every other."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .errors import Misaligned, OutOfBounds, Race
from .formats import Array, width_of
from .races import History
from .report import BufferTraffic

if TYPE_CHECKING:
    from .machine import Cta

# Arguments lie 2^40 bytes apart, so that no stray offset reaches another argument. The low bits of an address are
# those of the tensor's own, alignment included.
_REGION_BITS = 40
_LOW_BITS = 0xFFFF
_CACHE_SIZE = 1 << 16


class Region:
    """What a kernel may touch through one pointer."""

    def __init__(self, number: int, name: str, real_address: int, size: int, keep_alive: Any) -> None:
        self.number = number
        self.name = name
        self.base = (number + 1 << _REGION_BITS) + (real_address & _LOW_BITS)
        self.size = size
        self.real_address = real_address
        self.traffic = BufferTraffic()
        self.history: History | None = None  # shared by tensors that overlap
        self.history_start = 0  # the device address of granule 0
        self.constant = False
        self._keep_alive = keep_alive
        self._views: dict[tuple[np.dtype, int], tuple[Array, int]] = {}

    def view(self, dtype: np.dtype, count: int) -> tuple[Array, int]:
        """The bytes as elements (or rows of `count` elements) at multiples of their size, and the first one's address.

        An incomplete first or last element is part of the view and never touched: bounds are checked before.
        """
        found = self._views.get((dtype, count))
        if found is None:
            width = dtype.itemsize * count
            lead = self.base % width
            elements = -(-(lead + self.size) // width)
            raw = (ctypes.c_uint8 * (elements * width)).from_address(self.real_address - lead)
            flat = np.frombuffer(raw, dtype)
            found = (flat if count == 1 else flat.reshape(-1, count), self.base - lead)
            self._views[dtype, count] = found
        return found


def _extent(tensor: torch.Tensor) -> int:
    """Bytes from the first element of a view to the end of its last."""
    if tensor.numel() == 0:
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


class GlobalMemory:
    """Looks addresses up, checks them, and counts what passes."""

    def __init__(self, tensors: dict[int, torch.Tensor], constants: bytes, granule: int) -> None:
        self.granule = granule
        self.regions: dict[int, Region] = {}
        for number, tensor in tensors.items():
            region = Region(number, f"argument {number}", tensor.data_ptr(), _extent(tensor), tensor)
            self.regions[number + 1] = region
        self._share_histories()
        data = np.frombuffer(bytearray(constants) + bytearray(16), np.uint8)
        number = max(tensors, default=-1) + 1
        self.constants = Region(number, "the kernel's constants", data.ctypes.data, len(constants), data)
        self.constants.constant = True
        self.regions[number + 1] = self.constants
        self._sector_cache: dict[bytes, int] = {}

    def _share_histories(self) -> None:
        """One history for every group of tensors whose bytes overlap."""
        granule, end, group = self.granule, -1, []
        groups = [group]
        for region in sorted(self.regions.values(), key=lambda region: region.real_address):
            if region.real_address >= end and group:
                group = []
                groups.append(group)
            group.append(region)
            end = max(end, region.real_address + region.size)
        for group in filter(None, groups):
            start = group[0].real_address // granule * granule
            last = max(region.real_address + region.size for region in group)
            history = History(-(-(last - start) // granule) + 1)
            for region in group:
                region.history = history
                region.history_start = region.base - (region.real_address - start)

    def locate(self, cta: Cta, addresses: Array, lanes: Array | None, width: int, what: str) -> Region:
        """The one region that all the addresses lie in, with room for `width` bytes at each."""
        number = int(addresses[0]) + (1 << _REGION_BITS - 1) >> _REGION_BITS
        region = self.regions.get(number)
        low, high = int(addresses.min()), int(addresses.max())
        if region is None or low < region.base or high + width > region.base + region.size:
            self._out_of_bounds(cta, addresses, lanes, width, what)
        if (addresses & (width - 1)).any():
            lane = int(np.flatnonzero(addresses & (width - 1))[0])
            offset = int(addresses[lane]) - region.base
            cta.fail(
                Misaligned,
                f"{what} of {width} bytes at byte {offset} of {region.name}, "
                f"{int(addresses[lane]) % width} bytes past a multiple of {width}",
                cta.thread_of(lane, lanes),
            )
        return region

    def _out_of_bounds(self, cta: Cta, addresses: Array, lanes: Array | None, width: int, what: str) -> None:
        for lane, address in enumerate(addresses.tolist()):
            region = self.regions.get(address + (1 << _REGION_BITS - 1) >> _REGION_BITS)
            if region is None:
                where = f"at address {address:#x}, which is in no argument"
            elif address < region.base or address + width > region.base + region.size:
                where = f"at byte {address - region.base} of {region.name}, which has {region.size}"
            else:
                continue
            cta.fail(OutOfBounds, f"{what} of {width} bytes {where}", cta.thread_of(lane, lanes))

    def in_one_region(self, addresses: Array) -> bool:
        first = int(addresses[0]) + (1 << _REGION_BITS - 1) >> _REGION_BITS
        numbers = addresses + (1 << _REGION_BITS - 1) >> _REGION_BITS
        return bool((numbers == first).all())

    def granules(self, region: Region, addresses: Array, width: int) -> Array:
        first = (addresses - region.history_start) // self.granule
        each = width // self.granule
        return first if each == 1 else (first[:, None] + np.arange(each)).ravel()

    def sectors(self, cta: Cta, addresses: Array, lanes: Array | None) -> int:
        """32-byte sectors, summed over warps. Most accesses of a kernel repeat a pattern that was counted before."""
        relative = addresses - (int(addresses[0]) & ~31)
        key = relative.tobytes() + (lanes.tobytes() if lanes is not None else b"")
        count = self._sector_cache.get(key)
        if count is None:
            warps = cta.warps if lanes is None else cta.warps[lanes]
            count = len(np.unique((warps << 48) + (relative >> 5)))
            if len(self._sector_cache) < _CACHE_SIZE:
                self._sector_cache[key] = count
        return count

    def race(self, cta: Cta, region: Region, conflict: Any, what: str) -> None:
        offset = conflict.granule * self.granule + region.history_start - region.base
        earlier, mine = divmod(conflict.earlier_thread, cta.threads), conflict.thread % cta.threads
        who = f"thread {earlier[1]} of CTA {cta.launch.cta_at(earlier[0])}"
        cta.fail(
            Race, f"{what} at byte {offset} of {region.name}, {conflict.earlier} by {who}, nothing in between", mine
        )

    def real_address(self, address: int) -> int:
        """The same for every pointer to the same byte."""
        region = self.regions[address + (1 << _REGION_BITS - 1) >> _REGION_BITS]
        return address - region.base + region.real_address

    def text_at(self, address: int) -> str:
        """A constant string."""
        offset = address - self.constants.base
        data = self.constants.view(np.dtype(np.uint8), 1)[0].tobytes()
        return data[offset : data.index(b"\0", offset)].decode("utf-8", "replace")

    def load(
        self,
        cta: Cta,
        addresses: Array,
        lanes: Array | None,
        dtype: np.dtype,
        count: int,
        non_coherent: bool = False,
    ) -> Array:
        """[lanes] or, for a vector, [lanes, count]."""
        width = dtype.itemsize * count
        region = self.locate(cta, addresses, lanes, width, "load")
        if not region.constant:
            traffic = region.traffic
            traffic.bytes_read += width * len(addresses)
            traffic.loads[8 * width] += len(addresses)
            traffic.sectors_read += self.sectors(cta, addresses, lanes)
            granules = self.granules(region, addresses, width)
            threads = cta.thread_numbers(lanes, width // self.granule)
            if non_coherent and region.history.write_time[granules].any():
                cta.fail(Race, f"ld.global.nc of {region.name}, which this launch has written there", None)
            conflict = cta.order.read(region.history, granules, threads, cta.now)
            if conflict:
                self.race(cta, region, conflict, "load")
        elements, start = region.view(dtype, count)
        return elements[(addresses - start) // width]

    def store(self, cta: Cta, addresses: Array, lanes: Array | None, values: Array) -> None:
        width = width_of(values)
        region = self.locate(cta, addresses, lanes, width, "store")
        if region.constant:
            cta.fail(OutOfBounds, "store to the kernel's constants", cta.thread_of(0, lanes))
        traffic = region.traffic
        traffic.bytes_written += width * len(addresses)
        traffic.stores[8 * width] += len(addresses)
        traffic.sectors_written += self.sectors(cta, addresses, lanes)
        granules = self.granules(region, addresses, width)
        threads = cta.thread_numbers(lanes, width // self.granule)
        conflict = cta.order.write(region.history, granules, threads, cta.now)
        if conflict:
            self.race(cta, region, conflict, "store")
        elements, start = region.view(values.dtype, width // values.itemsize)
        index = (addresses - start) // width
        elements[index] = values
        differs = elements[index] != values
        if differs.any():
            lane = int(np.flatnonzero(differs.reshape(len(addresses), -1).any(1))[0])
            offset = int(addresses[lane]) - region.base
            message = f"two lanes of one instruction store different values at byte {offset} of {region.name}"
            cta.fail(Race, message, cta.thread_of(lane, lanes))

    def update(
        self,
        cta: Cta,
        addresses: Array,
        lanes: Array | None,
        dtype: np.dtype,
        combine: Callable[[Any, int], Any],
        what: str,
    ) -> Array:
        """Atomically, lane by lane: element = combine(element, lane). The elements as they were before."""
        width = dtype.itemsize
        region = self.locate(cta, addresses, lanes, width, what)
        self._count_update(cta, region, addresses, lanes, width, what)
        granules = self.granules(region, addresses, width)
        threads = cta.thread_numbers(lanes, width // self.granule)
        conflict = cta.order.atomic(region.history, granules, threads, cta.now)
        if conflict:
            self.race(cta, region, conflict, what)
        elements, start = region.view(dtype, 1)
        before = np.empty(len(addresses), dtype)
        for lane, index in enumerate(((addresses - start) // width).tolist()):
            before[lane] = elements[index]
            elements[index] = combine(before[lane], lane)
        return before

    def _count_update(
        self, cta: Cta, region: Region, addresses: Array, lanes: Array | None, width: int, what: str
    ) -> None:
        traffic = region.traffic
        if what == "load":
            traffic.bytes_read += width * len(addresses)
            traffic.loads[8 * width] += len(addresses)
            traffic.sectors_read += self.sectors(cta, addresses, lanes)
        elif what == "store":
            traffic.bytes_written += width * len(addresses)
            traffic.stores[8 * width] += len(addresses)
            traffic.sectors_written += self.sectors(cta, addresses, lanes)
        elif what.startswith("float"):
            traffic.float_atomics += len(addresses)
        else:
            traffic.integer_atomics += len(addresses)
