"""Columns of a RELION particle table in the units and conventions of this package: pixel size, poses and CTF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.metadata import column, make_ctf
from cryotwin_nb.formats.poses import rotations_from_euler
from cryotwin_nb.imaging.optics import CTF

if TYPE_CHECKING:
    import pandas as pd

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_MICROSCOPE = ("rlnVoltage", "rlnSphericalAberration")
_ORIGINS = {"Å": ("rlnOriginXAngst", "rlnOriginYAngst"), "pixels": ("rlnOriginX", "rlnOriginY")}


def pixel_sizes(table: pd.DataFrame, path: Path, fallback: float | None) -> np.ndarray:
    """Return pixel sizes in Å: rlnImagePixelSize, else detector / magnification (RELION 3.0), else `fallback`."""
    if "rlnImagePixelSize" in table:
        pixel = column(table["rlnImagePixelSize"], path, "rlnImagePixelSize")
    elif {"rlnDetectorPixelSize", "rlnMagnification"} <= set(table.columns):
        detector = column(table["rlnDetectorPixelSize"], path, "rlnDetectorPixelSize")
        magnification = column(table["rlnMagnification"], path, "rlnMagnification")
        pixel = np.where(magnification > 0, detector * 1e4 / np.where(magnification > 0, magnification, 1), 0.0)
        pixel = column(pixel, path, "pixel size")
    else:
        pixel = np.zeros(len(table))
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


def rotations(table: pd.DataFrame, path: Path) -> np.ndarray | None:
    if not any(name in table for name in ANGLES):
        return None
    _require_all(table, ANGLES, path, "Pass the STAR file of a 3-D refinement, or cryoDRGN's poses.pkl as poses=.")
    return rotations_from_euler(*(column(table[name], path, name) for name in ANGLES))


def shifts(table: pd.DataFrame, path: Path, pixel: np.ndarray, has_optics: bool, notes: list[str]) -> np.ndarray | None:
    """Return shifts in Å, from the same columns as RELION; contradictions are added to `notes`.

    In a file with data_optics, the columns in Å are used; in other files, the columns in pixels (RELION 3.1.3). If a
    file with data_optics has only pixel columns, which RELION ignores, these are used: cryoDRGN 4.3 writes such files.
    """
    read = {}
    for unit, names in _ORIGINS.items():
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


def ctf(table: pd.DataFrame, path: Path) -> CTF | None:
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
