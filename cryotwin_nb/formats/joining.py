"""Join of cryoSPARC tables by uid: particle files with their passthrough files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryotwin_nb.errors import InputError


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
    rows = np.arange(len(first))
    places = []
    for table, path in zip(tables, paths, strict=True):
        if table.ndim != 1 or "uid" not in (table.dtype.names or ()) or table.dtype["uid"].kind not in "iu":
            raise InputError(path, "no uid field", "uid, by which rows are joined", "Pass files of one cryoSPARC job.")
        if len(table) == 0:
            raise InputError(path, "no rows", "at least one", "Check the job that wrote this file.")
        values, count = np.unique(table["uid"], return_counts=True)
        if len(values) < len(table):
            found = f"the uid {values[count.argmax()]} {count.max()} times"
            raise InputError(path, found, "each uid once", "Remove the duplicates in cryoSPARC.")
    for other, path in zip(others, paths[1:], strict=True):
        order = np.argsort(other["uid"])
        at = np.minimum(np.searchsorted(other["uid"], first["uid"], sorter=order), len(other) - 1)
        place = order[at]
        there = other["uid"][place] == first["uid"]
        if not there.any():
            raise InputError(path, f"no uid of {paths[0]}", "rows in common", "Pass files of the same particles.")
        if not there.all() or len(other) > there.sum():
            text = f"{paths[0]} ({len(first)} rows) and {path} ({len(other)} rows) have {there.sum()} rows in common"
            notes.append(f"{text}; reading these.")
        places.append((place, there))
    for _, there in places:
        rows = rows[there[rows]]
    fields = [(name, first.dtype[name]) for name in first.dtype.names or ()]
    sources = {name: first[name][rows] for name, _ in fields}
    for other, (place, _) in zip(others, places, strict=True):
        for name in other.dtype.names or ():
            if name not in sources:
                fields.append((name, other.dtype[name]))
                sources[name] = other[name][place[rows]]
    joined = np.empty(len(rows), fields)
    for name, values in sources.items():
        joined[name] = values
    return joined, rows
