"""Sufficient statistics of images for a linear model of the density, and the posterior of its coefficients.

With V = V_0 + sum_k c_k U_k and known pose and CTF, the distortion of an image is a quadratic function of c. The
coefficients of this function, the inner products b and G of data and slices, are sufficient statistics of the image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cryotwin_nb.imaging.lattice import HalfBall
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.particles.formation import ImageBatch


class Statistics(NamedTuple):
    """Weighted inner products of images with the slices A of (V_0, U_1, ..., U_K), times CTF / sigma.

    The distortion of the prediction A c~ is energy - 2 c~.b + c~.G c~. If the weights are the multiplicities, as in the
    likelihood, half of the distortion is the negative log-likelihood.

    Attributes
    ----------
    b : (m, Q) float32
        Re A^H W^2 X, Q = K + 1.
    G : (m, Q, Q) float32
        Re A^H W^2 A.
    energy : (m,) float32
        || W X ||^2.
    """

    b: Tensor
    G: Tensor
    energy: Tensor

    def given(self, contrast: Tensor) -> Statistics:
        """Return the statistics of c alone for images that are `contrast` (m,) times a slice of V_0 + sum_k c_k U_k."""
        a = contrast[:, None].to(self.b)
        b = a * self.b[:, 1:] - a**2 * self.G[:, 1:, 0]
        energy = self.energy - 2 * a[:, 0] * self.b[:, 0] + a[:, 0] ** 2 * self.G[:, 0, 0]
        return Statistics(b, a[..., None] ** 2 * self.G[:, 1:, 1:], energy)


class Projections(NamedTuple):
    """Images and the slices that model them, weighted by W; real and imaginary parts alternate.

    Attributes
    ----------
    slices : (m, 2P, Q) float32
        A: slices of (V_0, U_1, ..., U_K) times CTF / sigma.
    data : (m, 2P) float32
        X: images.
    """

    slices: Tensor
    data: Tensor

    def statistics(self) -> Statistics:
        """Return b, G and the energy, excluding the first coefficient.

        The first coefficient is the mean of the image. It depends on the estimate of the background, so its
        noise is correlated with the noise of neighbouring coefficients.
        """
        slices, data = self.slices[:, 2:], self.data[:, 2:]
        return Statistics((data[:, None] @ slices)[:, 0], slices.mT @ slices, data.square().sum(1))

    def residuals(self, first: Tensor, second: Tensor) -> Tensor:
        """Return E[(X - A c~) c~] (m, 2P, Q), given E[c~] (m, Q) and E[c~ c~^T] (m, Q, Q)."""
        return torch.baddbmm(self.data[..., None] * first[:, None], self.slices, second, alpha=-1)


def projections(
    ball: HalfBall, lattice: Tensor, batch: ImageBatch, frequencies: Tensor, weights: Tensor
) -> Projections:
    """Return the `Projections` of a lattice (V, 2Q) at the poses of images.

    Parameters
    ----------
    ball : HalfBall
        Lattice geometry.
    lattice : (V, 2Q)
        Maps on the lattice.
    batch : ImageBatch
        Images with poses and transfer functions.
    frequencies : (P, 2)
        First P frequencies of the batch, grid units.
    weights : (P,) or (m, P)
        W^2 times the multiplicity.
    """
    n, root = len(frequencies), weights.sqrt()
    slices = ball.slices(lattice, frequencies, batch.rotations)
    slices *= (batch.transfer[:, :n] * root)[..., None]
    data = torch.view_as_real(batch.data[:, :n] * root).flatten(1)
    return Projections(slices.view(len(slices), 2 * n, -1), data)


class Posterior(NamedTuple):
    """Posterior of the coefficients of images.

    Attributes
    ----------
    mean : (m, K)
        Posterior mean.
    covariance : (m, K, K)
        Posterior covariance.
    log_evidence : (m,)
        Logarithm of the integral over c of the likelihood exp(b.c - c.Gc / 2) times the prior.
    """

    mean: Tensor
    covariance: Tensor
    log_evidence: Tensor


def posterior(b: Tensor, G: Tensor, prior: GaussianMixture) -> Posterior:
    """Return the posterior of coefficients with likelihood exp(b.c - c.Gc / 2) under a mixture prior, float64.

    Each component gives a Gaussian of precision G + P_c and information b + P_c mu_c, where P_c is the inverse of
    its covariance. G is not inverted and may be singular.
    """
    b, G = b.double(), G.double()
    precision = torch.cholesky_inverse(torch.linalg.cholesky(prior.covariances))
    pull = (precision @ prior.means[..., None])[..., 0]
    factor = torch.linalg.cholesky(G[:, None] + precision)
    covariances = torch.cholesky_inverse(factor)
    information = b[:, None] + pull
    means = (covariances @ information[..., None])[..., 0]
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) - precision.logdet() / 2
    joint = prior.weights.log() - log_det + ((information * means).sum(-1) - (pull * prior.means).sum(-1)) / 2
    log_evidence = joint.logsumexp(-1)
    gamma = (joint - log_evidence[:, None]).exp()
    mean = (gamma[:, None] @ means)[:, 0]
    away = means - mean[:, None]
    covariance = (gamma[..., None, None] * covariances).sum(1) + (gamma[..., None] * away).mT @ away
    return Posterior(mean, covariance, log_evidence)


def contrasts(full: Statistics, variances: Tensor, spread: float) -> Tensor:
    """Return the contrast a (m,) float64 of each image: the posterior mean of the coefficient of V_0.

    Parameters
    ----------
    full : Statistics
        Statistics for V_0 and the U_k, whose coefficients are estimated jointly.
    variances : (K,)
        Prior variances of c, also used as the prior variances of a c.
    spread : float
        Prior standard deviation of a around 1.
    """
    precision = torch.cat([variances.new_tensor([spread**-2]), 1 / variances])
    pull = torch.zeros_like(precision)
    pull[0] = precision[0]
    return torch.linalg.solve(full.G.double() + precision.diag(), full.b.double() + pull)[:, 0]
