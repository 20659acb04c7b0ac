"""Export of selected particles to the program that the images came from.

    rows = ct.select_near(z, path, n=5000)                     # or ct.select_state(z, model.prior, state)
    ct.write_selection("near_path.star", particles, rows)      # or .cs, or .pkl for cryoDRGN

An exported selection refers to the original file, and so to the original images at their original pixel size, even if
the particles are a prepared stack: the files know which rows of which file they come from (`origins`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cryotwin_nb.errors import InputError, warn_user
from cryotwin_nb.exchange.cryodrgn_run import CryodrgnRun
from cryotwin_nb.formats.cryodrgn import write_indices
from cryotwin_nb.formats.files import require_file, require_suffix
from cryotwin_nb.formats.fingerprints import fingerprints
from cryotwin_nb.formats.metadata import select
from cryotwin_nb.formats.origins import Chain, chain_of, written
from cryotwin_nb.formats.subsets import write_cs_subset, write_star_subset
from cryotwin_nb.particles.particles import Particles

_SUBSETS = {".star": write_star_subset, ".cs": write_cs_subset}


def write_selection(
    path: str | os.PathLike,
    particles: Particles,
    rows: Any = None,
    columns: Mapping[str, Any] | None = None,
    original: bool = True,
    run: CryodrgnRun | None = None,
) -> Path:
    """Write selected particles in the format they were read from, or as an index list for cryoDRGN; return the path.

    Prepared particles are written as rows of the file that they were prepared from.

    Parameters
    ----------
    path : path-like
        .star, for particles read from a .star file: the lines of the selected particles, unchanged. All columns and
        tables are kept, known or unknown, to the last digit. Origins in pixels beside data_optics, which RELION
        ignores, are also written in Å.
        .cs, for particles read from a .cs file: the selected rows with all fields.
        .pkl: row numbers, from 0, in the original file, for cryoDRGN's ``--ind``.
    particles : Particles
        Particles that `rows` refers to; they can be a subset, read with ``indices=`` or obtained by slicing.
    rows : (k,) int, (n,) bool or slice, optional
        Rows of `particles` to write; by default all. They are written in the order of the original file.
    columns : mapping of str to (k,), optional
        Columns to add: numbers or strings, one per row in `rows`. The key "outlier_score" is written as
        ``_cryotwinOutlierScore`` (.star) or ``cryotwin/outlier_score`` (.cs).
    original : bool
        Write rows of the original file; if False, rows of the file that the particles were read from.
    run : CryodrgnRun, optional
        cryoDRGN run whose latents `rows` refers to; its selection is applied to the particles.

    Raises
    ------
    InputError
        If the particles were not read from a file of that format, a particle is selected twice or does not exist, the
        original file is missing or was changed since, a column has the wrong shape or already exists, or the file
        cannot be written. In these cases, nothing is written.

    Warns
    -----
    UserWarning
        If the stacks are found relative to the original file, but not relative to the new one, or origins in Å are
        added.

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
    if run is not None and not np.array_equal(particles.source_rows, run.indices):
        particles = particles[run.indices]
    rows = np.arange(len(particles)) if rows is None else select(rows, len(particles), path, unique=True)
    extra = {name: _values(name, values, len(rows), path) for name, values in (columns or {}).items()}
    source, source_rows = particles.source, particles.source_rows[rows]
    if len(np.unique(source_rows)) < len(source_rows):
        sentence = f"{path} cannot be written: a particle is selected twice."
        remedy = "Remove the repeated indices."
        raise InputError(path, "a particle selected twice", "each at most once", remedy, sentence)
    is_list = path.suffix.lower() == ".pkl"
    chain = chain_of(source, source_rows)
    if original:
        chain = _back(chain, through_copies=is_list)
        source, source_rows = (chain[0].source, chain[0].rows) if chain else (source, source_rows)
    order = np.argsort(source_rows)
    source_rows, extra = source_rows[order], {name: values[order] for name, values in extra.items()}
    chain = tuple(link[order] for link in chain)
    if is_list:
        if extra:
            sentence = f"{path} cannot hold columns: a .pkl file is a list of row numbers."
            raise InputError(path, "columns", "none", "Write a .star or .cs file, or omit `columns`.", sentence)
        write_indices(path, source_rows)
        written(path, chain)
        return path
    if source is None or source.suffix.lower() != path.suffix.lower():
        found = f"particles read from {source or 'no file'}"
        remedy = "Use the suffix of the file that they were read from, or .pkl for a list of row numbers."
        sentence = f"{path} cannot be written: it needs particles read from a {path.suffix} file, not {found}."
        raise InputError(path, found, f"particles read from a {path.suffix} file", remedy, sentence)
    if path.resolve() == source.resolve():
        sentence = f"{path} is the file that these particles are read from."
        raise InputError(path, "the source", "another file", "Choose another name or folder.", sentence)
    moved = _SUBSETS[path.suffix.lower()](path, source, source_rows, extra)
    written(path, chain, is_copy=True)
    if moved:
        text = f"{path}: the stack {moved!r} is found relative to {source}, but not relative to the new file."
        warn_user(f"{text} Read the new file with datadir=, or write it into the same project.")
    return path


def _back(chain: Chain, through_copies: bool) -> Chain:
    """Return the chain from the original file on, which must be as it was when the particles were read from it."""
    first = 0
    while first + 1 < len(chain) and (through_copies or not chain[first].is_copy):
        first += 1
    if first:
        link = chain[first]
        source = require_file(link.source, "original particle file")
        now = fingerprints(source)
        if len(now) <= link.rows.max() or not np.array_equal(now[link.rows], link.fingerprint):
            found = f"other rows than those that {chain[0].source} was made from"
            remedy = "Restore the original file, or pass original=False for rows of the file that was read."
            sentence = f"{source} was sorted, filtered or replaced: it has {found}."
            raise InputError(source, found, "the original file", remedy, sentence)
    return chain[first:]


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
