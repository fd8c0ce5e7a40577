"""Means over seeds with 95 % intervals, and differences of runs that share their seeds."""

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
    from scipy import special  # not at the top: the program must start without it

    if count < 2:
        return Mean(values[0] if values else math.nan, math.nan, count)
    quantile = float(special.stdtrit(count - 1, (1 + _LEVEL) / 2))
    return Mean(statistics.mean(values), quantile * statistics.stdev(values) / math.sqrt(count), count)


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
