"""Particles chosen on the latent space, and written for the program that the images came from.

    rows = ct.select_near(z, path, n=5000)                     # or ct.select_state(z, model.prior, state)
    ct.write_selection("near_path.star", particles, rows)      # or .cs, or .pkl for cryoDRGN

What is written refers to the file that the particles were read from: the original images at their original pixels.
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
    """The particles whose latents lie nearest to a point, to any of several points, or to a path.

    Parameters
    ----------
    z : (N, d)
        Latents of the particles.
    place : Pathway, (d,) or (m, d)
        For a `Pathway`, its whole curve counts, not only the decoded points.
    n : int, optional
        At most this many, the nearest.
    radius : float, optional
        Only those within this distance. The latent space is isometric: equal distances are equal differences of maps.

    Returns
    -------
    rows : (k,) int64
        Rows of `z`, the nearest first.

    Raises
    ------
    InputError
        If neither n nor radius is given, or the dimensions differ.
    """
    from scipy.spatial import cKDTree

    if n is None and radius is None:
        sentence = "select_near needs n, radius or both."
        raise InputError("select_near", "neither n nor radius", "one or both", "Give n=1000, for example.", sentence)
    for name, value in {"n": n, "radius": radius}.items():
        if value is not None and not value > 0:
            raise InputError(f"select_near, {name}", f"{value}", "a positive number", "Choose a positive value.")
    latents = _array(z)
    points = np.atleast_2d(_array(place.curve if isinstance(place, Pathway) else place))
    if (
        latents.ndim != 2
        or points.ndim != 2
        or latents.shape[1] != points.shape[1]
        or 0 in (*latents.shape, len(points))
    ):
        found = f"latents of shape {latents.shape} and points of shape {points.shape}"
        raise InputError("select_near", found, "shapes (N, d) and (m, d)", "Give latents and points of one model.")
    distance, _ = cKDTree(points).query(latents)
    rows = np.argsort(distance, kind="stable")
    within = len(rows) if radius is None else int(np.searchsorted(distance[rows], radius, side="right"))
    return rows[: within if n is None else min(n, within)]


def select_state(
    z: Tensor | np.ndarray, prior: GaussianMixture, state: State | int | Sequence[int], least: float = 0.5
) -> np.ndarray:
    """The particles that belong to a state, or to components of the mixture, with a probability above `least`.

    Parameters
    ----------
    z : (N, d)
        Latents of the particles.
    prior : GaussianMixture
        Their density.
    state : State, int or sequence of int
        One of `find_states`, or components; `components_of_labels` gives those of a name.
    least : float
        Between 0 and 1. Above 0.5 no particle belongs to two states.

    Returns
    -------
    rows : (k,) int64
        Rows of `z`, the surest first.

    Raises
    ------
    InputError
        If a component does not exist, or `least` is no probability.
    """
    components = list(state.components) if isinstance(state, State) else np.atleast_1d(np.asarray(state)).tolist()
    if not components or not all(isinstance(c, int) and 0 <= c < prior.n_components for c in components):
        expected = f"components from 0 to {prior.n_components - 1}"
        raise InputError("select_state", f"components {components}", expected, "Give a state of this mixture.")
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
    """Write some particles in the format that they were read from, or as a list for cryoDRGN; returns the file.

    Parameters
    ----------
    path : path-like
        .star, for particles read from a .star file: its lines as they are, of the selected particles. All columns and
        tables stay, known or unknown, to the last digit.
        .cs, for particles read from a .cs file: its rows with all fields.
        .pkl: row numbers in the file that the particles were read from, from 0, for cryoDRGN's ``--ind``.
    particles : Particles
        Those that `rows` counts; themselves read with ``indices=`` or sliced, if you like. Of particles that were
        rescaled into a new stack, give the original: ``ct.Particles.read("run_data.star", images=False)``.
    rows : (k,) int, (n,) bool or slice, optional
        Rows of `particles`; by default all. They are written in the order of the original file.
    columns : mapping of str to (k,), optional
        Numbers or words for each of `rows`, added as ``_cryotwinOutlierScore`` (.star) or ``cryotwin/outlier_score``
        (.cs) where the key is "outlier_score".

    Raises
    ------
    InputError
        If the particles were not read from a file of that format, a particle is selected twice or not there, a column
        does not fit or exists, or the file cannot be written. Nothing is written then.

    Warns
    -----
    UserWarning
        If the stacks are found from where the original file is, but not from where the new one is.

    Notes
    -----
    Names of stacks are kept as they are: RELION and cryoSPARC resolve them from the folder of the project, not from
    that of the file. RELION keeps columns that it does not know, with a warning; versions before 3.1.2 have tools that
    fail on them, so that none is added unless asked for.
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
            raise InputError(path, "columns", "none", "Write a .star or .cs file, or leave columns out.", sentence)
        write_indices(path, source_rows)
        return path
    source = particles.source
    if source is None or source.suffix.lower() != path.suffix.lower():
        found = f"particles read from {source or 'no file'}"
        remedy = "Choose the suffix of the file that they were read from, or .pkl for a list of row numbers."
        sentence = f"{path} cannot be written: it needs particles read from a {path.suffix} file, not {found}."
        raise InputError(path, found, f"particles read from a {path.suffix} file", remedy, sentence)
    if path.resolve() == source.resolve():
        sentence = f"{path} is the file that these particles are read from."
        raise InputError(path, "the source", "another file", "Choose another name or folder.", sentence)
    moved = _SUBSETS[path.suffix.lower()](path, source, source_rows, extra)
    if moved:
        text = f"{path}: stacks keep their names, like {moved!r}, which is not found from here as it was from {source}."
        warn_user(f"{text} Read the new file with datadir=, or write it into that project.")
    return path


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().numpy()


def _values(name: str, values: Any, n: int, path: Path) -> np.ndarray:
    """A column to add: numbers, or words without spaces."""
    if not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise InputError(path, f"a column named {name!r}", "a name like 'outlier_score'", "Rename the column.")
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (n,) or array.dtype.kind not in "fiubU":
        found = f"column {name!r} of shape {array.shape} and type {array.dtype}"
        raise InputError(path, found, f"numbers or words of shape ({n},)", "Give one value for each of `rows`.")
    if array.dtype.kind == "U":
        return np.array([re.sub(r"[\s#'\"]+", "_", word) or "none" for word in array.tolist()])
    return array
