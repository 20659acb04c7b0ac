"""Poses of the mirror image in the columns of a particle file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.columns import read_columns
from cryotwin_nb.formats.cryosparc import open_table
from cryotwin_nb.formats.metadata import column

_TURNED = ("rlnAngleRot", "rlnAnglePsi", "rlnAngleRotPrior", "rlnAnglePsiPrior")


def mirrored_poses(path: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return new values of the pose columns of a .star or .cs file, for the mirror image in the plane z = 0.

    These are the rotations of `poses.mirrored_rotations`: rot and psi turned by 180 degrees, or rotation vectors with
    x and y of opposite sign. Tilt, shifts and CTF do not change.

    Parameters
    ----------
    path : Path
        The file.
    rows : (k,) int64
        Rows of the particles.

    Returns
    -------
    dict of str to (k,) or (k, ...)
        Values by label or field.

    Raises
    ------
    InputError
        If the file has no poses.
    """
    poses: dict[str, np.ndarray] = {}
    if path.suffix.lower() == ".star":
        table = read_columns(path, rows)
        poses = {name: column(table[name], path, name) % 360 - 180 for name in _TURNED if name in table}
    else:
        stored = open_table(path)[rows]
        for name in stored.dtype.names or ():
            if re.fullmatch(r"alignments\w+/pose", name) and stored.dtype[name].shape[-1:] == (3,):
                poses[name] = stored[name] * np.array([-1, -1, 1], dtype=stored.dtype[name].base)
    if not poses:
        remedy = "Write the selection without flipping the hand."
        raise InputError(path, "no poses", "poses to mirror", remedy)
    return poses
