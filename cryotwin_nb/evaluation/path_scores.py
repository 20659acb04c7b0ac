"""Scores of paths and routes against a ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.evaluation.metric import Decode
from cryotwin_nb.evaluation.truth_scores import block_occupancies, block_order, true_block_orders
from cryotwin_nb.pathways.ridgeline import equidistant
from cryotwin_nb.truth.molecules import ROUTE_SHARES
from cryotwin_nb.truth.truth import Truth

if TYPE_CHECKING:
    from cryotwin_nb.pathways import Route


class CurveDistance(NamedTuple):
    """Distances between a curve and the true curve, in units of z."""

    mean: float
    """Mean distance of the points of the true curve from the scored curve."""
    hausdorff: float
    """Hausdorff distance: the largest distance of a point of either curve from the other curve."""


class RouteScores(NamedTuple):
    """Scores of routes of the assembling subunit against the four simulated routes."""

    recall: float
    """Fraction of the simulated routes that occur among the found routes above a minimum share."""
    precision: float
    """Fraction of the routes above a minimum share whose blocks appear in a simulated order."""
    f1: float
    """Harmonic mean of recall and precision."""
    false_share: float
    """Largest share of a route whose block order was not simulated."""
    kendall_tau: tuple[float, ...]
    """Kendall's tau between the block order of each route and the most similar simulated order; 1 if equal."""
    share_error: float
    """Total variation distance between the found and the simulated route shares, 0 to 1."""


def curve_distance(curve: Tensor, true_curve: Tensor, n_points: int = 200) -> CurveDistance:
    """Return the distances between a curve and the true curve.

    Parameters
    ----------
    curve : (m, d)
        Points of the curve.
    true_curve : (k, d)
        Points of the true curve.
    n_points : int
        Number of equidistant points that each curve is resampled to.
    """
    curves = (torch.as_tensor(c).double() for c in (curve, true_curve))
    found, true = (equidistant(c, n_points) for c in curves)
    apart = torch.cdist(true, found)
    back, there = apart.amin(0), apart.amin(1)
    return CurveDistance(float(there.mean()), float(torch.maximum(back.max(), there.max())))


def latents_at(z: Tensor, truth: Truth, coordinates: np.ndarray, n_neighbours: int = 30) -> Tensor:
    """Return the latents (m, d) of structures with given true coordinates, as means over the nearest particles.

    Parameters
    ----------
    z : (n, d)
        Latents, in the order of `truth`.
    truth : Truth
        Ground truth of the particles.
    coordinates : (m, q)
        True coordinates of the structures.
    n_neighbours : int
        Number of particles to average: the nearest ones in true coordinates.
    """
    known = torch.as_tensor(truth.coordinates, dtype=torch.float64)
    apart = torch.cdist(torch.as_tensor(np.asarray(coordinates)).double(), known)
    nearest = apart.topk(min(n_neighbours, len(known)), largest=False)
    return torch.as_tensor(z).double()[nearest.indices].mean(1)


def path_block_order(decode: Decode, latents: Tensor, truth: Truth) -> tuple[str, ...]:
    """Return the names of the blocks in the order in which they appear in the maps along a path.

    Parameters
    ----------
    decode : callable
        Function from latents (m, d) to maps (m, D, D, D).
    latents : (K+1, d)
        Points of the path.
    truth : Truth
        Ground truth with the blocks.
    """
    return tuple(block_order(block_occupancies(decode(latents), truth), truth.coordinate_names))


def route_scores(routes: Sequence[Route], decode: Decode, truth: Truth, least_share: float = 0.05) -> RouteScores:
    """Score routes of the assembling subunit, from its first to its last state, against the simulated routes.

    Parameters
    ----------
    routes : sequence of Route
        Routes from `find_routes`.
    decode : callable
        Function from latents (m, d) to maps (m, D, D, D).
    truth : Truth
        Ground truth with the blocks.
    least_share : float
        Minimum share that a route needs to count in recall, precision and `kendall_tau`.
    """
    simulated = true_block_orders()
    orders = [path_block_order(decode, route.latents, truth) for route in routes]
    shares = np.array([route.share for route in routes])
    true, counted = [order in simulated for order in orders], shares >= least_share
    found = {order for order, good, counts in zip(orders, true, counted, strict=True) if good and counts}
    recall = len(found) / len(simulated)
    precision = sum(np.array(true, bool) & counted) / max(sum(counted), 1)
    of_order = np.array([shares[[o == order for o in orders]].sum() for order in simulated])
    wrong = shares[~np.array(true, bool)]
    return RouteScores(
        recall,
        float(precision),
        2 * recall * precision / max(recall + precision, 1e-12),
        float(wrong.max(initial=0.0)),
        tuple(max(kendall_tau(order, p) for p in simulated) for order, counts in zip(orders, counted) if counts),
        float((np.abs(of_order / max(shares.sum(), 1e-12) - ROUTE_SHARES).sum() + wrong.sum()) / 2),
    )


def kendall_tau(first: Sequence[str], second: Sequence[str]) -> float:
    """Return Kendall's tau of two orders of names: 1 if equal, -1 if reversed.

    Parameters
    ----------
    first, second : sequence of str
        The two orders. Pairs of `second` with a name missing from `first` count as 0.
    """
    place, other = ({name: i for i, name in enumerate(order)} for order in (first, second))
    pairs = list(combinations(second, 2))
    agree = [
        0 if a not in place or b not in place else np.sign((place[a] - place[b]) * (other[a] - other[b]))
        for a, b in pairs
    ]
    return float(np.mean(agree)) if pairs else 1.0
