"""Files beside a particle file (`.whitening.npz`, `.truth.npz`), and the stack that they belong to.

Entry i of such a file belongs to image i of the stack, and row i of the particle file lists that image. The particle
file and the seals of the files beside it name the stack by a stamp, which is found without reading the images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.metadata import Metadata
from cryotwin_nb.formats.seals import sealed_note

_PREFIX = "mrc:"
_HEADER_BYTES = 220  # of an MRC file before the labels, which contain the time: shape, type, statistics of grey values


def stack_stamp(stack: Path) -> str:
    """Return a digest of the size of a stack and of its header, which contains the statistics of the grey values."""
    with open(stack, "rb") as file:
        header = file.read(_HEADER_BYTES)
    return f"{_PREFIX}{hashlib.sha256(header + str(stack.stat().st_size).encode()).hexdigest()[:16]}"


def require_stacks(table: Metadata, found: Mapping[str, Path]) -> None:
    """Raise `InputError` if the particle file was written for other stacks than those `found`, by name."""
    pairs = zip(table.stack_number.tolist(), [] if table.stamp is None else table.stamp.tolist())
    for number, stamp in sorted(set(pairs)):
        path, stack = table.path, found[table.stacks[number]]
        if not stamp.startswith(_PREFIX) or stamp == stack_stamp(stack):
            continue
        sentence = f"{path} was written for another stack than {stack}, which has other images."
        remedy = "Keep the files of one preparation together, or prepare the particles again."
        raise InputError(path, "the stamp of another stack", f"that of {stack}", remedy, sentence)


def require_beside(file: Path, path: Path, image_numbers: np.ndarray, stacks: Iterable[Path | None]) -> None:
    """Check that a file belongs to the particle file `path` that it is beside.

    Parameters
    ----------
    file, path : Path
        File beside the particle file; particle file.
    image_numbers : (N,) int64
        Position in the stack, from 0, of each particle in the particle file.
    stacks : iterable of Path
        The stacks that the particle file lists; None for those that were not found.

    Raises
    ------
    InputError
        If the file is damaged or belongs to another stack, or the particle file was sorted or filtered.
    """
    remedy = f"Keep the files of one preparation together, or prepare the particles again. If {file.name} belongs to "
    remedy += "other particles, move it."
    try:
        note = sealed_note(file)
    except ValueError as error:
        raise InputError(file, f"{error}", "the contents as written", remedy, f"{file} is damaged: {error}.") from error
    if note and any(stack is not None and stack_stamp(stack) != note for stack in stacks):
        sentence = f"{file} belongs to another stack than {path}."
        raise InputError(file, "the stamp of another stack", f"that of {path}", remedy, sentence)
    one_stack = note or len(np.unique(image_numbers)) == len(image_numbers)
    if one_stack and not np.array_equal(image_numbers, np.arange(len(image_numbers))):
        sentence = f"{path} was changed since it was written: its rows do not list the images of the stack in order, "
        sentence += f"as {file.name} does."
        remedy = "Restore the file, and select particles with indices=."
        raise InputError(path, "rows in another order", "the rows as written", remedy, sentence)
