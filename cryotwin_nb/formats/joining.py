"""Join of tables by uid: cryoSPARC's particle files with their passthrough files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.metadata import select


def join(tables: Sequence[np.ndarray], paths: Sequence[Path], notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that all tables have in common, in the order of the first, with the fields of all.

    Parameters
    ----------
    tables : sequence of structured arrays
        Tables with a uid field. If two have a field of the same name, that of the earlier one is used.
    paths : sequence of Path
        Their files.
    notes : list of str
        Receives the numbers of rows, if some are in one file only.

    Returns
    -------
    table : (n,) structured array
        Joined table.
    rows : (n,) int64
        Rows of the first table.

    Raises
    ------
    InputError
        If a table has no uid, a uid occurs twice, or the tables have no row in common.
    """
    first, *others = tables
    uids = [uids_of(table, path) for table, path in zip(tables, paths, strict=True)]
    for values, path in zip(uids, paths, strict=True):
        require_once(values, path)
    places = []
    for values, path in zip(uids[1:], paths[1:], strict=True):
        place, there = lookup(uids[0], values)
        describe_join(paths[0], path, len(values), place, there, notes)
        places.append((place, there))
    rows = np.flatnonzero(np.logical_and.reduce([there for _, there in places]))
    sources = dict.fromkeys(first.dtype.names or (), (first, rows))
    for other, (place, _) in zip(others, places, strict=True):
        more = [name for name in other.dtype.names or () if name not in sources]
        sources |= dict.fromkeys(more, (other, place[rows]))
    joined = np.empty(len(rows), [(name, table.dtype[name]) for name, (table, _) in sources.items()])
    for name, (table, at) in sources.items():
        joined[name] = table[name][at]
    return joined, rows


def uids_of(table: np.ndarray, path: Path) -> np.ndarray:
    """Return the uids (n,) uint64 of a .cs file's rows; raise `InputError` if it has none."""
    if table.ndim != 1 or "uid" not in (table.dtype.names or ()) or table.dtype["uid"].kind not in "iu":
        raise InputError(path, "no uid field", "uid, by which rows are joined", "Pass files of one cryoSPARC job.")
    if len(table) == 0:
        raise InputError(path, "no rows", "at least one", "Check the job that wrote this file.")
    return table["uid"].astype(np.uint64)


def require_once(uids: np.ndarray, path: Path) -> None:
    """Raise `InputError` if a uid occurs twice."""
    values, count = np.unique(uids, return_counts=True)
    if len(values) < len(uids):
        found = f"the uid {values[count.argmax()]} {count.max()} times"
        raise InputError(path, found, "each uid once", "Remove the duplicates in cryoSPARC.")


def lookup(wanted: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the position (n,) int64 of each wanted key in `keys`, and whether it is there (n,) bool."""
    order = np.argsort(keys)
    ranked = keys[order]
    at = np.minimum(np.searchsorted(ranked, wanted), len(keys) - 1)
    return order[at], ranked[at] == wanted


def places_of(
    indices: object, file_rows: np.ndarray, n: int, path: Path, where: object, notes: list[str]
) -> np.ndarray:
    """Return where selected rows of the first file are in the joined table, without those that another file lacks.

    Parameters
    ----------
    indices : object
        Rows of the first file, as in `Particles.read`.
    file_rows : (m,) int64
        Row of the first file of each joined row.
    n : int
        Number of rows of the first file.
    path : Path
        The first file.
    where : object
        Name of the selection, for messages.
    notes : list of str
        Receives the numbers, if some are left out.

    Raises
    ------
    InputError
        If `indices` is no selection of rows of the first file, or none of them is in all files.
    """
    rows = select(indices, n, where, unique=True)
    place, there = lookup(rows, file_rows)
    if not there.any():
        remedy = "Select among the particles of all files."
        raise InputError(where, f"none of the {len(rows)} selected rows of {path} in all files", "at least one", remedy)
    if not there.all():
        notes.append(f"{path}: reading {there.sum()} of the {len(rows)} selected particles.")
    return place[there]


def describe_join(path: Path, other: Path, n: int, place: np.ndarray, there: np.ndarray, notes: list[str]) -> None:
    """Add the numbers of rows to the notes if some are in one file only; raise `InputError` if none is in both.

    Parameters
    ----------
    path, other : Path
        The two files.
    n : int
        Number of rows of the other file.
    place, there : (m,) int64, (m,) bool
        Result of `lookup`, for the rows of `path`.
    notes : list of str
        Receives the numbers.
    """
    common = int(there.sum())
    if not common:
        raise InputError(other, f"no row of {path}", "rows in common", "Pass files of the same particles.")
    if common < len(there) or len(np.unique(place[there])) < n:
        text = f"{path} ({len(there)} rows) and {other} ({n} rows) have {common} rows in common"
        notes.append(f"{text}; reading these.")
