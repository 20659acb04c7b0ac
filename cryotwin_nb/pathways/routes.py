"""Routes from one state to another via intermediate states, with flux shares and bootstrap confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError, guarded
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.groups import number_groups
from cryotwin_nb.pathways.distinct import alike, distinct_ways
from cryotwin_nb.pathways.ends import End, end_point, named
from cryotwin_nb.pathways.joining import joined_routes
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.network import Network
from cryotwin_nb.pathways.populations import Evidence
from cryotwin_nb.pathways.relaxation import path_of_knots, relax
from cryotwin_nb.pathways.ridgeline import Pathway, densify, log_resistance
from cryotwin_nb.pathways.route import Route as Route
from cryotwin_nb.pathways.states import State, assign, find_states

_LEAST_MASS = 0.01  # minimum mass of an intermediate state
_MOST, _LEAST_SHARE, _LEAST_FREQUENCY = 8, 0.02, 0.9
_WIDER = 1.35  # intervals: draws vary populations, not the fitted states and passages (benchmarks/shares.py)


@guarded(
    max_routes=(1, 10**6),
    n_steps=(2, 100_000),
    least_share=(0, 1 - 2**-53),
    n_draws=(0, 10**9),
    least_frequency=(0, 1),
)
def find_routes(
    prior: GaussianMixture,
    start: End,
    end: End,
    max_routes: int = _MOST,
    n_steps: int = 11,
    evidence: Tensor | Evidence | None = None,
    states: Sequence[State] | None = None,
    least_share: float = _LEAST_SHARE,
    n_draws: int = 100,
    least_frequency: float = _LEAST_FREQUENCY,
    seed: int = 0,
    progress: bool = False,
    landscape: Landscape | None = None,
    groups: Tensor | np.ndarray | None = None,
    via: Sequence[End] = (),
) -> list[Route]:
    """Return the routes from one point to another, in order of decreasing share of the flux.

    Parameters
    ----------
    prior : GaussianMixture
        Density in which to find the routes.
    start, end : int, str, State or (d,) float
        A component, a state or its name, or a latent vector; each is assigned to the state to which it belongs.
    max_routes : int
        Maximum number of routes.
    n_steps : int
        Number of steps K; the path of each route has K + 1 points.
    evidence : (n, d) tensor or callable, optional
        Particles that populate the passages, given by their latents or, for sharper evidence, by the likelihood of
        their images (`CryoTwin.likelihood(particles)`). By default, samples from `prior` are used.
    states : sequence of State, optional
        States from `find_states`; by default, all states with at least 1 % of the mass.
    least_share : float
        Minimum share of the flux; routes with a smaller share are omitted.
    n_draws : int
        Number of draws of the Bayesian bootstrap of `evidence` for intervals and frequencies; 0 omits both.
    least_frequency : float
        Minimum share of the draws in which a route is found; other routes are omitted, except the first.
    seed : int
        Seed of the samples and of the draws.
    progress : bool
        Show a progress bar.
    landscape : Landscape, optional
        Landscape of `prior`, if already computed.
    groups : (n,) int, optional
        Group of each particle of `evidence`, such as `particles.identity`; a group is drawn as a whole. Not needed for
        the likelihood of images, which knows their copies.
    via : sequence, optional
        Way-points, given like the ends. Routes between neighbouring points are combined, without intervals.

    Returns
    -------
    list of Route
        The shares add up to 1 minus the share of omitted routes. Routes that run alongside each other are merged. A
        passage with less than half a particle has no flux; if there is no other, a route with a share of 0 is returned.

    Raises
    ------
    InputError
        If both ends belong to the same state, or an argument is invalid.

    Examples
    --------
    >>> routes = ct.find_routes(model.prior, start=0, end=1)
    >>> routes[0].share >= routes[-1].share
    True
    """
    prior = prior.detach()
    landscape = landscape or Landscape.of(prior)
    if len(via):
        options: dict[str, Any] = {"max_routes": max_routes, "n_steps": n_steps, "evidence": evidence, "states": states}
        options |= {"least_share": least_share, "n_draws": n_draws, "least_frequency": least_frequency}
        options |= {"seed": seed, "progress": progress, "groups": groups, "landscape": landscape}
        legs = [_leg(prior, *pair, options) for pair in pairwise([start, *via, end])]
        return joined_routes(prior, legs, n_steps, max_routes, least_share)
    start, end = (named(prior, name, value, landscape) for name, value in (("start", start), ("end", end)))
    ends = torch.stack([end_point(prior, "start", start), end_point(prior, "end", end)])
    states, (first, last) = _states(prior, states, ends, landscape)
    n_draws = 0 if evidence is None else n_draws  # samples of the prior have no uncertainty of their own
    with tqdm(total=2 + n_draws, desc="routes", disable=not progress) as bar:
        network = Network.of(prior, states, evidence, seed)
        bar.update()
        found = distinct_ways(network, first, last, max_routes, least_share)
        passages = _Passages(network, landscape)
        routes = [_route(passages, ends, way, share, n_steps) for way, share in found]
        bar.update()
        number = number_groups(getattr(evidence, "groups", None) if groups is None else groups, len(network.fit))
        draws, generator = np.zeros((n_draws, len(found))), torch.Generator().manual_seed(seed)
        for row in draws:
            for way, share in network.resampled(generator, number).ways(first, last, 2 * max_routes, least_share):
                known = alike(network, way, found)
                if known is not None:
                    row[known] += share
            bar.update()
    if n_draws:
        routes = [_with_confidence(*pair) for pair in zip(routes, draws.T, strict=True)]
        routes = [route for route in routes if route.frequency >= least_frequency] or routes[:1]
    return routes


def _leg(prior: GaussianMixture, start: End, end: End, options: dict) -> Sequence[Pathway]:
    """Return the routes between two points or, within one state, the path of least resistance."""
    landscape = options["landscape"]
    ends = [named(prior, "via", place, landscape) for place in (start, end)]
    points = torch.stack([end_point(prior, "via", place) for place in ends])
    states = options["states"] or find_states(prior, landscape=landscape)
    if len({*assign(prior, states, points).tolist()}) > 1:
        return find_routes(prior, *ends, **options)
    knots = relax(prior, points, rounds=6)
    return [path_of_knots(prior, knots, options["n_steps"], 1.0, "length", *ends)]


def first_route(
    prior: GaussianMixture, ends: Tensor, evidence: Any, seed: int, landscape: Landscape | None
) -> Tensor | None:
    """Return the knots (m, d) of the first route of `find_routes` between two points (2, d); None within a state."""
    landscape = landscape or Landscape.of(prior)
    if len({*assign(prior, find_states(prior, landscape=landscape), ends).tolist()}) == 1:
        return None
    states, (first, last) = _states(prior, None, ends, landscape)
    network = Network.of(prior, states, evidence, seed)
    return _knots(_Passages(network, landscape), ends, distinct_ways(network, first, last, _MOST, _LEAST_SHARE)[0][0])


def _states(
    prior: GaussianMixture, states: Sequence[State] | None, ends: Tensor, landscape: Landscape
) -> tuple[list[State], tuple[int, int]]:
    """Return the states that routes may visit, including the end states, and the indices of the two end states."""
    listed = isinstance(states, (list, tuple)) and states and all(isinstance(s, State) for s in states)
    if states is not None and not listed:
        found = f"{type(states).__name__} {states!r:.40}"
        raise InputError("states", found, "a list of states", "Pass states from find_states, or omit them.")
    everything = list(states) if states is not None else find_states(prior, landscape=landscape)
    first, last = assign(prior, everything, ends).tolist()
    if first == last:
        sentence = f"Both ends belong to state {everything[first].name}."
        remedy = "Choose ends in different states, or find the states with a higher threshold."
        raise InputError("find_routes", "one state", "ends in different states", remedy, sentence)
    kept = [i for i, s in enumerate(everything) if states is not None or s.mass >= _LEAST_MASS or i in (first, last)]
    return [everything[i] for i in kept], (kept.index(first), kept.index(last))


class _Passages:
    """Paths of least resistance between neighbouring states, each computed once."""

    def __init__(self, network: Network, landscape: Landscape) -> None:
        self.network, self.landscape, self.prior = network, landscape, landscape.mixture
        apart = torch.cdist(torch.stack([s.latent for s in network.states]), landscape.points)
        self._place, self._nearest = apart.argmin(1).tolist(), apart.argmin(0).numpy()
        self._known: dict[tuple[int, int], Tensor] = {}

    def __call__(self, i: int, j: int) -> Tensor:
        """Return the knots (m, d) from state i to state j."""
        if i > j:
            return self(j, i).flip(0)
        if (i, j) not in self._known:
            candidates = [self.network.curves[i, j]]
            way = self.landscape.shortest(self._place[i], self._place[j], np.isin(self._nearest, (i, j)))
            if way is not None and len(way) > 1:
                candidates.append(self.landscape.points[way])
            least = min(candidates, key=lambda knots: log_resistance(self.prior, densify(self.prior, knots)))
            self._known[i, j] = relax(self.prior, least, rounds=6)
        return self._known[i, j]


def _route(passages: _Passages, ends: Tensor, way: tuple[int, ...], share: float, n_steps: int) -> Route:
    """Return the route along a sequence of states."""
    network = passages.network
    path = path_of_knots(passages.prior, _knots(passages, ends, way), n_steps, 1.0, "length", None, None)
    of_pair = dict(zip(network.curves, network.populations.tolist(), strict=True))
    return Route(
        **{field.name: getattr(path, field.name) for field in fields(Pathway)} | {"method": "route"},
        share=share,
        states=tuple(network.states[i] for i in way),
        populations=tuple(of_pair[min(pair), max(pair)] for pair in pairwise(way)),
    )


def _knots(passages: _Passages, ends: Tensor, way: tuple[int, ...]) -> Tensor:
    """Return the knots (m, d) from end to end along a sequence of states."""
    knots = torch.cat([ends[:1], *(passages(*pair) for pair in pairwise(way)), ends[1:]])
    return knots[torch.cat([torch.ones(1, dtype=torch.bool), knots.diff(dim=0).norm(dim=1) > 1e-12])]


def _with_confidence(route: Route, shares: np.ndarray) -> Route:
    """Return the route with its share interval and frequency, computed from its `shares` (n,) in the draws."""
    low, high = np.clip(route.share + _WIDER * (np.quantile(shares, [0.05, 0.95]) - route.share), 0, 1).tolist()
    return replace(route, share_interval=(low, high), frequency=float((shares > 0).mean()))
