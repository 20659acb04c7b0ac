"""Subsets of STAR and .cs files: the selected particles, unchanged, with computed columns added.

STAR files are copied line by line instead of being parsed and rewritten, so content unknown to the reader is preserved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.cryosparc import read_table
from cryotwin_nb.formats.files import atomic
from cryotwin_nb.formats.locating import find_stack

_NAME = b"rlnImageName"
Columns = Mapping[str, np.ndarray]


def write_star_subset(path: Path, source: Path, rows: np.ndarray, columns: Columns) -> str | None:
    """Copy a STAR file with only the selected particles.

    Parameters
    ----------
    path, source : Path
        The new file and the one to copy.
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
    """
    labels = [b"cryotwin" + name.title().replace("_", "").encode() for name in columns]
    with open(source, "rb") as lines, atomic(path) as partial, open(partial, "wb") as out:
        first = _copy(lines, out, rows, labels, list(columns.values()), source)
    return _moved(first, path, source)


def _copy(
    lines: BinaryIO, out: BinaryIO, rows: np.ndarray, labels: list[bytes], values: list[np.ndarray], source: Path
) -> str:
    """Copy all lines except the rows not selected; return the name of the first stack."""
    row, written, first, header = -1, 0, "", []
    for kind, line in _classified(lines):
        if kind == "label":
            header.append(line)
            out.write(line)
            continue
        if header and labels:  # first line after the header of the particle table
            out.write(_more_labels(header, labels, source))
        if header:
            position = [_label(text) for text in header].index(_NAME)
            header = []
        if kind == "row":
            row += 1
            if written == len(rows) or row != rows[written]:
                continue
            first = first or line.split()[position].partition(b"@")[2].decode(errors="replace")
            if values:
                end = line[len(line.rstrip()) :]
                line = b" ".join([line.rstrip(), *(_written(column[written]) for column in values)]) + (end or b"\n")
            written += 1
        out.write(line)
    if written < len(rows):
        sentence = f"{source} has changed since it was read: row {rows[written]} (from 0) is missing."
        remedy = "Read the file again and repeat the selection."
        raise InputError(source, f"{row + 1} particles", f"row {rows[written]}", remedy, sentence)
    return first


def _classified(lines: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yield (kind, line) for each line; the kind is "label" or "row" (of the particle table) or "other".

    The particle table is the first loop with image names. The header of a loop is held back until its kind is known.
    """
    header: list[bytes] | None = None  # of a loop whose rows have not started
    found = inside = False
    for line in lines:
        text = line.strip()
        if header is not None:
            if text.startswith(b"_"):
                header.append(line)
                continue
            inside = not found and _NAME in map(_label, header)
            found |= inside
            yield from (("label" if inside else "other", held) for held in header)
            header = None
        if text.startswith(b"data_"):
            inside = False
        if text.startswith(b"loop_") and not inside:
            header = []
        yield "row" if inside and text and not text.startswith(b"#") else "other", line
    yield from (("other", held) for held in header or [])


def _label(line: bytes) -> bytes:
    return line.split()[0][1:]


def _more_labels(header: list[bytes], labels: list[bytes], source: Path) -> bytes:
    there = sorted({_label(line) for line in header} & set(labels))
    if there:
        found, sentence = there[0].decode(), f"{source} already has a column {there[0].decode()}."
        raise InputError(source, found, "a new name", "Choose another name for the new column.", sentence)
    last = header[-1]
    end = last[len(last.rstrip()) :].lstrip(b" \t") or b"\n"
    return b"".join(b"_%s #%d" % (label, len(header) + i) + end for i, label in enumerate(labels, 1))


def _written(value: np.generic) -> bytes:
    return (f"{value:.9g}" if value.dtype.kind == "f" else str(value.item())).encode()


def write_cs_subset(path: Path, source: Path, rows: np.ndarray, columns: Columns) -> str | None:
    """Write some rows of a .cs file with all its fields; parameters, result and errors as in `write_star_subset`."""
    table = read_table(source)
    if len(rows) and rows[-1] >= len(table):
        sentence = f"{source} has changed since it was read: row {rows[-1]} (from 0) is missing."
        remedy = "Read the file again and repeat the selection."
        raise InputError(source, f"{len(table)} particles", f"row {rows[-1]}", remedy, sentence)
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
