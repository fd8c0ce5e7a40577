"""Interleaved timing: every round times each step once, so that a change of the machine's speed meets them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Step = Callable[[], object]

# Long against the clock and a tick of the scheduler, short enough for many rounds.
BLOCK_SECONDS = 0.008


def _block(step: Step, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return time.perf_counter() - start


def _repeats(step: Step) -> int:
    """How often a step must run to last a block."""
    repeats = 1
    while (seconds := _block(step, repeats)) < BLOCK_SECONDS:
        repeats = max(repeats + 1, min(10 * repeats, int(1.1 * repeats * BLOCK_SECONDS / seconds)))
    return repeats


def interleaved(
    steps: Mapping[str, Step], rounds: int, after_round: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of one call of each step, one number per round. The order turns by one each round, so that no step
    always follows the same neighbour."""
    for step in steps.values():
        step()
    repeats = {name: _repeats(step) for name, step in steps.items()}
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(_block(steps[name], repeats[name]) / repeats[name])
        after_round()
    return seconds
