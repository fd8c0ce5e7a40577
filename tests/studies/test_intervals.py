"""Intervals are those of Student's t distribution, and differences are taken between runs of one seed."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from ebgan_fast.studies.framework.intervals import difference_of_means, mean_difference, mean_of, share_interval

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


def test_groups_are_compared_by_welchs_interval() -> None:
    from scipy import stats

    chance = random.Random(1)
    values, others = [chance.gauss(1.0, 3.0) for _ in range(7)], [chance.gauss(0.0, 0.5) for _ in range(24)]
    found = difference_of_means(values, others)
    expected = stats.ttest_ind(values, others, equal_var=False).confidence_interval(0.95)
    assert found.value - found.half == pytest.approx(expected.low, rel=1e-9)
    assert found.value + found.half == pytest.approx(expected.high, rel=1e-9)
    assert found.runs == 31
    assert difference_of_means([2.0, 2.0], [0.5, 0.5]) == (1.5, 0.0, 4)
    assert math.isnan(difference_of_means([2.0], [0.5, 0.7]).half)
    assert difference_of_means([], [1.0]).text() == "-"


@pytest.mark.parametrize(("successes", "cases"), [(0, 24), (5, 24), (24, 24)])
def test_the_interval_of_a_share_ends_where_the_cases_become_unlikely(successes: int, cases: int) -> None:
    def at_least(share: float) -> float:
        return sum(math.comb(cases, k) * share**k * (1 - share) ** (cases - k) for k in range(successes, cases + 1))

    def at_most(share: float) -> float:
        return sum(math.comb(cases, k) * share**k * (1 - share) ** (cases - k) for k in range(successes + 1))

    low, high = share_interval(successes, cases)
    assert (low == 0.0) == (successes == 0)
    assert (high == 1.0) == (successes == cases)
    if successes:
        assert at_least(low) == pytest.approx(0.025, rel=1e-9)
    if successes < cases:
        assert at_most(high) == pytest.approx(0.025, rel=1e-9)
