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
from cryotwin_nb.formats.star_text import NAME, choose_particles, split, tokens

Columns = Mapping[str, np.ndarray]


def write_star_subset(
    path: Path, source: Path, rows: np.ndarray, columns: Columns, images: np.ndarray | None = None
) -> str | None:
    """Copy a STAR file with only the selected particles.

    Parameters
    ----------
    path, source : Path
        The new file and the file to copy.
    rows : (k,) int64
        Row numbers of the particles, from 0, in increasing order.
    columns : mapping of str to (k,)
        Values by name: numbers, or strings without spaces. The name "outlier_score" becomes the label
        cryotwinOutlierScore; RELION's labels are kept. Columns that the file has are replaced, others are added.
    images : (k,) int64 or None
        Numbers of the images in their stacks, from 0, as read before; None: not compared.

    Returns
    -------
    str or None
        Name of the first stack, if it can be found from the folder of `source` but not from that of `path`.

    Raises
    ------
    InputError
        If `source` has too few particles or other images than when it was read, or `path` cannot be written.

    Warns
    -----
    UserWarning
        If origins in Å are added.
    """
    with open(source, "rb") as lines, atomic(path) as partial, open(partial, "wb") as out:
        first = _copy(lines, out, rows, {_label(name): values for name, values in columns.items()}, images, source)
    return _moved(first, path, source)


def _label(name: str) -> bytes:
    return (name if name.startswith("rln") else "cryotwin" + name.title().replace("_", "")).encode()


def _copy(
    lines: BinaryIO,
    out: BinaryIO,
    rows: np.ndarray,
    columns: dict[bytes, np.ndarray],
    images: np.ndarray | None,
    source: Path,
) -> str:
    """Copy a file except for the rows not selected; return the name of the first stack.

    RELION ends a table at a blank line and does not read carriage returns or trailing comments, so these are left out.
    It ignores origins in pixels beside data_optics, so these are also written in Å.
    """
    tables = split(source)
    names = choose_particles([name for name, found in tables.items() if NAME in found.labels])
    if not names:
        raise _changed(source, 0, int(rows[0]))
    table = tables[names[0]]
    if len(rows) and rows[-1] >= len(table.rows):
        raise _changed(source, len(table.rows), int(rows[-1]))
    if "optics" in tables and set(ORIGINS["pixels"]) <= set(table.labels) and not {*ORIGINS["Å"]} & {*table.labels}:
        columns |= {name.encode(): values for name, values in _origins(source, rows).items()}
    places = {label.encode(): place for place, label in enumerate(table.labels)}
    replaced = {places[label]: values for label, values in columns.items() if label in places}
    added = {label: values for label, values in columns.items() if label not in places}
    first, last = table.label_line + 1, table.lines[-1] if table.rows else 0
    position, number_of = table.labels.index(NAME), {table.lines[row]: i for i, row in enumerate(rows.tolist())}
    stack = ""
    for number, line in enumerate(lines, 1):
        text = line.rstrip(b"\r\n").removeprefix(b"\xef\xbb\xbf")
        if first <= number <= last:
            chosen = number_of.get(number)
            if chosen is None:
                continue
            words = tokens(text)
            image, _, name = words[position].strip(b"\"'").rpartition(b"@")
            if images is not None and (int(image) if image.isdigit() else 1) != images[chosen] + 1:
                raise _changed(source, len(table.rows), int(rows[chosen]))
            stack = stack or name.decode(errors="replace")
            for place, values in replaced.items():
                words[place] = _written(values[chosen])
            text = b" ".join(words) if b"#" in text or replaced else text
            if added:
                text = b" ".join([text.rstrip(), *(_written(values[chosen]) for values in added.values())])
        out.write(text + b"\n")
        if number == table.label_line:
            out.writelines(b"_%s #%d\n" % (label, len(places) + i) for i, label in enumerate(added, 1))
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
    sentence = f"{source} has changed since it was read: row {row} (from 0) is missing or lists another image."
    remedy = "Read the file again and repeat the selection."
    return InputError(source, f"{found} particles", f"the image of row {row}", remedy, sentence)


def _written(value: np.generic) -> bytes:
    return (f"{value:.9g}" if value.dtype.kind == "f" else str(value.item())).encode()


def write_cs_subset(
    path: Path, source: Path, rows: np.ndarray, columns: Columns, images: np.ndarray | None = None
) -> str | None:
    """Write some rows of a .cs file with all fields; parameters, result and errors as in `write_star_subset`."""
    table = np.array(open_table(source))
    names = table.dtype.names or ()
    if len(rows) and rows[-1] >= len(table):
        raise _changed(source, len(table), int(rows[-1]))
    if images is not None and "blob/idx" in names and (table["blob/idx"][rows] != images).any():
        raise _changed(source, len(table), int(rows[np.argmax(table["blob/idx"][rows] != images)]))
    new = {name if "/" in name else f"cryotwin/{name}": _stored(values) for name, values in columns.items()}
    fields: list[tuple] = [(name, table.dtype[name]) for name in names if name not in new]
    subset = np.empty(len(rows), fields + [(name, values.dtype, values.shape[1:]) for name, values in new.items()])
    for name, *_ in fields:
        subset[name] = table[name][rows]
    for name, values in new.items():
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
