"""Timing in rounds: every round times each step once, so that a change of the machine's speed meets all steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

from .watches import BLOCK_SECONDS, Clock, Step, WallClock, Watch

_WALL_CLOCK = WallClock()


def repeats_for(clock: Clock, block: float) -> int:
    """Return the number of calls that last at least `block` seconds."""
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
    """Yield the seconds of one call by each clock, round by round.

    The order moves on by one clock each round, so that no step always follows the same neighbor.

    Args:
        clocks: The clocks, by name.
        rounds: The number of rounds.
        block: Seconds that a reading takes at least, unless `turn` is given.
        turn: Calls in a reading. None: as many as take `block` seconds.
        failed: A function that is given the name and the error of a clock that raises. That clock has no more turns.
            None: the error is raised.
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


def multiples(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the readings of one clock in multiples of another's, round by round."""
    return [one / other for one, other in zip(ones, others, strict=True)]


def interleaved_clocks(
    clocks: Mapping[str, Clock],
    rounds: int,
    after_round: Callable[[], None] = lambda: None,
    block: float = BLOCK_SECONDS,
) -> dict[str, list[float]]:
    """Return the readings of `each_round`, as a list for each clock."""
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
    """Return the readings of steps of this process, which are prepared for the watch, as a list for each step."""
    clocks = {name: functools.partial(watch.seconds, step) for name, step in steps.items()}
    return interleaved_clocks(clocks, rounds, after_round, watch.block)
