"""Particles of several pixel or box sizes on one grid, with images that are resampled when they are read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from cryotwin_nb.errors import InputError, SeveralGrids, warn_user
from cryotwin_nb.formats import cryodrgn
from cryotwin_nb.formats.metadata import Metadata
from cryotwin_nb.formats.reading import inputs_in
from cryotwin_nb.imaging.fourier import resampling
from cryotwin_nb.imaging.optics import CTF
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.truth.truth import Truth


class Part(NamedTuple):
    """Particles on one grid, their positions (m,) int64 among all selected particles, and the notes on reading them."""

    particles: Particles
    positions: np.ndarray
    notes: list[str]

    def __str__(self) -> str:
        return _grid(self.particles)


@dataclass(frozen=True)
class ResampledImages:
    """Images of several sets of particles as recorded, resampled to one grid when they are read.

    Attributes
    ----------
    sets : tuple of Particles
        Particles on their own grids.
    axes : tuple of (D, D_s) float32
        Matrix of each set that resamples one axis of its images.
    number, row : (n,) int64
        Set of each particle, and its row there.
    light : bool
        Whether particles are returned light on dark; dark otherwise, whatever the contrast of their set.
    """

    sets: tuple[Particles, ...]
    axes: tuple[Tensor, ...]
    number: np.ndarray
    row: np.ndarray
    light: bool

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: np.ndarray) -> ResampledImages:
        return replace(self, number=self.number[rows], row=self.row[rows])

    @property
    def box_size(self) -> int:
        return len(self.axes[0])

    @property
    def grids(self) -> str:
        counts = np.bincount(self.number, minlength=len(self.sets)).tolist()
        return ", ".join(f"{count:,} of {_grid(particles)}" for count, particles in zip(counts, self.sets))

    @property
    def files(self) -> dict[str, Path | None]:
        return {name: path for particles in self.sets for name, path in particles.files.items()}

    def read(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), self.box_size, self.box_size), dtype=np.float32)
        for number in np.unique(self.number[rows]).tolist():
            wanted, axis = self.number[rows] == number, self.axes[number]
            images[wanted] = axis @ self.sets[number].unwhitened(self.row[rows][wanted]) @ axis.T
        return -images if self.light else images

    @property
    def identity(self) -> np.ndarray:
        identity = np.empty(len(self), np.int64)
        for number, particles in enumerate(self.sets):
            wanted = self.number == number
            identity[wanted] = particles.identity[self.row[wanted]]
        return identity

    def name(self, row: int) -> str:
        return self.sets[self.number[row]].image_name(int(self.row[row]))


def read_on_one_grid(
    path: Particles | str | os.PathLike | Sequence[str | os.PathLike], reading: dict[str, Any]
) -> tuple[Particles, str]:
    """Return the particles of a file on one grid, and a description of their grids ("" if they have one).

    Images of several grids are resampled to the largest pixel size, and to the largest even box that is not larger than
    any image. Rows keep their order; poses, shifts (Å), CTF, optics groups and grey values do not change.

    Parameters
    ----------
    path : Particles, path-like or sequence of path-like
        The file, or several .cs files; particles are returned unchanged.
    reading : dict
        Keywords of `Particles.read`.

    Raises
    ------
    InputError
        If `Particles.read` refuses the file for another reason than its grids, or options are passed with particles.

    Warns
    -----
    UserWarning
        If images are resampled.
    """
    if isinstance(path, Particles):
        if reading:
            sentence = f"prepare: {', '.join(reading)} cannot be applied to particles that have been read."
            remedy = "Pass these options to Particles.read."
            raise InputError("prepare", "options for reading", "a particle file", remedy, sentence)
        return path, _grids(path)
    parts = _read(path, reading)
    everywhere = [note for note in parts[0].notes if all(note in part.notes for part in parts)]
    own = [f"Images of {part}: {note}" for part in parts for note in part.notes if note not in everywhere]
    for note in (*everywhere, *own):
        warn_user(note)
    if len(parts) == 1:
        return parts[0].particles, ""
    joined = _joined(parts, inputs_in(path, *(reading.get(name) for name in ("poses", "ctf", "indices"))))
    grids = _grids(joined)
    warn_user(f"{joined.where}: images of several grids ({grids}) are resampled to one: {_grid(joined)}.")
    return joined, grids


def _grids(particles: Particles) -> str:
    source = particles._source
    return source.grids if isinstance(source, ResampledImages) else ""


def _grid(particles: Particles) -> str:
    return f"{particles.box_size} px at {particles.pixel_size:.6g} Å"


def _read(path: Any, reading: dict[str, Any]) -> list[Part]:
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            particles = Particles.read(path, **reading)
        return [Part(particles, np.arange(len(particles)), [str(warning.message) for warning in caught])]
    except SeveralGrids as error:
        refused = error
    table = refused.table
    if table is None:  # several grids in cryoDRGN's CTF parameters
        parts = _read(path, reading | {"ctf": _without_grid(reading["ctf"])})
        if len(parts) > 1:
            return parts
        remedy = "Pass the CTF parameters that belong to these images."
        raise InputError(refused.where, refused.found, "a single value, as in the particle file", remedy) from refused
    keys = np.stack([np.round(table.pixel_size, 6), table.box_size], axis=1)
    number = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    found = []
    for positions in (np.flatnonzero(number == i) for i in range(number.max() + 1)):
        own = _read(path, _restricted(reading, table, positions))
        found += [part._replace(positions=positions[part.positions]) for part in own]
    return found


def _restricted(reading: dict[str, Any], table: Metadata, positions: np.ndarray) -> dict[str, Any]:
    """Return the keywords that read only the particles at some positions of a selection."""
    known = (rows for rows in (table.file_rows, table.rows, np.arange(len(table))) if rows is not None)
    rows = next(known)  # of joined files, indices are rows of the first
    restricted = reading | {"indices": rows[positions], "optics_groups": None}
    n, poses = len(table), reading.get("poses")
    if poses is not None and _of_cryodrgn(poses):
        rotations, shifts = cryodrgn.read_poses(poses)
        given = [part for part in (rotations.swapaxes(1, 2), shifts) if part is not None]
        restricted["poses"] = tuple(part[positions] if len(part) == n else part for part in given)
    if reading.get("ctf") is not None:
        ctf = _without_grid(reading["ctf"])
        restricted["ctf"] = ctf[positions] if isinstance(ctf, CTF) and len(ctf) == n else ctf
    return restricted


def _of_cryodrgn(given: Any) -> bool:
    return not isinstance(given, (str, os.PathLike)) or Path(given).suffix.lower() == ".pkl"


def _without_grid(ctf: Any) -> Any:
    """Return cryoDRGN's CTF parameters without their box and pixel size."""
    return cryodrgn.read_ctf(ctf)[0] if not isinstance(ctf, CTF) and _of_cryodrgn(ctf) else ctf


