"""Expectation-maximisation (EM) for Gaussian mixtures, for latents that are exact or have known errors.

The E-step passes its sufficient statistics ("moments") to the M-step as one array (C, 1 + d + d d): the sums of 1, x
and x x^T over the latents, weighted by the responsibilities of each component. Latents must be whitened to unit
covariance (see `fitting`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryotwin_nb.mixture.components import Components
from cryotwin_nb.mixture.maximisation import maximise

_BROADEST = 1e6  # largest variance of an error, in units of the overall variance
_REFRESH = 20  # EM iterations between evaluations of all (latent, component) pairs, for noisy latents
_AT_ONCE = 2**23  # responsibilities held in memory at once
_NEGLIGIBLE = 1e-6  # pairs with smaller responsibilities are skipped between these evaluations of all pairs


class Latents:
    """Exactly known latents `x` (n, d) with weights (n,)."""

    def __init__(self, x: Tensor, weights: Tensor) -> None:
        self.x, self.weights = x, weights
        self.features = torch.cat([torch.ones_like(x[:, :1]), x, _outer(x).flatten(1)], dim=1)

    def subset(self, index: Tensor) -> Latents:
        """Return the latents at `index`."""
        return Latents(self.x[index], self.weights[index])

    def expect(self, mixture: Components) -> tuple[Tensor, float]:
        """E-step: return the responsibility-weighted moments and the mean log-likelihood.

        The log density of a component is a polynomial in x. Log densities and moments are therefore both products of
        `features` and a small matrix.
        """
        coefficients = _log_joint_coefficients(mixture)
        moments, total = torch.zeros_like(coefficients), 0.0
        size = max(1, _AT_ONCE // len(mixture.weights))
        for features, weights in zip(self.features.split(size), self.weights.split(size), strict=True):
            log_joint = features @ coefficients.T
            highest = log_joint.amax(-1, keepdim=True)
            gamma = log_joint.sub_(highest).exp_()  # in place, with one exponential: this line dominates the run time
            evidence = gamma.sum(-1)
            moments += gamma.mul_((weights / evidence)[:, None]).T @ features
            total += float(weights @ (highest[:, 0] + evidence.log()))
        return moments, total / float(self.weights.sum())

    def log_prob(self, mixture: Components) -> Tensor:
        """Return the log-likelihood (n,) of each latent."""
        coefficients = _log_joint_coefficients(mixture)
        size = max(1, _AT_ONCE // len(mixture.weights))
        return torch.cat([(features @ coefficients.T).logsumexp(-1) for features in self.features.split(size)])

    def lifted(self, mixture: Components, strength: float) -> Components:
        """Return a mixture of all axes, given the `mixture` of the first ones, the live axes; see `maximise`."""
        live = mixture.means.shape[1]
        leading = Latents(self.x[:, :live], self.weights)
        coefficients = _log_joint_coefficients(mixture)
        moments = coefficients.new_zeros(len(coefficients), self.features.shape[1])
        size = max(1, _AT_ONCE // len(mixture.weights))
        parts = (t.split(size) for t in (leading.features, self.features, self.weights))
        for few, features, weights in zip(*parts, strict=True):
            gamma = (few @ coefficients.T).softmax(-1)
            moments = moments + (gamma * weights[:, None]).T @ features
        return maximise(moments, strength, live)

    def assigned(self, mixture: Components) -> Tensor:
        """Return the weight (C,) of the latents whose most likely component is each component."""
        coefficients = _log_joint_coefficients(mixture)
        size = max(1, _AT_ONCE // len(mixture.weights))
        chosen = torch.cat([(features @ coefficients.T).argmax(-1) for features in self.features.split(size)])
        return torch.zeros_like(mixture.weights).index_add_(0, chosen, self.weights)


def _bounded(noise: Tensor) -> Tensor:
    """Return error covariances (n, d, d) without variances so large that expectations are lost in rounding."""
    large = (noise.diagonal(dim1=-2, dim2=-1).amax(-1) > _BROADEST).nonzero().flatten()
    if not len(large):
        return noise
    values, axes = torch.linalg.eigh(noise[large])
    bounded = noise.clone()
    bounded[large] = (axes * values.clamp(0, _BROADEST)[:, None]) @ axes.mT
    return bounded


class NoisyLatents(Latents):
    """Latents with known error covariances `noise` (n, d, d): extreme deconvolution (Bovy et al. 2011).

    The mixture models the density before the errors were added. Each (latent, component) pair has a different
    covariance, so an E-step over all pairs is slow; most E-steps skip pairs with negligible responsibility.
    """

    def __init__(self, x: Tensor, weights: Tensor, noise: Tensor) -> None:
        self.x, self.weights, self.noise = x, weights, _bounded(noise)
        self._active = torch.ones(len(x), 0, dtype=torch.bool, device=x.device)
        self._calls = 0

    def expect(self, mixture: Components) -> tuple[Tensor, float]:
        """E-step: return expected moments of the error-free latents and the mean log-likelihood of the noisy ones."""
        count, dim = mixture.means.shape
        if self._active.shape[1] != count or self._calls % _REFRESH == 0:
            self._active = self._active.new_ones(len(self.x), count)
            self._calls = 0
        self._calls += 1
        moments, total = self.x.new_zeros(count, 1 + dim + dim * dim), 0.0
        for rows in torch.arange(len(self.x), device=self.x.device).split(max(1, 2**16 // count)):
            log_prob = self._expect_rows(mixture, rows, moments)
            total += float(self.weights[rows] @ log_prob)
        return moments, total / float(self.weights.sum())

    def _expect_rows(self, mixture: Components, rows: Tensor, moments: Tensor) -> Tensor:
        """Add the moments of the latents in `rows` to `moments` and return the log-likelihoods (rows,)."""
        row, c = self._active[rows].nonzero(as_tuple=True)
        log_joint, residual, cholesky = self._joint(mixture, rows, row, c)
        log_prob = log_joint.logsumexp(-1)
        gamma = (log_joint - log_prob[:, None]).exp()
        self._active[rows] = gamma > _NEGLIGIBLE
        kept = gamma[row, c] > _NEGLIGIBLE
        row, c, residual, cholesky = row[kept], c[kept], residual[kept], cholesky[kept]
        covariance = mixture.covariances[c]
        gain = torch.cholesky_solve(covariance, cholesky).mT
        mean = mixture.means[c] + (gain @ residual[..., None])[..., 0]
        second = covariance - gain @ covariance + _outer(mean)
        features = torch.cat([torch.ones_like(mean[:, :1]), mean, second.flatten(1)], dim=1)
        moments.index_add_(0, c, features * (gamma[row, c] * self.weights[rows[row]])[:, None])
        return log_prob - mixture.means.shape[1] / 2 * math.log(2 * math.pi)

    def assigned(self, mixture: Components) -> Tensor:
        """Return the weight (C,) of the latents whose most likely component is each component, given their errors."""
        total = torch.zeros_like(mixture.weights)
        for rows in torch.arange(len(self.x), device=self.x.device).split(max(1, 2**16 // len(total))):
            row, c = torch.ones(len(rows), len(total), dtype=torch.bool, device=rows.device).nonzero(as_tuple=True)
            chosen = self._joint(mixture, rows, row, c)[0].argmax(-1)
            total.index_add_(0, chosen, self.weights[rows])
        return total

    def _joint(self, mixture: Components, rows: Tensor, row: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log pi_c N(x; mu_c, Sigma_c + S) (rows, C) without its constant, for the pairs (row, c).

        The residuals (pairs, d) and Cholesky factors (pairs, d, d) are also returned; other pairs have -infinity.
        """
        residual = self.x[rows[row]] - mixture.means[c]
        cholesky = torch.linalg.cholesky(mixture.covariances[c] + self.noise[rows[row]])
        white = torch.linalg.solve_triangular(cholesky, residual[..., None], upper=False)[..., 0]
        log_det = cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_joint = self.x.new_full((len(rows), len(mixture.weights)), -torch.inf)
        log_joint[row, c] = mixture.weights.log()[c] - 0.5 * white.square().sum(-1) - log_det
        return log_joint, residual, cholesky


