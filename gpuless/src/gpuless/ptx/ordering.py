"""The events that each thread of the running CTA knows to be in its past, and the races that follow from them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .formats import Array
from .races import ACROSS_CTAS, NEVER_ORDERED, NOT_ATOMIC, History, Knowledge, Log


def _none(time: int) -> bool:
    return False


class Conflict(NamedTuple):
    granule: int
    thread: int
    earlier_thread: int
    in_flight: bool
    earlier: str  # "written" or "read"


def _both(one: Knowledge | None, other: Knowledge | None) -> Knowledge | None:
    return one.merged(other) if one and other else one or other


class Order:
    """The clocks of one CTA: its start, its last barrier, each warp's last barrier, and what its threads acquired.

    Threads are numbered over the whole launch. `first_thread` is the number of the CTA's thread 0.
    """

    def __init__(self, position: int, threads: int, ctas: int, now: int) -> None:
        self.position = position  # in the order in which the CTAs run
        self.threads = threads
        self.first_thread = position * threads
        self.first_time = now
        self.barrier_time = now
        self.warp_times = np.full(threads // 32, now, np.int64)
        self.knowledge = Knowledge(np.zeros(ctas, np.int64))  # what every thread of the CTA knows
        self.acquired: dict[int, Knowledge] = {}  # what a single thread knows in addition, until the next barrier
        self.to_release: dict[int, Knowledge] = {}  # from the thread's last fence, for its next relaxed write
        # From relaxed reads before the last barrier, for the next sequentially consistent fence of any thread.
        self.seen: Knowledge | None = None
        # From sequentially consistent fences since the last barrier: all threads agree on the order of such fences.
        self.fencing: Knowledge | None = None
        self.fenced: Knowledge | None = None  # from those before the last barrier, for any thread's next relaxed write
        self.to_acquire: dict[int, Knowledge] = {}  # from the thread's relaxed reads, for its next fence
        self.observed: dict[tuple[int, int], list[tuple[int, int]]] = {}  # by granule: strong reads, (thread, time)

    def barrier(self, now: int) -> None:
        self.barrier_time = now
        for knowledge in self.acquired.values():
            self.knowledge = self.knowledge.merged(knowledge)
        self.acquired.clear()
        self.fenced, self.fencing = _both(self.fenced, self.fencing), None
        self.seen = functools.reduce(_both, self.to_acquire.values(), self.seen)

    def fence(self, thread: int, now: int, sequential: bool) -> None:
        """Apply a fence of the GPU.

        A sequentially consistent fence, like __threadfence, also works across a barrier, where another thread does the
        write or did the read. Of two such fences, the one before the write comes first.
        """
        known = _both(self.to_acquire.get(thread), self.seen if sequential else None)
        if known:
            self.acquire(thread, known)
        self.to_release[thread] = past = self.past_of(thread, now)
        if sequential:
            self.fencing = _both(self.fencing, past)

    def released_by_fences(self, thread: int) -> Knowledge | None:
        """Return the knowledge that a relaxed write of the thread passes on."""
        return _both(self.to_release.get(thread), self.fenced)

    def warp_barrier(self, warp: int, now: int) -> None:
        self.warp_times[warp] = now
        lanes = range(self.first_thread + 32 * warp, self.first_thread + 32 * warp + 32)
        for knowledge in [self.acquired[thread] for thread in lanes if thread in self.acquired]:
            for thread in lanes:
                self.acquire(thread, knowledge)

    def acquire(self, thread: int, knowledge: Knowledge) -> None:
        before = self.acquired.get(thread)
        self.acquired[thread] = before.merged(knowledge) if before else knowledge

    def past_of(self, thread: int, now: int) -> Knowledge:
        """Return the knowledge that a release by the thread passes on.

        It covers four things: what its CTA did before the last barrier, what its warp did before the warp's last
        barrier, what the thread did until now, and what the thread acquired.
        """
        bounds = self.knowledge.bounds.copy()
        bounds[self.position] = self.barrier_time
        warp = (thread - self.first_thread) // 32
        lane = self.first_thread + 32 * warp
        own = {(lane, lane + 31, int(self.warp_times[warp])), (thread, thread, now + 1)}
        past = Knowledge(bounds, self.knowledge.single | own)
        return past.merged(self.acquired[thread]) if thread in self.acquired else past

    def read(self, history: History, granules: Array, me: Array, now: int) -> Conflict | None:
        conflict = self._against_writes(history, granules, me)
        history.note_read(granules, me, now, self)
        return conflict

    def write(
        self,
        history: History,
        granules: Array,
        me: Array,
        now: int,
        harmless: Callable[[int], bool] = _none,
    ) -> Conflict | None:
        """Record a write and return the first race with it, if any.

        `harmless` gets the time of a read. It returns True if the read could as well have returned the value that is
        written now.
        """
        conflict = self._against_writes(history, granules, me)
        conflict = conflict or self._against_reads(history, granules, me, harmless)
        history.note_write(granules, me, now)
        return conflict

    def atomic(
        self, history: History, granules: Array, me: Array, now: int, scope: int = ACROSS_CTAS
    ) -> Conflict | None:
        conflict = self._against_writes(history, granules, me, scope)
        conflict = conflict or self._against_reads(history, granules, me)
        history.note_atomic(granules, me, now, scope)
        return conflict

    def observe(self, history: History, granules: Array, me: Array, now: int) -> None:
        """Record a strong read. It puts the earlier strong writes of the granule into its past, and nothing else if it
        is relaxed.
        """
        for granule, thread in zip(granules.tolist(), me.tolist(), strict=True):
            self.observed.setdefault((id(history), granule), []).append((thread, now))

    def _unobserved(self, bad: Array, history: History, granules: Array, when: Array, me: Array) -> Array:
        """Return `bad` without the strong writes that came before a strong read in the past of `me`."""
        for at in np.flatnonzero(bad).tolist() if self.observed else ():
            thread, warp = int(me[at]), int(me[at] - self.first_thread) >> 5
            for reader, time in self.observed.get((id(history), int(granules[at])), ()):
                near = time < self.warp_times[warp] and reader >> 5 == thread >> 5
                if when[at] < time and (reader == thread or time < self.barrier_time or near):
                    bad[at] = False
        return bad

    def _against_writes(self, history: History, granules: Array, me: Array, scope: int = NOT_ATOMIC) -> Conflict | None:
        """Return the first race with an earlier write, if any.

        Two atomic operations don't race if each is within the other's scope.
        """
        when = history.write_time[granules]
        if when.any():
            who = history.writer[granules]
            bad = self.unordered(who, when, me)
            earlier = history.atomic[granules]
            if scope == NOT_ATOMIC:
                strong = self._unobserved(bad & (earlier == ACROSS_CTAS), history, granules, when, me)
                bad &= (earlier != ACROSS_CTAS) | strong
            else:
                in_reach = when >= self.first_time
                if scope == ACROSS_CTAS:
                    in_reach |= earlier == ACROSS_CTAS
                bad &= (earlier == NOT_ATOMIC) | ~in_reach
            if bad.any():
                return _first(bad, granules, me, who, when, "written")
        if scope != NOT_ATOMIC:
            return None
        return self._against_log(history, history.older_atomics, granules, me, "written")

    def _against_reads(
        self, history: History, granules: Array, me: Array, harmless: Callable[[int], bool] = _none
    ) -> Conflict | None:
        when = history.read_time[granules]
        if when.any():
            who = history.reader[granules]
            bad = _without(harmless, self.unordered(who, when, me), when)
            if bad.any():
                return _first(bad, granules, me, who, when, "read")
        return self._against_log(history, history.older_reads, granules, me, "read", harmless)

    def _against_log(
        self,
        history: History,
        log: Log,
        granules: Array,
        me: Array,
        earlier: str,
        harmless: Callable[[int], bool] = _none,
    ) -> Conflict | None:
        found = history.older(log, granules)
        if found is None or not len(found[0]):
            return None
        where, who, when = found
        order = np.argsort(granules, kind="stable")
        mine = me[order[np.searchsorted(granules[order], where)]]
        bad = _without(harmless, self.unordered(who, when, mine), when)
        if log is history.older_atomics:
            bad = self._unobserved(bad, history, where, when, mine)
        return _first(bad, where, mine, who, when, earlier) if bad.any() else None

    def unordered(self, who: Array, when: Array, me: Array) -> Array:
        """Tell which earlier accesses (by threads `who` at times `when`) are not in the past of the threads `me`."""
        bad = when >= self.barrier_time
        if bad.any():
            warp = who >> 5
            apart = (warp != me >> 5) | (when >= self.warp_times[(me - self.first_thread) >> 5])
            bad &= (who != me) & apart | (when == NEVER_ORDERED)
        foreign = (when > 0) & (when < self.first_time)
        if foreign.any():
            bad |= foreign & ~self._known(who, when, me, foreign)
        return bad

    def _known(self, who: Array, when: Array, me: Array, foreign: Array) -> Array:
        ctas = np.where(foreign, who // self.threads, 0)
        known = self.knowledge.covers(ctas, who, when)
        for thread, knowledge in self.acquired.items():
            mine = foreign & ~known & (me == thread)
            if mine.any():
                known |= mine & knowledge.covers(ctas, who, when)
        return known


def _without(harmless: Callable[[int], bool], bad: Array, when: Array) -> Array:
    for time in np.unique(when[bad]).tolist():
        if harmless(time):
            bad = bad & (when != time)
    return bad


def _first(bad: Array, granules: Array, me: Array, who: Array, when: Array, earlier: str) -> Conflict:
    at = int(np.flatnonzero(bad)[0])
    return Conflict(int(granules[at]), int(me[at]), int(who[at]), int(when[at]) == NEVER_ORDERED, earlier)
