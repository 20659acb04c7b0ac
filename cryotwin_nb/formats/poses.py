"""Conversion between the rotations of other programs and the matrices R in v = R nu used here.

cryoDRGN stores transposes: it multiplies row vectors by its matrix, which is therefore R^T. RELION's matrix for the
angles (rot, tilt, psi) is Z(psi) Y(tilt) Z(rot), which is also R^T. In SciPy's terms, R is the intrinsic rotation "ZYZ"
by rot, tilt and psi about the z, y and z axes of the molecule. cryoSPARC's rotation vectors describe R itself.
"""

from __future__ import annotations

import warnings

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.metadata import column


def rotations_from_euler(rot: np.ndarray, tilt: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Convert RELION's angles (n,) in degrees to rotations R (n, 3, 3) float32, v = R nu."""
    from scipy.spatial.transform import Rotation  # slow to import, not needed to load a model

    angles = np.stack([rot, tilt, psi], axis=-1)
    return Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().astype(np.float32)


def euler_from_rotations(rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Convert rotations R (n, 3, 3) to RELION's angles rot, tilt, psi (n,) float64 in degrees, tilt from 0 to 180.

    At tilt 0 or 180 only one combination of rot and psi is determined, and psi is set to 0. The angles always reproduce
    the matrix.
    """
    from scipy.spatial.transform import Rotation  # slow to import, not needed to load a model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gimbal lock")
        rot, tilt, psi = Rotation.from_matrix(np.asarray(rotations, dtype=np.float64)).as_euler("ZYZ", degrees=True).T
    return rot, tilt, psi


def rotations_from_vectors(vectors: np.ndarray) -> np.ndarray:
    """Convert cryoSPARC's rotation vectors (n, 3) in radians to rotations R = exp([v]x) (n, 3, 3) float32."""
    from scipy.spatial.transform import Rotation  # slow to import, not needed to load a model

    return Rotation.from_rotvec(np.asarray(vectors, dtype=np.float64)).as_matrix().astype(np.float32)


def mirrored_rotations(rotations: np.ndarray) -> np.ndarray:
    """Convert rotations R (n, 3, 3) to J R J with J = diag(1, 1, -1): the poses of the same images in the other hand.

    At these rotations, the volumes of `fourier.mirrored` have the projections that the originals have at R.
    """
    signs = np.array([1, 1, -1], dtype=np.asarray(rotations).dtype)
    return rotations * np.outer(signs, signs)


def require_rotations(rotations: np.ndarray, where: object) -> np.ndarray:
    """Return `rotations` as (n, 3, 3) float32 if they are orthonormal with determinant +1 to within 1e-3.

    Raises
    ------
    InputError
        If a matrix is not a rotation; the message names the first one.
    """
    matrices = np.asarray(rotations)
    if matrices.ndim != 3 or matrices.shape[1:] != (3, 3) or matrices.dtype.kind not in "fiu":
        found = f"rotations of shape {matrices.shape} and type {matrices.dtype}"
        raise InputError(where, found, "(n, 3, 3) numbers", "Pass one 3 x 3 matrix per particle.")
    matrices = column(matrices, where, "rotation")  # float64, so that products of float32 values cannot overflow
    error = np.abs(matrices @ matrices.swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2), initial=0.0)
    bad = (error > 1e-3) | (np.abs(np.linalg.det(matrices) - 1) > 1e-3)
    if bad.any():
        found = f"a matrix that is not a rotation for particle {np.flatnonzero(bad)[0]} (and {bad.sum() - 1} others)"
        raise InputError(where, found, "orthonormal matrices with determinant +1", "Export the poses again.")
    return matrices.astype(np.float32)
