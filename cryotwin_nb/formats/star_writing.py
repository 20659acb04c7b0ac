"""Writing of particles as a RELION 3.1 STAR file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from cryotwin_nb.formats.poses import euler_from_rotations
from cryotwin_nb.formats.star import ANGLES, DEFOCUS
from cryotwin_nb.imaging.optics import CTF


def write_star(
    path: str | os.PathLike,
    stack: str,
    optics_group: np.ndarray,
    pixel_size: float,
    box_size: int,
    rotations: np.ndarray | None = None,
    shifts: np.ndarray | None = None,
    ctf: CTF | None = None,
    prepared: dict[str, int | str] | None = None,
) -> None:
    """Write the particles of one stack as a RELION 3.1 STAR file, directly to `path` (not atomic, see `files.atomic`).

    Parameters
    ----------
    path : path-like
        The .star file.
    stack : str
        Path of the stack relative to the folder of the STAR file; its images are numbered in order.
    optics_group : (n,) int64
        Number of the optics group, from 0. Groups with several voltages, Cs values or amplitude contrasts are split.
    pixel_size, box_size : float, int
        Pixel size, Å; box size, pixels.
    rotations, shifts, ctf
        As in `Metadata`.
    prepared : dict, optional
        Columns for data_optics that record how the images were processed: `SIGN`, `WHITENED`, `STACK`.
    """
    import pandas as pd
    import starfile

    keys = {"group": np.asarray(optics_group, dtype=np.float64)}
    if ctf is not None:
        keys["rlnVoltage"], keys["rlnSphericalAberration"] = ctf.voltage, ctf.spherical_aberration
        keys["rlnAmplitudeContrast"] = ctf.amplitude_contrast
    rows, group = np.unique(np.stack(list(keys.values()), axis=1), axis=0, return_inverse=True)
    optics: dict[str, Any] = {"rlnOpticsGroup": np.arange(len(rows)) + 1}
    optics["rlnOpticsGroupName"] = [f"opticsGroup{number}" for number in optics["rlnOpticsGroup"]]
    optics |= {"rlnVoltage": 0.0, "rlnSphericalAberration": 0.0} if ctf is None else {}  # RELION requires both labels
    optics |= dict(zip(list(keys)[1:], rows.T[1:]))
    optics |= {"rlnImagePixelSize": pixel_size, "rlnImageSize": box_size, "rlnImageDimensionality": 2}
    optics |= prepared or {}
    particles: dict[str, Any] = {"rlnImageName": [f"{i + 1:06d}@{stack}" for i in range(len(group))]}
    if rotations is not None:
        particles |= dict(zip(ANGLES, euler_from_rotations(rotations)))
    if shifts is not None:
        particles["rlnOriginXAngst"], particles["rlnOriginYAngst"] = shifts.T
    if ctf is not None:
        particles |= dict(zip(DEFOCUS, (ctf.defocus_u, ctf.defocus_v, ctf.defocus_angle)))
        particles["rlnPhaseShift"] = ctf.phase_shift
    particles["rlnOpticsGroup"] = group.reshape(-1) + 1
    tables = {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(particles)}
    starfile.write(tables, path, float_format="%.9g")
