"""Rotations as other programs write them, and as the matrices R of v = R nu used here.

cryoDRGN stores transposes: it looks slices up with row vectors, so its matrix is R^T. RELION's matrix of the angles
(rot, tilt, psi) is Z(psi) Y(tilt) Z(rot), which is R^T too. In SciPy's words R turns about z, y and z of the molecule,
by rot, tilt and psi, one after the other ("ZYZ"). cryoSPARC's rotation vectors are those of R itself.
"""

from __future__ import annotations

import warnings

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.metadata import column


def rotations_from_euler(rot: np.ndarray, tilt: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Rotations R (n, 3, 3) float32, v = R nu, from RELION's angles (n,) in degrees."""
    from scipy.spatial.transform import Rotation  # slow to import, not needed to load a model

    angles = np.stack([rot, tilt, psi], axis=-1)
    return Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().astype(np.float32)


def euler_from_rotations(rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RELION's angles rot, tilt, psi (n,) float64 in degrees, tilt from 0 to 180, of rotations R (n, 3, 3).

    At tilt 0 or 180, where only one combination of rot and psi is determined, psi is 0; the angles reproduce the matrix
    everywhere.
    """
    from scipy.spatial.transform import Rotation  # slow to import, not needed to load a model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gimbal lock")
        rot, tilt, psi = Rotation.from_matrix(np.asarray(rotations, dtype=np.float64)).as_euler("ZYZ", degrees=True).T
    return rot, tilt, psi


def rotations_from_vectors(vectors: np.ndarray) -> np.ndarray:
    """Rotations R = exp([v]x) (n, 3, 3) float32 from cryoSPARC's rotation vectors (n, 3) in radians."""
    from scipy.spatial.transform import Rotation  # slow to import, not needed to load a model

    return Rotation.from_rotvec(np.asarray(vectors, dtype=np.float64)).as_matrix().astype(np.float32)


def require_rotations(rotations: np.ndarray, where: object) -> np.ndarray:
    """Return `rotations` as (n, 3, 3) float32 if they are orthonormal with determinant +1 to 1e-3.

    Raises
    ------
    InputError
        Naming the first matrix that is not a rotation.
    """
    matrices = np.asarray(rotations)
    if matrices.ndim != 3 or matrices.shape[1:] != (3, 3) or matrices.dtype.kind not in "fiu":
        found = f"rotations of shape {matrices.shape} and type {matrices.dtype}"
        raise InputError(where, found, "(n, 3, 3) numbers", "Give one 3 x 3 matrix per particle.")
    matrices = column(matrices, where, "rotation")  # in double precision, which holds products of all numbers of single
    error = np.abs(matrices @ matrices.swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2), initial=0.0)
    bad = (error > 1e-3) | (np.abs(np.linalg.det(matrices) - 1) > 1e-3)
    if bad.any():
        found = f"a matrix that is no rotation for particle {np.flatnonzero(bad)[0]} (and {bad.sum() - 1} others)"
        raise InputError(where, found, "orthonormal matrices of determinant +1", "Export the poses again.")
    return matrices.astype(np.float32)
