"""Export of selected particles to the program that the images came from.

    rows = ct.select_near(z, path, n=5000)                     # or ct.select_state(z, model.prior, state)
    ct.write_selection("near_path.star", particles, rows)      # or .cs, or .pkl for cryoDRGN

An exported selection refers to the original file, and so to the original images at their original pixel size, even if
the particles are a prepared stack: the files know which rows of which file they come from (`origins`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cryotwin_nb.errors import InputError, warn_user
from cryotwin_nb.exchange.cryodrgn_run import CryodrgnRun
from cryotwin_nb.exchange.listing import listed_rows
from cryotwin_nb.exchange.selection import select_state
from cryotwin_nb.formats.cryodrgn import write_indices
from cryotwin_nb.formats.files import atomic, require_suffix, require_writable
from cryotwin_nb.formats.hand import mirrored_poses
from cryotwin_nb.formats.metadata import select
from cryotwin_nb.formats.origins import origin_of, record_of, written
from cryotwin_nb.formats.outputs import refuse_inputs, refuse_unlisted, remove_listed, summary_of
from cryotwin_nb.formats.sets import file_set
from cryotwin_nb.formats.stacks import IMAGES_PER_STACK
from cryotwin_nb.formats.subsets import write_cs_subset, write_star_subset
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.writing import inputs_of, refuse_foreign_records
from cryotwin_nb.pathways.states import State, find_states

_RELION = ("rlnClassNumber", "rlnRandomSubset")
_NAME = re.compile(r"[\w+-][\w.+-]{0,99}")
_LIST, _LISTED = "states.json", r"[\w+-][\w.+-]{0,99}\.(star|cs)(\.origin\.npz)?"
_WORD = re.compile(r"[\s#'\"\x00-\x1f\x7f-\x9f\ud800-\udfff]+")  # what a token of a STAR file cannot hold
_SUBSETS = {".star": write_star_subset, ".cs": write_cs_subset}


def write_selection(
    path: str | os.PathLike,
    particles: Particles,
    rows: Any = None,
    columns: Mapping[str, Any] | None = None,
    original: bool = True,
    run: CryodrgnRun | None = None,
    flip_hand: bool = False,
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
        Columns to add, or to replace: numbers or strings, one per row in `rows`. The key "outlier_score" is written as
        ``_cryotwinOutlierScore`` (.star) or ``cryotwin/outlier_score`` (.cs). For .star files, "rlnClassNumber" and
        "rlnRandomSubset" are also possible.
    original : bool
        Write rows of the original file; if False, rows of the file that the particles were read from.
    run : CryodrgnRun, optional
        cryoDRGN run whose latents `rows` refers to; its selection is applied to the particles.
    flip_hand : bool
        Write the poses of the mirror image, which belong to maps written with ``flip_hand=True``.

    Raises
    ------
    InputError
        If the particles were not read from a file of that format, a particle is selected twice or does not exist, the
        original file is missing or was changed since, a column has the wrong shape, or the file cannot be written. In
        these cases, nothing is written.

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
    source_rows = particles.source_rows[rows]
    if len(np.unique(source_rows)) < len(source_rows):
        sentence = f"{path} cannot be written: a particle is selected twice."
        remedy = "Remove the repeated indices."
        raise InputError(path, "a particle selected twice", "each at most once", remedy, sentence)
    is_list = path.suffix.lower() == ".pkl"
    if is_list and (extra or flip_hand):
        sentence = f"{path} cannot hold columns: a .pkl file is a list of row numbers."
        raise InputError(path, "columns", "none", "Write a .star or .cs file, or omit them.", sentence)
    source, chain = listed_rows(path, particles, source_rows, original)
    images: np.ndarray | None = particles.identity[rows] % IMAGES_PER_STACK
    if source != particles.source:
        source_rows, images = chain[0].rows, None  # compared by `listed_rows`
    order = np.argsort(source_rows)
    source_rows, images = source_rows[order], None if images is None else images[order]
    extra = {name: values[order] for name, values in extra.items()}
    chain = tuple(link[order] for link in chain)
    if is_list or source is None:
        with file_set(path.parent):
            write_indices(path, source_rows)
            written(path, chain)
        return path
    extra |= mirrored_poses(source, source_rows) if flip_hand else {}
    with file_set(path.parent):
        moved = _SUBSETS[path.suffix.lower()](path, source, source_rows, extra, images)
        written(path, chain, is_copy=True)
    if moved:
        text = f"{path}: the stack {moved!r} is found relative to {source}, but not relative to the new file."
        warn_user(f"{text} Read the new file with datadir=, or write it into the same project.")
    return path


def write_states(
    folder: str | os.PathLike,
    particles: Particles,
    z: Tensor | np.ndarray,
    prior: GaussianMixture,
    states: Sequence[State] | None = None,
    least: float = 0.5,
    flip_hand: bool = False,
    columns: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write the particles of each state to a file of its own, and all of them to one file with state numbers.

    Parameters
    ----------
    folder : path-like
        Output folder, created if missing. It receives S1.star, S2.star ... and states.star, whose rlnClassNumber is 1
        for S1, 2 for S2 and so on. For particles of a .cs file, these are .cs files with ``cryotwin/class_number``.
        Files that a former call listed in states.json are replaced or deleted; all other files are kept.
    particles : Particles
        Particles, read from a .star or .cs file, or prepared from one: then its rows are written.
    z : (n, d)
        Their latents.
    prior : GaussianMixture
        Mixture fitted to the latents.
    states : sequence of State, optional
        States, named as the files; by default, those of `find_states`.
    least : float
        Minimum posterior probability of a state, as in `select_state`; below 0.5, a particle could belong to several.
    flip_hand : bool
        Write the poses of the mirror image, as in `write_selection`.
    columns : mapping of str to (n,), optional
        Columns to add, one value per particle, as in `write_selection`.

    Returns
    -------
    list of Path
        The file of all states, then those of the states that hold particles.

    Raises
    ------
    InputError
        If `least` is below 0.5, a file would be replaced that states.json does not list, or as in `write_selection`.

    Examples
    --------
    >>> particles = ct.Particles.read("particles.star", contrast="dark")
    >>> [path.name for path in ct.write_states("states", particles, z, model.prior)][:2]
    ['states.star', 'S1.star']
    """
    if not 0.5 <= least < 1:
        raise InputError("least", f"{least}", "0.5 to below 1", "Use 0.5: no particle then belongs to two states.")
    states = find_states(prior) if states is None else states
    names = [state.name for state in states]
    wrong = next((n for n in names if not _NAME.fullmatch(n) or n == "states" or names.count(n) > 1), None)
    if wrong is not None:
        found, remedy = f"a state named {wrong!r}", "Rename the states: letters, digits, '_', '-', '+' and '.'."
        raise InputError(folder, found, "different names that can be file names, other than 'states'", remedy)
    members = {state.name: select_state(z, prior, state, least) for state in states}
    source = origin_of(particles.source) if particles.source else None
    suffix = (source or particles.source or Path("particles.star")).suffix.lower()
    column = "rlnClassNumber" if suffix == ".star" else "class_number"
    files = {"states": np.concatenate(list(members.values()))} | members
    number = np.zeros(len(particles), np.int64)
    for place, rows in enumerate(members.values(), 1):
        number[rows] = place
    added = {name: np.asarray(values) for name, values in (columns or {}).items()} | {column: number}
    paths = {name: Path(folder) / f"{name}{suffix}" for name, rows in files.items() if len(rows)}
    records = [*map(record_of, paths.values())]
    refuse_inputs([*paths.values(), *records], inputs_of(particles))
    refuse_foreign_records(records)
    require_writable(folder)
    before = summary_of(Path(folder) / _LIST).get("files")
    former = before if isinstance(before, list) else []
    ours = [path.name for path in paths.values() if record_of(path).is_file()]  # also by earlier builds, without a list
    refuse_unlisted(Path(folder), [*(path.name for path in paths.values()), _LIST], [*former, *ours], _LIST)
    with file_set(folder):
        for name, path in paths.items():
            own = {k: values[files[name]] for k, values in added.items()}
            write_selection(path, particles, files[name], own, flip_hand=flip_hand)
        listed = [*(path.name for path in [*paths.values(), *records]), _LIST]
        remove_listed(Path(folder), former, listed, _LISTED)
        summary = {"class numbers": {name: place for place, name in enumerate(names, 1)}, "files": listed}
        with atomic(Path(folder) / _LIST) as partial:
            partial.write_text(json.dumps(summary, indent=1))
    return [*paths.values()]


def _values(name: str, values: Any, n: int, path: Path) -> np.ndarray:
    """Return a column to add: numbers, or strings without spaces."""
    if name not in _RELION and not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name if isinstance(name, str) else ""):
        raise InputError(path, f"a column named {name!r}", "a name like 'outlier_score'", "Rename the column.")
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (n,) or array.dtype.kind not in "fiubU":
        found = f"column {name!r} of shape {array.shape} and type {array.dtype}"
        raise InputError(path, found, f"numbers or strings of shape ({n},)", "Pass one value for each row in `rows`.")
    if array.dtype.kind == "U":
        return np.array([_WORD.sub("_", word) or "none" for word in array.tolist()])
    return array
