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

FAINTEST = 0.25  # lowest contrast: the image of a fainter particle does not show its structure


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
    gamma, means, covariances, log_evidence = _by_component(b.double(), G.double(), prior)
    mean = (gamma[:, None] @ means)[:, 0]
    away = means - mean[:, None]
    covariance = (gamma[..., None, None] * covariances).sum(1) + (gamma[..., None] * away).mT @ away
    return Posterior(mean, covariance, log_evidence)


def _by_component(b: Tensor, G: Tensor, prior: GaussianMixture) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return probability (m, C), mean (m, C, K) and covariance (m, C, K, K) of each component, and the log-evidence."""
    precision = torch.cholesky_inverse(torch.linalg.cholesky(prior.covariances))
    pull = (precision @ prior.means[..., None])[..., 0]
    factor = torch.linalg.cholesky(G[:, None] + precision)
    covariances = torch.cholesky_inverse(factor)
    information = b[:, None] + pull
    means = (covariances @ information[..., None])[..., 0]
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) - precision.logdet() / 2
    joint = prior.weights.log() - log_det + ((information * means).sum(-1) - (pull * prior.means).sum(-1)) / 2
    log_evidence = joint.logsumexp(-1)
    return (joint - log_evidence[:, None]).exp(), means, covariances, log_evidence


def augmented(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return E[c~] (m, Q) and E[c~ c~^T] (m, Q, Q) of c~ = (1, c), from the moments of c."""
    first = torch.cat([torch.ones_like(mean[:, :1]), mean], dim=1)
    second = first[:, :, None] * first[:, None]
    second[:, 1:, 1:] += covariance
    return first, second


def with_contrast(prior: GaussianMixture, spread: float) -> GaussianMixture:
    """Return the density of a (1, c), with c distributed as `prior` and an independent a of mean 1.

    Each component has the exact mean and covariance; `spread` is the standard deviation of a, above 0.
    """
    means = torch.cat([torch.ones_like(prior.means[:, :1]), prior.means], dim=1)
    covariances = spread**2 * means[:, :, None] * means[:, None]
    covariances[:, 1:, 1:] += (1 + spread**2) * prior.covariances
    return GaussianMixture.unchecked(prior.weights, means, covariances)


def over_contrasts(linear: Tensor, square: Tensor, spread: float) -> Tensor:
    """Return log of the integral of exp(a linear - a^2 square / 2) over contrasts a of mean 1 and deviation `spread`.

    For a structure c~ = (1, c), `linear` is c~.b and `square` c~.G c~. Structures that are most likely at a negative
    contrast count as at contrast 0.
    """
    known = spread**-2
    return ((linear + known).clamp_min(0).square() / (square + known) - known) / 2 - (spread**2 * square).log1p() / 2


class Contrasts(NamedTuple):
    """Contrasts of images, and the likelihood of the coefficients after integration over the contrast.

    Attributes
    ----------
    mean, error : (m,) float64
        Posterior mean and standard deviation of the contrast a.
    expected : (m, K) float64
        Posterior mean of the coefficients c.
    b, G : (m, K), (m, K, K) float64
        Likelihood exp(b.c - c.Gc / 2) of the coefficients.
    """

    mean: Tensor
    error: Tensor
    expected: Tensor
    b: Tensor
    G: Tensor


def contrasts(full: Statistics, prior: GaussianMixture, spread: float) -> Contrasts:
    """Return the contrasts of images, given the density of the coefficients and the spread of the contrasts.

    The image of a (V_0 + sum_k c_k U_k) is linearised in a and c around their posterior means. With the prior variance
    `spread`^2 of a, integration over a leaves a Gaussian likelihood of c, wider than for a known contrast.
    """
    gamma, means, covariances, _ = _by_component(full.b.double(), full.G.double(), with_contrast(prior, spread))
    a = (gamma * means[..., 0]).sum(1, keepdim=True).clamp_min(FAINTEST)
    variance = (gamma * (covariances[..., 0, 0] + (means[..., 0] - a).square())).sum(1)
    expected = (gamma[..., None] * means[..., 1:] / means[..., :1].clamp_min(FAINTEST)).sum(1)
    known = full.given(a[:, 0])
    b, G = known.b.double(), known.G.double()
    image = torch.cat([torch.ones_like(a), expected], dim=1)  # change of the coefficients of (V_0, U) with a
    force = (full.G.double() @ image[..., None])[..., 0]
    cross = a * force[:, 1:]  # minus the second derivative of the log-likelihood by a and c
    along = (image * force).sum(1, keepdim=True)
    pull = (image * full.b.double()).sum(1, keepdim=True) - a * along + (1 - a) / spread**2
    along = along + spread**-2
    # around (a, expected), with e the change of a and y that of c: y.b' - y.Gy / 2 + e (pull - cross.y) - along e^2 / 2
    G_free = G - cross[:, :, None] * cross[:, None] / along[..., None]
    b_free = b - ((G - G_free) @ expected[..., None])[..., 0] - cross * pull / along
    return Contrasts(a[:, 0], variance.sqrt(), expected, b_free, G_free)