def expectation_maximisation(
    latents: Latents, mixture: Components, strength: float, max_iter: int, tol: float, live: int | None = None
) -> tuple[Components, float]:
    """Run EM until the mean log-likelihood changes by less than `tol`; return the mixture and its log-likelihood.

    `strength` and `live` are those of `maximise`.
    """
    last = log_likelihood = -math.inf
    for _ in range(max_iter):
        moments, log_likelihood = latents.expect(mixture)
        if abs(log_likelihood - last) < tol:
            break
        mixture, last = maximise(moments, strength, live), log_likelihood
    return mixture, log_likelihood


def without_empty(
    latents: Latents,
    mixture: Components,
    strength: float,
    max_iter: int,
    tol: float,
    live: int | None = None,
    least: float = 1 - 1e-6,
    assigned: bool = True,
) -> Components:
    """Drop components that hold fewer than `least` latents, and repeat EM until every component holds as many.

    The latents of a component are the sum of its responsibilities. The components with the fewest latents are dropped
    first, a quarter at a time, as their latents can fill their neighbours.

    Parameters
    ----------
    latents : Latents
        Latents to which the mixture was fitted.
    mixture : Components
        Mixture with C components.
    strength, max_iter, tol, live : float, int, float, int
        As in `maximise` and `expectation_maximisation`.
    least : float
        Minimum number of latents.
    assigned : bool
        Also drop components that are the most likely component of no latent.
    """
    unit = float(latents.weights[latents.weights > 0].mean())  # weights with another sum count the same latents
    while True:
        held = latents.expect(mixture)[0][:, 0] / unit
        if assigned:
            held[latents.assigned(mixture) == 0] = 0
        few = int((held < least).sum())
        if not few or len(held) == 1:
            return mixture
        kept = held.argsort(descending=True)[: min(-1, -few // 4)].sort().values
        smaller = Components(mixture.weights[kept], mixture.means[kept], mixture.covariances[kept])
        smaller = smaller._replace(weights=smaller.weights / smaller.weights.sum())
        mixture, _ = expectation_maximisation(latents, smaller, strength, max_iter, tol, live)


def _outer(x: Tensor) -> Tensor:
    return x[:, :, None] * x[:, None]


def _log_joint_coefficients(mixture: Components) -> Tensor:
    """Return the coefficients (C, 1 + d + d d) of log pi_c N(x; mu_c, Sigma_c) as a polynomial in x."""
    cholesky = torch.linalg.cholesky(mixture.covariances)
    precision = torch.cholesky_inverse(cholesky)
    linear = (precision @ mixture.means[..., None])[..., 0]
    log_det = 2 * cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    square = (linear * mixture.means).sum(-1)
    constant = mixture.weights.log() - 0.5 * (log_det + square + mixture.means.shape[1] * math.log(2 * math.pi))
    return torch.cat([constant[:, None], linear, -0.5 * precision.flatten(1)], dim=1)
