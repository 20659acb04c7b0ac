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
    """How far a curve is from the true one, latent units."""

    mean: float
    """Of the true curve's points from the curve."""
    hausdorff: float
    """The largest distance of a point of either from the other."""


class RouteScores(NamedTuple):
    """Routes of the assembling subunit against the four planted ones; only routes above a least share count."""

    recall: float
    """Planted routes found."""
    precision: float
    """Routes found whose blocks appear in a planted order."""
    f1: float
    false_share: float
    """Largest share of a route whose order is not planted."""
    kendall_tau: tuple[float, ...]
    """Of each route found: its order of blocks against the planted order that is most alike, 1 for the same."""
    share_error: float
    """Total variation between the shares found and planted, 0 to 1."""


def curve_distance(curve: Tensor, true_curve: Tensor, n_points: int = 200) -> CurveDistance:
    """Distances between a curve (m, d) and the true one (k, d)."""
    curves = (torch.as_tensor(c).double() for c in (curve, true_curve))
    found, true = (equidistant(c, n_points) for c in curves)
    apart = torch.cdist(true, found)
    back, there = apart.amin(0), apart.amin(1)
    return CurveDistance(float(there.mean()), float(torch.maximum(back.max(), there.max())))


def latents_at(z: Tensor, truth: Truth, coordinates: np.ndarray, n_neighbours: int = 30) -> Tensor:
    """Latents (m, d) of structures with true coordinates (m, q): means over the nearest particles."""
    known = torch.as_tensor(truth.coordinates, dtype=torch.float64)
    apart = torch.cdist(torch.as_tensor(np.asarray(coordinates)).double(), known)
    nearest = apart.topk(min(n_neighbours, len(known)), largest=False)
    return torch.as_tensor(z).double()[nearest.indices].mean(1)


def path_block_order(decode: Decode, latents: Tensor, truth: Truth) -> tuple[str, ...]:
    """Names of the blocks in the order in which they appear in the maps along a path (K+1, d)."""
    return tuple(block_order(block_occupancies(decode(latents), truth), truth.coordinate_names))


def route_scores(routes: Sequence[Route], decode: Decode, truth: Truth, least_share: float = 0.05) -> RouteScores:
    """Routes through the assembling subunit from its first to its last state, against those that were planted."""
    planted = true_block_orders()
    orders = [path_block_order(decode, route.latents, truth) for route in routes]
    shares = np.array([route.share for route in routes])
    true, counted = [order in planted for order in orders], shares >= least_share
    found = {order for order, good, counts in zip(orders, true, counted, strict=True) if good and counts}
    recall = len(found) / len(planted)
    precision = sum(np.array(true, bool) & counted) / max(sum(counted), 1)
    of_order = np.array([shares[[o == order for o in orders]].sum() for order in planted])
    wrong = shares[~np.array(true, bool)]
    return RouteScores(
        recall,
        float(precision),
        2 * recall * precision / max(recall + precision, 1e-12),
        float(wrong.max(initial=0.0)),
        tuple(max(kendall_tau(order, p) for p in planted) for order, counts in zip(orders, counted) if counts),
        float((np.abs(of_order / max(shares.sum(), 1e-12) - ROUTE_SHARES).sum() + wrong.sum()) / 2),
    )


def kendall_tau(first: Sequence[str], second: Sequence[str]) -> float:
    """Agreement of two orders of the same names: 1 the same, -1 reversed; pairs that either lacks count against it."""
    place, other = ({name: i for i, name in enumerate(order)} for order in (first, second))
    pairs = list(combinations(second, 2))
    agree = [
        0 if a not in place or b not in place else np.sign((place[a] - place[b]) * (other[a] - other[b]))
        for a, b in pairs
    ]
    return float(np.mean(agree)) if pairs else 1.0
