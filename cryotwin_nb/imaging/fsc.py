"""Fourier shell correlation (FSC) of two maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import POSITIVE, InputError, guarded
from cryotwin_nb.imaging.fourier import fft3, grid, n_shells, require_box_size, shell_mean
from cryotwin_nb.mixture.points import as_numbers

_SIGNIFICANT = 3.0  # standard deviations of noise above which maps agree at all


@dataclass(frozen=True)
class FscCurve:
    """Fourier shell correlation of two maps.

    Attributes
    ----------
    frequency : (D/2,) float64
        Centre of each shell, 1/Å; shell 0 (the mean density) is excluded.
    correlation : (D/2,) float64
        Re<a, b> / (|a| |b|) in each shell.
    noise : (D/2,) float64, optional
        Standard deviation that the correlation would have for maps of independent noise (`noise_deviation`).
    """

    frequency: np.ndarray
    correlation: np.ndarray
    noise: np.ndarray | None = None

    @property
    def area(self) -> float:
        """Mean correlation over the shells up to Nyquist: 1 for identical maps."""
        return float(self.correlation.mean())

    def resolution(self, threshold: float = 0.143) -> float:
        """Resolution in Å at which the curve first falls below `threshold`, linearly interpolated.

        The result is the Nyquist resolution if the curve never falls below `threshold`, and infinity if it starts below
        `threshold` or, where `noise` is known, if the correlation up to there could be due to noise (below three
        standard deviations).

        Parameters
        ----------
        threshold : float
            Correlation threshold; by default 0.143, the usual value for independent half maps.
        """
        below = np.flatnonzero(self.correlation < threshold)
        if not self._is_significant(below[0] if len(below) else len(self.correlation)):
            return float("inf")
        if len(below) == 0:
            return float(1 / self.frequency[-1])
        high, low = below[0] - 1, below[0]
        step = (self.correlation[high] - threshold) / (self.correlation[high] - self.correlation[low])
        return float(1 / (self.frequency[high] + step * (self.frequency[low] - self.frequency[high])))

    def _is_significant(self, n: int) -> bool:
        """Return whether the correlation of the first n shells, together, is more than that of noise.

        A mask makes the noise of neighbouring shells dependent. The bound holds for any dependence.
        """
        if n == 0 or self.noise is None:
            return n > 0
        weights = 1 / self.noise[:n] ** 2
        return float(weights @ self.correlation[:n]) > _SIGNIFICANT * float(weights @ self.noise[:n])


@guarded(voxel_size=POSITIVE)
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
    maps = [as_numbers(m, "fsc", "Pass maps (D, D, D).").double().cpu() for m in given]
    if not all(torch.isfinite(m).all() for m in maps):
        raise InputError("fsc", "NaN or infinity", "finite maps", "Check how the maps were computed.")
    maps = [m / m.abs().max().clamp_min(1e-300) if m.numel() else m for m in maps]  # squares cannot overflow
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


def noise_deviation(mask: Tensor, copies: float = 1.0) -> np.ndarray:
    """Standard deviation (D/2,) of the FSC of two maps of independent white noise within a mask.

    It is 1 / sqrt(2 n) for n independent pairs of conjugate coefficients. A mask makes neighbouring coefficients
    dependent: n is smaller than the number of pairs by sum_q |M(q)|^2 w(q) / |M(0)|^2, where M is the transform of the
    squared mask, and w(q) the share of a shell that a displacement by q leaves in the shell, averaged over directions.

    Parameters
    ----------
    mask : (D, D, D) float
        Mask by which both maps were multiplied; roughly isotropic.
    copies : float
        Number of times that each image is used in different symmetry-related poses: its noise is then the same at as
        many coefficients.
    """
    size = len(mask)
    distance = grid(size, 3).double().norm(dim=-1)
    power = fft3(torch.as_tensor(mask).double().cpu() ** 2).abs().square()
    stays = torch.where(distance < 1, 1 - distance / 2, 0.5 / distance.clamp_min(1))
    dependent = float((power * stays).sum() / power.max())
    count = torch.bincount(distance.round().long().flatten())[1 : size // 2 + 1]
    return np.sqrt(copies * dependent / count.double().numpy())
