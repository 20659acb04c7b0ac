"""Paths made of several: Algorithm 1 from state to state, put together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.ridgeline import Pathway, pathway_from_knots, ridgeline


def ridgeline_chain(prior: GaussianMixture, start: int, end: int, n_steps: int = 11, **options) -> Pathway:
    """Path from one component to another by way of others: sub-paths of Algorithm 1 joined to one.

    The components on the way are those of least total resistance on straight lines from mean to mean
    (`waypoints`). The paper joins sub-paths too (Sect. 4, Expt2), between components chosen by hand. Where
    Algorithm 1's sub-path costs more than the straight line, the line is taken.

    Parameters
    ----------
    prior : GaussianMixture
    start, end : int
        Components.
    n_steps : int
        K: the path has K + 1 points at equal distances; each sub-path is computed with as many steps.
    **options
        Passed to `ridgeline`: `omega`, `n_samples`, `seed`, `concentration`.

    Raises
    ------
    InputError
        As `ridgeline`.
    """
    ridgeline(prior, start, end, n_steps, **(options | {"n_samples": 1}))  # refuses what cannot be joined
    parts = [_link(prior, i, j, n_steps, options) for i, j in pairwise(waypoints(prior, start, end))]
    knots = torch.cat([parts[0][:1], *(part[1:] for part in parts)])
    return pathway_from_knots(prior, knots, n_steps, start=start, end=end, method="ridgeline chain")


def _link(prior: GaussianMixture, start: int, end: int, n_steps: int, options: dict) -> Tensor:
    """Knots (m, d) of the cheaper of Algorithm 1's path and the straight line."""
    straight = pathway_from_knots(prior, prior.means[[start, end]])
    return min(ridgeline(prior, start, end, n_steps, **options), straight, key=lambda p: p.log_cost).latents


def waypoints(prior: GaussianMixture, start: int, end: int) -> list[int]:
    """Components from start to end, both included, with the least sum of resistances from mean to mean (Dijkstra)."""
    log_cost = straight_resistances(prior).cpu().numpy()
    off_diagonal = ~np.eye(len(log_cost), dtype=bool)
    finite = log_cost[np.isfinite(log_cost)]  # between equal means it is minus infinity
    least = finite.min() if len(finite) else 0.0
    cost = np.exp(np.clip(log_cost - least, -700, 700))
    _, before = dijkstra(np.where(off_diagonal, cost, 0), indices=start, return_predecessors=True)
    chain = [end]
    while chain[-1] != start:
        chain.append(int(before[chain[-1]]))
    return chain[::-1]


def straight_resistances(prior: GaussianMixture, n_points: int = 33) -> Tensor:
    """log of the integral of |dz| / P(z) on the straight line between each two means: (C, C), -inf on the diagonal."""
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
