"""Counts of images along a path: the barrier, its interval, and the number of images at the narrowest place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from cryotwin_nb.mixture.groups import bootstrap_weights
from cryotwin_nb.pathways.deconvolution import LineCounts, LineDensity

_GAP = 0.05  # a stretch of the path, as a fraction of its length, that must contain an image
_WITHIN = 10  # points at which the density is averaged over such a stretch
_SEPARATE = 0.5  # nats; a lower dip does not end a state
_COUNTED, _POISSON = 5.0, 3.0  # images at the narrowest place: enough to draw from, too few; in between, both count
_WIDER = 1.35  # intervals of a density whose knots follow the positions (benchmarks/whole_fits.py)
_IMAGE = 0.5  # fewer than half an image in 5 % of the path is none
_FEW, _CHANCE = 0.2, 1e-3  # share of near images, and probability of so few, below which images lie beside the path


@dataclass(frozen=True, eq=False)
class MeasuredBarrier:
    """Barrier of a path, measured by counting images; print it to read the result.

    Attributes
    ----------
    value : float
        -log of the images per unit length at the narrowest place, less that at the densest place of the state where
        the path starts, nats; NaN if not measured. A place is a stretch of 5 % of the arc length.
    interval : tuple of float
        90 % interval of `value`, nats; NaN without images. Bayesian bootstrap; the lower end is corrected for the
        choice of the narrowest place, which where images are few is the one that happens to have fewest. Below three
        images there, it is at least as low as the upper 95 % limit of their number (Poisson; Garwood 1936) implies; at
        five, this has no effect.
    n_narrowest : int
        Number of images in the 5 % of the arc length around the narrowest place, without the spill of neighbouring
        places by errors (deconvolution); 0 without images.
    n_on_path : int
        Number of images that lie on the path or on its straight prolongations.
    gap : tuple of float, optional
        Longest stretch without an image, as fractions of the arc length, if it is longer than 5 %; or the stretch
        around the narrowest place whose images cannot be distinguished from the spill of neighbouring places.
    narrowest, densest : float
        Arc length at the narrowest place, and at the densest place of the first state, latent units; NaN if not
        measured.
    position : (M,) float64
        Arc length, latent units; negative before the start.
    profile : (M,) float64
        -log of the images per unit length, less that at the densest place of the first state, nats. The errors of the
        images are removed (deconvolution).
    counted : bool
        Whether images were counted; False for the integral of a mixture.
    n_in_gap : int
        Number of images in the gap, all of which may belong to neighbouring places and lie there by their errors.
    """

    value: float
    interval: tuple[float, float]
    n_narrowest: int
    n_on_path: int
    gap: tuple[float, float] | None
    narrowest: float
    densest: float
    position: np.ndarray
    profile: np.ndarray
    counted: bool = True
    n_in_gap: int = 0

    def __str__(self) -> str:
        if self.gap is not None:
            first, last = (round(100 * fraction) for fraction in self.gap)
            stretch = f"between {first} and {last} % of the path"
            if not self.n_in_gap:
                return f"not measured: no image {stretch}"
            seen = "the only image" if self.n_in_gap == 1 else f"all {self.n_in_gap:,} images"
            return f"not measured: errors of images from neighbouring places can explain {seen} {stretch}"
        if not self.counted:
            return f"barrier {self.value:.1f} nats in the mixture; no images were counted"
        low, high = self.interval
        images = "1 image" if self.n_narrowest == 1 else f"{self.n_narrowest:,} images"
        return f"barrier {self.value:.1f} nats ({low:.1f}-{high:.1f}); {images} at its narrowest"

    def summary(self) -> dict[str, Any]:
        """Return the result as plain numbers for JSON; None for what was not measured."""
        measured = self.gap is None
        return {
            "nats": self.value if measured else None,
            "interval": list(self.interval) if measured and self.counted else None,
            "images_at_narrowest": self.n_narrowest if self.counted else None,
            "images_on_path": self.n_on_path if self.counted else None,
            "empty_stretch": None if measured else list(self.gap or ()),
            "images_in_stretch": None if measured else self.n_in_gap,
            "source": "images" if self.counted else "mixture",
        }


def scattered_around(position: np.ndarray, square: np.ndarray, length: float, dim: int) -> np.ndarray:
    """Return which images (n,) lie in a stretch whose images scatter around the path, not beside it.

    Half of the images of a path are nearer to it than the median of chi squared. If significantly fewer are, and less
    than a fifth, the images of that stretch belong to structures beside the path and only reach it by their errors.
    """
    if dim == 0:
        return np.ones(len(position), bool)
    stretch = np.floor(position / (_GAP / 2 * length)).astype(np.int64)
    stretch -= stretch.min(initial=0)
    window = np.ones(3)
    total, near = (
        np.convolve(np.bincount(stretch, weights, minlength=3), window, "same")
        for weights in (np.ones(len(square)), (square < stats.chi2.median(dim)).astype(float))
    )
    beside = (near < _FEW * total) & (stats.binom.cdf(near, total, 0.5) < _CHANCE)
    return ~beside[stretch]


def count_images(
    length: float, position: np.ndarray, error: np.ndarray, number: Tensor, n_draws: int, seed: int
) -> MeasuredBarrier:
    """Return the barrier from the positions (n,) of the images on the path, their errors and groups."""
    inside = np.sort(position[(position >= 0) & (position <= length)])
    stops = np.concatenate([[0.0], inside, [length]])
    widest = int(np.diff(stops).argmax())
    if stops[widest + 1] - stops[widest] > _GAP * length:
        return _not_measured(len(position), (stops[widest] / length, stops[widest + 1] / length))
    counts = LineCounts.of(position, error)
    once = (int(number.max()) + 1) / len(number)  # copies of an image do not add information
    density = LineDensity.fitted(counts, np.full(len(position), once))
    energy = -averaged(counts.grid, density.log_density, length)
    value, narrowest, densest = highest(counts.grid, energy, length)
    expected = np.exp(-energy) * _GAP * length * len(position)  # images in the 5 % of the length around each place
    there = float(np.interp(narrowest, counts.grid, expected))
    if there < _IMAGE:
        gap = _empty_around(narrowest / length, counts.grid / length, expected)
        within = int(((inside >= gap[0] * length) & (inside <= gap[1] * length)).sum())
        return _not_measured(len(position), gap, within)
    generator, third, kernel = torch.Generator().manual_seed(seed), np.random.default_rng(seed), counts.kernel
    draws = []
    for _ in range(n_draws):
        weights = once * bootstrap_weights(number, generator).numpy()
        drawn = density.drawn(weights, third, kernel)
        draws.append(highest(counts.grid, -averaged(counts.grid, drawn.log_density, length), length)[0])
    low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95]).tolist()
    if density.counts is not counts:  # knots in the share of the positions, which draws do not vary
        low, high = value + _WIDER * (low - value), value + _WIDER * (high - value)
    low -= max(0.0, middle - value)  # chance deepens the narrowest place, in a draw once again
    few = float(np.clip((_COUNTED - there) / (_COUNTED - _POISSON), 0, 1))
    least = value - float(np.log(stats.chi2.ppf(0.95, 2 * (there + 1)) / 2 / there))
    low = max(0.0, low - few * max(0.0, low - least))
    profile = energy - np.interp(densest, counts.grid, energy)
    interval = min(low, value), max(high, value)
    return MeasuredBarrier(value, interval, round(there), len(position), None, narrowest, densest, counts.grid, profile)


def _not_measured(n_on_path: int, gap: tuple[float, float], n_in_gap: int = 0) -> MeasuredBarrier:
    """Return the result of a path with a stretch, in fractions of its length, without images of its own."""
    nothing = np.zeros(0)
    first, last = gap
    stretch, unknown = (float(first), float(last)), (np.nan, np.nan)
    return MeasuredBarrier(np.nan, unknown, 0, n_on_path, stretch, *unknown, nothing, nothing, n_in_gap=n_in_gap)


def _empty_around(place: float, position: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Return the ends of the stretch around a place, both as fractions, whose every 5 % has less than half an image."""
    filled = position[expected >= _IMAGE]
    before, after = filled[filled < place], filled[filled > place]
    first = before.max(initial=0.0) - _GAP / 2
    last = after.min(initial=1.0) + _GAP / 2
    return max(0.0, first), min(1.0, last)


