"""RELION STAR files of particles: 3.0 (one table), 3.1 and 5 (an optics and a particle table, in any order)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import require_file
from cryotwin_nb.formats.metadata import Metadata, column, make_ctf, unused, whole_numbers
from cryotwin_nb.formats.poses import rotations_from_euler
from cryotwin_nb.formats.star_text import NAME, choose_particles, image_names, read_tables, refuse_tomography
from cryotwin_nb.imaging.optics import CTF

if TYPE_CHECKING:
    import pandas as pd

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_MICROSCOPE = ("rlnVoltage", "rlnSphericalAberration")
ORIGINS = {"Å": ("rlnOriginXAngst", "rlnOriginYAngst"), "pixels": ("rlnOriginX", "rlnOriginY")}
# columns that prepared stacks add to data_optics
SIGN, WHITENED, STACK = "cryotwinContrastSign", "cryotwinWhitened", "cryotwinStack"


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
    table, has_optics = read_rows(path, notes)
    require_plain_ctf(table, path)
    _require_whitening(table, path)
    stacks, stack_number, image_number, whole_files = image_names(table, path)
    pixel = _known_pixel_sizes(table, path, pixel_size)
    notes += unused(table.columns, table.__getitem__, pixel, path)
    box = column(table["rlnImageSize"], path, "rlnImageSize") if "rlnImageSize" in table else np.zeros(len(table))
    group, labels = _optics_groups(table)
    return Metadata(
        path,
        stacks,
        stack_number,
        image_number,
        pixel,
        whole_numbers(box, path, "rlnImageSize"),
        group,
        rotations=rotations_of(table, path) if poses else None,
        shifts=shifts_of(table, path, pixel, has_optics, notes) if poses else None,
        ctf=ctf_of(table, path) if ctf else None,
        sign=column(table[SIGN], path, SIGN) if SIGN in table else None,
        stamp=np.asarray(table[STACK], dtype=str) if STACK in table else None,
        whole_files=whole_files,
        notes=tuple(notes),
        group_labels=labels,
    )


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """Return the particle table of a STAR file with the columns of the optics groups; errors as in `read_star`."""
    return read_rows(require_file(path, "STAR file"), [])[0]


def read_rows(path: Path, notes: list[str]) -> tuple[pd.DataFrame, bool]:
    """Return the particle table with the columns of its optics groups, and whether the file has optics groups."""
    particles, optics = _tables(path, notes)
    return _merge_optics(particles, optics, path), optics is not None


def _tables(path: Path, notes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the particle table and, if present, the optics table.

    If several tables contain images, data_particles is preferred, then data_images and data_, then the first.
    """
    tables = read_tables(path)
    found = f"the tables {', '.join(f'data_{name}' for name in tables) or '(none)'}"
    candidates = choose_particles([name for name, table in tables.items() if NAME in table])
    if not candidates:
        remedy = "Pass the STAR file of extracted or refined particles."
        raise InputError(path, found, "a particle table with rlnImageName", remedy)
    chosen, *others = candidates
    if others:
        listed = ", ".join(f"data_{name}" for name in others)
        notes.append(f"{path}: reading the particles of data_{chosen}, not those of {listed}.")
    refuse_tomography(tables[chosen], tables, path)
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


def _optics_groups(table: pd.DataFrame) -> tuple[np.ndarray, tuple[tuple[str, ...], ...]]:
    """Return the optics group (n,) of each particle, numbered from 0, and the number and name of each group."""
    if "rlnOpticsGroup" not in table:
        return np.zeros(len(table), np.int64), ()
    _, first, group = np.unique(np.asarray(table["rlnOpticsGroup"]), return_index=True, return_inverse=True)
    known = table[[name for name in ("rlnOpticsGroup", "rlnOpticsGroupName") if name in table]].iloc[first]
    return group.astype(np.int64), tuple(tuple(map(str, row)) for row in known.itertuples(index=False))


def require_plain_ctf(table: pd.DataFrame, path: Path) -> None:
    """Reject images already corrected for the CTF: applying it again would give wrong results without an error."""
    import pandas as pd

    for name in ("rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped"):
        if name in table and (pd.to_numeric(table[name], errors="coerce").fillna(0) != 0).any():
            remedy = "Extract the particles again without CTF correction."
            sentence = f"{path}: the images were already corrected for the CTF ({name} is set)."
            raise InputError(path, f"{name} set", "images as recorded", remedy, sentence)


def _require_whitening(table: pd.DataFrame, path: Path) -> None:
    """Reject whitened images without the file needed to undo the whitening, and that file beside other images."""
    sidecar = path.with_suffix(".whitening.npz")
    if WHITENED in table and not sidecar.is_file():
        remedy = "Read the STAR file written by `prepare`, with indices= for a subset, and keep its files together."
        sentence = f"{path}: the images are whitened, but {sidecar.name} is missing from its folder."
        raise InputError(path, f"no {sidecar.name}", "that file in the same folder", remedy, sentence)
    if WHITENED not in table and sidecar.is_file():
        remedy = f"Move {sidecar.name} to the prepared particles that it belongs to, or read those."
        sentence = f"{path}: {sidecar.name} is in its folder, but the file does not list whitened images."
        raise InputError(path, f"no {WHITENED} in data_optics", f"that column beside {sidecar.name}", remedy, sentence)


