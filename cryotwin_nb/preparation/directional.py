"""Resolution in each direction, predicted from half maps and from the views."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter1d

_CONE = 20.0  # half-angle of the double cones over which the resolution is determined, degrees
_SHELLS = 3  # over which a curve is averaged, because structures have shells without much signal
_HALF = 0.5  # correlation with the true map at the resolution


def directional_resolution(
    correlation: np.ndarray,
    frequency: np.ndarray,
    directions: np.ndarray,
    sampling: np.ndarray,
    larger: float,
) -> np.ndarray:
    """Return the resolution (m,) in each direction, Å: where the map of all images correlates by 0.5 with the truth.

    Parameters
    ----------
    correlation : (S,) float64
        FSC of the half maps.
    frequency : (S,) float64
        Frequencies of the shells, 1/Å.
    directions : (m, 3) float64
        Directions over a hemisphere.
    sampling : (m,) float64
        Slices through each direction, relative to even views.
    larger : float
        Number of all images, relative to those of one half map.

    Notes
    -----
    The signal-to-noise ratio of a regularised map in direction d is x r(d), where r is the sampling and x the ratio for
    even views. Over a cone, its correlation with the truth is the root of <a>, where a = x r / (1 + x r), which is 0
    where nothing is measured. That of two half maps is <a^2> / <a> over all directions, which determines x in each
    shell.
    """
    steps = np.geomspace(1e-4, 1e4, 400)
    a = steps[:, None] * sampling / (1 + steps[:, None] * sampling)
    expected = np.square(a).mean(1) / a.mean(1)
    x = np.interp(correlation, expected, steps)
    near = np.abs(directions @ directions.T) > np.cos(np.radians(_CONE))
    full = larger * x[:, None] * sampling
    with_truth = np.sqrt((full / (1 + full)) @ near / near.sum(0))
    return np.array([crossing(frequency, uniform_filter1d(curve, _SHELLS)) for curve in with_truth.T])


def crossing(frequency: np.ndarray, curve: np.ndarray) -> float:
    """Return 1 / frequency at which a falling curve first crosses 0.5; the last frequency if it does not."""
    below = np.flatnonzero(curve < _HALF)
    if not len(below):
        return 1 / float(frequency[-1])
    i = int(below[0])
    if i == 0:
        return float("inf")
    share = (curve[i - 1] - _HALF) / (curve[i - 1] - curve[i])
    return 1 / float(frequency[i - 1] + share * (frequency[i] - frequency[i - 1]))
