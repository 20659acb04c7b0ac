"""Poses and CTF from other files than the particle file: .cs and .star files, cryoDRGN's pickles, or arrays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cryotwin_nb.errors import InputError, SeveralGrids
from cryotwin_nb.formats import cryodrgn, cryosparc, star
from cryotwin_nb.formats.alignments import lacks_pixel_size, numbers, poses_of
from cryotwin_nb.formats.files import require_file
from cryotwin_nb.formats.joining import uids_of
from cryotwin_nb.formats.matching import Listing, listing_of, match
from cryotwin_nb.formats.metadata import Metadata, unused
from cryotwin_nb.formats.stacks import ImageSource
from cryotwin_nb.imaging.optics import CTF


class Parameters(NamedTuple):
    """CTF given by the user, with box size (pixels) and pixel size (Å) if it is from cryoDRGN.

    `ctf` is None for a .cs or .star file, which `add` reads.
    """

    ctf: CTF | None = None
    box_size: int | None = None
    pixel_size: float | None = None


class Added(NamedTuple):
    """Poses and CTF of m particles.

    Attributes
    ----------
    rows : (m,) int64
        Rows of the particle file: the selected ones that have poses and CTF.
    rotations : (m, 3, 3) float32 or None
        R in v = R nu.
    shifts : (m, 2) float32 or None
        Shift that centres the image, Å, or fraction of the box if `relative`.
    relative : bool
        Whether the shifts are fractions of the box, as in cryoDRGN.
    ctf : CTF or None
        CTF parameters.
    """

    rows: np.ndarray
    rotations: np.ndarray | None
    shifts: np.ndarray | None
    relative: bool
    ctf: CTF | None

    def shifts_for(self, source: ImageSource, pixel_size: float) -> np.ndarray | None:
        """Return the shifts (m, 2) in Å for images of that pixel size (Å)."""
        if self.shifts is None or not self.relative:
            return self.shifts
        return self.shifts * np.float32(source.box_size * pixel_size)


class _File(NamedTuple):
    """A .cs or .star file beside the particle file; `place` is the row of each particle in it, if `there`."""

    path: Path
    table: Any
    has_optics: bool
    place: np.ndarray
    there: np.ndarray


def read_parameters(given: Any) -> Parameters:
    """Return a CTF given as `CTF` or by cryoDRGN, which also states the pixel size."""
    if isinstance(given, CTF):
        return Parameters(given)
    if _is_table(given):
        return Parameters()
    ctf, box, pixel = cryodrgn.read_ctf(given)
    for name, values in {"box sizes": box, "pixel sizes": pixel}.items():
        if np.ptp(values) > 1e-3 * values.max():
            raise SeveralGrids(_name(given, "ctf"), f"{name} from {values.min():g} to {values.max():g}")
    return Parameters(ctf, int(box[0]), float(pixel[0]))


def add(
    poses: Any,
    ctf: Any,
    parameters: Parameters | None,
    particles: Metadata,
    rows: np.ndarray,
    pixel_size: float | None,
    notes: list[str],
) -> Added:
    """Return poses and CTF of the selected particles; those that a .cs or .star file lacks are left out.

    Parameters
    ----------
    poses, ctf : object
        Arguments of `Particles.read`.
    parameters : Parameters or None
        Result of `read_parameters` for `ctf`.
    particles : Metadata
        All particles of the particle file.
    rows : (m,) int64
        Rows of the selected particles.
    pixel_size : float or None
        Pixel size given by the user, Å, for shifts in pixels of unknown size; by default, that of the particle file.
    notes : list of str
        Receives the numbers of particles, if some are in one file only.

    Raises
    ------
    InputError
        If a file cannot be read, or its particles cannot be assigned to those of the particle file.
    """
    files = {Path(given): _open(given, particles, notes) for given in (poses, ctf) if _is_table(given)}
    kept = np.logical_and.reduce([np.ones(len(rows), bool), *(file.there[rows] for file in files.values())])
    if not kept.any():
        found, remedy = f"none of the {len(rows)} selected particles", "Select among the particles of both files."
        raise InputError(", ".join(map(str, files)), found, "at least one", remedy)
    if len(rows) < len(particles) and not kept.all():
        notes.append(f"{particles.path}: reading {kept.sum()} of the {len(rows)} selected particles.")

    def of_selected(values: Any, name: str, given: Any) -> Any:
        if _is_table(given):
            return values[files[Path(given)].place[rows[kept]]]
        return values[_rows_for(len(values), len(particles), rows, name, given)[kept]]

    rotations = shifts = transfer = None
    pixel = float(np.median(particles.pixel_size)) if pixel_size is None else pixel_size
    if poses is not None:
        table = _is_table(poses)
        rotations, shifts = _poses_in(files[Path(poses)], pixel, notes) if table else cryodrgn.read_poses(poses)
        rotations, shifts = (None if p is None else of_selected(p, "poses", poses) for p in (rotations, shifts))
    if parameters is not None:
        every = _ctf_in(files[Path(ctf)], pixel, notes) if parameters.ctf is None else parameters.ctf
        transfer = of_selected(every, "ctf", ctf)
    return Added(rows[kept], rotations, shifts, not _is_table(poses), transfer)


def _is_table(given: Any) -> bool:
    return isinstance(given, (str, os.PathLike)) and Path(given).suffix.lower() in (".cs", ".star")


def _name(given: Any, name: str) -> Any:
    return given if isinstance(given, (str, os.PathLike)) else name


def _open(given: str | os.PathLike, particles: Metadata, notes: list[str]) -> _File:
    """Open a .cs or .star file and find the particles in it."""
    path, own = require_file(given, "file of poses or CTF"), particles.path
    from_cs = own.suffix.lower() == ".cs"

    def uids() -> np.ndarray:
        every = uids_of(cryosparc.open_table(own), own)
        return every if particles.file_rows is None else every[particles.file_rows]

    ours = Listing(
        own, uids if from_cs else None, lambda: (particles.stacks, particles.stack_number, particles.image_number)
    )
    if path.suffix.lower() == ".cs":
        table, has_optics = cryosparc.open_table(path), False
    else:
        table, has_optics = star.read_rows(path, notes)
    return _File(path, table, has_optics, *match(ours, listing_of(path, table), notes))


def _poses_in(file: _File, fallback: float, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return rotations, and shifts in Å, of a file; `fallback` is the pixel size if the file contains none."""
    path, table, from_cs = file.path, file.table, file.path.suffix.lower() == ".cs"
    if from_cs:
        known = "blob/psize_A" in table.dtype.names
        own = numbers(table, path, "blob/psize_A") if known else np.zeros(len(table))
        needed = lacks_pixel_size(table)
    else:
        own = star.pixel_sizes(table, path)
        needed = "rlnOriginX" in table and not (file.has_optics and "rlnOriginXAngst" in table)
    if needed and (own <= 0).any():
        if fallback <= 0:
            remedy = "Pass pixel_size= in Å."
            raise InputError(path, "shifts in pixels without a pixel size", "a pixel size in Å", remedy)
        notes.append(f"{path}: no pixel size; reading the shifts in pixels of {fallback:g} Å.")
    pixel = np.where(own > 0, own, fallback)
    if from_cs:
        rotations, shifts = poses_of(table, path, pixel, notes)
    else:
        rotations, shifts = star.rotations_of(table, path), star.shifts_of(table, path, pixel, file.has_optics, notes)
    if rotations is None:
        expected = "alignments3D/pose (.cs) or rlnAngleRot, rlnAngleTilt and rlnAnglePsi (.star)"
        raise InputError(path, "no poses", expected, "Pass the particle file of a 3-D refinement.")
    return rotations, shifts


def _ctf_in(file: _File, pixel: float, notes: list[str]) -> CTF:
    path, table = file.path, file.table
    if path.suffix.lower() == ".cs":
        ctf, names = cryosparc.ctf_of(table, path), table.dtype.names
    else:
        star.require_plain_ctf(table, path)
        ctf, names = star.ctf_of(table, path), table.columns
    if ctf is None:
        expected = "ctf/df1_A and others (.cs) or rlnDefocusU and others (.star)"
        raise InputError(path, "no CTF parameters", expected, "Pass the file of a job that estimates the CTF.")
    notes += unused(names, table.__getitem__, np.full(len(table), pixel), path)
    return ctf


def _rows_for(n: int, total: int, rows: np.ndarray, name: str, given: Any) -> np.ndarray:
    """Return the rows of the selected particles in a table of length n, which covers all particles or the selection."""
    if n == total:
        return rows
    if n == len(rows):
        return np.arange(n)
    expected = f"{total}" if len(rows) == total else f"{total} (all) or {len(rows)} (selected)"
    remedy = "Pass the file that belongs to these particles."
    raise InputError(_name(given, name), f"{n} particles", f"{expected}, as in the particle file", remedy)
