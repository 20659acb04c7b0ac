"""Passages between states: how many particles each holds, and the flux through all of them at once.

A path of least resistance looks at the density at its points. In eight dimensions that is the inverse of a volume: a
passage twice as wide is 128 times less dense and holds as many particles. What decides between routes is the number of
particles for each unit of length. So states and the curves between them are fitted to the particles as a mixture of
points and of thin tubes, whose weights are found by expectation-maximisation; most weights become 0 (Lindsay 1983).

A passage of population p and length l lets p / l^2 through for a unit of potential: in series ∫ dl / (p / l). Potential
and flux between two states are those of a network of resistors (transition-path theory: Metzner, Schuette and
Vanden-Eijnden 2009).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np
import torch
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.maxflux import relax
from cryotwin_nb.pathways.ridgeline import equidistant
from cryotwin_nb.pathways.states import State

Evidence = Callable[[Tensor], Tensor]
"""Points (m, d) to (n, m): how much less likely each particle is there than at its own best, in nats."""

_POINTS = 24  # of a passage, its ends not included
_OUTLIER = 4.5  # nats for each dimension at which a particle belongs nowhere: three standard deviations in each
_FLOOR = 1e-6  # least population: no passage is quite closed
_NOTHING = 1e-12  # a share that rounding leaves
_STEPS, _STEPS_AGAIN = 400, 60  # of expectation-maximisation, from scratch and for a draw of the bootstrap


@dataclass(frozen=True, eq=False)
class Network:
    """States of a density and the passages between them.

    Attributes
    ----------
    states : tuple of State
    curves : dict of (i, j) to (m, d) tensor
        The passage between two states, i < j, from the latent of i to that of j.
    populations : (P,) float64
        Share of the particles in each passage, in the order of `curves`.
    fit : (n, S + P + 1) float64
        Relative likelihood of each particle in each state, each passage, and nowhere.
    weights : (S + P + 1,) float64
        Shares of those.
    """

    states: tuple[State, ...]
    curves: dict[tuple[int, int], Tensor]
    fit: Tensor
    weights: Tensor

    @classmethod
    def of(
        cls,
        prior: GaussianMixture,
        states: Sequence[State],
        evidence: Tensor | Evidence | None = None,
        seed: int = 0,
    ) -> Network:
        """The network of a density, populated by particles.

        Parameters
        ----------
        prior : GaussianMixture
        states : sequence of State
        evidence : (n, d) tensor or callable, optional
            The particles: their latents, or what their images say (`CryoTwin.likelihood`), which is sharper. By default
            10,000 latents are drawn from `prior`.
        """
        prior = prior.detach()
        if evidence is None:
            evidence = prior.sample(10_000, seed)
        if not callable(evidence):
            evidence = tube(evidence, typical_width(prior))
        places = evidence(torch.stack([s.latent for s in states])).double()
        straight, bent = _straight(states), _bent(prior, states)
        fit_straight, fit_bent = _fits(evidence, straight), _fits(evidence, bent)
        nowhere = torch.full_like(places[:, :1], -_OUTLIER * prior.latent_dim)
        first = _relative(torch.cat([places, *fit_straight.values(), *fit_bent.values(), nowhere], dim=1))
        populations = _shares(first, _STEPS)[len(states) : -1].split([len(straight), len(bent)])
        of_straight, of_bent = (
            dict(zip(curves, p.tolist(), strict=True)) for curves, p in zip((straight, bent), populations, strict=True)
        )
        chosen = {pair for pair in bent if of_bent[pair] > of_straight[pair]}
        curves = straight | {pair: bent[pair] for pair in chosen}
        columns = fit_straight | {pair: fit_bent[pair] for pair in chosen}
        fit = _relative(torch.cat([places, *columns.values(), nowhere], dim=1))
        return cls(tuple(states), curves, fit, _shares(fit, _STEPS))

    def resampled(self, generator: torch.Generator) -> Network:
        """The network of particles that count Exp(1) times each: a draw of the Bayesian bootstrap (Rubin 1981)."""
        counts = torch.empty(len(self.fit), dtype=torch.float64).exponential_(generator=generator)
        return replace(self, weights=_shares(self.fit, _STEPS_AGAIN, self.weights.clamp_min(1e-4), counts))

    @property
    def populations(self) -> np.ndarray:
        return self.weights[len(self.states) : -1].numpy()

    @cached_property
    def conductances(self) -> np.ndarray:
        """(S, S) float64, symmetric."""
        matrix = np.zeros((len(self.states), len(self.states)))
        for (i, j), curve, population in zip(self.curves, self.curves.values(), self.populations, strict=True):
            length = float(curve.diff(dim=0).norm(dim=1).sum())
            matrix[i, j] = matrix[j, i] = max(population, _FLOOR) / length**2
        return matrix

    def flux(self, first: int, last: int) -> np.ndarray:
        """Net flux (S, S) from state to state where one unit goes from `first` to `last`."""
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
        """Ways of states and their shares of the flux: the widest, taken away, then the widest of what is left."""
        if first > last:  # of ways equally wide, the same is taken from either end
            return [(way[::-1], width) for way, width in self.ways(last, first, max_ways, least_share)]
        flux = self.flux(first, last)
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
        """The passages (m, d) along a way of states."""
        return [self.curves[i, j] if i < j else self.curves[j, i].flip(0) for i, j in pairwise(way)]


def tube(latents: Tensor | np.ndarray, width: float) -> Evidence:
    """Evidence of latents (n, d) that lie about their structures with standard deviation `width`."""
    latents = torch.as_tensor(latents).double()
    return lambda points: torch.cdist(latents, points.double()).square() / (-2 * width**2)


def typical_width(prior: GaussianMixture) -> float:
    """Standard deviation along the longest axis of a component: the median over the mass."""
    longest = torch.linalg.eigvalsh(prior.covariances)[:, -1].sqrt()
    order = longest.argsort()
    middle = torch.searchsorted(prior.weights[order].cumsum(0), 0.5)
    return float(longest[order[middle.clamp_max(len(order) - 1)]])


def _straight(states: Sequence[State]) -> dict[tuple[int, int], Tensor]:
    """The straight line between each two states."""
    latents = torch.stack([s.latent for s in states])
    return {(i, j): latents[[i, j]] for i, j in combinations(range(len(states)), 2)}


def _bent(prior: GaussianMixture, states: Sequence[State]) -> dict[tuple[int, int], Tensor]:
    """The ways between two states that the density bends, where it does and they come nearest to no third state.

    They are shortest paths for the resistance ∫ |dγ| / P^(1/d), which minds the density as much as the length.
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


