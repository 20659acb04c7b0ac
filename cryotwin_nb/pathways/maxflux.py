"""Path of least resistance between two points of a density, found as a shortest path in a graph and then relaxed.

J[γ] = ∫ |dγ| / P(γ) is the resistance of a path (MaxFlux: Huo and Straub 1997). Its minimiser satisfies
kappa n = -(grad log P)_perp at every point, where kappa n is the curvature vector of the path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import POSITIVE, InputError, choice, guarded
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.dead import without_dead
from cryotwin_nb.pathways.ends import End, end_point, named
from cryotwin_nb.pathways.joining import joined
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.relaxation import path_of_knots, relax
from cryotwin_nb.pathways.ridgeline import Pathway, densify, log_resistance, ridgeline
from cryotwin_nb.pathways.routes import first_route


@guarded(n_steps=(2, 100_000), exponent=POSITIVE)
def max_flux(
    prior: GaussianMixture,
    start: End,
    end: End,
    n_steps: int = 11,
    exponent: float = 1.0,
    spacing: str = "length",
    seed: int = 0,
    landscape: Landscape | None = None,
    evidence: Tensor | np.ndarray | Callable[[Tensor], Tensor] | None = None,
    via: Sequence[End] = (),
) -> Pathway:
    """Return the path of least resistance ∫ |dγ| / P(γ)^exponent between two points of latent space.

    Parameters
    ----------
    prior : GaussianMixture
        Density in which to find the path.
    start, end : int, str, State or (d,) float
        A component (its mean), a state from `find_states` or its name, or any latent vector, such as a mode or a
        particle's latent.
    n_steps : int
        Number of steps K; the path has K + 1 points.
    exponent : float
        Power lambda of the density. 1 is MaxFlux; smaller values give shorter paths that follow the density less
        closely; 1/d is a compromise between density and length.
    spacing : {"length", "flux"}
        "length" places the points at equal distances along the path; "flux" places them at equal shares of its
        resistance and thus concentrates them where the density is low.
    seed : int
        Seed of the samples of Algorithm 1.
    landscape : Landscape, optional
        Landscape of `prior` with this `exponent`, which can be reused for many paths.
    evidence : (n, d) tensor or callable, optional
        Particles, as in `find_routes`: the path then follows the states of the first route that `find_routes` returns
        for the same arguments, and is the path of least resistance in each passage (with an exponent of 1).
    via : sequence, optional
        Way-points, given like the ends: the paths between neighbouring points are joined, and the points placed at
        equal distances along the whole.

    Returns
    -------
    Pathway
        Path whose deviation from stationarity is given as `residual`. Swapping start and end reverses the path.

    Raises
    ------
    InputError
        If an end is neither a component nor a latent, both ends are the same, or a setting is out of range.

    Notes
    -----
    The candidates are the straight line, the paths of Algorithm 1 in both directions and the shortest path in a graph
    (`Landscape`). The candidate with the lowest J along its dense curve is relaxed, and a relaxation step is kept only
    if J decreases. The J of the result is therefore never higher than that of any candidate.

    Density is particles per volume: a path through other states can have a lower J than a passage in which there are
    more particles per unit length, but which is wider. With `evidence`, the sequence of states is that of the largest
    flux of particles, and the J of the result can be higher than that of a candidate. If both ends belong to one state,
    the evidence has no influence. In dead directions (`GaussianMixture.fit`), the density is one broad Gaussian.

    Examples
    --------
    >>> path = ct.max_flux(model.prior, start=0, end=1, n_steps=5)
    >>> path.latents.shape
    torch.Size([6, 4])
    """
    choice("spacing", spacing, ("length", "flux"))
    full = prior.detach()
    if len(via):
        landscape = landscape or Landscape.of(without_dead(full), exponent)
        options: dict[str, Any] = {"exponent": exponent, "seed": seed, "landscape": landscape, "evidence": evidence}
        return joined(full, [max_flux(full, *p, n_steps, **options) for p in pairwise([start, *via, end])], n_steps)
    known = landscape if exponent == 1 else None
    start, end = named(full, "start", start, known), named(full, "end", end, known)
    ends = torch.stack([end_point(full, "start", start), end_point(full, "end", end)])
    prior = without_dead(full)
    if torch.equal(*ends):
        sentence = "Start and end are the same point."
        raise InputError("end", "the start", "another point", "Choose two different ends.", sentence)
    if evidence is not None:
        way = first_route(full, ends, evidence, seed, landscape if exponent == 1 else None)
        if way is not None:
            return path_of_knots(prior, way, n_steps, exponent, spacing, start, end)
    reverse = tuple(ends[0].tolist()) > tuple(ends[1].tolist())  # always solve in the same direction
    ordered = ends.flip(0) if reverse else ends
    shortest = through_landscape(landscape or Landscape.of(prior, exponent), ordered)
    candidates = [ordered, *_algorithm_1(full, start, end, reverse, seed), shortest]
    best = min(candidates, key=lambda k: log_resistance(prior, densify(prior, k), exponent))
    knots = relax(prior, best, exponent)
    return path_of_knots(prior, knots.flip(0) if reverse else knots, n_steps, exponent, spacing, start, end)


def through_landscape(landscape: Landscape, ends: Tensor) -> Tensor:
    """Return the vertices (m, d) of the shortest path in the graph between two points (2, d)."""
    n = len(landscape.points)
    joined = landscape.joined_to(ends)
    way = joined.shortest(n, n + 1)
    return joined.points[way] if way else ends


def _algorithm_1(prior: GaussianMixture, start: End, end: End, reverse: bool, seed: int) -> list[Tensor]:
    """Return both paths of Algorithm 1, from end to start if `reverse`; none unless both ends are components."""
    if not isinstance(start, (int, np.integer)) or not isinstance(end, (int, np.integer)):
        return []
    pairs = ((int(start), int(end)), (int(end), int(start)))
    there, back = (ridgeline(prior, *pair, seed=seed).latents.to(prior.means) for pair in pairs)
    knots = [there, back.flip(0)]
    exact = prior.means[[int(start), int(end)]]
    for k in knots:
        k[0], k[-1] = exact
    return [k.flip(0) for k in knots] if reverse else knots
