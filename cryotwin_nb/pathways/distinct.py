"""Distinct ways through a network of states: those that run alongside each other are merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from cryotwin_nb.pathways.network import Network, distance

_ALIKE = 2.0  # mean distance, in typical component widths, below which two routes are merged


def distinct_ways(
    network: Network, first: int, last: int, max_routes: int, least_share: float
) -> list[tuple[tuple[int, ...], float]]:
    """Return the distinct routes between two states with their shares; if all are empty, one without a share."""
    found = _merged(network, network.ways(first, last, 2 * max_routes, least_share))
    if not found and not network.ways(first, last, 1, 0.0):  # no particle between the ends
        found = [(network.ways(first, last, 1, 0.0)[0][0], 0.0) for network in [replace(network, least=-1.0)]]
    return found[:max_routes]


def _merged(network: Network, ways: Sequence[tuple[tuple[int, ...], float]]) -> list[tuple[tuple[int, ...], float]]:
    """Merge paths that run alongside each other, adding their shares; return them in order of decreasing share."""
    kept: list[tuple[tuple[int, ...], float]] = []
    for way, share in ways:
        known = alike(network, way, kept)
        if known is None:
            kept.append((way, share))
        else:
            kept[known] = (kept[known][0], kept[known][1] + share)
    return sorted(kept, key=lambda pair: -pair[1])


def alike(network: Network, way: Sequence[int], known: Sequence[tuple[tuple[int, ...], float]]) -> int | None:
    """Return the index of the known path that `way` equals or runs alongside, or None."""
    ways = [w for w, _ in known]
    if way in ways:
        return ways.index(way)
    curve = torch.cat(network.corners(way))
    apart = [distance(curve, torch.cat(network.corners(w))) for w in ways]
    return int(np.argmin(apart)) if apart and min(apart) < _ALIKE * network.width else None
