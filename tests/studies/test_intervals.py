"""Intervals are those of Student's t distribution, and differences are taken between runs of one seed."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from ebgan_fast.studies.framework.intervals import mean_difference, mean_of

# The last digit of the quantiles in Student's table of 1908 and its successors: t(0.975) of 1, 2, 9 degrees of freedom.
TABLE = {2: 12.706, 3: 4.303, 10: 2.262}


@pytest.mark.parametrize("count", TABLE)
def test_the_interval_is_students(count: int) -> None:
    values = [float(value) for value in range(count)]
    found = mean_of(values)
    error = statistics.stdev(values) / math.sqrt(count)
    assert found.value == (count - 1) / 2
    assert found.runs == count
    # The table is right to half of its last digit.
    assert found.half / error == pytest.approx(TABLE[count], abs=0.0005)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    chance = random.Random(0)
    samples = 2000
    held = 0
    for _ in range(samples):
        found = mean_of([chance.gauss(3.0, 2.0) for _ in range(5)])
        held += abs(found.value - 3.0) <= found.half
    # Four standard deviations of a share of 0.95 in so many samples.
    assert held / samples == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / samples))


def test_few_runs_have_no_interval() -> None:
    assert math.isnan(mean_of([]).value)
    one = mean_of([2.5])
    assert (one.value, one.runs) == (2.5, 1)
    assert math.isnan(one.half)
    assert [mean_of([]).text(), one.text()] == ["-", "2.50"]
    assert not one.is_clear


def test_differences_are_between_equal_seeds() -> None:
    found = mean_difference({0: 1.0, 1: 5.0, 2: 3.0}, {2: 2.5, 0: 0.5, 7: 100.0})
    assert found == mean_of([0.5, 0.5])
    assert found.is_clear
    assert found.text(1, signed=True) == "+0.5 ± 0.0"
    assert mean_difference({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.5}).text(2) == "−1.25 ± 3.18"
