"""What a particle file lists: copies of images, and picks so close together that they may be one particle."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cryotwin_nb.formats.copies import describe_copies
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.preparation.findings import NOTE, WARNING, Finding

_CLOSE = 0.2  # distance below which two picks are reported, as a fraction of the particle diameter
_DIAMETER = 0.8  # particle diameter as a fraction of the box, as for `ImageFormation`
_STAR_PIXELS = {  # columns that state the pixel size of micrographs, in order of precedence
    "rlnMicrographPixelSize": "rlnMicrographPixelSize",
    "rlnMicrographOriginalPixelSize": "rlnMicrographOriginalPixelSize, that of the movies before any binning",
}


class Picks(NamedTuple):
    """Positions of particles on their micrographs.

    Attributes
    ----------
    position : (n, 2) float64
        Coordinates, Å.
    micrograph : (n,)
        Name or number of the micrograph.
    pixel : str
        Pixel size of the micrographs, and where it is from.
    """

    position: np.ndarray
    micrograph: np.ndarray
    pixel: str


def listed(particles: Particles) -> tuple[Finding, ...]:
    """Return what is found in the list of particles, without looking at images."""
    return tuple(finding for finding in (_copies(particles), _close_picks(particles)) if finding is not None)


def _copies(particles: Particles) -> Finding | None:
    text = describe_copies(particles.identity, particles.rotations)
    if text is None:
        return None
    if "duplicates" in text:
        return Finding("duplicates", text, "Remove them, or keep one row per image with indices=.")
    advice = "Count images, not rows; copies stay in one half-set."
    return Finding("images listed more than once", text, advice, NOTE)


def _close_picks(particles: Particles) -> Finding | None:
    """Count picks whose nearest neighbour on the micrograph is closer than a fifth of the particle diameter."""
    from scipy.spatial import cKDTree

    picks = read_picks(particles)
    if picks is None:
        return None
    rows = np.unique(particles.identity, return_index=True)[1]  # copies of an image are one pick
    rows = rows[np.isfinite(picks.position[rows]).all(1)]
    if len(rows) < 2 or not np.ptp(picks.position[rows], axis=0).any():
        return None
    diameter = _DIAMETER * particles.box_size * particles.pixel_size
    micrograph = np.unique(picks.micrograph[rows], return_inverse=True)[1].reshape(-1)
    points = np.column_stack([picks.position[rows], micrograph * diameter])  # micrographs are a diameter apart
    distance = cKDTree(points).query(points, k=2, distance_upper_bound=_CLOSE * diameter)[0][:, 1]
    close = distance < _CLOSE * diameter
    if not close.any():
        return None
    evidence = (
        f"{close.sum()} of {len(rows)} picks, on {len(np.unique(micrograph[close]))} of {micrograph.max() + 1} "
        f"micrographs, are closer than {_CLOSE * diameter:.3g} Å to another, a fifth of the diameter "
        f"({diameter:.3g} Å, {_DIAMETER:g} of the box); micrographs at {picks.pixel}"
    )
    advice = "They may be one particle picked twice, with the same noise: remove duplicates by distance."
    return Finding("picks close together", evidence, advice, WARNING)


def read_picks(particles: Particles) -> Picks | None:
    """Return the positions of particles in the file that they were read from; None if it does not contain them.

    Parameters
    ----------
    particles : Particles
        Particles read from a STAR or .cs file.
    """
    source = particles.source
    if source is None or not source.is_file():
        return None
    read = {".star": _star_picks, ".cs": _cs_picks}.get(source.suffix.lower())
    return None if read is None else read(source, particles)


def _star_picks(source: Path, particles: Particles) -> Picks | None:
    import pandas as pd

    detector = ("rlnDetectorPixelSize", "rlnMagnification")
    needed = ("rlnCoordinateX", "rlnCoordinateY", "rlnMicrographName")
    table = particles.columns
    table = table[[name for name in (*needed, *_STAR_PIXELS, *detector) if name in table]]
    if not set(needed) <= set(table.columns):
        return None
    numbers = {name: pd.to_numeric(table[name], errors="coerce").to_numpy(float) for name in table if name != needed[2]}
    known = {why: numbers[name] for name, why in _STAR_PIXELS.items() if name in numbers}
    if set(detector) <= set(numbers):
        with np.errstate(divide="ignore", invalid="ignore"):
            known[" and ".join(detector)] = numbers[detector[0]] * 1e4 / numbers[detector[1]]
    pixel, why = _pixel_size(known, particles)
    position = np.column_stack([numbers[name] for name in needed[:2]]) * pixel[:, None]
    return Picks(position, table[needed[2]].to_numpy(str), why)


def _cs_picks(source: Path, particles: Particles) -> Picks | None:
    from cryotwin_nb.formats.cryosparc import open_table

    table, prefix = open_table(source), "location/"
    fields = set(table.dtype.names or ())
    needed = [prefix + name for name in ("center_x_frac", "center_y_frac", "micrograph_shape", "micrograph_uid")]
    if not set(needed) <= fields:
        return None
    x, y, shape, micrograph = (np.asarray(table[name])[particles.source_rows] for name in needed)
    stated = prefix + "micrograph_psize_A"
    known = {stated: table[stated][particles.source_rows].astype(float)} if stated in fields else {}
    pixel, why = _pixel_size(known, particles)
    return Picks(np.column_stack([x, y]) * shape[:, ::-1] * pixel[:, None], micrograph, why)  # shape: rows, columns


def _pixel_size(known: dict[str, np.ndarray], particles: Particles) -> tuple[np.ndarray, str]:
    """Return the pixel size (n,) of the micrographs, Å, and a description; by default that of the images."""
    for name, values in known.items():
        if (np.isfinite(values) & (values > 0)).all():
            several = f" to {values.max():.4g}" if np.ptp(values) > 1e-3 * values.max() else ""
            return values, f"{values.min():.4g}{several} Å per pixel ({name})"
    given = particles.pixel_size
    return np.full(len(particles), given), f"{given:.4g} Å per pixel (assumed: the images are not binned)"
