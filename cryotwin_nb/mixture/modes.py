"""Modes of a Gaussian mixture by fixed-point iteration from its means (Carreira-Perpinan 2000)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cryotwin_nb.mixture.components import Components


def climb(mixture: Components, responsibilities: Callable[[Tensor], Tensor], max_iter: int) -> tuple[Tensor, Tensor]:
    """Return the mode reached from each mean (C, d) and the local precision of the mixture there (C, d, d).

    Each fixed-point iteration z = (sum_c gamma_c Sigma_c^-1)^-1 sum_c gamma_c Sigma_c^-1 mu_c increases the density.
    The starting points are displaced by 0.001 standard deviations to escape saddle points.
    """
    precision = torch.cholesky_inverse(torch.linalg.cholesky(mixture.covariances))
    pull = (precision @ mixture.means[..., None])[..., 0]
    z = mixture.means + 1e-3 * torch.linalg.cholesky(mixture.covariances).sum(-1)
    for _ in range(max_iter):
        gamma = responsibilities(z)
        local = torch.einsum("mc,cde->mde", gamma, precision)
        new = torch.cholesky_solve((gamma @ pull)[..., None], torch.linalg.cholesky(local))[..., 0]
        step = new - z
        z = new
        if (step[:, None] @ local @ step[..., None]).max() < 1e-16:
            break
    return z, local


def distinct(z: Tensor, precision: Tensor, order: list[int]) -> list[int]:
    """Return the first point index, in `order`, of each cluster of points within 0.01 local standard deviations."""
    kept: list[int] = []
    for i in order:
        away = z[i] - z[kept]
        if not len(kept) or torch.einsum("kd,de,ke->k", away, precision[i], away).min() > 1e-4:
            kept.append(i)
    return kept
