"""RELION STAR files of particles: 3.0 (one table), 3.1 and 5 (an optics and a particle table, in any order).

pandas is imported only when a table is read or written: it is slow to import and not needed to load a model.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats import star_columns
from cryotwin_nb.formats.files import require_file
from cryotwin_nb.formats.metadata import Metadata, column, whole_numbers
from cryotwin_nb.formats.star_text import choose_particles, read_tables

if TYPE_CHECKING:
    import pandas as pd

SIGN, WHITENED = "cryotwinContrastSign", "cryotwinWhitened"  # columns that prepared stacks add to data_optics


def read_star(
    path: str | os.PathLike, pixel_size: float | None = None, poses: bool = True, ctf: bool = True
) -> Metadata:
    """Read the particles of a STAR file.

    Parameters
    ----------
    path : path-like
        The .star file.
    pixel_size : float, optional
        Pixel size in Å, used if the file contains none.
    poses, ctf : bool
        Whether to read and check the pose columns (angles and origins) and the CTF columns.

    Raises
    ------
    InputError
        If the file is not a STAR file of particles, or columns are missing or contain anything but finite numbers.
    """
    path = require_file(path, "STAR file")
    notes: list[str] = []
    particles, optics = _tables(path, notes)
    table = _merge_optics(particles, optics, path)
    _require_plain_ctf(table, path)
    _require_whitening(table, path)
    stacks, stack_number, image_number = _image_names(table, path)
    pixel = star_columns.pixel_sizes(table, path, pixel_size)
    box = column(table["rlnImageSize"], path, "rlnImageSize") if "rlnImageSize" in table else np.zeros(len(table))
    group = table["rlnOpticsGroup"] if "rlnOpticsGroup" in table else np.zeros(len(table))
    return Metadata(
        path,
        stacks,
        stack_number,
        image_number,
        pixel,
        whole_numbers(box, path, "rlnImageSize"),
        np.unique(np.asarray(group), return_inverse=True)[1].astype(np.int64),
        rotations=star_columns.rotations(table, path) if poses else None,
        shifts=star_columns.shifts(table, path, pixel, optics is not None, notes) if poses else None,
        ctf=star_columns.ctf(table, path) if ctf else None,
        sign=column(table[SIGN], path, SIGN) if SIGN in table else None,
        notes=tuple(notes),
    )


def _tables(path: Path, notes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the particle table and, if present, the optics table.

    If several tables contain images, data_particles is preferred, then data_images and data_, then the first.
    """
    tables = read_tables(path)
    found = f"the tables {', '.join(f'data_{name}' for name in tables) or '(none)'}"
    candidates = choose_particles([name for name, table in tables.items() if "rlnImageName" in table])
    if not candidates:
        remedy = "Pass the STAR file of extracted or refined particles."
        raise InputError(path, found, "a particle table with rlnImageName", remedy)
    chosen, *others = candidates
    if others:
        listed = ", ".join(f"data_{name}" for name in others)
        notes.append(f"{path}: reading the particles of data_{chosen}, not those of {listed}.")
    if len(tables[chosen]) == 0:
        raise InputError(path, "no rows of particles", "at least one", "Check the job that wrote this file.")
    return tables[chosen], tables.get("optics")


def _merge_optics(particles: pd.DataFrame, optics: pd.DataFrame | None, path: Path) -> pd.DataFrame:
    """Return the particle table with the columns of the optics groups added."""
    if optics is None:
        return particles
    for name, frame in {"optics": optics, "particles": particles}.items():
        if "rlnOpticsGroup" not in frame:
            remedy = "Export the file again with RELION 3.1 or later, which writes that column."
            raise InputError(path, f"no rlnOpticsGroup in data_{name}", "that column in both tables", remedy)
    undefined = set(particles["rlnOpticsGroup"]) - set(optics["rlnOpticsGroup"])
    if undefined or optics["rlnOpticsGroup"].duplicated().any():
        found = f"undefined optics groups {sorted(map(str, undefined))}" if undefined else "a group defined twice"
        raise InputError(path, found, "one row of data_optics per group", "Correct data_optics.")
    new = optics.set_index("rlnOpticsGroup").drop(columns=list(particles.columns), errors="ignore")
    return particles.join(new, on="rlnOpticsGroup")


def _require_plain_ctf(table: pd.DataFrame, path: Path) -> None:
    """Reject images already corrected for the CTF: applying it again would give wrong results without an error."""
    import pandas as pd

    for name in ("rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped"):
        if name in table and (pd.to_numeric(table[name], errors="coerce").fillna(0) != 0).any():
            remedy = "Extract the particles again without CTF correction."
            sentence = f"{path}: the images were already corrected for the CTF ({name} is set)."
            raise InputError(path, f"{name} set", "images as recorded", remedy, sentence)


def _require_whitening(table: pd.DataFrame, path: Path) -> None:
    """Reject whitened images without the file needed to undo the whitening."""
    sidecar = path.with_suffix(".whitening.npz")
    if WHITENED in table and not sidecar.is_file():
        remedy = "Read the STAR file written by `prepare`, with indices= for a subset, and keep its files together."
        sentence = f"{path}: the images are whitened, but {sidecar.name} is missing from its folder."
        raise InputError(path, f"no {sidecar.name}", "that file in the same folder", remedy, sentence)


def _image_names(table: pd.DataFrame, path: Path) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return stacks, and each particle's stack and position in that stack, from 0, parsed from names `N@stack`."""
    numbers, names = [], []
    for row, entry in enumerate(table["rlnImageName"].astype(str)):
        number, at, name = entry.strip().partition("@")
        if not at:
            number, name = "1", number
        name = name.removesuffix(":mrcs").removesuffix(":mrc")  # RELION's way to state the format
        if not number.isdecimal() or len(number) > 15 or int(number) < 1 or not name:
            found = f"rlnImageName {entry!r} in row {row + 1}"
            raise InputError(path, found, "names like 000001@stack.mrcs, numbered from 1", "Correct that row.")
        numbers.append(int(number) - 1)
        names.append(name)
    # dtype object: in a string array every entry takes the space of the longest name
    stacks, stack_number = np.unique(np.array(names, dtype=object), return_inverse=True)
    return tuple(str(s) for s in stacks), stack_number.astype(np.int64), np.array(numbers, dtype=np.int64)
