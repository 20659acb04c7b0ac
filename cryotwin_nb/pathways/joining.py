"""Paths and routes by way of given points: those between neighbouring points, joined end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import chain, product
from math import prod

import numpy as np
import torch

from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.dead import without_dead
from cryotwin_nb.pathways.ridgeline import Pathway, pathway_from_knots
from cryotwin_nb.pathways.route import Route


def joined(prior: GaussianMixture, parts: Sequence[Pathway], n_steps: int) -> Pathway:
    """Return one path with n_steps + 1 equally spaced points along paths that continue each other."""
    curves = [part.curve for part in parts]
    knots = torch.cat([curves[0], *(curve[1:] for curve in curves[1:])])
    path = pathway_from_knots(without_dead(prior.detach()), knots, n_steps, method=parts[0].method)
    return replace(path, start=parts[0].start, end=parts[-1].end)


def joined_routes(
    prior: GaussianMixture, parts: Sequence[Sequence[Pathway]], n_steps: int, most: int, least_share: float
) -> list[Route]:
    """Return all combinations of the routes between neighbouring points, in order of decreasing share.

    The share of a combination is the product of the shares of its parts. A part within one state is a path, with a
    share of 1. There are no intervals: the draws of different parts are not independent.
    """
    found = []
    for combination in product(*parts):
        share = prod(getattr(part, "share", 1.0) for part in combination)
        path = joined(prior, combination, n_steps)
        states = list(chain.from_iterable(getattr(part, "states", ()) for part in combination))
        states = [s for i, s in enumerate(states) if i == 0 or s.name != states[i - 1].name]
        populations = chain.from_iterable(getattr(part, "populations", ()) for part in combination)
        values = {field.name: getattr(path, field.name) for field in fields(Pathway)} | {"method": "route"}
        frequency = min((getattr(part, "frequency", np.nan) for part in combination), default=np.nan)
        found.append(
            Route(**values, share=share, states=tuple(states), populations=tuple(populations), frequency=frequency)
        )
    found = sorted(found, key=lambda route: -route.share)
    return [route for route in found if route.share >= least_share][:most] or found[:1]
