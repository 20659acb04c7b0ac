"""Graph of a mixture density: points through which paths are likely to pass, and the resistances between neighbours.

The points are the means, the modes and points on the ridge curves between neighbouring components. A ridge curve
contains all critical points of a two-component mixture (Ray and Lindsay 2005). Shortest paths in the graph initialise
`max_flux`; states and routes are also found with this graph. Computations are in the log domain, because resistances
differ by many orders of magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, dijkstra, minimum_spanning_tree
from scipy.spatial import cKDTree
from torch import Tensor

from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.dead import without_dead

_PARTNERS = 10  # number of components to which each component is joined by a ridge curve
_SHARES = (0.08, 0.2, 0.32, 0.44, 0.5, 0.56, 0.68, 0.8, 0.92)  # positions of the points on a ridge curve
_NEIGHBOURS = 9  # number of neighbours of each point; each mean is also joined to twice as many means
_PIECES = 8  # number of pieces into which a short edge is divided for integration
_AT_ONCE = 2**11  # number of edges integrated at once


@dataclass(frozen=True, eq=False)
class Landscape:
    """Graph of points in a density and the edges between them.

    Attributes
    ----------
    mixture : GaussianMixture
        Density P, with one broad Gaussian in dead directions (`without_dead`).
    points : (N, d) float64
        Vertices. The means come first, in the order of the components, except in the result of `near`.
    energy : (N,) float64
        -log P at the points, nats.
    edges : (E, 2) int64
        Indices of the two points of each edge.
    log_resistance : (E,) float64
        Log of the integral of |dz| / P^exponent along each edge, which is a straight line.
    ceiling : (E,) float64
        Highest energy on each edge, nats.
    exponent : float
        Power of the density in the resistance; 1 gives MaxFlux.
    """

    mixture: GaussianMixture
    points: Tensor
    energy: Tensor
    edges: np.ndarray
    log_resistance: np.ndarray
    ceiling: np.ndarray
    exponent: float = 1.0

    @classmethod
    def of(cls, mixture: GaussianMixture, exponent: float = 1.0) -> Landscape:
        """Build the landscape of `mixture`, with resistances ∫ |dz| / P^`exponent`."""
        mixture = without_dead(mixture.detach())
        curves = _ridge_curves(mixture)
        points = torch.cat([mixture.means, mixture.modes(), curves.flatten(0, 1)])
        near = cKDTree(points.numpy()).query(points.numpy(), k=min(_NEIGHBOURS + 1, len(points)))[1]
        along = np.arange(len(points))[len(points) - curves[..., 0].numel() :].reshape(curves.shape[:2])
        means = mixture.means.numpy()
        far = cKDTree(means).query(means, k=range(1, min(2 * _NEIGHBOURS + 1, len(means)) + 1))[1]
        pairs = np.concatenate(
            [
                np.stack([np.repeat(np.arange(len(points)), near.shape[1]), near.ravel()], axis=1),
                np.stack([along[:, :-1].ravel(), along[:, 1:].ravel()], axis=1),
                np.stack([np.repeat(np.arange(len(means)), far.shape[1]), far.ravel()], axis=1),
            ]
        )
        pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
        energy = -mixture.log_prob(points)
        measured = _integrals(mixture, points, energy, pairs, exponent)
        return cls(mixture, points, energy, pairs, *measured, exponent)

    def joined_to(self, extra: Tensor) -> Landscape:
        """Return the landscape with `extra` points (m, d), joined to their neighbours, all means and one another."""
        extra = extra.to(self.points)
        points, n = torch.cat([self.points, extra]), len(self.points)
        near = cKDTree(self.points.numpy()).query(extra.numpy(), k=min(4 * _NEIGHBOURS, n))[1]
        means = np.broadcast_to(np.arange(self.mixture.n_components), (len(extra), self.mixture.n_components))
        others = np.concatenate([near, means], axis=1)
        new = np.stack([others.ravel(), np.repeat(n + np.arange(len(extra)), others.shape[1])], axis=1)
        new = np.unique(np.concatenate([new, n + np.array(np.triu_indices(len(extra), 1)).T]), axis=0)
        energy = torch.cat([self.energy, -self.mixture.log_prob(extra)])
        resistance, ceiling = _integrals(self.mixture, points, energy, new, self.exponent)
        return Landscape(
            self.mixture,
            points,
            energy,
            np.concatenate([self.edges, new]),
            np.concatenate([self.log_resistance, resistance]),
            np.concatenate([self.ceiling, ceiling]),
            self.exponent,
        )

    def near(self, curve: Tensor, radius: float, highest: float = np.inf) -> Landscape:
        """Return the part within `radius` of `curve` (m, d), omitting edges whose log resistance exceeds `highest`."""
        kept = torch.cdist(self.points, curve.to(self.points)).amin(1) <= radius
        number = (kept.cumsum(0) - 1).numpy()
        inside = kept.numpy()[self.edges].all(1) & (self.log_resistance <= highest)
        parts = self.points[kept], self.energy[kept], number[self.edges[inside]]
        return Landscape(self.mixture, *parts, self.log_resistance[inside], self.ceiling[inside], self.exponent)

    def on(self, mixture: GaussianMixture) -> Landscape:
        """Return the landscape of `mixture` on the same points and edges."""
        energy = -mixture.log_prob(self.points)
        measured = _integrals(mixture, self.points, energy, self.edges, self.exponent)
        return Landscape(mixture, self.points, energy, self.edges, *measured, self.exponent)

    def shortest(self, start: int, end: int, allowed: np.ndarray | None = None) -> list[int] | None:
        """Return the path of least resistance through `allowed` points (N,) as point indices; None if there is no path.

        `start` and `end` are indices of points.

        In double precision, resistances more than 36 nats below the largest one do not change the sum. The parts of the
        path on either side of the edge with the highest resistance are therefore searched again separately.
        """
        graph = self.graph(allowed)
        tree = _minimum_spanning_tree(graph)
        path = self._dijkstra(graph, tree, start, end)
        return None if path is None else self._refined(graph, tree, path, depth=6)

    def _refined(self, graph: csr_matrix, tree: csr_matrix, path: list[int], depth: int) -> list[int]:
        if len(path) < 3 or depth == 0:
            return path
        worst = int(np.argmax([graph[i, j] for i, j in pairwise(path)]))
        parts = []
        for part in (path[: worst + 1], path[worst + 1 :]):
            better = self._dijkstra(graph, tree, part[0], part[-1]) if len(part) > 2 else part
            parts.append(self._refined(graph, tree, better or part, depth - 1))
        return parts[0] + parts[1]

    def _dijkstra(self, graph: csr_matrix, tree: csr_matrix, start: int, end: int) -> list[int] | None:
        """Return the shortest path, with resistances relative to the smallest bottleneck possible between the ends."""
        bottleneck = _bottleneck(tree, start, end)
        if bottleneck is None:
            return None
        bottleneck -= _lift(graph)
        weights = graph.copy()
        weights.data = np.exp(np.clip(graph.data - bottleneck, -600, 600))
        before = dijkstra(weights, directed=False, indices=start, return_predecessors=True)[1]
        path = [end]
        while path[-1] != start:
            path.append(int(before[path[-1]]))
        return path[::-1]

    def graph(self, allowed: np.ndarray | None = None) -> csr_matrix:
        """Return the symmetric matrix of log resistances between `allowed` points."""
        n = len(self.points)
        kept = slice(None) if allowed is None else allowed[self.edges].all(1)
        (i, j), values = self.edges[kept].T, self.log_resistance[kept]
        return csr_matrix((np.r_[values, values], (np.r_[i, j], np.r_[j, i])), shape=(n, n))


def _minimum_spanning_tree(graph: csr_matrix) -> csr_matrix:
    """Return the tree whose paths have the smallest possible largest edge: a symmetric matrix, raised by `_lift`."""
    raised = graph.copy()
    raised.data = graph.data + _lift(graph)
    tree = minimum_spanning_tree(raised)
    return (tree + tree.T).tocsr()


def _lift(graph: csr_matrix) -> float:
    """Return the offset that makes all log resistances positive: a sparse matrix treats zeros as missing edges."""
    return 1.0 - float(graph.data.min(initial=0.0))


def _bottleneck(tree: csr_matrix, start: int, end: int) -> float | None:
    """Return the largest edge on the path between two points of a tree, or None if there is no path."""
    before = breadth_first_order(tree, start, directed=False)[1]
    if start != end and before[end] < 0:
        return None
    largest, node = -np.inf, end
    while node != start:
        largest = max(largest, tree[node, before[node]])
        node = before[node]
    return float(largest)


def _ridge_curves(mixture: GaussianMixture) -> Tensor:
    """Return points (pairs, len(_SHARES) + 2, d) on the ridge curves between each component and its neighbours."""
    precision = torch.cholesky_inverse(torch.linalg.cholesky(mixture.covariances))
    pull = (precision @ mixture.means[..., None])[..., 0]
    apart = mixture.means[:, None] - mixture.means
    distance = torch.einsum("ijd,ide,ije->ij", apart, precision, apart)
    distance = (distance + distance.T).fill_diagonal_(torch.inf)
    near = distance.argsort(dim=1)[:, : min(_PARTNERS, mixture.n_components - 1)]
    rows = torch.arange(mixture.n_components)[:, None].expand_as(near)
    pairs = torch.unique(torch.stack([rows.flatten(), near.flatten()], 1).sort(dim=1).values, dim=0)
    i, j = pairs.T
    shares = torch.tensor((0.0, *_SHARES, 1.0)).to(pull)[:, None]
    weighted = (1 - shares)[..., None, None] * precision[i] + shares[..., None, None] * precision[j]
    force = (1 - shares)[..., None] * pull[i] + shares[..., None] * pull[j]
    return torch.cholesky_solve(force[..., None], torch.linalg.cholesky(weighted))[..., 0].transpose(0, 1).contiguous()


def _integrals(
    mixture: GaussianMixture, points: Tensor, energy: Tensor, pairs: np.ndarray, exponent: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return log ∫ |dz| / P^exponent along straight edges (E,) and the highest -log P on each edge (E,).

    Pieces longer than a typical standard deviation could miss a barrier, so long edges are divided into more pieces.
    """
    resistance, ceiling = np.empty(len(pairs)), np.empty(len(pairs))
    start, end = points[pairs[:, 0]], points[pairs[:, 1]]
    outer = energy[pairs].to(points)
    length = (end - start).norm(dim=1).clamp_min(1e-12)
    long = length > _PIECES * torch.linalg.eigvalsh(mixture.covariances)[:, -1].median().sqrt()
    for count, kept in ((_PIECES, ~long), (4 * _PIECES, long)):
        fractions = torch.linspace(0, 1, count + 1).to(points)[:, None]
        for rows in kept.nonzero()[:, 0].split(_AT_ONCE):
            between = start[rows, None] + fractions[1:-1] * (end - start)[rows, None]
            inside = -mixture.log_prob(between.flatten(0, 1)).view(len(rows), count - 1)
            along = torch.cat([outer[rows, :1], inside, outer[rows, 1:]], dim=1)
            upper, rise = torch.maximum(along[:, 1:], along[:, :-1]), exponent * along.diff(dim=1).abs()
            pieces = exponent * upper + (-torch.expm1(-rise.clamp_min(1e-12)) / rise.clamp_min(1e-12)).log()
            resistance[rows] = pieces.logsumexp(1) + (length[rows] / count).log()
            ceiling[rows] = along.amax(1)
    return resistance, ceiling
