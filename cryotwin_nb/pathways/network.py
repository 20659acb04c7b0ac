"""Network of passages between states: the number of particles in each passage, and the flux through all of them.

The resistance of a path depends on the number of particles per unit volume: in eight dimensions, a passage that is
twice as wide but contains as many particles is 128 times less dense. Routes are therefore compared by the number of
particles per unit length. States and the curves between them are fitted to the particles as a mixture of points and
thin tubes, whose weights are found by expectation-maximisation (EM); most weights become 0 (Lindsay 1983).

A passage of population p and length l has conductance p / l^2, since its resistance is the integral of dl / (p / l).
Potential and flux between two states are computed as in a resistor network (transition-path theory: Metzner, Schuette
and Vanden-Eijnden 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np
import torch
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.groups import bootstrap_weights
from cryotwin_nb.mixture.points import require_points
from cryotwin_nb.pathways.dead import without_dead
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.populations import (
    Evidence,
    fits,
    of_states,
    relative,
    shares_of,
    tube,
    tube_width,
    typical_width,
)
from cryotwin_nb.pathways.relaxation import relax
from cryotwin_nb.pathways.ridgeline import equidistant
from cryotwin_nb.pathways.states import State

_OUTLIER = 4.5  # nats per dimension at which a particle is an outlier: three standard deviations in each dimension
_FLOOR = 1e-6  # minimum population, so that no passage has zero conductance
_LEAST = 0.5  # number of particles below which nothing flows through a passage
_NOTHING = 1e-12  # smaller shares are rounding errors
_STEPS, _STEPS_AGAIN = 400, 60  # EM iterations from scratch and for a draw of the bootstrap


@dataclass(frozen=True, eq=False)
class Network:
    """States of a density and the passages between them.

    Attributes
    ----------
    states : tuple of State
        The S states.
    curves : dict of (i, j) to (m, d) tensor
        Passages between pairs of states with i < j, each from the latent of state i to the latent of state j.
    populations : (P,) float64
        Share of the particles in each passage, in the order of `curves`.
    fit : (n, S + P + 1) float64
        Relative likelihood of each particle in each state, in each passage and as an outlier.
    weights : (S + P + 1,) float64
        Share of the particles in each state, in each passage and among the outliers.
    width : float
        Standard deviation of the tubes, or of a typical component if the evidence is a function, latent units.
    least : float
        Population below which nothing flows through a passage; negative if all passages count.
    """

    states: tuple[State, ...]
    curves: dict[tuple[int, int], Tensor]
    fit: Tensor
    weights: Tensor
    width: float = 1.0
    least: float = 0.0

    @classmethod
    def of(
        cls,
        prior: GaussianMixture,
        states: Sequence[State],
        evidence: Tensor | Evidence | None = None,
        seed: int = 0,
    ) -> Network:
        """Build the network of a density and fit its populations to particles.

        Parameters
        ----------
        prior : GaussianMixture
            Density.
        states : sequence of State
            States of `prior` to connect.
        evidence : (n, d) tensor or callable, optional
            Particles, given by their latents or, for sharper evidence, by the likelihood of their images
            (`CryoTwin.likelihood`). By default, 10,000 latents are drawn from `prior`.
        seed : int
            Seed for drawing these latents.
        """
        if evidence is None:
            evidence = prior.detach().sample(10_000, seed)
        prior = without_dead(prior.detach())
        width = typical_width(prior)
        if not callable(evidence):
            points = require_points(evidence, prior.latent_dim, "evidence")
            width = tube_width(prior, states, points, _straight(states), width)
            evidence = tube(points, width)
        places = of_states(prior, states, evidence, width)
        straight, bent = _straight(states), _bent(prior, states)
        fit_straight, fit_bent = fits(evidence, straight), fits(evidence, bent)
        nowhere = torch.full_like(places[:, :1], -_OUTLIER * prior.latent_dim)
        first = relative(torch.cat([places, *fit_straight.values(), *fit_bent.values(), nowhere], dim=1))
        populations = shares_of(first, _STEPS)[len(states) : -1].split([len(straight), len(bent)])
        of_straight, of_bent = (
            dict(zip(curves, p.tolist(), strict=True)) for curves, p in zip((straight, bent), populations, strict=True)
        )
        chosen = {pair for pair in bent if of_bent[pair] > of_straight[pair]}
        curves = straight | {pair: bent[pair] for pair in chosen}
        columns = fit_straight | {pair: fit_bent[pair] for pair in chosen}
        fit = relative(torch.cat([places, *columns.values(), nowhere], dim=1))
        return cls(tuple(states), curves, fit, shares_of(fit, _STEPS), width, _LEAST / len(fit))

    def resampled(self, generator: torch.Generator, number: Tensor) -> Network:
        """Return the network for `bootstrap_weights`, drawn with `generator`, of particles in groups `number` (n,)."""
        counts = bootstrap_weights(number, generator)
        return replace(self, least=0.0, weights=shares_of(self.fit, _STEPS_AGAIN, self.weights.clamp_min(1e-4), counts))

    @property
    def populations(self) -> np.ndarray:
        return self.weights[len(self.states) : -1].numpy()

    @cached_property
    def conductances(self) -> np.ndarray:
        """Conductance between each pair of states, (S, S) float64, symmetric."""
        matrix = np.zeros((len(self.states), len(self.states)))
        for (i, j), curve, population in zip(self.curves, self.curves.values(), self.populations, strict=True):
            length = float(curve.diff(dim=0).norm(dim=1).sum())
            matrix[i, j] = matrix[j, i] = max(population, _FLOOR) / length**2
        return matrix

    def flux(self, first: int, last: int) -> np.ndarray:
        """Return the net flux (S, S) from state to state, for one unit of flux from `first` to `last`."""
        conductances = self.conductances
        laplacian = np.diag(conductances.sum(1)) - conductances
        inner = [i for i in range(len(conductances)) if i not in (first, last)]
        potential = np.zeros(len(conductances))
        potential[last] = 1.0
        if inner:
            potential[inner] = np.linalg.solve(laplacian[np.ix_(inner, inner)], conductances[inner, last])
        net = conductances * np.maximum(potential - potential[:, None], 0)
        return net / net[first].sum()

    def ways(self, first: int, last: int, max_ways: int, least_share: float) -> list[tuple[tuple[int, ...], float]]:
        """Decompose the flux greedily: repeatedly remove the path with the largest bottleneck; return (states, share).

        `first` and `last` are state indices. Returns at most `max_ways` paths with shares of at least `least_share`.
        """
        if first > last:  # ties are broken in the same way in both directions
            return [(way[::-1], width) for way, width in self.ways(last, first, max_ways, least_share)]
        flux = self.flux(first, last)
        for pair, population in zip(self.curves, self.populations, strict=True):
            if self.least >= 0 and population < max(_FLOOR, self.least):
                flux[pair] = flux[pair[::-1]] = 0.0
        ways: list[tuple[tuple[int, ...], float]] = []
        while len(ways) < max_ways:
            way, width = _widest(flux, first, last)
            if width < max(least_share, _NOTHING):
                break
            ways.append((way, width))
            for i, j in pairwise(way):
                flux[i, j] -= width
        return ways

    def corners(self, way: Sequence[int]) -> list[Tensor]:
        """Return the passages (m, d) along `way`, a sequence of state indices."""
        return [self.curves[i, j] if i < j else self.curves[j, i].flip(0) for i, j in pairwise(way)]


def _straight(states: Sequence[State]) -> dict[tuple[int, int], Tensor]:
    """Return the straight line between each pair of states."""
    latents = torch.stack([s.latent for s in states])
    return {(i, j): latents[[i, j]] for i, j in combinations(range(len(states)), 2)}


def _bent(prior: GaussianMixture, states: Sequence[State]) -> dict[tuple[int, int], Tensor]:
    """Return the curved passages that differ from the straight line and stay nearest to their two end states.

    They are shortest paths for the resistance ∫ |dγ| / P^(1/d), which weighs density and length equally.
    """
    landscape, straight = Landscape.of(prior, exponent=1 / prior.latent_dim), _straight(states)
    apart = torch.cdist(torch.stack([s.latent for s in states]), landscape.points)
    place, nearest = apart.argmin(1).numpy(), apart.argmin(0).numpy()
    graph = landscape.graph()
    graph.data = np.exp(np.clip(graph.data - graph.data.min(), 0, 600))
    before = dijkstra(graph, directed=False, indices=place, return_predecessors=True)[1]
    bent = {}
    for (i, j), line in straight.items():
        way = [int(place[j])]
        while way[-1] != place[i] and way[-1] >= 0:
            way.append(int(before[i, way[-1]]))
        if way[-1] < 0 or not {*nearest[way]} <= {i, j}:
            continue
        curve = torch.cat([line[:1], landscape.points[way[-2:0:-1]], line[1:]])
        if distance(curve, line) > typical_width(prior):
            bent[i, j] = relax(prior, curve, landscape.exponent, rounds=2)
    return bent


def distance(first: Tensor, second: Tensor, n: int = 64) -> float:
    """Return the mean distance from points on one curve (m, d) to the other curve: the larger of both directions."""
    apart = torch.cdist(equidistant(first, n), equidistant(second, n))
    return float(torch.maximum(apart.amin(0).mean(), apart.amin(1).mean()))


def _widest(flux: np.ndarray, first: int, last: int) -> tuple[tuple[int, ...], float]:
    """Return the path with the largest bottleneck and its flux (Dijkstra with the minimum in place of the sum)."""
    n = len(flux)
    width, before, done = np.zeros(n), np.full(n, -1), np.zeros(n, bool)
    width[first] = np.inf
    for _ in range(n):
        i = int(np.argmax(np.where(done, -1, width)))
        done[i] = True
        through = np.minimum(width[i], flux[i])
        better = (through > width) & ~done
        width[better], before[better] = through[better], i
    way = [last]
    while way[-1] != first:
        if before[way[-1]] < 0:
            return (), 0.0
        way.append(int(before[way[-1]]))
    return tuple(way[::-1]), float(width[last])
