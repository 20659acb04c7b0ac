"""Barrier of a path: how many fewer images lie at its narrowest place than in the state where it starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError, guarded
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.groups import number_groups
from cryotwin_nb.mixture.points import require_points
from cryotwin_nb.pathways.corridor import Corridor, live_directions
from cryotwin_nb.pathways.counting import MeasuredBarrier, averaged, count_images, highest, scattered_around
from cryotwin_nb.pathways.line import Line
from cryotwin_nb.pathways.mixture_tube import log_mass_along
from cryotwin_nb.pathways.ridgeline import Pathway

_FAR = 0.1  # fraction of the length; an end with an image nearer than this is not far from all images


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
    Gaussians and a penalised spline, chosen by their evidence, and averaged over 5 % of the path. The state where the
    path starts ends at the first dip of half a nat. If no image lies on 5 % of the path, there is no barrier (`gap`).

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
    on_path[on_path] = scattered_around(position[on_path], square[on_path], line.length, x.shape[1] - 1)
    position, error, number = position[on_path], error[on_path], number[on_path]
    return count_images(line.length, position, error, number_groups(number, len(number)), n_draws, seed)


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
        total = np.broadcast_to(width * np.eye(dim), (len(near), dim, dim))
        precision = np.linalg.inv(total if noise is None else total + noise[near])
        square = np.einsum("nd,nde,ne->n", away[near], precision, away[near])
        if apart.min() > _FAR * line.length and square.min() > corridor.limit:
            nearest = f"the nearest is {apart.min():.3g} latent units away"
            sentence = f"The {name} of the path is far from all images: {nearest}."
            remedy = "Choose an end in a state that holds images."
            raise InputError(name, f"a distance of {apart.min():.3g}", "images nearby", remedy, sentence)


def _of_mixture(prior: GaussianMixture, curve: np.ndarray) -> MeasuredBarrier:
    """Return the barrier of a mixture: the integral of its density across the path, without images."""
    position, log_mass, length = log_mass_along(prior, curve)
    log_mass = averaged(position, log_mass, length)
    value, narrowest, densest = highest(position, -log_mass, length)
    profile = -log_mass - np.interp(densest, position, -log_mass)
    nan = (np.nan, np.nan)
    return MeasuredBarrier(value, nan, 0, 0, None, narrowest, densest, position, profile, counted=False)
