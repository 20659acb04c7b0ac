"""Density maps of atoms, shared by the simulations and the scores of `outside.py`; only needs NumPy."""

from __future__ import annotations

import numpy as np

VARIANCE = 1.44
"""Variance of the Gaussian of an atom, Å²."""


def density(atoms: np.ndarray, weights: np.ndarray, size: int, pixel_size: float) -> np.ndarray:
    """Return the map (D, D, D) float32, zyx, of atoms (m, 3) xyz, Å from voxel D // 2, without frequencies to alias.

    Parameters
    ----------
    atoms : (m, 3) float
        Positions, Å.
    weights : (m,) float
        Integral of the density of each atom.
    size : int
        Box size D, voxels.
    pixel_size : float
        Å.
    """
    frequency = np.fft.fftfreq(size, pixel_size)
    fall = np.exp(-2 * np.pi**2 * VARIANCE * frequency**2)
    away = atoms + size // 2 * pixel_size
    x, y, z = (fall * np.exp(-2j * np.pi * np.outer(column, frequency)) for column in away.T)
    x, y, z = (wave.astype(np.complex64) for wave in (x[:, : size // 2 + 1], y, z * weights[:, None]))
    spectrum = z.T @ (y[:, :, None] * x[:, None]).reshape(len(atoms), -1)
    spectrum = spectrum.reshape(size, size, size // 2 + 1) / pixel_size**3
    return np.fft.irfftn(spectrum, s=(size,) * 3, axes=(0, 1, 2)).astype(np.float32)
