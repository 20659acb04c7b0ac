"""Barrier of a path: how many fewer images lie at its narrowest place than in the state where it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from cryotwin_nb.errors import InputError, guarded
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.groups import bootstrap_weights, number_groups
from cryotwin_nb.mixture.points import require_points
from cryotwin_nb.pathways.corridor import Corridor, Line, live_directions
from cryotwin_nb.pathways.deconvolution import LineCounts, LineDensity
from cryotwin_nb.pathways.mixture_tube import log_mass_along
from cryotwin_nb.pathways.ridgeline import Pathway

_GAP = 0.05  # a stretch of the path, as a fraction of its length, that must contain an image
_SEPARATE = 0.5  # nats; a lower dip does not end a state
_FEW, _CHANCE = 0.2, 1e-3  # share of near images, and probability of so few, below which images lie beside the path
_FAR = 0.1  # fraction of the length; an end with an image nearer than this is not far from all images


@dataclass(frozen=True, eq=False)
class MeasuredBarrier:
    """Barrier of a path, measured by counting images; print it to read the result.

    Attributes
    ----------
    value : float
        -log of the images per unit length at the narrowest place, less that at the densest place of the state where
        the path starts, nats; NaN if not measured.
    interval : tuple of float
        90 % interval of `value` (Bayesian bootstrap), nats; NaN without images.
    n_narrowest : int
        Number of images in the 5 % of the arc length around the narrowest place; 0 without images.
    n_on_path : int
        Number of images that lie on the path or on its straight prolongations.
    gap : tuple of float, optional
        Longest stretch without an image, as fractions of the arc length, if it is longer than 5 %.
    narrowest, densest : float
        Arc length at the narrowest place and at the densest place of the first state, latent units; NaN if not measured.
    position : (M,) float64
        Arc length, latent units; negative before the start.
    profile : (M,) float64
        -log of the images per unit length, less that at the densest place of the first state, nats. The errors of the
        images are removed (deconvolution).
    counted : bool
        Whether images were counted; False for the integral of a mixture.
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

    def __str__(self) -> str:
        if self.gap is not None:
            return f"not measured: no image between {self.gap[0]:.0%} and {self.gap[1]:.0%} of the path".replace(
                "% and", " and"
            ).replace("% of", " % of")
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
            "source": "images" if self.counted else "mixture",
        }


@guarded(n_draws=(1, 10**6))
def measure_barrier(
    path: Pathway | Tensor | np.ndarray,
    latents: Any = None,
    noise_covariances: Tensor | np.ndarray | None = None,
    prior: GaussianMixture | None = None,
    groups: Tensor | np.ndarray | None = None,
    n_draws: int = 100,
    seed: int = 0,
) -> MeasuredBarrier:
    """Measure the barrier of a path by counting the images that lie on it.

    Parameters
    ----------
    path : Pathway or (m, d) float
        Path, or the vertices of a polyline.
    latents : (n, d) float or ImageLikelihood, optional
        Images: `model.likelihood(particles)`, or the maximum-likelihood latent of each image. The latents of
        `model.embed(particles)` are drawn towards each other by the prior and can be used without `noise_covariances`;
        the barrier is then that of these latents.
    noise_covariances : (n, d, d) float, optional
        Error covariances of the latents; `ImageLikelihood` contains them.
    prior : GaussianMixture, optional
        Without latents: the density in which the same integral is computed.
    groups : (n,) int, optional
        Group of each image, such as `particles.identity`; copies of an image are drawn together. Not needed for
        `ImageLikelihood`.
    n_draws : int
        Number of draws of the Bayesian bootstrap; 100 are enough for 90 % intervals.
    seed : int
        Seed of the draws.

    Returns
    -------
    MeasuredBarrier

    Raises
    ------
    InputError
        If an end is far from all images, the shapes disagree, or neither latents nor a mixture are given.

    Notes
    -----
    An image is counted if its squared distance to the path is below the 99 % quantile of chi squared. The metric is
    that of its own error and of the spread across the path, which is estimated from the images near it. Directions in
    which the images only differ by their errors do not count. The positions along the path are deconvolved with a few
    Gaussians and a penalised spline, chosen by their evidence. The state where the path starts ends at the first dip
    of half a nat. If no image lies on 5 % of the path, there is no barrier (`gap`).

    Examples
    --------
    >>> path = ct.max_flux(model.prior, start=0, end=1)
    >>> barrier = ct.measure_barrier(path, model.likelihood(particles), n_draws=20)
    >>> barrier.n_on_path > 0
    True
    """
    curve = require_points(path.curve if isinstance(path, Pathway) else path, None, "path", 2).double().numpy()
    if not np.linalg.norm(np.diff(curve, axis=0), axis=1).sum() > 0:
        raise InputError("path", "a single point", "a path with a length", "Choose two different ends.")
    if latents is None:
        if prior is None:
            remedy = "Pass model.likelihood(particles), or prior= for the integral of the mixture."
            raise InputError("latents", "neither latents nor a mixture", "one of them", remedy)
        return _of_mixture(prior.detach(), curve)
    x, noise, groups = _points(latents, noise_covariances, groups, curve.shape[1])
    number = number_groups(groups, len(x))
    live = live_directions(x, noise, curve[-1] - curve[0])
    line, x = Line.through(curve @ live), x @ live
    noise = None if noise is None else live.T @ noise @ live
    corridor = Corridor.around(line, x, noise)
    _require_images_at_ends(corridor, x, noise)
    position, error, square = corridor.place(x, noise)
    on_path = (square < corridor.limit) & (position > line.position[0]) & (position < line.position[-1])
    on_path[on_path] = _scattered_around(position[on_path], square[on_path], line.length, x.shape[1] - 1)
    position, error, number = position[on_path], error[on_path], number[on_path]
    return _measured(line.length, position, error, number_groups(number, len(number)), n_draws, seed)


