"""One figure over several seeds: mean, standard deviation, and a confidence interval of the mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What `summarise` found.

    Attributes:
        mean: of the values.
        std: their sample standard deviation, with n - 1 in the denominator; NaN for one value.
        low, high: the ends of the confidence interval of the mean; NaN for one value.
    """

    mean: float
    std: float
    low: float
    high: float

    def text(self, is_share: bool) -> str:
        """Mean and standard deviation: of a share as `percent`, else as "0.0512 ± 0.0007"; of one value its mean."""
        if is_share:
            return self.percent()
        return f"{self.mean:.4f}" if math.isnan(self.std) else f"{self.mean:.4f} ± {self.std:.4f}"

    def percent(self) -> str:
        """Mean and standard deviation of a share, as "98.50 ± 0.15 %"; of one value its percentage, "98.50%"."""
        return f"{self.mean:.2%}" if math.isnan(self.std) else f"{100 * self.mean:.2f} ± {100 * self.std:.2f} %"


def summarise(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Summary:
    """Summarises one figure, say the accuracy, of several seeds.

    The interval is Student's: mean ± t * std / sqrt(n), with t the quantile of n - 1 degrees of freedom ("Student", The
    probable error of a mean, 1908). A share `confidence` of all sets of n seeds gives an interval that holds the
    mean over all seeds, if the figure is normally distributed over them.

    Args:
        values: (n,), n >= 1.
        confidence: between 0 and 1.
    """
    values = np.asarray(values, np.float64)
    mean, count = float(values.mean()), len(values)
    if count == 1:
        return Summary(mean=mean, std=math.nan, low=math.nan, high=math.nan)
    from scipy import stats

    std = float(values.std(ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * std / math.sqrt(count)
    return Summary(mean=mean, std=std, low=mean - half, high=mean + half)


def difference(values: Sequence[float] | np.ndarray, others: Sequence[float] | np.ndarray) -> Summary:
    """How far the mean of one set of seeds is above that of another, which was trained differently.

    The interval is Welch's (The generalization of "Student's" problem, 1947), for sets of unlike deviations.

    Args:
        values: (n,).
        others: (m,).

    Returns:
        The difference of the means, its standard error as the deviation, and the 95 % confidence interval; NaN for all
        but the first where a set has one value, or neither varies.
    """
    values, others = np.asarray(values, np.float64), np.asarray(others, np.float64)
    mean = float(values.mean() - others.mean())
    if min(len(values), len(others)) < 2 or not (np.ptp(values) or np.ptp(others)):
        return Summary(mean=mean, std=math.nan, low=math.nan, high=math.nan)
    from scipy import stats

    low, high = stats.ttest_ind(values, others, equal_var=False).confidence_interval(0.95)
    error = math.sqrt(values.var(ddof=1) / len(values) + others.var(ddof=1) / len(others))
    return Summary(mean=mean, std=error, low=float(low), high=float(high))
