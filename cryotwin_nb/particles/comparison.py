"""Comparison of images by the measures of `artefacts.Meter`: which are unlike the others, and which groups are scaled.

All limits follow from the images that are closest to each other, which a fifth of bad images hardly changes.
"""

from __future__ import annotations

import numpy as np

from cryotwin_nb.imaging.artefacts import is_spoiled

LEAST = 20  # images, below which they cannot be compared with each other
CONSTANT = "nearly constant"
_TIMES = 8.0  # multiple of the usual deviation beyond which an image is unlike the others
_CORE = 0.4  # part of the images whose spread is the usual one: the closest to each other, so never the bad ones
_CORE_WIDTH = 1.0488  # width of the central part _CORE of a Gaussian, in standard deviations
_FACTOR = float(np.log(2.0))  # least deviation of the logarithm of the noise level that counts
_SIGNAL = 3.0  # deviation of pixels inside the particle, relative to those outside, above which the noise is weak
_WEAKEST = 1e-3  # least noise level, relative to the deviation of pixels inside the particle
_SLOPE = 0.35  # least deviation of the background between sectors that counts, relative to the noise level
_HOT, _HOT_TIMES = 14.0, 6.0  # least spike of a hot pixel, and the multiple of the deviation of the images' spikes
_QUARTILE = 0.5244  # 70th percentile of a Gaussian, in standard deviations
_GROUP, _GROUP_FACTOR = 8, float(np.log(1.5))  # least size of a group, and least deviation of its level, to be scaled


def hot_limit(spikes: np.ndarray) -> float:
    """Return the spike (`artefacts.spikes`) of an image from which a pixel is hot, from those (n,) of many images."""
    low, high = np.log(np.maximum(np.quantile(spikes, (0.5, 0.7)), 1e-30))
    return float(max(_HOT, np.exp(low + _HOT_TIMES * (high - low) / _QUARTILE)))


def noise_levels(measures: np.ndarray) -> np.ndarray:
    """Return the logarithms (n,) of the noise levels, from the measures (n, 4)."""
    floor = max(_WEAKEST * float(np.median(measures[:, 1])), 1e-30)
    return np.log(np.maximum(measures[:, 0], floor))


def equalised(level: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the changes (n,) of log levels that equalise groups (n,), and the factor between them; 0 if all alike.

    Groups of few images are not changed.
    """
    number, count = np.unique(group, return_inverse=True, return_counts=True)[1:]
    number = number.reshape(-1)
    order = np.argsort(number, kind="stable")
    middle = np.array([np.median(part) for part in np.split(level[order], np.cumsum(count)[:-1])])
    large = count >= _GROUP
    if not large.any():
        return np.zeros_like(level), 0.0
    reference = middle[large][np.abs(middle[large] - _core(level)[0]).argmin()]
    change = np.where(large, reference - middle, 0.0)
    if np.abs(change).max() < _GROUP_FACTOR:
        return np.zeros_like(level), 0.0
    return change[number], float(np.exp(np.ptp(middle[large])))


def unlike(level: np.ndarray, measures: np.ndarray) -> np.ndarray:
    """Return which log noise levels (n,) differ from the others.

    If there is hardly any noise, the tails of the particles are measured outside them, and differ between views.
    """
    signal = float(np.median(measures[:, 1] / np.exp(noise_levels(measures))))
    centre, width = _core(level)
    return np.abs(level - centre) > max(_FACTOR + np.log(max(1.0, signal / _SIGNAL)), _TIMES * width)


def judge(level: np.ndarray, measures: np.ndarray, hot_pixels: np.ndarray, size: int) -> dict[int, str]:
    """Return the rows of images that are unlike the others, and why.

    Parameters
    ----------
    level : (n,) float64
        Logarithms of the noise levels, on one scale.
    measures : (n, 4) or (n, 3) float64
        Measures of the images without their hot pixels.
    hot_pixels : (n,) int64
        Numbers of hot pixels.
    size : int
        Box size, pixels.
    """
    slope = measures[:, 2]
    usual, (even, width) = _core(level)[0], _core(slope)
    constant = measures[:, :2].max(1) <= _WEAKEST * np.median(measures[:, 1])
    odd, uneven = unlike(level, measures), slope - even > max(_SLOPE, _TIMES * width)
    spoiled = np.array([is_spoiled(count, size) for count in hot_pixels.tolist()], dtype=bool)
    reasons = {}
    for row in np.flatnonzero(constant | odd | uneven | spoiled).tolist():
        if constant[row]:
            reasons[row] = CONSTANT
        elif uneven[row]:
            reasons[row] = f"gradient or edge ({slope[row] / max(even, 1e-6):.2g} times the usual unevenness)"
        elif odd[row]:
            factor = float(np.exp(level[row] - usual))
            reasons[row] = f"other noise level ({factor:.3g} times that of the others)"
        else:
            reasons[row] = f"spot ({hot_pixels[row]} pixels)"
    return reasons


def _core(values: np.ndarray) -> tuple[float, float]:
    """Return centre and standard deviation of the part of the values that are closest to each other."""
    ranked = np.sort(values)
    count = max(2, int(_CORE * len(values)))
    spans = ranked[count - 1 :] - ranked[: len(values) - count + 1]
    start = int(spans.argmin())
    middle = float(np.median(ranked[start : start + count]))
    return middle, float(spans[start]) / _CORE_WIDTH
