"""Bootstrap confidence intervals of statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """Lower and upper end of a confidence interval."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""


def interval(
    statistic: Callable[..., float], *samples: np.ndarray, level: float = 0.95, n_draws: int = 1000, seed: int = 0
) -> Interval:
    """Return the percentile bootstrap interval of `statistic(*samples)`; the samples are paired row by row.

    Parameters
    ----------
    statistic : callable
        Function that computes a number from arrays like `samples`.
    *samples : (n, ...) arrays
        Samples; they are resampled together along the first axis.
    level : float
        Confidence level.
    n_draws : int
        Number of bootstrap draws.
    seed : int
        Seed of the draws.
    """
    rng, n = np.random.default_rng(seed), len(samples[0])
    draws = [statistic(*(sample[rows] for sample in samples)) for rows in rng.integers(0, n, (n_draws, n))]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