def averaged(position: np.ndarray, log_density: np.ndarray, length: float) -> np.ndarray:
    """Return the log of a density averaged over 5 % of the path, at each position (M,).

    A state without any spread would otherwise be infinitely dense.
    """
    offsets = (np.arange(_WITHIN) + 0.5) / _WITHIN - 0.5
    nearby = position[:, None] + _GAP * length * offsets
    values = np.interp(nearby, position, log_density)
    top = values.max(1)
    return top + np.log(np.exp(values - top[:, None]).mean(1))


def highest(position: np.ndarray, energy: np.ndarray, length: float) -> tuple[float, float, float]:
    """Return the barrier, and the positions of the highest place of the path and of the lowest of its first state."""
    fine = np.linspace(0, length, 400)
    along = np.interp(fine, position, energy)
    top = int(along.argmax())
    ahead = _within_state(along[: top + 1])
    behind = np.interp(np.linspace(0, -length, 400), position, energy, left=np.inf)
    behind = behind[_within_state(behind)]
    ahead = along[: top + 1][ahead]
    low = min(float(ahead.min()), float(behind.min()))
    place = float(fine[ahead.argmin()]) if ahead.min() <= behind.min() else -float(behind.argmin()) * length / 399
    return float(along[top] - low), float(fine[top]), place


def _within_state(energy: np.ndarray) -> slice:
    """Return the first values, up to the first rise and fall by `_SEPARATE`: those that belong to the first state."""
    lowest, highest = energy[0], -np.inf
    for i, value in enumerate(energy):
        if highest == -np.inf:
            lowest = min(lowest, value)
            if value > lowest + _SEPARATE:
                highest, top = value, i
        elif value > highest:
            highest, top = value, i
        elif value < highest - _SEPARATE:
            return slice(0, top + 1)
    return slice(0, len(energy))
