"""Bootstrap confidence intervals of statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cryotwin_nb.mixture.groups import number_groups


class Interval(NamedTuple):
    """Lower and upper end of a confidence interval."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""


def interval(
    statistic: Callable[..., float],
    *samples: np.ndarray,
    level: float = 0.95,
    n_draws: int = 1000,
    seed: int = 0,
    groups: np.ndarray | None = None,
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
    groups : (n,) int, optional
        Group of each row, such as `particles.identity`; groups are drawn instead of rows.
    """
    number = number_groups(groups, len(samples[0])).numpy()
    ordered, counts = np.argsort(number, kind="stable"), np.bincount(number)
    starts, rng, n = np.cumsum(counts) - counts, np.random.default_rng(seed), len(counts)

    def rows_of(drawn: np.ndarray) -> np.ndarray:
        sizes = counts[drawn]
        return ordered[np.repeat(starts[drawn] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())]

    all_rows = map(rows_of, rng.integers(0, n, (n_draws, n)))
    draws = [statistic(*(sample[rows] for sample in samples)) for rows in all_rows]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
