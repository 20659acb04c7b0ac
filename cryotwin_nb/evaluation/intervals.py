"""Bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """Lower and upper end."""

    low: float
    high: float


def interval(
    statistic: Callable[..., float], *samples: np.ndarray, level: float = 0.95, n_draws: int = 1000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of statistic(*samples); rows of the samples belong together.

    Parameters
    ----------
    statistic : callable
        A number from arrays like `samples`.
    *samples : (n, ...) arrays
        Resampled together along the first axis.
    """
    rng, n = np.random.default_rng(seed), len(samples[0])
    draws = [statistic(*(sample[rows] for sample in samples)) for rows in rng.integers(0, n, (n_draws, n))]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
