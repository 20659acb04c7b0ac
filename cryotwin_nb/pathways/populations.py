"""Shares of particles in states and passages: likelihood of each particle in each of them, and EM for the shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.mixture.components import Components
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.live import component_width
from cryotwin_nb.mixture.points import require_points
from cryotwin_nb.pathways.ridgeline import equidistant
from cryotwin_nb.pathways.states import State

Evidence = Callable[[Tensor], Tensor]
"""Maps points (m, d) to the log-likelihood (n, m) of each particle at each point, relative to its maximum, nats."""

_POINTS = 24  # number of points on a passage, excluding its ends
_PLACES = 32  # number of points of a state


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
    generator, columns = torch.Generator().manual_seed(0), []
    for state in states:
        share = prior.responsibilities(state.latent[None])[0]
        drawn = torch.multinomial(share, _PLACES, replacement=True, generator=generator)
        noise = torch.randn(_PLACES, prior.latent_dim, dtype=torch.float64, generator=generator)
        points = state.latent + torch.einsum("nde,ne->nd", axes[drawn], spread[drawn] * noise)
        at = require_points(evidence(points), _PLACES, "evidence").double()
        columns.append(at.logsumexp(1, keepdim=True) - np.log(_PLACES))
    return torch.cat(columns, dim=1)


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
