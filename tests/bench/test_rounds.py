"""Steps run in the right order and often enough, on a clock that only the steps move."""

from __future__ import annotations

import functools

import pytest

from bench.timing import rounds
from bench.timing.watches import BLOCK_SECONDS, WallClock
from bench.timing.watches import Clock as Reading

from .conftest import Clock


def test_every_round_times_each_step_once_and_turns_the_order(clock: Clock) -> None:
    steps = {name: clock.step(name, BLOCK_SECONDS) for name in "abc"}
    marks: list[int] = []
    seconds = rounds.interleaved(steps, 3, lambda: marks.append(len(clock.calls)))
    warm = 2 * len(steps)  # a first call, and one call that finds the number of repeats
    assert clock.calls[warm:] == list("abc" + "bca" + "cab")
    assert marks == [warm + 3, warm + 6, warm + 9]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize("share", [1e-6, 0.013, 0.3, 0.99, 40])
def test_a_step_is_repeated_to_fill_a_block_and_little_more(clock: Clock, share: float) -> None:
    step = clock.step("step", share * BLOCK_SECONDS)
    repeats = rounds.repeats_for(functools.partial(WallClock().seconds, step), BLOCK_SECONDS)
    assert repeats * share >= 1
    assert repeats <= max(1, 1.5 / share, 1 + 1 / share)


def test_seconds_are_those_of_one_call(clock: Clock) -> None:
    seconds = rounds.interleaved({"short": clock.step("short", 1e-5), "long": clock.step("long", 1.0)}, 2)
    assert seconds == {"short": pytest.approx([1e-5] * 2), "long": pytest.approx([1.0] * 2)}


def test_a_turn_may_be_so_many_calls(clock: Clock) -> None:
    clocks = {"a": functools.partial(WallClock().seconds, clock.step("a", 0.1))}
    seconds = list(rounds.each_round(clocks, 2, turn=3))
    assert clock.calls == ["a"] * (1 + 2 * 3)
    assert seconds == [{"a": pytest.approx(0.1)}] * 2


def test_a_clock_that_raises_has_no_more_turns_where_somebody_is_told(clock: Clock) -> None:
    calls = 0

    def fails(repeats: int) -> float:
        nonlocal calls
        calls += 1
        if calls == 3:  # one call comes before the rounds
            raise RuntimeError("out of memory")
        return 0.5 * repeats

    good = functools.partial(WallClock().seconds, clock.step("good", 0.1))
    clocks: dict[str, Reading] = {"bad": fails, "good": good}
    told: list[tuple[str, str]] = []
    found = list(rounds.each_round(clocks, 3, turn=1, failed=lambda name, error: told.append((name, str(error)))))
    assert found == [{"bad": 0.5, "good": pytest.approx(0.1)}, *[{"good": pytest.approx(0.1)}] * 2]
    assert told == [("bad", "out of memory")]
    calls = 0
    with pytest.raises(RuntimeError, match="out of memory"):
        list(rounds.each_round(clocks, 3, turn=1))
