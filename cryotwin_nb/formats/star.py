"""RELION STAR files of particles: 3.0 (one table), 3.1 and 5 (an optics and a particle table, in any order).

pandas is imported only when a table is read or written: it is slow to import and not needed to load a model.
"""

from __future__ import annotations

import linecache
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats import star_columns
from cryotwin_nb.formats.files import require_file
from cryotwin_nb.formats.metadata import Metadata, column, whole_numbers

if TYPE_CHECKING:
    import pandas as pd

_LONGEST_LINE = 2**16
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
        Whether to read and check the columns of angles and origins, and of the CTF.

    Raises
    ------
    InputError
        If the file is not a STAR file of particles, or columns are missing or contain anything but finite numbers.
    """
    path = require_file(path, "STAR file")
    particles, optics = _tables(path)
    table = _merge_optics(particles, optics, path)
    notes: list[str] = []
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


def _tables(path: Path) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the particle table and, if present, the optics table."""
    import pandas as pd
    import starfile

    _require_plain_lines(path)
    linecache.checkcache(str(path))  # starfile reads through linecache, which can return outdated content
    try:
        blocks = starfile.read(path, always_dict=True, parse_as_string=["rlnImageName", "rlnOpticsGroupName"])
    except Exception as error:  # starfile does not catch errors of its parsing
        remedy = "Export the file again from RELION, or check it with relion_star_printtable."
        found = f"{type(error).__name__}: {error}"
        sentence = f"{path} cannot be read as a STAR file ({found})."
        raise InputError(path, found, "a readable STAR file", remedy, sentence) from error
    frames = {name: block for name, block in blocks.items() if isinstance(block, pd.DataFrame)}
    for name, frame in frames.items():
        if frame.columns.duplicated().any():
            label = frame.columns[frame.columns.duplicated()][0]
            raise InputError(path, f"{label} twice in data_{name}", "each label once", "Correct that table.")
    found = f"the tables {', '.join(f'data_{name}' for name in blocks) or '(none)'}"
    particles = next((f for f in frames.values() if "rlnImageName" in f), None)
    if particles is None:
        remedy = "Pass the STAR file of extracted or refined particles."
        raise InputError(path, found, "a particle table with rlnImageName", remedy)
    if len(particles) == 0:
        raise InputError(path, "no rows of particles", "at least one", "Check the job that wrote this file.")
    optics = blocks.get("optics")
    return particles, pd.DataFrame([optics]) if isinstance(optics, dict) else optics


def _require_plain_lines(path: Path) -> None:
    """Reject lines that the parser would misread, and tables with too many columns."""
    labels = number = 0
    with open(path, "rb") as file:
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            text = line.strip()
            labels = labels + 1 if text.startswith(b"_") else 0
            quotes = 0 if text.startswith(b"#") else text.count(b'"') + text.count(b"'")
            found = (
                "a line of more than 64 kB" * (len(line) > _LONGEST_LINE)
                or "a carriage return within a line" * (b"\r" in text)
                or "an unmatched quotation mark" * (quotes % 2)
                or "more than 1,000 labels" * (labels > 1000)
            )
            if found:
                remedy = "Export the file again from RELION."
                raise InputError(f"{path}, line {number}", found, "a particle table as written by RELION", remedy)


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
    """Return stacks, and for each particle its stack and its position there from 0, parsed from names `N@stack`."""
    numbers, names = [], []
    for row, entry in enumerate(table["rlnImageName"].astype(str)):
        number, at, name = entry.strip().partition("@")
        if not at:
            number, name = "1", number
        if not number.isdecimal() or len(number) > 15 or int(number) < 1 or not name:
            found = f"rlnImageName {entry!r} in row {row + 1}"
            raise InputError(path, found, "names like 000001@stack.mrcs, numbered from 1", "Correct that row.")
        numbers.append(int(number) - 1)
        names.append(name)
    # dtype object: in a string array every entry takes the space of the longest name
    stacks, stack_number = np.unique(np.array(names, dtype=object), return_inverse=True)
    return tuple(str(s) for s in stacks), stack_number.astype(np.int64), np.array(numbers, dtype=np.int64)
