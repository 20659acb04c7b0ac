"""M-step of EM for Gaussian mixtures: covariances share a shape, and their part in dead directions (see `live`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryotwin_nb.mixture.components import Components

FLOOR = 1e-6  # smallest variance of a component, in units of the overall variance


def maximise(moments: Tensor, strength: float, live: int | None = None) -> Components:
    """M-step: return the mixture with the given moments, its covariances shrunk towards a common shape.

    The shrinkage is equivalent to `strength` * d additional latents per component whose covariance is the average over
    all components, scaled to the volume of the component's own covariance. Narrow and broad components keep their
    sizes; only the shape is shared, because small components have too few latents to determine their own.

    Parameters
    ----------
    moments : (C, 1 + d + d d) float64
        Sums of 1, x and x x^T over the latents, weighted by the responsibilities of each component.
    strength : float
        Strength of the prior of the covariances, in units of d latents.
    live : int, optional
        Number of live axes, the first ones; by default all. In component c the other axes v depend linearly on the live
        axes u: v = nu_c + A_c (u - mu_c) plus an error whose covariance is that of all components.
    """
    dim = math.isqrt(moments.shape[1] - 1)
    if live is None or live == dim:
        return _of_all_axes(moments, strength)
    second = moments[:, dim + 1 :].unflatten(1, (dim, dim))[:, :live, :live]
    leading = _of_all_axes(torch.cat([moments[:, : live + 1], second.flatten(1)], dim=1), strength)
    return _tied(leading, moments, live)


def _tied(leading: Components, moments: Tensor, live: int) -> Components:
    """Return the mixture whose live axes have the density `leading`, with a common covariance given these axes.

    The slopes A_c have a Gaussian prior of mean 0 and unit variance, which matters for components of a few latents.
    """
    mass, means, scatter = _central(moments)
    of_live, across, others = scatter[:, :live, :live], scatter[:, :live, live:], scatter[:, live:, live:]
    common, identity = torch.eye(others.shape[1]).to(scatter), torch.eye(live).to(scatter)
    for _ in range(3):
        slopes = torch.linalg.solve(of_live + common.diagonal().mean() * identity, across).mT
        explained = slopes @ across
        errors = others - explained - explained.mT + slopes @ of_live @ slopes.mT
        common = errors.sum(0) / mass.sum() + FLOOR * torch.eye(len(common)).to(scatter)
    covariances = torch.empty_like(scatter)
    covariances[:, :live, :live] = leading.covariances
    covariances[:, live:, :live] = slopes @ leading.covariances
    covariances[:, :live, live:] = covariances[:, live:, :live].mT
    covariances[:, live:, live:] = slopes @ leading.covariances @ slopes.mT + common
    return Components(leading.weights, means, (covariances + covariances.mT) / 2)


def _of_all_axes(moments: Tensor, strength: float) -> Components:
    """Return the mixture with the given moments, its covariances shrunk towards a common shape."""
    dim = math.isqrt(moments.shape[1] - 1)
    mass, means, scatter = _central(moments)
    variances, axes = torch.linalg.eigh((scatter + scatter.mT) / 2)
    variances = variances.clamp_min(0)
    scatter = (axes * variances[:, None]) @ axes.mT
    identity = torch.eye(dim).to(scatter)
    average = scatter.sum(0) / mass.sum() + FLOOR * identity
    unit = average / torch.linalg.det(average) ** (1 / dim)
    tenth = 0.1 * average.diagonal().mean()  # 0.1 latents of average variance keep empty components' volumes above 0
    volume = ((variances + tenth) / (mass[:, None] + 0.1)).log().mean(-1).exp()
    prior = strength * dim
    covariances = (scatter + prior * volume[:, None, None] * unit) / (mass + prior)[:, None, None] + FLOOR * identity
    return Components(mass / mass.sum(), means, (covariances + covariances.mT) / 2)


def _central(moments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the masses (C,), means (C, d) and scatter matrices (C, d, d) with the given moments."""
    dim = math.isqrt(moments.shape[1] - 1)
    mass = moments[:, 0].clamp_min(1e-12)
    means = moments[:, 1 : dim + 1] / mass[:, None]
    return mass, means, moments[:, dim + 1 :].unflatten(1, (dim, dim)) - mass[:, None, None] * _outer(means)


def _outer(x: Tensor) -> Tensor:
    return x[:, :, None] * x[:, None]