def pixel_sizes(table: pd.DataFrame, path: Path) -> np.ndarray:
    """Return pixel sizes in Å: rlnImagePixelSize, else detector / magnification (RELION 3.0), else 0."""
    if "rlnImagePixelSize" in table:
        pixel = column(table["rlnImagePixelSize"], path, "rlnImagePixelSize")
    elif {"rlnDetectorPixelSize", "rlnMagnification"} <= set(table.columns):
        detector = column(table["rlnDetectorPixelSize"], path, "rlnDetectorPixelSize")
        magnification = column(table["rlnMagnification"], path, "rlnMagnification")
        with np.errstate(over="ignore"):  # an infinite quotient is rejected below
            pixel = np.where(magnification > 0, detector * 1e4 / np.where(magnification > 0, magnification, 1), 0.0)
        pixel = column(pixel, path, "pixel size")
    else:
        pixel = np.zeros(len(table))
    return pixel


def _known_pixel_sizes(table: pd.DataFrame, path: Path, fallback: float | None) -> np.ndarray:
    """Return pixel sizes in Å, `fallback` where the file has none; raise `InputError` if none is known."""
    pixel = pixel_sizes(table, path)
    if fallback is not None:
        pixel = np.where(pixel == 0, fallback, pixel)
    if (pixel <= 0).any():
        found = f"a pixel size of {pixel.min():g} Å" if pixel.any() else "no pixel size"
        remedy = "Pass pixel_size= in Å."
        raise InputError(path, found, "rlnImagePixelSize, or detector pixel size and magnification", remedy)
    return pixel


def _require_all(table: pd.DataFrame, names: tuple[str, ...], path: Path, remedy: str) -> None:
    missing = [name for name in names if name not in table]
    if missing:
        present = [name for name in names if name in table]
        raise InputError(path, f"{', '.join(present)} without {', '.join(missing)}", "all of them or none", remedy)


def rotations_of(table: pd.DataFrame, path: Path) -> np.ndarray | None:
    """Return the rotations (n, 3, 3), None if the table has no angles."""
    if not any(name in table for name in ANGLES):
        return None
    _require_all(table, ANGLES, path, "Pass the STAR file of a 3-D refinement, or cryoDRGN's poses.pkl as poses=.")
    return rotations_from_euler(*(column(table[name], path, name) for name in ANGLES))


def shifts_of(
    table: pd.DataFrame, path: Path, pixel: np.ndarray, has_optics: bool, notes: list[str]
) -> np.ndarray | None:
    """Return shifts in Å, from the same columns as RELION; contradictions are added to `notes`.

    In a file with data_optics, the columns in Å are used; in other files, the columns in pixels (RELION 3.1.3). If a
    file with data_optics has only pixel columns, which RELION ignores, these are used: cryoDRGN 4.3 writes such files.
    """
    read = {}
    for unit, names in ORIGINS.items():
        if any(name in table for name in names):
            _require_all(table, names, path, "Export the file again.")
            values = np.stack([column(table[name], path, name) for name in names], axis=1)
            read[unit] = column(values * pixel[:, None] if unit == "pixels" else values, path, "origin")
    if not read:
        return None
    preferred = "Å" if has_optics else "pixels"
    if len(read) == 2:
        differ = int((np.abs(read["Å"] - read["pixels"]).max(axis=1) > 0.01 * pixel).sum())
        if differ:
            why = "with" if has_optics else "without"
            text = f"{path}: the origins in pixels and in Å disagree for {differ} of {len(table)} particles;"
            notes.append(f"{text} using those in {preferred}, as RELION does for a file {why} data_optics.")
    elif has_optics and "pixels" in read:
        text = f"{path}: using rlnOriginX and rlnOriginY (pixels); RELION 3.1 and later ignore them beside data_optics."
        notes.append(text)
    return read.get(preferred, next(iter(read.values()))).astype(np.float32)


def ctf_of(table: pd.DataFrame, path: Path) -> CTF | None:
    """Return the CTF of the particles; a missing amplitude contrast becomes NaN, a missing phase shift 0."""
    if not any(name in table for name in DEFOCUS):
        return None
    names = DEFOCUS + _MICROSCOPE
    _require_all(table, names, path, "Export the file with its CTF columns, or pass cryoDRGN's ctf.pkl as ctf=.")
    u, v, angle, voltage, aberration = (column(table[name], path, name) for name in names)
    optional = {"rlnAmplitudeContrast": np.nan, "rlnPhaseShift": 0.0}
    contrast, phase = (
        column(table[name], path, name) if name in table else np.full(len(table), missing)
        for name, missing in optional.items()
    )
    return make_ctf(
        path,
        defocus_u=u,
        defocus_v=v,
        defocus_angle=angle,
        voltage=voltage,
        spherical_aberration=aberration,
        amplitude_contrast=contrast,
        phase_shift=phase,
    )