def _joined(parts: list[Part], inputs: list[Path]) -> Particles:
    sets = tuple(part.particles for part in parts)
    order = np.argsort(np.concatenate([part.positions for part in parts]))
    number = np.repeat(np.arange(len(sets)), [len(particles) for particles in sets])[order]
    row = np.concatenate([np.arange(len(particles)) for particles in sets])[order]
    pixel_size = max(particles.pixel_size for particles in sets)
    extent = min(particles.box_size * particles.pixel_size for particles in sets)
    box_size = 2 * int(extent / (2 * pixel_size) + 1e-3)
    light = all(particles.contrast == "light" for particles in sets)
    axes = tuple(resampling(p.box_size, p.pixel_size, box_size, pixel_size) for p in sets)

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(particles, name) for particles in sets])[order]

    first, source_rows = sets[0], column("source_rows")
    known = [particles.ctf for particles in sets if particles.ctf is not None]
    if 0 < len(known) < len(sets):
        found, remedy = "images of some grids without a CTF", "Estimate it, or leave these images out with indices=."
        raise InputError(first.where, found, "the CTF of all images", remedy)
    ctf = CTF(*(np.concatenate([getattr(c, f.name) for c in known])[order] for f in fields(CTF))) if known else None
    return Particles(
        ResampledImages(sets, axes, number, row, light),
        None if first.rotations is None else column("rotations"),
        column("shifts"),
        ctf,
        pixel_size=pixel_size,
        optics_group=column("optics_group"),
        contrast="light" if light else "dark",
        truth=_truth(first, source_rows, box_size, pixel_size),
        source_rows=source_rows,
        where=first.where,
        inputs=inputs,
    )


def _truth(particles: Particles, rows: np.ndarray, box_size: int, pixel_size: float) -> Truth | None:
    """Return the ground truth of some rows of the file that the particles were read from, on the given grid."""
    if particles.truth is None or particles.source is None:
        return None
    truth = Truth.load(particles.source.with_suffix(".truth.npz"))[rows]
    width = truth.atom_width * truth.pixel_size / pixel_size
    return replace(truth, box_size=box_size, pixel_size=pixel_size, atom_width=width)
