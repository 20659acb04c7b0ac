"""Shares of particles in states and passages: likelihood of each particle in each of them, and EM for the shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from cryotwin_nb.mixture.components import Components
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.live import component_width, live_dim
from cryotwin_nb.mixture.points import require_points
from cryotwin_nb.pathways.ridgeline import equidistant
from cryotwin_nb.pathways.states import State

Evidence = Callable[[Tensor], Tensor]
"""Maps points (m, d) to the log-likelihood (n, m) of each particle at each point, relative to its maximum, nats."""

_POINTS = 24  # number of points on a passage, excluding its ends
_PLACES = 64  # number of points of a state
_WIDTHS = (0.5, 0.6, 0.7, 0.85, 1.0, 1.2)  # widths of tubes to try, relative to a typical component


def tube(latents: Tensor | np.ndarray, width: float) -> Evidence:
    """Return the evidence of `latents` (n, d) with Gaussian errors of standard deviation `width`, latent units."""
    latents = torch.as_tensor(latents).double()
    return lambda points: torch.cdist(latents, points.double()).square() / (-2 * width**2)


def typical_width(prior: GaussianMixture) -> float:
    """Return the median, weighted by mass, of the components' standard deviations along their longest axes."""
    return component_width(Components(prior.weights, prior.means, prior.covariances))


def of_states(prior: GaussianMixture, states: Sequence[State], evidence: Evidence, width: float) -> Tensor:
    """Return the log-likelihood (n, S) of each particle in each state, averaged over points spread like the state.

    The points are drawn around the maximum of the state, with the covariances of the components there. Variances are
    reduced by width^2, the variance that a tube has already: a state as narrow as a tube is a single point.
    """
    variances, axes = torch.linalg.eigh(prior.covariances)
    spread = (variances - width**2).clamp_min(0).sqrt()
    noise, columns = _normal(_PLACES, prior.latent_dim), []
    for state in states:
        share = prior.responsibilities(state.latent[None])[0]
        place = (torch.arange(_PLACES).to(share) + 0.5) / _PLACES
        drawn = torch.searchsorted(share.cumsum(0), place).clamp_max(len(share) - 1)
        points = state.latent + torch.einsum("nde,ne->nd", axes[drawn], spread[drawn] * noise)
        at = require_points(evidence(points), _PLACES, "evidence").double()
        columns.append(at.logsumexp(1, keepdim=True) - np.log(_PLACES))
    return torch.cat(columns, dim=1)


def _normal(n: int, dim: int) -> Tensor:
    """Return n quasi-random points (n, dim) of a normal density, with its exact mean and, if n > 2 dim, covariance."""
    uniform = SobolEngine(dim, scramble=True, seed=0).draw(n // 2, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
    half = 2**0.5 * torch.erfinv(2 * uniform - 1)
    points = torch.stack([half, -half], dim=1).flatten(0, 1)
    covariance = points.T @ points / n
    if n <= 2 * dim:
        return points
    return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), points.T, upper=False).T


def tube_width(
    prior: GaussianMixture,
    states: Sequence[State],
    latents: Tensor,
    curves: dict[tuple[int, int], Tensor],
    typical: float,
) -> float:
    """Return the standard deviation of the tube in which states and curves explain the latents (n, d) best.

    Tubes wider than the particles' spread count particles of states as particles of passages, and the reverse; both
    change the shares of routes. The likelihood of at most 4,000 latents is compared for several multiples of `typical`.
    """
    some = latents[:: max(1, len(latents) // 4000)]
    dim = live_dim(prior.weights, prior.means, prior.covariances)

    def log_likelihood(width: float) -> float:
        evidence = tube(some, width)
        log_fit = torch.cat([of_states(prior, states, evidence, width), *fits(evidence, curves).values()], dim=1)
        fit = relative(log_fit)
        values = (fit @ shares_of(fit, 60)).log() + log_fit.amax(1)
        return float(values.median() + (values - values.median()).clamp(-10, 10).mean()) - dim * float(np.log(width))

    return typical * max(_WIDTHS, key=lambda factor: log_likelihood(typical * factor))


def fits(evidence: Evidence, curves: dict[tuple[int, int], Tensor]) -> dict[tuple[int, int], Tensor]:
    """Return, for each curve, the log of each particle's likelihood averaged over the curve, (n, 1)."""
    fits = {}
    for pair, curve in curves.items():
        at = evidence(equidistant(curve, _POINTS + 2)[1:-1]).double()
        fits[pair] = at.logsumexp(1, keepdim=True) - np.log(_POINTS)
    return fits


def relative(log_fit: Tensor) -> Tensor:
    return (log_fit - log_fit.amax(1, keepdim=True)).exp()


def shares_of(fit: Tensor, steps: int, start: Tensor | None = None, counts: Tensor | None = None) -> Tensor:
    """Return the weights (m,) of a mixture with known components, by EM on relative likelihoods (n, m)."""
    counts = torch.ones(len(fit), dtype=fit.dtype) if counts is None else counts
    shares = torch.ones(fit.shape[1], dtype=fit.dtype) if start is None else start
    counts, shares = counts / counts.sum(), shares / shares.sum()
    for _ in range(steps):
        shares = shares * (fit.T @ (counts / (fit @ shares)))
    return shares
