"""Routes: the ways from one state to another by way of others, each with its share of the flux.

States and the resistances between neighbours are a network of resistors: ∫ |dγ| / P adds in series, its inverse in
parallel. With a unit of potential between start and end, the potential of a state is the committor q and
f_ij = c_ij (q_j - q_i)+ the flux (transition-path theory: Metzner, Schuette and Vanden-Eijnden 2009). Routes
are peeled off it, the widest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import mpmath
import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture import GaussianMixture
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.maxflux import End, end_point, path_of_knots, relax
from cryotwin_nb.pathways.states import State, assign, find_states
from cryotwin_nb.ridgeline import Pathway, densify, log_resistance

_DIGITS = 60  # of the network's equations: resistances may differ by fifty orders of magnitude


@dataclass(frozen=True, eq=False)
class Route(Pathway):
    """A pathway with its share of the flux.

    Attributes
    ----------
    share : float
        Of the flux from start to end.
    states : tuple of int
        Indices of the states that it passes, ends included.
    """

    share: float = 0.0
    states: tuple[int, ...] = ()


def find_routes(
    prior: GaussianMixture,
    start: End,
    end: End,
    max_routes: int = 8,
    n_steps: int = 11,
    states: Sequence[State] | None = None,
    least_share: float = 0.01,
    landscape: Landscape | None = None,
) -> list[Route]:
    """The routes from one point to another, by falling share of the flux.

    Parameters
    ----------
    prior : GaussianMixture
    start, end : int or (d,) float
        A component or a latent vector; each stands for the state that it belongs to.
    max_routes : int
        At most so many.
    n_steps : int
        K of each route's pathway.
    states : sequence of State, optional
        By `find_states`.
    least_share : float
        Routes of less are left out.

    Raises
    ------
    InputError
        If both ends belong to one state.
    """
    landscape = landscape or Landscape.of(prior)
    states = list(states) if states is not None else find_states(prior, landscape=landscape)
    ends = torch.stack([end_point(prior, "start", start), end_point(prior, "end", end)])
    first, last = assign(prior, list(states), ends).tolist()
    if first == last:
        found = f"both ends in the state {states[first].name}"
        raise InputError("find_routes", found, "ends in different states", "Choose others, or a higher threshold.")
    log_conductance, links = _network(prior, states, landscape)
    routes = _peeled(_flux(log_conductance, first, last), first, last, max_routes, least_share)
    return [_route(prior, ends, way, share, links, n_steps, (start, end)) for way, share in routes]


def _network(
    prior: GaussianMixture, states: Sequence[State], landscape: Landscape
) -> tuple[np.ndarray, dict[tuple[int, int], Tensor]]:
    """log conductances (S, S) of direct passages between states, -inf where there is none, and their corners."""
    modes = torch.stack([s.latent for s in states])
    place = torch.cdist(modes, landscape.points).argmin(1).tolist()
    owner = assign(prior, list(states), landscape.points)
    log_conductance, links = np.full((len(states), len(states)), -np.inf), {}
    for i in range(len(states)):
        for j in range(i + 1, len(states)):
            way = landscape.shortest(place[i], place[j], (owner == i) | (owner == j))
            if way is None:
                continue
            knots = landscape.points[way]
            links[i, j], links[j, i] = knots, knots.flip(0)
            log_conductance[i, j] = log_conductance[j, i] = -log_resistance(prior, densify(prior, knots, 200))
    return log_conductance, links


def _flux(log_conductance: np.ndarray, first: int, last: int) -> np.ndarray:
    """Flux (S, S) between states, at most 1 in all, for a unit of flux from first to last."""
    n = len(log_conductance)
    joined = np.isfinite(log_conductance)
    reached = _component(joined, first)
    if last not in reached:
        raise InputError("find_routes", "no way between the two states", "a connected density", "Choose others.")
    inner = [s for s in reached if s not in (first, last)]
    with mpmath.workdps(_DIGITS):
        top = float(log_conductance[joined].max())
        c = [[mpmath.exp(v - top) if np.isfinite(v) else mpmath.mpf(0) for v in row] for row in log_conductance]
        q = {first: mpmath.mpf(0), last: mpmath.mpf(1)}
        if inner:
            matrix = mpmath.matrix(len(inner), len(inner))
            right = mpmath.matrix(len(inner), 1)
            for a, i in enumerate(inner):
                for b, j in enumerate(inner):
                    matrix[a, b] = -c[i][j]
                matrix[a, a] = sum(c[i][j] for j in reached)
                right[a] = c[i][last]
            q |= dict(zip(inner, mpmath.lu_solve(matrix, right)))
        q |= {s: q[first] for s in range(n) if s not in q}
        net = [[c[i][j] * max(q[j] - q[i], mpmath.mpf(0)) for j in range(n)] for i in range(n)]
        total = sum(net[first])
        return np.array([[float(f / total) for f in row] for row in net])


def _component(joined: np.ndarray, first: int) -> list[int]:
    """States that can be reached from the first."""
    reached, new = {first}, [first]
    while new:
        new = [int(j) for i in new for j in np.flatnonzero(joined[i]) if j not in reached]
        reached |= set(new)
    return sorted(reached)


def _peeled(flux: np.ndarray, first: int, last: int, max_routes: int, least: float) -> list[tuple[list[int], float]]:
    """Ways of states and their shares: the widest way, taken away, then the widest of what is left."""
    flux, ways = flux.copy(), []
    while len(ways) < max_routes:
        way, width = _widest(flux, first, last)
        if width < least:
            break
        ways.append((way, width))
        for i, j in pairwise(way):
            flux[i, j] -= width
    return ways


def _widest(flux: np.ndarray, first: int, last: int) -> tuple[list[int], float]:
    """The way on which the least flux is largest (Dijkstra's algorithm with min in place of plus)."""
    n = len(flux)
    width, before, done = np.zeros(n), np.full(n, -1), np.zeros(n, bool)
    width[first] = np.inf
    for _ in range(n):
        i = int(np.argmax(np.where(done, -1, width)))
        done[i] = True
        better = np.minimum(width[i], flux[i]) > width
        width[better & ~done], before[better & ~done] = np.minimum(width[i], flux[i])[better & ~done], i
    if before[last] < 0:
        return [], 0.0
    way = [last]
    while way[-1] != first:
        way.append(int(before[way[-1]]))
    return way[::-1], float(width[last])


def _route(
    prior: GaussianMixture,
    ends: Tensor,
    way: list[int],
    share: float,
    links: dict[tuple[int, int], Tensor],
    n_steps: int,
    names: tuple[End, End],
) -> Route:
    """The relaxed path along a way of states."""
    parts = [relax(prior, links[pair], rounds=6) for pair in pairwise(way)]
    knots = torch.cat([ends[:1], parts[0], *(part[1:] for part in parts[1:]), ends[1:]])
    kept = torch.cat([torch.ones(1, dtype=torch.bool), knots.diff(dim=0).norm(dim=1) > 1e-12])
    path = path_of_knots(prior, knots[kept], n_steps, 1.0, "length", *names)
    values = {field.name: getattr(path, field.name) for field in fields(path)}
    return Route(**(values | {"method": "route"}), share=share, states=tuple(way))
