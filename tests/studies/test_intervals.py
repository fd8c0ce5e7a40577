"""Intervals are those of Student's t distribution, and differences are taken between runs of one seed."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from scipy import stats

from ebgan_fast.studies.framework.intervals import (
    Mean,
    clear,
    mean_of,
    paired_difference,
    share_interval,
    unpaired_difference,
)

# t(0.975) in printed tables of Student's distribution, by the number of runs: degrees of freedom and one.
TABLE = {2: 12.706, 3: 4.303, 10: 2.262}


@pytest.mark.parametrize("count", TABLE)
def test_the_interval_is_students(count: int) -> None:
    values = [float(value) for value in range(count)]
    found = mean_of(values)
    error = statistics.stdev(values) / math.sqrt(count)
    assert found.value == (count - 1) / 2
    assert found.chance == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-9)
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
    assert one.value == 2.5
    assert math.isnan(one.half)
    assert [mean_of([]).text(), one.text()] == ["-", "2.50"]


def test_equal_runs_have_no_interval() -> None:
    """Two small integers are often equal by chance, which an interval of width 0 would call certain."""
    equal = mean_of([8.0, 8.0, 8.0])
    assert equal.text(1) == "8.0"
    assert math.isnan(equal.chance)
    assert clear([equal]) == [False]


def test_differences_are_between_equal_seeds() -> None:
    found = paired_difference({0: 1.0, 1: 5.0, 2: 4.0}, {2: 2.5, 0: 0.5, 7: 100.0})
    assert found == mean_of([0.5, 1.5])
    assert found.text(1, signed=True) == "+1.0 ± 6.4"
    assert paired_difference({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.5}).text(2) == "−1.25 ± 3.18"


def test_of_many_differences_few_are_clear() -> None:
    """Holm's rule compares the smallest of m probabilities with 0.05 / m, and the next with 0.05 / (m - 1)."""

    def with_chances(*chances: float) -> list[Mean]:
        return [Mean(1.0, 0.5, chance) for chance in chances]

    assert clear(with_chances(0.04, 0.012, 0.9)) == [False, True, False]
    assert clear(with_chances(0.017, 0.012, 0.9)) == [True, True, False]
    assert clear(with_chances(0.017, 0.018, 0.9)) == [False, False, False]
    assert clear(with_chances(0.04, math.nan)) == [True, False]


def test_without_a_difference_one_in_twenty_comparisons_calls_one_clear() -> None:
    chance = random.Random(2)
    tables = 1000
    wrong = sum(
        any(clear([mean_of([chance.gauss(0.0, 1.0) for _ in range(5)]) for _ in range(6)])) for _ in range(tables)
    )
    # Four standard deviations of a share of 0.05 in so many tables. Holm's rule stays just below 0.05 here.
    assert wrong / tables == pytest.approx(0.05, abs=4 * math.sqrt(0.95 * 0.05 / tables))


def test_groups_are_compared_by_welchs_interval() -> None:
    chance = random.Random(1)
    values, others = [chance.gauss(1.0, 3.0) for _ in range(7)], [chance.gauss(0.0, 0.5) for _ in range(24)]
    found = unpaired_difference(values, others)
    test = stats.ttest_ind(values, others, equal_var=False)
    expected = test.confidence_interval(0.95)
    assert found.value - found.half == pytest.approx(expected.low, rel=1e-9)
    assert found.value + found.half == pytest.approx(expected.high, rel=1e-9)
    assert found.chance == pytest.approx(test.pvalue, rel=1e-9)
    assert unpaired_difference([2.0, 2.0], [0.5, 0.5]).text() == "1.50"
    assert unpaired_difference([1e-90, 2e-90], [0.0, 0.0]).value > 0
    assert math.isnan(unpaired_difference([2.0], [0.5, 0.7]).half)
    assert unpaired_difference([], [1.0]).text() == "-"


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
