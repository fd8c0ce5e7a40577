"""Record which thread touched each byte last, and tell if that access is ordered before a later one.

Time is a counter of executed instructions over the whole launch. CTAs run one after another, so the time of an access
also tells its CTA. An earlier access is ordered before a later one by any of these:

- Both are by the same thread.
- A barrier of the CTA lies in between, or a barrier of the warp (bar.warp.sync) if both are by that warp.
- They are by different CTAs, and a release and an acquire lie in between. The earlier access is ordered before the
  release, the acquire gets what was released, and the acquire is ordered before the later access. `Knowledge` keeps the
  accesses that are known to be in the past.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .formats import Array

if TYPE_CHECKING:
    from .ordering import Order

NEVER_ORDERED = 2**31 - 1  # the time of a write that is still in progress
_SPANS_AT_ONCE = 1024  # spans in one comparison with all accesses: each pair takes a byte
NOT_ATOMIC, WITHIN_CTA, ACROSS_CTAS = range(3)  # the scope of an atomic operation


@dataclass
class Knowledge:
    """The accesses of other CTAs that are known to be in the past.

    bounds[p] is a time: every access before it by the CTA that ran p-th is in the past. `single` adds spans of threads
    (first thread, last thread, time) for which more is known than for their CTA. Threads are numbered over the whole
    launch.
    """

    bounds: Array
    single: frozenset[tuple[int, int, int]] = frozenset()

    def merged(self, other: Knowledge) -> Knowledge:
        return Knowledge(np.maximum(self.bounds, other.bounds), self.single | other.single)

    def covers(self, ctas: Array, threads: Array, times: Array) -> Array:
        known = times < self.bounds[ctas]
        for start in range(0, len(self.single), _SPANS_AT_ONCE):
            rest = np.flatnonzero(~known)
            if not len(rest):
                break
            first, last, bound = self._spans[:, start : start + _SPANS_AT_ONCE, None]
            who, when = threads[rest], times[rest]
            known[rest] = ((who >= first) & (who <= last) & (when < bound)).any(0)
        return known

    @functools.cached_property
    def _spans(self) -> Array:
        """The spans of `single`, [3, count]."""
        return np.array(list(self.single), np.int64).T


@dataclass
class Log:
    """Older accesses, which `History` does not keep because it has only the last ones."""

    granules: list[Array] = field(default_factory=list)
    threads: list[Array] = field(default_factory=list)
    times: list[Array] = field(default_factory=list)

    def add(self, granules: Array, threads: Array, times: Array) -> None:
        self.granules.append(granules)
        self.threads.append(threads)
        self.times.append(times)

    def joined(self) -> tuple[Array, Array, Array]:
        for parts in (self.granules, self.threads, self.times):
            parts[:] = [np.concatenate(parts)]
        return self.granules[0], self.threads[0], self.times[0]


class History:
    """The last accesses to every granule of some memory. A granule is as wide as the kernel's narrowest access."""

    def __init__(self, granules: int) -> None:
        # Pages of zeros cost nothing until they are written. Time 0 means "never".
        self.write_time = np.zeros(granules, np.int32)
        self.writer = np.zeros(granules, np.int32)
        self.atomic = np.zeros(granules, np.uint8)  # of the last write: NOT_ATOMIC, WITHIN_CTA or ACROSS_CTAS
        self.read_time = np.zeros(granules, np.int32)
        self.reader = np.zeros(granules, np.int32)
        self.older_reads = Log()
        self.older_atomics = Log()
        self._mark = np.zeros(granules, bool)

    def older(self, log: Log, granules: Array) -> tuple[Array, Array, Array] | None:
        """Return the accesses in the log that touch these granules: granules, threads, times."""
        if not log.granules:
            return None
        where, who, when = log.joined()
        self._mark[granules] = True
        hit = self._mark[where]
        self._mark[granules] = False
        return where[hit], who[hit], when[hit]

    def note_read(self, granules: Array, me: Array, now: int, order: Order) -> None:
        when = self.read_time[granules]
        if when.any():
            # If a barrier of this CTA came after the older read, everything ordered after this read is ordered after
            # the older one too.
            kept = (when > 0) & ((when >= order.barrier_time) | (when < order.first_time))
            kept &= self.reader[granules] != me
            if kept.any():
                self.older_reads.add(granules[kept], self.reader[granules[kept]], when[kept])
        self.read_time[granules] = now
        self.reader[granules] = me
        lost = self.reader[granules] != me  # several lanes of one instruction read the same granule
        if lost.any():
            self.older_reads.add(granules[lost], me[lost], np.full(int(lost.sum()), now, np.int32))

    def note_write(self, granules: Array, me: Array, now: int) -> None:
        self.write_time[granules] = now
        self.writer[granules] = me
        self.atomic[granules] = NOT_ATOMIC

    def note_atomic(self, granules: Array, me: Array, now: int, scope: int) -> None:
        who, when = self.writer[granules], self.write_time[granules]
        kept = (when > 0) & (self.atomic[granules] != NOT_ATOMIC) & (who != me)
        if kept.any():
            self.older_atomics.add(granules[kept], who[kept], when[kept])
        self.note_write(granules, me, now)
        self.atomic[granules] = scope

    def forget_logs(self) -> None:
        """Forget the older accesses at a barrier of the only CTA that can reach this memory: all of them are now
        ordered.
        """
        if self.older_reads.granules:
            self.older_reads = Log()
        if self.older_atomics.granules:
            self.older_atomics = Log()
