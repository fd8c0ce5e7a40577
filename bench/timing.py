"""Interleaved timing: every round times each step once, so that a change of the machine's speed meets them all."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Protocol

Step = Callable[[], object]
Clock = Callable[[int], float]
"""Runs a step as often as it is told, and gives back the seconds of all of them."""

# Long against the clock and a tick of the scheduler, short enough for many rounds.
BLOCK_SECONDS = 0.008


class Watch(Protocol):
    """How the seconds of a step are taken."""

    block: float
    """Seconds that one reading should take at least."""

    def prepared(self, step: Step) -> Step:
        """What to time in place of the step."""

    def seconds(self, step: Step, repeats: int) -> float:
        """Of that many calls together."""


class WallClock:
    """From a call to its return: all of the time, where the processor does the work."""

    block: float = BLOCK_SECONDS

    def prepared(self, step: Step) -> Step:
        return step

    def seconds(self, step: Step, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        return time.perf_counter() - start


_WALL_CLOCK = WallClock()


def _repeats(clock: Clock, block: float) -> int:
    """How often a step must run to last a block."""
    repeats = 1
    while (seconds := clock(repeats)) < block:
        repeats = max(repeats + 1, min(10 * repeats, int(1.1 * repeats * block / seconds)))
    return repeats


def interleaved_clocks(
    clocks: Mapping[str, Clock],
    rounds: int,
    after_round: Callable[[], None] = lambda: None,
    block: float = BLOCK_SECONDS,
    turn: int | None = None,
) -> dict[str, list[float]]:
    """Seconds of one call by each clock, one number per round. The order turns by one each round, so that no step
    always follows the same neighbour.

    `turn`: calls in a reading. None: as many as take `block` seconds.
    """
    for clock in clocks.values():
        clock(1)
    repeats = {name: turn or _repeats(clock, block) for name, clock in clocks.items()}
    names = list(clocks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(clocks[name](repeats[name]) / repeats[name])
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
