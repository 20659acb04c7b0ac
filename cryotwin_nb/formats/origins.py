"""Where the rows of a file come from, recorded beside it: the source files, their rows and the rows' fingerprints.

    original.star --prepare--> prepared.star (+ .origin.npz) --train--> latents.npy (+ .origin.npz)

A selection made with these latents can then be written as rows of the original, and a file that was sorted or filtered
in the meantime is refused instead of being read by row number.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import array_headers, atomic
from cryotwin_nb.formats.fingerprints import fingerprints
from cryotwin_nb.formats.seals import seal, sealed_note
from cryotwin_nb.formats.sets import remove_file, written_path

RECORD_SUFFIX = ".origin.npz"
_PARTICLES = (".star", ".cs")


@dataclass(frozen=True)
class Link:
    """Rows of one file: rows of a particle file that n particles come from.

    Attributes
    ----------
    source : Path
        The file.
    rows : (n,) int64
        Row of each particle, from 0.
    fingerprint : (n,) uint64
        Fingerprints of these rows (see `fingerprints`).
    total : int
        Number of rows of the file.
    is_copy : bool
        Whether the rows were copied unchanged from the next file of the chain, as in a selection.
    """

    source: Path
    rows: np.ndarray
    fingerprint: np.ndarray
    total: int
    is_copy: bool = False

    def __getitem__(self, rows: np.ndarray) -> Link:
        return replace(self, rows=self.rows[rows], fingerprint=self.fingerprint[rows])


Chain = tuple[Link, ...]


def record_of(path: str | os.PathLike) -> Path:
    """Return the file beside `path` that records where its rows come from."""
    path = Path(path)
    return path.with_name(path.name + RECORD_SUFFIX)


def chain_of(source: Path | None, rows: np.ndarray) -> Chain:
    """Return where rows of a particle file come from: the file itself, then what it was made from.

    Raises
    ------
    InputError
        If the file is not the one that the record beside it was written for.
    """
    if source is None:
        return ()
    own = fingerprints(source)
    if len(rows) and rows.max() >= len(own):
        sentence = f"{source} has changed since it was read: row {rows.max()} (from 0) is missing."
        remedy = "Read the file again and repeat the selection."
        raise InputError(source, f"{len(own)} particles", f"row {rows.max()}", remedy, sentence)
    record = record_of(source)
    if not record.is_file():
        return (Link(source, rows, own[rows], len(own)),)
    first, *others = load(record, source.parent)
    if len(own) != len(first.rows) or not np.array_equal(own, first.fingerprint):
        found, expected = f"other rows than those recorded in {record.name}", "the file as it was written"
        remedy = f"Restore the file. If its rows are to be used as they are, delete {record.name}."
        raise InputError(source, found, expected, remedy, f"{source} was changed since it was written: {found}.")
    return tuple(link[rows] for link in (replace(first, source=source), *others))


def save(
    record: Path, chain: Sequence[Link], folder: Path | None = None, notes: Mapping[str, str | Path] | None = None
) -> None:
    """Write a chain of n-particle links, completely or not at all.

    Parameters
    ----------
    record : Path
        File to write.
    chain : sequence of Link
        Links of n particles each.
    folder : Path, optional
        Folder that relative paths refer to; by default that of `record`. Paths are stored absolute and relative.
    notes : dict of str or Path, optional
        What else is to be known about the file that the rows belong to; see `notes_in`.
    """
    folder = (record.parent if folder is None else folder).resolve()
    stored: dict[str, np.ndarray] = {}
    if notes:
        words = {k: _stored_path(v, folder) if isinstance(v, Path) else v for k, v in notes.items()}
        stored["notes"] = np.array(json.dumps(words))
    for number, link in enumerate(chain):
        stored[f"rows_{number}"], stored[f"fingerprint_{number}"] = link.rows, link.fingerprint
        stored[f"source_{number}"] = np.array(_stored_path(link.source, folder))
        stored[f"total_{number}"] = np.array([link.total, link.is_copy], dtype=np.int64)
    with atomic(record) as partial, open(partial, "w+b") as file:
        np.savez(file, **stored)  # type: ignore[arg-type]
        seal(file)


def load(record: Path, folder: Path) -> Chain:
    """Read a chain; raise `InputError` if the record cannot be read."""
    return _read(record, folder)[0]


def notes_in(record: Path, folder: Path) -> dict[str, str | Path]:
    """Read the notes in a record, empty in those of earlier builds; raise `InputError` if it cannot be read."""
    return _read(record, folder)[1]


def _read(record: Path, folder: Path) -> tuple[Chain, dict[str, str | Path]]:
    chain: list[Link] = []
    try:
        sealed_note(record)
        needed = sum(math.prod(shape) * size for shape, _, size in array_headers(record).values())
        if needed > record.stat().st_size:  # `save` does not compress; a small archive could expand beyond the memory
            raise ValueError("arrays larger than the file")
        with open(record, "rb") as file, np.load(file, allow_pickle=False) as stored:
            while f"rows_{len(chain)}" in stored:
                number = len(chain)
                rows, fingerprint = stored[f"rows_{number}"], stored[f"fingerprint_{number}"]
                source, totals = _found_path(stored[f"source_{number}"], folder), stored[f"total_{number}"]
                types = [array.dtype for array in (rows, fingerprint, totals)]
                if types != [np.int64, np.uint64, np.int64] or rows.shape != fingerprint.shape:
                    raise ValueError("unexpected array shapes or types")
                if rows.ndim != 1 or (chain and len(rows) != len(chain[0].rows)) or (rows < 0).any():
                    raise ValueError("unexpected rows")
                total, copied = totals.tolist()
                chain.append(Link(source, rows, fingerprint, total, bool(copied)))
            words = json.loads(str(stored["notes"])) if "notes" in stored else {}
        notes = {k: _found_path(v, folder) if isinstance(v, list) else str(v) for k, v in words.items()}
        if not chain:
            raise ValueError("no rows")
    except Exception as error:  # a damaged archive can raise almost any exception
        remedy = "Delete it; the files can be used without it, but their rows are then not checked."
        sentence = f"{record} cannot be read: {error}."
        raise InputError(record, f"no readable record ({error})", "a record of rows", remedy, sentence) from error
    return tuple(chain), notes


def _stored_path(path: Path, folder: Path) -> list[str]:
    """Return an absolute path, and the path relative to `folder` ("" on another drive)."""
    path = path.resolve()
    try:
        return [str(path), os.path.relpath(path, folder)]
    except ValueError:
        return [str(path), ""]


def _found_path(stored: Sequence[str], folder: Path) -> Path:
    """Return the file at the stored relative path if it exists, because folders are moved; else the absolute path."""
    absolute, relative = stored
    beside = Path(os.path.normpath(folder / str(relative)))
    return beside if relative and beside.is_file() else Path(str(absolute))


def written(
    path: Path, chain: Sequence[Link], is_copy: bool = False, notes: Mapping[str, str | Path] | None = None
) -> None:
    """Record where the rows of the particle file or list of rows `path`, just written, come from; `notes` as in `save`.

    Without a chain, a record of an earlier file of this name is deleted.
    """
    if not chain:
        remove_file(record_of(path))
        return
    own: list[Link] = []
    if path.suffix.lower() in _PARTICLES:
        values = fingerprints(written_path(path))
        own = [Link(path, np.arange(len(values)), values, len(values), is_copy)]
    save(record_of(path), [*own, *chain], notes=notes)


def origin_of(path: Path) -> Path | None:
    """Return the file that the rows of `path` were taken from, or None if that is not recorded."""
    record = record_of(path)
    chain = load(record, path.parent) if record.is_file() else ()
    return next((link.source for link in chain[path.suffix.lower() in _PARTICLES :]), None)


def rows_in(path: Path, listed: Path, rows: np.ndarray) -> np.ndarray:
    """Return the rows of the particle file `path` that a list of rows of another file refers to.

    Parameters
    ----------
    path : Path
        Particle file: the one that `listed` counts, or one made from it.
    listed : Path
        .pkl file, for which `written` has recorded whose rows it counts. Without a record, they are those of `path`.
    rows : (k,) int64
        Its content.

    Raises
    ------
    InputError
        If these particles are not in `path`, or `path` was changed since.
    """
    record = record_of(listed)
    recorded = load(record, listed.parent) if record.is_file() else ()
    if not recorded or not np.array_equal(recorded[0].rows, rows):  # the list was written again, by another program
        return rows
    common = align(chain_of(path, np.arange(len(fingerprints(path)))), recorded)
    if common is None or len(common[0]) < len(rows):
        source = recorded[0].source
        sentence = f"{listed} lists rows of {source}, which are not all in {path}, or not in these rows."
        remedy = f"Use it with {source}, or select among the particles of {path} again."
        raise InputError(listed, f"rows of {source}", f"rows of {path}", remedy, sentence)
    return common[0][np.argsort(common[1])]


def align(ours: Chain, theirs: Chain) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the positions (k,) in each of two lists of particles at which they hold the same ones, in our order.

    The lists are compared by the rows that they come from in one file. Returns None if no file is found in which rows
    of the same number have the same fingerprint, or if neither list contains all particles of the other.
    """
    for mine in ours:
        for other in theirs:
            order = np.argsort(other.rows, kind="stable")
            at = np.minimum(np.searchsorted(other.rows, mine.rows, sorter=order), len(order) - 1)
            place = order[at]
            common = other.rows[place] == mine.rows
            same = other.fingerprint[place] == mine.fingerprint
            covered = common.sum() in (len(mine.rows), len(other.rows))
            if common.any() and covered and same[common].all():
                return np.flatnonzero(common), place[common]
    return None
