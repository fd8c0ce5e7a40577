"""Means with 95 % intervals, of runs and of their differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_LEVEL = 0.95


class Mean(NamedTuple):
    """The mean of some runs, with its interval.

    Attributes:
        value: the mean. NaN if there are no runs.
        half: half the width of the 95 % interval, which lies around the mean. NaN for fewer than two runs.
        runs: the number of runs.
    """

    value: float
    half: float
    runs: int

    @property
    def is_clear(self) -> bool:
        """True if the interval doesn't contain 0."""
        return self.half < abs(self.value)

    def text(self, digits: int = 2, signed: bool = False) -> str:
        """Return the mean and its interval, such as "1.30 ± 0.36", with so many digits after the point."""
        if math.isnan(self.value):
            return "-"
        sign = "+" if signed else ""
        interval = "" if math.isnan(self.half) else f" ± {self.half:.{digits}f}"
        return f"{self.value:{sign}.{digits}f}{interval}".replace("-", "−")


def mean_of(values: Sequence[float]) -> Mean:
    """Return the mean of independent runs, with its interval by Student's t distribution (Student 1908).

    Args:
        values: one number a run.

    Raises:
        ImportError: SciPy isn't installed.
    """
    count = len(values)
    if count < 2:
        return Mean(values[0] if values else math.nan, math.nan, count)
    return Mean(statistics.mean(values), _quantile(count - 1) * statistics.stdev(values) / math.sqrt(count), count)


def _quantile(degrees: float) -> float:
    """Return the number of standard errors to each side that an interval has, by the degrees of freedom."""
    from scipy import special  # not at the top: the program must start without it

    return float(special.stdtrit(degrees, (1 + _LEVEL) / 2))


def mean_difference(values: Mapping[int, float], others: Mapping[int, float]) -> Mean:
    """Return the mean of the differences between two kinds of runs, over the seeds that both have.

    Runs of one seed share weights, batches and labels. So their difference varies less than the runs do.

    Args:
        values: the number of each run by its seed.
        others: the same of the runs that are subtracted.

    Raises:
        ImportError: SciPy isn't installed.
    """
    return mean_of([value - others[seed] for seed, value in values.items() if seed in others])


def difference_of_means(values: Sequence[float], others: Sequence[float]) -> Mean:
    """Return the difference between the means of two groups of independent runs, with its interval by Welch's t (Welch
    1947), for which the groups may differ in their spread.

    Args:
        values: the numbers of one group.
        others: the numbers of the group whose mean is subtracted.

    Raises:
        ImportError: SciPy isn't installed.
    """
    count = len(values) + len(others)
    if not values or not others:
        return Mean(math.nan, math.nan, count)
    difference = statistics.mean(values) - statistics.mean(others)
    if min(len(values), len(others)) < 2:
        return Mean(difference, math.nan, count)
    parts = [(statistics.variance(group) / len(group), len(group) - 1) for group in (values, others)]
    error = sum(part for part, _ in parts)
    if error == 0:
        return Mean(difference, 0.0, count)
    degrees = error**2 / sum(part**2 / own for part, own in parts)
    return Mean(difference, _quantile(degrees) * math.sqrt(error), count)


def share_interval(successes: int, cases: int) -> tuple[float, float]:
    """Return the lowest and the highest share that the number of successes allows, at 95 % (Clopper and Pearson 1934).

    Raises:
        ImportError: SciPy isn't installed.
    """
    from scipy import special

    tail = (1 - _LEVEL) / 2
    low = float(special.betaincinv(successes, cases - successes + 1, tail)) if successes else 0.0
    high = float(special.betaincinv(successes + 1, cases - successes, 1 - tail)) if successes < cases else 1.0
    return low, high
