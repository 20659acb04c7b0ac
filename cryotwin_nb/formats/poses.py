"""Rotations as other programs write them, and as the matrices R of v = R nu used here.

cryoDRGN stores transposes: it looks slices up with row vectors, so its matrix is R^T. RELION's matrix of the angles
(rot, tilt, psi) is Z(psi) Y(tilt) Z(rot), which is R^T too.
"""

from __future__ import annotations

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.metadata import column


def rotations_from_euler(rot: np.ndarray, tilt: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Rotations R (n, 3, 3) float32, v = R nu, from RELION's angles (n,) in degrees.

    R^T = Z(psi) Y(tilt) Z(rot) with Z(a) = [[c, s, 0], [-s, c, 0], [0, 0, 1]], Y(b) = [[c, 0, -s], [0, 1, 0],
    [s, 0, c]].
    """
    relion = _z(psi) @ _y(tilt) @ _z(rot)
    return relion.swapaxes(1, 2).astype(np.float32)


def euler_from_rotations(rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RELION's angles rot, tilt, psi (n,) float64 in degrees, tilt from 0 to 180, of rotations R (n, 3, 3).

    At tilt 0 or 180, where only one combination of rot and psi is determined, rot is whatever rounding leaves; psi
    is computed given rot, so the angles reproduce the matrix everywhere.
    """
    relion = np.asarray(rotations, dtype=np.float64).swapaxes(1, 2)
    rot = np.arctan2(relion[:, 2, 1], relion[:, 2, 0])
    psi_tilt = relion @ _z(np.rad2deg(rot)).swapaxes(1, 2)
    tilt = np.arctan2(psi_tilt[:, 2, 0], psi_tilt[:, 2, 2])
    psi = np.arctan2(psi_tilt[:, 0, 1], psi_tilt[:, 1, 1])
    return np.rad2deg(rot), np.rad2deg(tilt), np.rad2deg(psi)


def rotations_from_vectors(vectors: np.ndarray) -> np.ndarray:
    """Rotations R = exp([v]x) (n, 3, 3) float32 from cryoSPARC's rotation vectors (n, 3) in radians (Rodrigues)."""
    v = np.asarray(vectors, dtype=np.float64)
    angle = np.linalg.norm(v, axis=1)[:, None, None]
    cross = np.zeros((len(v), 3, 3))
    cross[:, 2, 1], cross[:, 0, 2], cross[:, 1, 0] = v.T
    cross -= cross.swapaxes(1, 2)
    sine, versine = np.sinc(angle / np.pi), 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return (np.eye(3) + sine * cross + versine * cross @ cross).astype(np.float32)


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


def _z(degrees: np.ndarray) -> np.ndarray:
    """Z(a) = [[c, s, 0], [-s, c, 0], [0, 0, 1]], (n, 3, 3)."""
    c, s, zero, one = _entries(degrees)
    return np.stack([c, s, zero, -s, c, zero, zero, zero, one], axis=-1).reshape(-1, 3, 3)


def _y(degrees: np.ndarray) -> np.ndarray:
    """Y(b) = [[c, 0, -s], [0, 1, 0], [s, 0, c]], (n, 3, 3)."""
    c, s, zero, one = _entries(degrees)
    return np.stack([c, zero, -s, zero, one, zero, s, zero, c], axis=-1).reshape(-1, 3, 3)


def _entries(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    angle = np.deg2rad(np.asarray(degrees, dtype=np.float64))
    return np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