def _fits(evidence: Evidence, curves: dict[tuple[int, int], Tensor]) -> dict[tuple[int, int], Tensor]:
    """Log-likelihood (n, 1) of each particle somewhere on each curve, all places on it being alike."""
    fits = {}
    for pair, curve in curves.items():
        at = evidence(equidistant(curve, _POINTS + 2)[1:-1]).double()
        fits[pair] = at.logsumexp(1, keepdim=True) - np.log(_POINTS)
    return fits


def _relative(log_fit: Tensor) -> Tensor:
    return (log_fit - log_fit.amax(1, keepdim=True)).exp()


def distance(first: Tensor, second: Tensor, n: int = 64) -> float:
    """Mean distance of points along one curve (m, d) to the other, the larger of the two ways round."""
    apart = torch.cdist(equidistant(first, n), equidistant(second, n))
    return float(torch.maximum(apart.amin(0).mean(), apart.amin(1).mean()))


def _shares(fit: Tensor, steps: int, start: Tensor | None = None, counts: Tensor | None = None) -> Tensor:
    """Weights (m,) of a mixture whose components are known: expectation-maximisation on relative likelihoods (n, m)."""
    counts = torch.ones(len(fit), dtype=fit.dtype) if counts is None else counts
    shares = torch.ones(fit.shape[1], dtype=fit.dtype) if start is None else start
    counts, shares = counts / counts.sum(), shares / shares.sum()
    for _ in range(steps):
        shares = shares * (fit.T @ (counts / (fit @ shares)))
    return shares


def _widest(flux: np.ndarray, first: int, last: int) -> tuple[tuple[int, ...], float]:
    """The way on which the least flux is largest (Dijkstra's algorithm with the minimum in place of the sum)."""
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
