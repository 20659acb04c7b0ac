"""Post-process the maps of a pass: principal components, orthonormalisation, spectra and their extrapolation."""

from __future__ import annotations

import torch
from torch import Tensor

from cryotwin_nb.imaging.fourier import fft3, grid, n_shells, shell_mean
from cryotwin_nb.reconstruction.backprojection import MARGIN

_STEEPEST = 2.0  # largest ratio of the parts of a direction that are parallel and perpendicular to the average map
_LEAST_SPREAD = 0.01  # smallest spread of the contrasts that is fitted


def _bounded(uncertainty: Tensor, box_size: int) -> Tensor:
    """Limit the covariances (n_shells, Q, Q) such that the total variance of each direction is at most 100.

    A direction with a higher variance explains nothing, and values that grow from pass to pass would overflow.
    """
    shell = grid(box_size, 3, uncertainty.device).reshape(-1, 3).float().norm(dim=-1).round().long()
    counts = torch.bincount(shell, minlength=len(uncertainty))
    energy = counts.double() @ uncertainty.diagonal(dim1=-2, dim2=-1)
    limit = (100 / energy).clamp_max(1).sqrt()
    limit[0] = 1
    return uncertainty * limit[:, None] * limit


def _orthonormal(maps: Tensor) -> Tensor:
    """Orthonormalise maps (K, D, D, D) in their order; voxels that are 0 in all maps stay 0."""
    flat = maps.flatten(1)
    triangle = torch.linalg.qr(flat.T, mode="r").R
    basis = torch.linalg.solve_triangular(triangle.T, flat, upper=False)
    return (triangle.diagonal().sign()[:, None] * basis).view_as(maps)


def _power(maps: Tensor) -> Tensor:
    """Return the mean power (n_shells, Q) of the Fourier coefficients of maps (Q, D, D, D) in each shell."""
    size = maps.shape[-1]
    shell = grid(size, 3, maps.device).reshape(-1, 3).float().norm(dim=-1).round().long()
    return torch.stack([shell_mean(fft3(m).flatten().abs().square(), shell, n_shells(size)) for m in maps], dim=1)


def _continued(power: Tensor, reference: Tensor, radius: float) -> Tensor:
    """Replace the power (n_shells, Q) beyond `radius` by a reference spectrum, scaled to match."""
    last = max(1, int(radius - MARGIN))  # at least one shell beyond the mean, also in boxes of 8 pixels
    outer = slice(max(1, last // 2), last + 1)
    ratio = (power[outer].log().mean(0) - reference[outer].log().mean()).exp()
    return torch.cat([power[: last + 1], ratio * reference[last + 1 :, None]])


def _principal(maps: Tensor, first: Tensor, second: Tensor, contrasts: bool) -> tuple[Tensor, Tensor, float]:
    """Return the transformation of maps (Q, D, D, D) to an average and orthonormal principal components.

    Parameters
    ----------
    first, second : (Q,), (Q, Q)
        Mean and second moment of a (1, c), the coefficients of `maps`, over all images.
    contrasts : bool
        Whether the contrasts a vary; if not, they are 1.

    Returns
    -------
    change : (Q, Q)
        Matrix for which change @ maps gives V_0 and the U_k.
    variances : (K,)
        Variances of the coefficients c of the U_k, in decreasing order.
    spread : float
        Standard deviation of the contrasts, relative to their mean.

    Notes
    -----
    V_0 is scaled such that the mean of a is 1. The coefficients w = a c are centred by adding their average
    contribution to V_0. If contrasts vary, images show the multiples of V_0 that each U_k contains only through the
    regression of the coefficient of V_0 on w: c has zero mean and is independent of a, so a is not correlated with w.
    Directions parallel to V_0 would explain the contrasts completely; no real change of the structure is parallel to
    V_0, so such multiples are limited (`_STEEPEST`).
    """
    n_basis, average = len(maps) - 1, first[1:] / first[0]
    centring = torch.eye(len(maps)).to(second)
    centring[1:, 0] = -average
    second = centring @ second @ centring.T  # second moment of (a, w - a average)
    flat = maps.flatten(1).double()
    flat = torch.cat([flat[:1] + average @ flat[1:], flat[1:]])
    slope, spread = second.new_zeros(n_basis), 0.0
    if contrasts:
        slope, spread = _regression(flat, second, float(first[0]))
    directions = flat[1:] + slope[:, None] * flat[:1]
    factor = torch.linalg.cholesky(second[1:, 1:])
    variances, axes = torch.linalg.eigh(factor.T @ (directions @ directions.T) @ factor)
    variances, axes = variances.flip(0), axes.flip(1)
    turn = (factor @ axes / variances.clamp_min(1e-14 * variances[0]).sqrt()).T
    change = torch.eye(len(maps)).to(second)
    change[0, 1:] = average
    change[0] *= first[0]
    change[1:, 1:] = turn @ (change[1:, 1:] + slope[:, None] * average)
    change[1:, 0] = turn @ slope
    variances = variances * first[0] ** 2 / (1 + spread**2)  # of c, not of w = a c
    return change, variances.clamp_min(1e-8 * variances[0]), spread


def _regression(flat: Tensor, second: Tensor, mean: float) -> tuple[Tensor, float]:
    """Return what to add to each U_k, in units of V_0, and the standard deviation of the contrasts.

    Parameters
    ----------
    flat : (Q, voxels)
        V_0 and the U_k.
    second : (Q, Q)
        Second moment of (a, w).
    mean : float
        Mean of the coefficients of V_0.
    """
    energy = flat[0] @ flat[0]
    parallel = flat[1:] @ flat[0] / energy
    perpendicular = flat[1:] - parallel[:, None] * flat[0]
    total = second[0, 1:] + second[1:, 1:] @ parallel  # covariance of w with the coefficient of V_0 in all maps
    variance = second[0, 0] + 2 * parallel @ second[0, 1:] + parallel @ second[1:, 1:] @ parallel - mean**2
    factor = torch.linalg.cholesky(second[1:, 1:])
    variances, axes = torch.linalg.eigh(factor.T @ (perpendicular @ perpendicular.T) @ factor)
    scores = torch.linalg.solve_triangular(factor, total[:, None], upper=False)[:, 0] @ axes  # for w of unit variance
    steepness = scores.abs() * energy.sqrt() / variances.clamp_min(1e-14 * variances[-1]).sqrt()
    scores = scores * (_STEEPEST / steepness.clamp_min(_STEEPEST)).square()
    slope = torch.linalg.solve_triangular(factor.T, (axes @ scores)[:, None], upper=True)[:, 0]
    spread = (variance - scores.square().sum()).clamp_min(0).sqrt() / mean
    return slope - parallel, float(spread)


def accelerated(before: float, after: float, known: float) -> float:
    """Return the spread of the contrasts by a step of Fisher scoring, of which the step of EM is a small part.

    Parameters
    ----------
    before, after : float
        Spread before and after a step of EM.
    known : float
        Mean square of the reduction of the variance of a contrast by its image.
    """
    step = min(before**4 / max(known, 1e-2 * before**4), 10.0) * (after**2 - before**2)
    return max(min(max(before**2 + step, before**2 / 9), 9 * before**2) ** 0.5, _LEAST_SPREAD)