def _points(
    latents: Any, noise: Any, groups: Any, dim: int
) -> tuple[np.ndarray, np.ndarray | None, Tensor | np.ndarray | None]:
    """Return points (n, d) and error covariances (n, d, d) of images as float64, and their groups."""
    if hasattr(latents, "points"):  # ImageLikelihood
        groups = latents.groups if groups is None else groups
        latents, noise = latents.points()
    x = require_points(latents, dim, least=2).double().cpu().numpy()
    if noise is None:
        return x, None, groups
    noise = torch.as_tensor(noise).detach().double().cpu().numpy()
    if noise.shape != (len(x), dim, dim) or not np.isfinite(noise).all():
        remedy = "Pass one finite covariance per latent."
        raise InputError("noise_covariances", f"shape {noise.shape}", f"({len(x)}, {dim}, {dim})", remedy)
    return x, noise, groups


def _scattered_around(position: np.ndarray, square: np.ndarray, length: float, dim: int) -> np.ndarray:
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


def _require_images_at_ends(corridor: Corridor, x: np.ndarray, noise: np.ndarray | None) -> None:
    """Raise `InputError` if no image is near the start or the end, in latent units and in the metric of its error."""
    line = corridor.line
    first = int(np.abs(line.position).argmin())
    for name, node in (("start", first), ("end", first + round(line.length / (line.position[1] - line.position[0])))):
        away = x - line.points[node]
        apart = np.linalg.norm(away, axis=1)
        dim = x.shape[1]
        width = np.trace(corridor.spread[node]) / max(dim - 1, 1) + (_FAR * line.length / 3) ** 2
        near = np.argsort(apart)[:1000]
        total = width * np.eye(dim) + (0.0 if noise is None else noise[near])
        square = np.einsum("nd,nde,ne->n", away[near], np.linalg.inv(np.broadcast_to(total, (len(near), dim, dim))), away[near])
        if apart.min() > _FAR * line.length and square.min() > corridor.limit:
            sentence = f"The {name} of the path is far from all images: the nearest is {apart.min():.3g} latent units away."
            remedy = "Choose an end in a state that holds images."
            raise InputError(name, f"a distance of {apart.min():.3g}", "images nearby", remedy, sentence)


def _measured(
    length: float, position: np.ndarray, error: np.ndarray, number: Tensor, n_draws: int, seed: int
) -> MeasuredBarrier:
    """Return the barrier from the positions (n,) of the images on the path, their errors and groups."""
    inside = np.sort(position[(position >= 0) & (position <= length)])
    stops = np.concatenate([[0.0], inside, [length]])
    widest = int(np.diff(stops).argmax())
    if stops[widest + 1] - stops[widest] > _GAP * length:
        gap = float(stops[widest] / length), float(stops[widest + 1] / length)
        nothing = np.zeros(0)
        return MeasuredBarrier(np.nan, (np.nan, np.nan), 0, len(position), gap, np.nan, np.nan, nothing, nothing)
    counts = LineCounts.of(position, error)
    once = (int(number.max()) + 1) / len(number)  # copies of an image do not add information
    density = LineDensity.fitted(counts, np.full(len(position), once))
    energy = -density.log_density
    value, narrowest, densest = _highest(counts.grid, energy, length)
    generator, third, kernel = torch.Generator().manual_seed(seed), np.random.default_rng(seed), counts.kernel
    draws = []
    for _ in range(n_draws):
        weights = once * bootstrap_weights(number, generator).numpy()
        drawn = density.drawn(weights, third, kernel)
        draws.append(_highest(counts.grid, -drawn.log_density, length)[0])
    low, high = np.quantile(draws, [0.05, 0.95]).tolist()
    half = _GAP * length / 2
    centre = float(np.clip(narrowest, half, length - half))
    n_narrowest = int((np.abs(inside - centre) <= half).sum())
    profile = energy - np.interp(densest, counts.grid, energy)
    interval = min(low, value), max(high, value)
    return MeasuredBarrier(
        value, interval, n_narrowest, len(position), None, narrowest, densest, counts.grid, profile
    )


def _of_mixture(prior: GaussianMixture, curve: np.ndarray) -> MeasuredBarrier:
    """Return the barrier of a mixture: the integral of its density across the path, without images."""
    position, log_mass, length = log_mass_along(prior, curve)
    value, narrowest, densest = _highest(position, -log_mass, length)
    profile = -log_mass - np.interp(densest, position, -log_mass)
    nan = (np.nan, np.nan)
    return MeasuredBarrier(value, nan, 0, 0, None, narrowest, densest, position, profile, counted=False)


def _highest(position: np.ndarray, energy: np.ndarray, length: float) -> tuple[float, float, float]:
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
