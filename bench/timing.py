"""Interleaved timing: every round times each step once, so that a change of the machine's speed meets them all."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

Step = Callable[[], object]
Clock = Callable[[int], float]
"""Runs a step as often as it is told, and gives back the seconds of all of them."""

# Long against the clock and a tick of the scheduler, short enough for many rounds.
BLOCK_SECONDS = 0.008


class Watch(Protocol):
    """The way in which the seconds of a step are taken."""

    block: float
    """Seconds that one reading should take at least."""

    def prepared(self, step: Step) -> Step:
        """Return what to time in place of the step."""

    def seconds(self, step: Step, repeats: int) -> float:
        """Return the seconds of that many calls together."""


class WallClock:
    """The time from a call to its return: all of the time, where the processor does the work."""

    block: float = BLOCK_SECONDS

    def prepared(self, step: Step) -> Step:
        return step

    def seconds(self, step: Step, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        return time.perf_counter() - start


_WALL_CLOCK = WallClock()


def repeats_for(clock: Clock, block: float) -> int:
    """Return how often a step must run to last a block."""
    repeats = 1
    while (seconds := clock(repeats)) < block:
        repeats = max(repeats + 1, min(10 * repeats, int(1.1 * repeats * block / seconds)))
    return repeats


def each_round(
    clocks: Mapping[str, Clock],
    rounds: int,
    block: float = BLOCK_SECONDS,
    turn: int | None = None,
    failed: Callable[[str, Exception], None] | None = None,
) -> Iterator[dict[str, float]]:
    """Yield seconds of one call by each clock, round by round. The order turns by one each round, so that no step
    always follows the same neighbor.

    `turn`: calls in a reading. None: as many as take `block` seconds.
    `failed`: told of a clock that raises, which has no more turns then. None: the error is raised.
    """
    names = list(clocks)

    def read(name: str, repeats: int) -> float | None:
        try:
            return clocks[name](repeats)
        except Exception as error:
            if failed is None:
                raise
            names.remove(name)
            failed(name, error)
            return None

    for name in list(names):
        read(name, 1)
    repeats = {name: turn or repeats_for(clocks[name], block) for name in names}
    for index in range(rounds):
        first = index % len(names) if names else 0
        seconds: dict[str, float] = {}
        for name in names[first:] + names[:first]:
            if (reading := read(name, repeats[name])) is not None:
                seconds[name] = reading / repeats[name]
        yield seconds


def interleaved_clocks(
    clocks: Mapping[str, Clock],
    rounds: int,
    after_round: Callable[[], None] = lambda: None,
    block: float = BLOCK_SECONDS,
) -> dict[str, list[float]]:
    """The readings of `each_round`, a list for each clock."""
    seconds: dict[str, list[float]] = {name: [] for name in clocks}
    for readings in each_round(clocks, rounds, block):
        for name, reading in readings.items():
            seconds[name].append(reading)
        after_round()
    return seconds


def interleaved(
    steps: Mapping[str, Step],
    rounds: int,
    after_round: Callable[[], None] = lambda: None,
    watch: Watch = _WALL_CLOCK,
) -> dict[str, list[float]]:
    """The same of (prepared) steps of this process."""
    clocks = {name: functools.partial(watch.seconds, step) for name, step in steps.items()}
    return interleaved_clocks(clocks, rounds, after_round, watch.block)
