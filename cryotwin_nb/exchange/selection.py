"""Selection of particles in latent space, and its export to the program that the images came from.

    rows = ct.select_near(z, path, n=5000)                     # or ct.select_state(z, model.prior, state)
    ct.write_selection("near_path.star", particles, rows)      # or .cs, or .pkl for cryoDRGN

An exported selection refers to the file that the particles were read from, and so to the original images at their
original pixel size.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError, warn_user
from cryotwin_nb.formats.cryodrgn import write_indices
from cryotwin_nb.formats.files import require_suffix
from cryotwin_nb.formats.metadata import select
from cryotwin_nb.formats.subsets import write_cs_subset, write_star_subset
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.pathways.ridgeline import Pathway
from cryotwin_nb.pathways.states import State

_SUBSETS = {".star": write_star_subset, ".cs": write_cs_subset}


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
        Rows of `z`, nearest first.

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
    for name, value in {"n": n, "radius": radius}.items():
        if value is not None and not value > 0:
            raise InputError(f"select_near, {name}", f"{value}", "a positive number", "Pass a positive value.")
    latents = _array(z)
    points = np.atleast_2d(_array(place.curve if isinstance(place, Pathway) else place))
    if (
        latents.ndim != 2
        or points.ndim != 2
        or latents.shape[1] != points.shape[1]
        or 0 in (*latents.shape, len(points))
    ):
        found = f"latents of shape {latents.shape} and points of shape {points.shape}"
        raise InputError("select_near", found, "shapes (N, d) and (m, d)", "Pass latents and points of the same model.")
    distance, _ = cKDTree(points).query(latents)
    rows = np.argsort(distance, kind="stable")
    within = len(rows) if radius is None else int(np.searchsorted(distance[rows], radius, side="right"))
    return rows[: within if n is None else min(n, within)]


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
    if not components or not all(isinstance(c, int) and 0 <= c < prior.n_components for c in components):
        expected = f"components from 0 to {prior.n_components - 1}"
        raise InputError("select_state", f"components {components}", expected, "Pass a state of this mixture.")
    if not 0 <= least < 1:
        raise InputError("least", f"{least}", "a probability from 0 to below 1", "Use 0.5 for disjoint states.")
    share = prior.responsibilities(torch.as_tensor(z))[:, components].sum(1).double().cpu().numpy()
    rows = np.argsort(-share, kind="stable")
    return rows[share[rows] > least]


def write_selection(
    path: str | os.PathLike,
    particles: Particles,
    rows: Any = None,
    columns: Mapping[str, Any] | None = None,
) -> Path:
    """Write selected particles in the format they were read from, or as an index list for cryoDRGN; return the path.

    Parameters
    ----------
    path : path-like
        .star, for particles read from a .star file: the lines of the selected particles, unchanged. All columns and
        tables are kept, known or unknown, to the last digit.
        .cs, for particles read from a .cs file: the selected rows with all fields.
        .pkl: row numbers, from 0, in the file that the particles were read from, for cryoDRGN's ``--ind``.
    particles : Particles
        Particles that `rows` refers to; they can be a subset, read with ``indices=`` or obtained by slicing. If they
        were rescaled into a new stack, pass the original particles, read with
        ``ct.Particles.read("run_data.star", images=False)``.
    rows : (k,) int, (n,) bool or slice, optional
        Rows of `particles` to write; by default all. They are written in the order of the original file.
    columns : mapping of str to (k,), optional
        Columns to add: numbers or strings, one per row in `rows`. The key "outlier_score" is written as
        ``_cryotwinOutlierScore`` (.star) or ``cryotwin/outlier_score`` (.cs).

    Raises
    ------
    InputError
        If the particles were not read from a file of that format, a particle is selected twice or does not exist, a
        column has the wrong shape or already exists, or the file cannot be written. In these cases, nothing is written.

    Warns
    -----
    UserWarning
        If the stacks are found relative to the original file, but not relative to the new one.

    Notes
    -----
    Stack names are kept unchanged: RELION and cryoSPARC resolve them relative to the project folder, not to the folder
    of the file. RELION keeps unknown columns, with a warning. Some RELION tools before version 3.1.2 fail on unknown
    columns, so none are added unless requested.

    Examples
    --------
    >>> particles = ct.Particles.read("particles.star", contrast="dark")
    >>> ct.write_selection("selected.star", particles, [0, 7]).name
    'selected.star'
    """
    path = require_suffix(path, *_SUBSETS, ".pkl")
    rows = np.arange(len(particles)) if rows is None else select(rows, len(particles), path, unique=True)
    extra = {name: _values(name, values, len(rows), path) for name, values in (columns or {}).items()}
    source_rows = particles.source_rows[rows]
    if len(np.unique(source_rows)) < len(source_rows):
        sentence = f"{path} cannot be written: a particle is selected twice."
        remedy = "Remove the repeated indices."
        raise InputError(path, "a particle selected twice", "each at most once", remedy, sentence)
    order = np.argsort(source_rows)
    source_rows, extra = source_rows[order], {name: values[order] for name, values in extra.items()}
    if path.suffix.lower() == ".pkl":
        if extra:
            sentence = f"{path} cannot hold columns: a .pkl file is a list of row numbers."
            raise InputError(path, "columns", "none", "Write a .star or .cs file, or omit `columns`.", sentence)
        write_indices(path, source_rows)
        return path
    source = particles.source
    if source is None or source.suffix.lower() != path.suffix.lower():
        found = f"particles read from {source or 'no file'}"
        remedy = "Use the suffix of the file that they were read from, or .pkl for a list of row numbers."
        sentence = f"{path} cannot be written: it needs particles read from a {path.suffix} file, not {found}."
        raise InputError(path, found, f"particles read from a {path.suffix} file", remedy, sentence)
    if path.resolve() == source.resolve():
        sentence = f"{path} is the file that these particles are read from."
        raise InputError(path, "the source", "another file", "Choose another name or folder.", sentence)
    moved = _SUBSETS[path.suffix.lower()](path, source, source_rows, extra)
    if moved:
        text = f"{path}: the stack {moved!r} is found relative to {source}, but not relative to the new file."
        warn_user(f"{text} Read the new file with datadir=, or write it into the same project.")
    return path


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().numpy()


def _values(name: str, values: Any, n: int, path: Path) -> np.ndarray:
    """Return a column to add: numbers, or strings without spaces."""
    if not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise InputError(path, f"a column named {name!r}", "a name like 'outlier_score'", "Rename the column.")
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (n,) or array.dtype.kind not in "fiubU":
        found = f"column {name!r} of shape {array.shape} and type {array.dtype}"
        raise InputError(path, found, f"numbers or strings of shape ({n},)", "Pass one value for each row in `rows`.")
    if array.dtype.kind == "U":
        return np.array([re.sub(r"[\s#'\"]+", "_", word) or "none" for word in array.tolist()])
    return array
