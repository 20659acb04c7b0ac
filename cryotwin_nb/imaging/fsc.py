"""Fourier shell correlation (FSC) of two maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import fft3, grid, n_shells, require_box_size, shell_mean


@dataclass(frozen=True)
class FscCurve:
    """Fourier shell correlation of two maps.

    Attributes
    ----------
    frequency : (D/2,) float64
        Centre of each shell, 1/Å; shell 0 (the mean density) is excluded.
    correlation : (D/2,) float64
        Re<a, b> / (|a| |b|) in each shell.
    """

    frequency: np.ndarray
    correlation: np.ndarray

    @property
    def area(self) -> float:
        """Mean correlation over the shells up to Nyquist: 1 for identical maps."""
        return float(self.correlation.mean())

    def resolution(self, threshold: float = 0.143) -> float:
        """Resolution in Å at which the curve first falls below `threshold`, linearly interpolated.

        The result is the Nyquist resolution if the curve never falls below `threshold`, and infinity if it starts below
        `threshold`.

        Parameters
        ----------
        threshold : float
            Correlation threshold; by default 0.143, the usual value for independent half maps.
        """
        below = np.flatnonzero(self.correlation < threshold)
        if len(below) == 0:
            return float(1 / self.frequency[-1])
        if below[0] == 0:
            return float("inf")
        high, low = below[0] - 1, below[0]
        step = (self.correlation[high] - threshold) / (self.correlation[high] - self.correlation[low])
        return float(1 / (self.frequency[high] + step * (self.frequency[low] - self.frequency[high])))


def fsc(
    a: Tensor | np.ndarray, b: Tensor | np.ndarray, voxel_size: float, mask: Tensor | np.ndarray | None = None
) -> FscCurve:
    """Fourier shell correlation of two maps (D, D, D) on the same grid.

    Parameters
    ----------
    a, b : (D, D, D) float
        Maps, zyx.
    voxel_size : float
        Voxel size, Å.
    mask : (D, D, D) float, optional
        Mask that both maps are multiplied by (`masks.spherical_mask`, `masks.map_mask`). Use a soft mask: a sharp edge
        is a signal common to both maps and raises the correlation.

    Raises
    ------
    InputError
        If the maps, or the mask, are not cubes of the same even size.

    Notes
    -----
    Shell s holds the coefficients with round(|k|) = s for s = 1 ... D/2 (Harauz and van Heel 1986).

    Examples
    --------
    >>> curve = ct.fsc(volume, volume, voxel_size=10.0)
    >>> curve.correlation[1:4].round(3)
    array([1., 1., 1.])
    """
    given = (a, b) if mask is None else (a, b, mask)
    maps = [torch.as_tensor(np.asarray(m), dtype=torch.float64) for m in given]
    size = require_box_size(maps[0].shape[-1], "fsc")
    for m in maps:
        if tuple(m.shape) != (size,) * 3:
            raise InputError("fsc", f"a map of shape {tuple(m.shape)}", f"{(size,) * 3}", "Use maps of equal size.")
    left, right = (fft3(m * maps[2] if mask is not None else m).flatten() for m in maps[:2])
    shell = grid(size, 3).reshape(-1, 3).double().norm(dim=-1).round().long()
    cross, power_a, power_b = (
        shell_mean(v, shell, n_shells(size))[1 : size // 2 + 1]
        for v in ((left.conj() * right).real, left.abs() ** 2, right.abs() ** 2)
    )
    correlation = cross / (power_a * power_b).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    frequency = np.arange(1, size // 2 + 1) / (size * voxel_size)
    return FscCurve(frequency, correlation.numpy())
