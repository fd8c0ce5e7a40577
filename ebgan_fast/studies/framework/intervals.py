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
        half: half the width of the 95 % interval, which lies around the mean. NaN if the runs can't tell it: there are
            fewer than two, or all are equal, as a few small integers often are by chance.
        chance: the probability of a mean as far from 0 or further, if the true mean is 0 (two-sided). NaN if the runs
            can't tell it.
    """

    value: float
    half: float
    chance: float

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
    if not values:
        return Mean(math.nan, math.nan, math.nan)
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return _by_student(statistics.mean(values), deviation / math.sqrt(len(values)), len(values) - 1)


def _by_student(value: float, error: float, degrees: float) -> Mean:
    """Return a mean with its interval, from its standard error and the error's degrees of freedom."""
    from scipy import special  # not at the top: the program must start without it

    if error == 0:
        return Mean(value, math.nan, math.nan)
    half = float(special.stdtrit(degrees, (1 + _LEVEL) / 2)) * error
    return Mean(value, half, 2 * float(special.stdtr(degrees, -abs(value / error))))


def paired_difference(values: Mapping[int, float], others: Mapping[int, float]) -> Mean:
    """Return the mean of the differences between two kinds of runs, over the seeds that both have.

    Runs of one seed share initial weights, batches and labels.

    Args:
        values: the number of each run by its seed.
        others: the same of the runs that are subtracted.

    Raises:
        ImportError: SciPy isn't installed.
    """
    return mean_of([value - others[seed] for seed, value in values.items() if seed in others])


def unpaired_difference(values: Sequence[float], others: Sequence[float]) -> Mean:
    """Return the difference between the means of two groups of independent runs, with its interval by Welch's t (Welch
    1947), for which the groups may differ in their spread.

    Args:
        values: the numbers of one group.
        others: the numbers of the group whose mean is subtracted.

    Raises:
        ImportError: SciPy isn't installed.
    """
    if not values or not others:
        return Mean(math.nan, math.nan, math.nan)
    difference = statistics.mean(values) - statistics.mean(others)
    if min(len(values), len(others)) < 2:
        return Mean(difference, math.nan, math.nan)
    parts = [statistics.variance(group) / len(group) for group in (values, others)]
    variance = sum(parts)
    if variance == 0:
        return Mean(difference, math.nan, math.nan)
    degrees = 1 / sum(
        (part / variance) ** 2 / (len(group) - 1) for part, group in zip(parts, (values, others), strict=True)
    )
    return _by_student(difference, math.sqrt(variance), degrees)


def clear(differences: Sequence[Mean]) -> list[bool]:
    """Return True for each of several differences that is clearly not 0, by Holm's rule (Holm 1979).

    If all true differences are 0, the rule calls one of them clear in at most 5 % of such comparisons. Without a rule,
    one of fifteen would be called clear in half of them.
    """
    known = [index for index, difference in enumerate(differences) if not math.isnan(difference.chance)]
    found = [False] * len(differences)
    for place, index in enumerate(sorted(known, key=lambda index: differences[index].chance)):
        if differences[index].chance > (1 - _LEVEL) / (len(known) - place):
            break
        found[index] = True
    return found


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
