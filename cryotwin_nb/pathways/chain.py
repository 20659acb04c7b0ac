"""Chained pathways: sub-paths of Algorithm 1 between intermediate components, joined into one path."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from cryotwin_nb.errors import guarded
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.ridgeline import Pathway, pathway_from_knots, ridgeline


@guarded(start=None, end=None, n_steps=(2, 100_000))
def ridgeline_chain(prior: GaussianMixture, start: int, end: int, n_steps: int = 11, **options) -> Pathway:
    """Return a path between two components via intermediate components: sub-paths of Algorithm 1, joined end to end.

    The intermediate components minimise the total resistance of the straight lines between their means (`waypoints`).
    The cryoTWIN paper also joins sub-paths, but between components chosen by hand (Sect. 4, Expt2). A sub-path that
    costs more than the straight line between its ends is replaced by that line.

    Parameters
    ----------
    prior : GaussianMixture
        Density in which to find the path.
    start, end : int
        Indices of the components at the ends.
    n_steps : int
        Number of steps K: the path has K + 1 equally spaced points. Each sub-path is also computed with K steps.
    **options
        Options of `ridgeline`: `omega`, `n_samples`, `seed`, `concentration`.

    Returns
    -------
    Pathway
        Path with equally spaced points along the joined sub-paths.

    Raises
    ------
    InputError
        If an argument is invalid; see `ridgeline`.

    Examples
    --------
    >>> path = ct.ridgeline_chain(model.prior, start=0, end=1)
    >>> bool(path.barrier >= 0)
    True
    """
    ridgeline(prior, start, end, n_steps, **(options | {"n_samples": 1}))  # raises InputError for invalid arguments
    parts = [_link(prior, i, j, n_steps, options) for i, j in pairwise(waypoints(prior, start, end))]
    knots = torch.cat([parts[0][:1], *(part[1:] for part in parts)])
    return pathway_from_knots(prior, knots, n_steps, start=start, end=end, method="ridgeline chain")


def _link(prior: GaussianMixture, start: int, end: int, n_steps: int, options: dict) -> Tensor:
    """Return the knots (m, d) of Algorithm 1's path or of the straight line, whichever costs less."""
    straight = pathway_from_knots(prior, prior.means[[start, end]])
    return min(ridgeline(prior, start, end, n_steps, **options), straight, key=lambda p: p.log_cost).latents


def waypoints(prior: GaussianMixture, start: int, end: int) -> list[int]:
    """Return the components from `start` to `end` that minimise the sum of straight-line resistances (Dijkstra).

    Parameters
    ----------
    prior : GaussianMixture
        Mixture whose means are the possible waypoints.
    start, end : int
        Indices of the components at the ends.

    Returns
    -------
    list of int
        Indices of the components in order, including start and end.
    """
    log_cost = straight_resistances(prior).cpu().numpy()
    off_diagonal = ~np.eye(len(log_cost), dtype=bool)
    finite = log_cost[np.isfinite(log_cost)]  # resistances between identical means are -inf
    least = finite.min() if len(finite) else 0.0
    cost = np.exp(np.clip(log_cost - least, -700, 700))
    _, before = dijkstra(np.where(off_diagonal, cost, 0), indices=start, return_predecessors=True)
    chain = [end]
    while chain[-1] != start:
        chain.append(int(before[chain[-1]]))
    return chain[::-1]


def straight_resistances(prior: GaussianMixture, n_points: int = 33) -> Tensor:
    """Return the log of the resistance ∫ |dz| / P(z) of the straight line between each pair of means.

    Parameters
    ----------
    prior : GaussianMixture
        Mixture with C components.
    n_points : int
        Number of quadrature points per line.

    Returns
    -------
    (C, C) float64 tensor
        Symmetric matrix with -inf on the diagonal.
    """
    prior = prior.detach()
    first, second = torch.triu_indices(prior.n_components, prior.n_components, offset=1)
    fractions = torch.linspace(0, 1, n_points).to(prior.means)[:, None]
    steps = prior.means[second] - prior.means[first]
    points = prior.means[first][:, None] + fractions * steps[:, None]
    energy = -prior.log_prob(points.flatten(0, 1)).view(len(first), n_points)
    pieces = torch.logaddexp(energy[:, 1:], energy[:, :-1]) - np.log(2 * (n_points - 1))
    matrix = prior.means.new_full((prior.n_components,) * 2, -torch.inf)
    matrix[first, second] = matrix[second, first] = pieces.logsumexp(1) + steps.norm(dim=1).log()
    return matrix
