"""Subsets of STAR and .cs files: the selected particles, unchanged, with computed columns added.

STAR files are copied line by line instead of being parsed and rewritten, so content unknown to the reader is preserved.
Origins in pixels beside data_optics, which RELION ignores, are also written in Å.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cryotwin_nb.errors import InputError, warn_user
from cryotwin_nb.formats.cryosparc import open_table
from cryotwin_nb.formats.files import atomic, find_stack
from cryotwin_nb.formats.star import ORIGINS, read_star
from cryotwin_nb.formats.star_text import choose_particles, split, tokens

_NAME = "rlnImageName"
Columns = Mapping[str, np.ndarray]


def write_star_subset(path: Path, source: Path, rows: np.ndarray, columns: Columns) -> str | None:
    """Copy a STAR file with only the selected particles.

    Parameters
    ----------
    path, source : Path
        The new file and the file to copy.
    rows : (k,) int64
        Row numbers of the particles, from 0, in increasing order.
    columns : mapping of str to (k,)
        Columns to add: numbers, or strings without spaces.

    Returns
    -------
    str or None
        Name of the first stack, if it can be found from the folder of `source` but not from that of `path`.

    Raises
    ------
    InputError
        If `source` has too few particles or already has one of the columns, or `path` cannot be written.

    Warns
    -----
    UserWarning
        If origins in Å are added.
    """
    labels = [b"cryotwin" + name.title().replace("_", "").encode() for name in columns]
    with open(source, "rb") as lines, atomic(path) as partial, open(partial, "wb") as out:
        first = _copy(lines, out, rows, labels, list(columns.values()), source)
    return _moved(first, path, source)


def _copy(
    lines: BinaryIO, out: BinaryIO, rows: np.ndarray, labels: list[bytes], values: list[np.ndarray], source: Path
) -> str:
    """Copy a file except for the rows not selected; return the name of the first stack.

    RELION ends a table at a blank line and does not read carriage returns or trailing comments, so these are left out.
    It ignores origins in pixels beside data_optics, so these are also written in Å.
    """
    tables = split(source)
    names = choose_particles([name for name, found in tables.items() if _NAME in found.labels])
    if not names:
        raise _changed(source, 0, int(rows[0]))
    table = tables[names[0]]
    if len(rows) and rows[-1] >= len(table.rows):
        raise _changed(source, len(table.rows), int(rows[-1]))
    if "optics" in tables and set(ORIGINS["pixels"]) <= set(table.labels) and not {*ORIGINS["Å"]} & {*table.labels}:
        origins = _origins(source, rows)
        labels, values = [*labels, *(name.encode() for name in origins)], [*values, *origins.values()]
    first, last = table.label_line + 1, table.lines[-1] if table.rows else 0
    position, number_of = table.labels.index(_NAME), {table.lines[row]: i for i, row in enumerate(rows.tolist())}
    stack = ""
    for number, line in enumerate(lines, 1):
        text = line.rstrip(b"\r\n").removeprefix(b"\xef\xbb\xbf")
        if first <= number <= last:
            chosen = number_of.get(number)
            if chosen is None:
                continue
            words = tokens(text)
            stack = stack or words[position].partition(b"@")[2].decode(errors="replace")
            added = [_written(column[chosen]) for column in values]
            text = b" ".join(words) if b"#" in text else text
            text = b" ".join([text.rstrip(), *added]) if added else text
        out.write(text + b"\n")
        if number == table.label_line:
            out.write(_more_labels(table.labels, labels, source))
    return stack


def _origins(source: Path, rows: np.ndarray) -> Columns:
    """Return the origins of some particles in Å; none if the file lacks the pixel size, without which RELION fails."""
    try:
        shifts = np.asarray(read_star(source, ctf=False).shifts)[rows]
    except InputError:
        return {}
    text = f"{source} has rlnOriginX and rlnOriginY in pixels, which RELION 3.1 and later ignore beside data_optics:"
    warn_user(f"{text} rlnOriginXAngst and rlnOriginYAngst are added to the selection.")
    return dict(zip(ORIGINS["Å"], shifts.T, strict=True))


def _changed(source: Path, found: int, row: int) -> InputError:
    sentence = f"{source} has changed since it was read: row {row} (from 0) is missing."
    remedy = "Read the file again and repeat the selection."
    return InputError(source, f"{found} particles", f"row {row}", remedy, sentence)


def _more_labels(present: list[str], labels: list[bytes], source: Path) -> bytes:
    there = sorted({label.encode() for label in present} & set(labels))
    if there:
        found, sentence = there[0].decode(), f"{source} already has a column {there[0].decode()}."
        raise InputError(source, found, "a new name", "Choose another name for the new column.", sentence)
    return b"".join(b"_%s #%d\n" % (label, len(present) + i) for i, label in enumerate(labels, 1))


def _written(value: np.generic) -> bytes:
    return (f"{value:.9g}" if value.dtype.kind == "f" else str(value.item())).encode()


def write_cs_subset(path: Path, source: Path, rows: np.ndarray, columns: Columns) -> str | None:
    """Write some rows of a .cs file with all fields; parameters, result and errors as in `write_star_subset`."""
    table = np.array(open_table(source))
    if len(rows) and rows[-1] >= len(table):
        raise _changed(source, len(table), int(rows[-1]))
    added = {f"cryotwin/{name}": _stored(values) for name, values in columns.items()}
    there = sorted(set(added) & set(table.dtype.names or ()))
    if there:
        sentence = f"{source} already has a field {there[0]}."
        raise InputError(source, there[0], "a new name", "Choose another name for the new column.", sentence)
    subset = table[rows]
    if added:
        fields = [(name, table.dtype[name]) for name in table.dtype.names or ()]
        subset = np.empty(len(rows), fields + [(name, values.dtype) for name, values in added.items()])
        for name in table.dtype.names or ():
            subset[name] = table[name][rows]
        for name, values in added.items():
            subset[name] = values
    with atomic(path) as partial, open(partial, "wb") as file:
        np.save(file, subset)
    if "blob/path" not in (subset.dtype.names or ()):  # of several files that were joined, this one has no images
        return None
    name = subset["blob/path"][0]
    return _moved((name.decode(errors="replace") if isinstance(name, bytes) else str(name)).lstrip(">"), path, source)


def _stored(values: np.ndarray) -> np.ndarray:
    """Return strings as bytes, as cryoSPARC stores them; other values unchanged."""
    return np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values


def _moved(stack: str, path: Path, source: Path) -> str | None:
    """Return the name of a stack that can be found from the folder of `source` but not from that of `path`."""
    try:
        find_stack(stack, source)
    except InputError:
        return None
    try:
        find_stack(stack, path)
    except InputError:
        return stack
    return None
