"""Selection of particles in latent space: near a path, or in a state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import POSITIVE, InputError, guarded
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.points import as_numbers, require_points
from cryotwin_nb.pathways.ridgeline import Pathway
from cryotwin_nb.pathways.states import State


class Rows(np.ndarray):
    """Row numbers, int64, that know the number of rows they were selected among (`total`).

    Particles refuse rows that were selected among another number of latents: those of a filtered set, for example.
    """

    total: int | None

    def __array_finalize__(self, source: Any) -> None:
        self.total = getattr(source, "total", None)


def _among(rows: np.ndarray, total: int) -> Rows:
    known = rows.view(Rows)
    known.total = total
    return known


@guarded(n=(1, 2**62), radius=(POSITIVE[0], math.inf))
def select_near(
    z: Tensor | np.ndarray,
    place: Pathway | Tensor | np.ndarray,
    n: int | None = None,
    radius: float | None = None,
) -> np.ndarray:
    """Select the particles whose latents are nearest to a point, to any of several points, or to a path.

    Parameters
    ----------
    z : (N, d)
        Latents of the particles.
    place : Pathway, (d,) or (m, d)
        Path or points. For a `Pathway`, distances are to its whole curve, not only to the decoded points.
    n : int, optional
        Maximum number of particles; the nearest are selected.
    radius : float, optional
        Maximum distance, in units of z. The latent space is isometric: equal distances mean equal map differences.

    Returns
    -------
    rows : (k,) int64
        Rows of `z`, nearest first, with the number of latents as `rows.total`.

    Raises
    ------
    InputError
        If neither n nor radius is given, or the dimensions differ.

    Examples
    --------
    >>> path = ct.max_flux(model.prior, start=0, end=1)
    >>> len(ct.select_near(z, path, n=20))
    20
    """
    from scipy.spatial import cKDTree

    if n is None and radius is None:
        sentence = "select_near needs n, radius or both."
        raise InputError("select_near", "neither n nor radius", "one or both", "Pass n=1000, for example.", sentence)
    latents = require_points(z).cpu().double().numpy()
    given = as_numbers(place.curve if isinstance(place, Pathway) else place, "place", "Pass a path or points.")
    points = require_points(torch.atleast_2d(given), latents.shape[1], "place").cpu().double().numpy()
    distance, _ = cKDTree(points).query(latents)
    rows = np.argsort(distance, kind="stable")
    within = len(rows) if radius is None else int(np.searchsorted(distance[rows], radius, side="right"))
    return _among(rows[: within if n is None else min(n, within)], len(latents))


@guarded()
def select_state(
    z: Tensor | np.ndarray, prior: GaussianMixture, state: State | int | Sequence[int], least: float = 0.5
) -> np.ndarray:
    """Select the particles that belong to a state, or to mixture components, with a probability above `least`.

    Parameters
    ----------
    z : (N, d)
        Latents of the particles.
    prior : GaussianMixture
        Mixture fitted to the latents.
    state : State, int or sequence of int
        State from `find_states`, or component indices; `components_of_labels` returns the component with a given name.
    least : float
        Minimum posterior probability of the state, from 0 to below 1. Above 0.5, no particle belongs to two states.

    Returns
    -------
    rows : (k,) int64
        Rows of `z`, most probable first.

    Raises
    ------
    InputError
        If a component does not exist, or `least` is not a probability below 1.

    Examples
    --------
    >>> state = ct.find_states(model.prior)[0]
    >>> rows = ct.select_state(z, model.prior, state)
    """
    components = list(state.components) if isinstance(state, State) else np.atleast_1d(np.asarray(state)).tolist()
    if not components or not all(type(c) is int and 0 <= c < prior.n_components for c in components):
        expected = f"components from 0 to {prior.n_components - 1}"
        raise InputError("select_state", f"components {components}", expected, "Pass a state of this mixture.")
    if not 0 <= least < 1:
        raise InputError("least", f"{least}", "a probability from 0 to below 1", "Use 0.5 for disjoint states.")
    share = prior.responsibilities(require_points(z, prior.latent_dim))[:, components].sum(1).double().cpu().numpy()
    rows = np.argsort(-share, kind="stable")
    return _among(rows[share[rows] > least], len(rows))
