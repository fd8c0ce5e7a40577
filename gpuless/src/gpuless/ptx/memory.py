"""Global memory, which finds, checks and counts every access before it touches an array's bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ..arrays import ArrayLike
from .errors import Misaligned, OutOfBounds, Race, Unsupported
from .formats import Array, width_of
from .ordering import Conflict
from .races import ACROSS_CTAS, NOT_ATOMIC
from .regions import Region, lay_out, number_of
from .report import Access

if TYPE_CHECKING:
    from .machine import Cta

# Kernels repeat a few patterns of addresses, so the counts are kept.
_CACHE_SIZE = 1 << 16
_sector_cache: dict[bytes, int] = {}


class GlobalMemory:
    def __init__(self, arrays: dict[int, ArrayLike], constants: bytes, granule: int) -> None:
        self.granule = granule
        self.regions, self.constants = lay_out(arrays, constants, granule)

    def real_address(self, address: int) -> int:
        """Return the address of a byte in this process. All pointers to the byte give the same address."""
        region = self.regions[number_of(address)]
        return address - region.base + region.real_address

    def text_at(self, address: int) -> str:
        """Return the text of a constant string."""
        offset = address - self.constants.base
        data = self.constants.view(np.dtype(np.uint8), 1)[0].tobytes()
        return data[offset : data.index(b"\0", offset)].decode("utf-8", "replace")

    def load(
        self,
        cta: Cta,
        addresses: Array,
        lanes: Array | None,
        dtype: np.dtype[Any],
        count: int,
        non_coherent: bool = False,
    ) -> Array:
        """Return the loaded elements, [lanes], or [lanes, count] for a vector."""
        width = dtype.itemsize * count
        region = self._enter(cta, addresses, lanes, width, Access.LOAD, non_coherent=non_coherent)
        elements, start = region.view(dtype, count)
        return elements[(addresses - start) // width]

    def store(self, cta: Cta, addresses: Array, lanes: Array | None, values: Array) -> None:
        width = width_of(values)
        region = self._enter(cta, addresses, lanes, width, Access.STORE)
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
        dtype: np.dtype[Any],
        combine: Callable[[Any, int], Any],
        access: Access,
        scope: int,
    ) -> Array:
        """Set element = combine(element, lane) atomically, lane by lane. Return the elements as they were before."""
        region = self._enter(cta, addresses, lanes, dtype.itemsize, access, scope)
        elements, start = region.view(dtype, 1)
        before = np.empty(len(addresses), dtype)
        for lane, index in enumerate(((addresses - start) // dtype.itemsize).tolist()):
            before[lane] = elements[index]
            elements[index] = combine(before[lane], lane)
        return before

    def _enter(
        self,
        cta: Cta,
        addresses: Array,
        lanes: Array | None,
        width: int,
        access: Access,
        scope: int = NOT_ATOMIC,
        non_coherent: bool = False,
    ) -> Region:
        """Check and record an access, and return the one region that all its addresses lie in."""
        region = self._locate(cta, addresses, lanes, width, access)
        if region.read_only and access is not Access.LOAD:
            cta.fail(OutOfBounds, f"{access.value} to {region.name}, which may only be read", cta.thread_of(0, lanes))
        if region.constant:
            return region
        region.traffic.count(access, width, len(addresses), self._sectors(cta, addresses, lanes))
        first = (addresses - region.history_start) // self.granule
        each = width // self.granule
        granules = first if each == 1 else (first[:, None] + np.arange(each)).ravel()
        if non_coherent and region.history.write_time[granules].any():
            cta.fail(Race, f"ld.global.nc of {region.name} where this launch has written", None)
        threads, order = cta.thread_numbers(lanes, each), cta.order
        if scope != NOT_ATOMIC:
            conflict = order.atomic(region.history, granules, threads, cta.now, scope)
            if access is not Access.STRONG_STORE and scope == ACROSS_CTAS:
                order.observe(region.history, granules, threads, cta.now)
        elif access is Access.LOAD:
            cta.loads[cta.now] = cta.here
            conflict = order.read(region.history, granules, threads, cta.now)
        else:
            conflict = order.write(region.history, granules, threads, cta.now, cta.was_copy)
        if conflict:
            self._race(cta, region, conflict, access)
        return region

    def _locate(self, cta: Cta, addresses: Array, lanes: Array | None, width: int, access: Access) -> Region:
        region = self.regions.get(number_of(int(addresses[0])))
        low, high = int(addresses.min()), int(addresses.max())
        if region is None or low < region.base or high + width > region.base + region.size:
            self._out_of_bounds(cta, addresses, lanes, width, access)
        if (addresses & (width - 1)).any():
            lane = int(np.flatnonzero(addresses & (width - 1))[0])
            past, offset = int(addresses[lane]) % width, int(addresses[lane]) - region.base
            place = f"at byte {offset} of {region.name}, {past} bytes past a multiple of {width}"
            cta.fail(Misaligned, f"{access.value} of {width} bytes {place}", cta.thread_of(lane, lanes))
        return region

    def _out_of_bounds(self, cta: Cta, addresses: Array, lanes: Array | None, width: int, access: Access) -> NoReturn:
        """Fail at the first lane that lies in no region. If every lane lies in one, fail because they are several."""
        for lane, address in enumerate(addresses.tolist()):
            region = self.regions.get(number_of(address))
            if region is None:
                where = f"at address {address:#x}, which is in no argument"
            elif address < region.base or address + width > region.base + region.size:
                where = f"at byte {address - region.base} of {region.name}, which has {region.size}"
            else:
                continue
            cta.fail(OutOfBounds, f"{access.value} of {width} bytes {where}", cta.thread_of(lane, lanes))
        cta.fail(Unsupported, "one instruction that touches several arguments", None)

    def _sectors(self, cta: Cta, addresses: Array, lanes: Array | None) -> int:
        """Return the number of 32-byte sectors that an access touches, summed over warps."""
        relative = addresses - (int(addresses[0]) & ~31)
        key = relative.tobytes() + (lanes.tobytes() if lanes is not None else b"")
        count = _sector_cache.get(key)
        if count is None:
            warps = cta.warps if lanes is None else cta.warps[lanes]
            count = len(np.unique((warps << 48) + (relative >> 5)))
            if len(_sector_cache) < _CACHE_SIZE:
                _sector_cache[key] = count
        return count

    def _race(self, cta: Cta, region: Region, conflict: Conflict, access: Access) -> NoReturn:
        offset = conflict.granule * self.granule + region.history_start - region.base
        position, thread = divmod(conflict.earlier_thread, cta.threads)
        earlier = f"{conflict.earlier} by thread {thread} of CTA {cta.launch.cta_at(position)}"
        message = f"{access.value} at byte {offset} of {region.name}, {earlier} and nothing orders the two"
        cta.fail(Race, message, conflict.thread % cta.threads)
