"""The shared memory of one CTA: its bytes, the threads that touched them, and bank conflicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import Misaligned, OutOfBounds, Race, Uninitialized
from .formats import Array, width_of
from .races import NEVER_ORDERED, WITHIN_CTA, History

if TYPE_CHECKING:
    from .machine import Cta

# Kernels repeat a few patterns of addresses, so the counts are kept.
_CACHE_SIZE = 1 << 16
_wavefront_cache: dict[bytes, tuple[int, int]] = {}


class SharedMemory:
    def __init__(self, size: int, granule: int, poison: int) -> None:
        padded = -(-size // 16) * 16
        self.size = size
        self.granule = granule
        self.bytes = np.full(padded // 8, poison, np.uint64).view(np.uint8)
        self.history = History(padded // granule)
        self._views: dict[tuple[np.dtype, int], Array] = {}

    def view(self, dtype: np.dtype, count: int) -> Array:
        found = self._views.get((dtype, count))
        if found is None:
            flat = self.bytes.view(dtype)
            rows = len(flat) // count
            found = flat if count == 1 else flat[: rows * count].reshape(rows, count)
            self._views[dtype, count] = found
        return found

    def check(self, cta: Cta, addresses: Array, lanes: Array | None, width: int, what: str) -> None:
        if int(addresses.min()) < 0 or int(addresses.max()) + width > self.size:
            lane = int(np.flatnonzero((addresses < 0) | (addresses + width > self.size))[0])
            message = f"{what} of {width} bytes at byte {int(addresses[lane])} of shared memory, which has {self.size}"
            cta.fail(OutOfBounds, message, cta.thread_of(lane, lanes))
        if (addresses & (width - 1)).any():
            lane = int(np.flatnonzero(addresses & (width - 1))[0])
            message = f"{what} of {width} bytes at byte {int(addresses[lane])} of shared memory"
            cta.fail(Misaligned, message, cta.thread_of(lane, lanes))

    def granules(self, addresses: Array, width: int) -> Array:
        first = addresses // self.granule
        each = width // self.granule
        return first if each == 1 else (first[:, None] + np.arange(each)).ravel()

    def count_wavefronts(self, cta: Cta, addresses: Array, lanes: Array | None, width: int) -> None:
        key = addresses.tobytes() + (lanes.tobytes() if lanes is not None else b"") + bytes((width,))
        found = _wavefront_cache.get(key)
        if found is None:
            found = _wavefronts(addresses, cta.lanes_or_all(lanes), width)
            if len(_wavefront_cache) < _CACHE_SIZE:
                _wavefront_cache[key] = found
        cta.report.shared_wavefronts += found[0]
        cta.report.shared_accesses += found[1]

    def race(self, cta: Cta, conflict: Any, what: str) -> None:
        by = f"thread {conflict.earlier_thread % cta.threads}, no barrier in between"
        if conflict.in_flight:
            by = f"cp.async of thread {conflict.earlier_thread % cta.threads}, not waited for"
        message = f"{what} at byte {conflict.granule * self.granule} of shared memory, {conflict.earlier} by {by}"
        cta.fail(Race, message, conflict.thread % cta.threads)

    def load(self, cta: Cta, addresses: Array, lanes: Array | None, dtype: np.dtype, count: int) -> Array:
        width = dtype.itemsize * count
        self.check(cta, addresses, lanes, width, "load")
        self.count_wavefronts(cta, addresses, lanes, width)
        granules = self.granules(addresses, width)
        if not self.history.write_time[granules].all():
            byte = int(granules[self.history.write_time[granules] == 0][0]) * self.granule
            cta.fail(Uninitialized, f"load of byte {byte} of shared memory, which nobody wrote", None)
        conflict = cta.order.read(self.history, granules, cta.thread_numbers(lanes, width // self.granule), cta.now)
        if conflict:
            self.race(cta, conflict, "load")
        return self.view(dtype, count)[addresses // width]

    def store(self, cta: Cta, addresses: Array, lanes: Array | None, values: Array) -> None:
        width = width_of(values)
        self.check(cta, addresses, lanes, width, "store")
        self.count_wavefronts(cta, addresses, lanes, width)
        granules = self.granules(addresses, width)
        conflict = cta.order.write(self.history, granules, cta.thread_numbers(lanes, width // self.granule), cta.now)
        if conflict:
            self.race(cta, conflict, "store")
        self._put(cta, addresses, lanes, values)

    def _put(self, cta: Cta, addresses: Array, lanes: Array | None, values: Array) -> None:
        elements = self.view(values.dtype, width_of(values) // values.itemsize)
        index = addresses // width_of(values)
        elements[index] = values
        differs = elements[index] != values
        if differs.any():
            lane = int(np.flatnonzero(differs.reshape(len(addresses), -1).any(1))[0])
            message = (
                f"two lanes of one instruction store different values at byte {int(addresses[lane])} of shared memory"
            )
            cta.fail(Race, message, cta.thread_of(lane, lanes))

    def begin_copy(self, cta: Cta, addresses: Array, lanes: Array | None, width: int) -> None:
        """Start an asynchronous copy, which may write these bytes at any time from now on."""
        self.check(cta, addresses, lanes, width, "cp.async")
        granules = self.granules(addresses, width)
        threads = cta.thread_numbers(lanes, width // self.granule)
        conflict = cta.order.write(self.history, granules, threads, NEVER_ORDERED)
        if conflict:
            self.race(cta, conflict, "cp.async")

    def end_copy(self, cta: Cta, addresses: Array, lanes: Array | None, values: Array) -> None:
        """End an asynchronous copy: its bytes are now there, for the thread that issued it."""
        granules = self.granules(addresses, width_of(values))
        self.history.write_time[granules] = cta.now
        self._put(cta, addresses, lanes, values)

    def update(
        self, cta: Cta, addresses: Array, lanes: Array | None, dtype: np.dtype, combine: Callable[[Any, int], Any]
    ) -> Array:
        self.check(cta, addresses, lanes, dtype.itemsize, "atomic operation")
        granules = self.granules(addresses, dtype.itemsize)
        if not self.history.write_time[granules].all():
            cta.fail(Uninitialized, "atomic operation on shared memory that nobody wrote", None)
        threads = cta.thread_numbers(lanes, dtype.itemsize // self.granule)
        conflict = cta.order.atomic(self.history, granules, threads, cta.now, WITHIN_CTA)
        if conflict:
            self.race(cta, conflict, "atomic operation")
        elements = self.view(dtype, 1)
        before = np.empty(len(addresses), dtype)
        for lane, index in enumerate((addresses // dtype.itemsize).tolist()):
            before[lane] = elements[index]
            elements[index] = combine(before[lane], lane)
        return before


def _wavefronts(addresses: Array, threads: Array, width: int) -> tuple[int, int]:
    """Return how many wavefronts an access takes, and the fewest that it could take.

    A wavefront is one trip to the 32 banks of 4 bytes. An access of 8 bytes takes half a warp at a time, one of 16
    bytes a quarter.
    """
    phases = threads // (32 if width <= 4 else 128 // width)
    words = (addresses >> 2)[:, None] + np.arange(max(width // 4, 1))
    distinct = np.unique((phases[:, None] << 32) + words)
    _, busy = np.unique((distinct >> 32 << 5) + (distinct & 31), return_counts=True)
    banks = np.unique((distinct >> 32 << 5) + (distinct & 31)) >> 5
    starts = np.flatnonzero(np.diff(banks, prepend=-1))
    return int(np.maximum.reduceat(busy, starts).sum()), len(starts)
