"""Gaussian mixture parameters as three arrays, with validation, factorisation and splitting."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cryotwin_nb.errors import InputError

_TINY = torch.finfo(torch.float64).tiny


class Components(NamedTuple):
    """Weights (C,), means (C, d) and covariances (C, d, d) of a mixture, float64."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def covariance(self) -> Tensor:
        """Return the covariance (d, d) of the whole mixture."""
        away = self.means - self.weights @ self.means
        return torch.tensordot(self.weights, self.covariances + away[:, :, None] * away[:, None], 1)

    def require_valid(self) -> None:
        """Raise `InputError` unless the weights, means and covariances define a mixture."""
        weights, means, covariances = self
        remedy = "Check how you built the mixture, or fit one to latents with GaussianMixture.fit."

        def require(good: object, what: str, found: str, expected: str) -> None:
            if not bool(good):
                raise InputError(f"GaussianMixture {what}", found, expected, remedy)

        require(means.ndim == 2 and means.numel() > 0, "means", f"shape {tuple(means.shape)}", "(C, d)")
        count, dim = means.shape
        require(weights.shape == (count,), "weights", f"shape {tuple(weights.shape)}", f"({count},)")
        shape = (count, dim, dim)
        require(covariances.shape == shape, "covariances", f"shape {tuple(covariances.shape)}", f"{shape}")
        for name, values in (("weights", weights), ("means", means), ("covariances", covariances)):
            require(values.isfinite().all(), name, "NaN or infinity", "finite numbers")
        require((weights >= 0).all(), "weights", f"a weight of {weights.min():.3g}", "no negative weight")
        require(abs(weights.sum() - 1) < 1e-6, "weights", f"a sum of {weights.sum():.6g}", "a sum of 1")
        largest = covariances.abs().amax((-2, -1)).clamp_min(_TINY)
        asymmetry = (covariances - covariances.mT).abs().amax((-2, -1)) / largest
        where = f"component {int(asymmetry.argmax())}, which is not symmetric"
        require((asymmetry < 1e-6).all(), "covariances", where, "symmetric matrices")
        failed = torch.linalg.cholesky_ex(covariances).info.nonzero()
        where = f"component {int(failed[0])}, which is not positive definite" if len(failed) else ""
        require(not len(failed), "covariances", where, "positive definite matrices")

    def factorised(self, window: float) -> Factors:
        """Return the factors for evaluating densities, with window^2 / 12 added to the diagonal of each covariance."""
        count, dim = self.means.shape
        identity = torch.eye(dim, dtype=self.means.dtype, device=self.means.device)
        cholesky = torch.linalg.cholesky(self.covariances + window**2 / 12 * identity)
        inverse = torch.linalg.solve_triangular(cholesky, identity.expand_as(cholesky), upper=False)
        log_det = cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = self.weights.clamp_min(_TINY).log() - log_det - dim / 2 * math.log(2 * math.pi)
        offset = -(inverse @ self.means[..., None]).reshape(count * dim)
        return Factors(inverse.reshape(count * dim, dim).T.contiguous(), offset, constant)


class Factors(NamedTuple):
    """Inverse Cholesky factors (d, C d), negated whitened means (C d,) and log constants (C,) of a mixture.

    The log of a component's weighted density is constant - |residual|^2 / 2, where residual = z @ whitener + offset.
    """

    whitener: Tensor
    offset: Tensor
    constant: Tensor

    def log_joint(self, z: Tensor) -> Tensor:
        """Return log pi_c N(z; mu_c, Sigma_c), (n, C), for latents `z` (n, d) float64."""
        return self.constant - 0.5 * self._residual(z).square().sum(-1)

    def value_and_score(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return log P (n,) and its gradient -sum_c gamma_c Sigma_c^-1 (z - mu_c) (n, d)."""
        away = self._residual(z)
        joint = self.constant - 0.5 * away.square().sum(-1)
        largest = joint.amax(-1, keepdim=True)
        share = (joint - largest).exp_()
        total = share.sum(-1, keepdim=True)
        away *= (share / -total)[..., None]
        return (largest + total.log())[:, 0], away.flatten(1) @ self.whitener.T

    def _residual(self, z: Tensor) -> Tensor:
        """Return the offsets from the means in standard deviations, (n, C, d), for latents `z` (n, d)."""
        return torch.addmm(self.offset, z, self.whitener).unflatten(-1, (len(self.constant), -1))


def halves(mean: Tensor, covariance: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Return means (2, d) and common covariance (d, d) of two equal Gaussians that together have the given moments.

    The means are `fraction` standard deviations on either side of `mean` along the longest axis; the variance along
    that axis is reduced by the square of this offset.
    """
    variances, axes = torch.linalg.eigh(covariance)
    offset = fraction * variances[-1].clamp_min(0).sqrt() * axes[:, -1]
    return torch.stack([mean + offset, mean - offset]), covariance - offset[:, None] * offset
