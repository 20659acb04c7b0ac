"""Fitting a Gaussian mixture to a whole set of latents: expectation-maximisation, and how many components to use.

The number of components is the only thing that EM cannot choose by itself: too many describe the sample and not the
density it came from. `fit` climbs a geometric ladder of component numbers, scores each on particles left out of it,
and refits on all particles with the best. Everything runs in coordinates in which the latents have unit covariance,
so the result does not depend on their units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture import _CHUNK, GaussianMixture

_PRIOR = 2.0  # strength of the covariance prior, in units of d particles
_FLOOR = 1e-6  # smallest variance of a component, relative to that of the latents
_REFRESH = 10  # EM steps between two looks at all pairs of particle and component (deconvolution)


def fit(
    z: Tensor | np.ndarray,
    n_components: int = 100,
    noise_covariances: Tensor | np.ndarray | None = None,
    weights: Tensor | np.ndarray | None = None,
    seed: int = 0,
    *,
    select: bool = True,
    start: GaussianMixture | None = None,
    n_init: int = 8,
    max_iter: int = 300,
    tol: float = 1e-5,
    progress: bool = False,
) -> GaussianMixture:
    """Fit a Gaussian mixture to latents by expectation-maximisation.

    Parameters
    ----------
    z : (n, d) float
        Latents.
    n_components : int
        C, the largest number of components; held-out likelihood decides how many are used.
    noise_covariances : (n, d, d) float, optional
        Covariance of the error of each latent. The mixture is then the density *before* that error was added:
        latent i is modelled by N(mu_c, Sigma_c + S_i) (extreme deconvolution, Bovy, Hogg and Roweis 2011).
    weights : (n,) float, optional
        How often each latent counts, not negative; a Bayesian bootstrap gives draws from Exp(1).
    seed : int
        For initialisation and for the choice of the held-out particles.
    select : bool
        False uses exactly `n_components`.
    start : GaussianMixture, optional
        Start from this mixture and keep its number of components; nothing is initialised or selected.
    n_init : int
        Initialisations; the one with the highest likelihood is kept.
    max_iter : int
        Most EM steps.
    tol : float
        Stop when a step gains less than this log-likelihood a particle.
    progress : bool
        Print a line for each number of components tried.

    Returns
    -------
    GaussianMixture
        Float64, on the device of `z`, components ordered by falling weight.

    Raises
    ------
    InputError
        If shapes disagree, a value is not finite, a weight is negative or there are more components than latents.

    Notes
    -----
    Each covariance is drawn towards the average covariance of all components as if that had been seen in 2 d more
    particles, which is what keeps small components from overfitting.
    """
    z, noise, weights = _require_data(z, noise_covariances, weights, n_components if start is None else 1)
    frame = _Frame.of(z, weights)
    data = _data(frame.forward(z), weights, None if noise is None else frame.forward_covariance(noise))
    if start is not None:
        best, _ = _expectation_maximisation(data, frame.forward_mixture(start.detach().to(z.device)), max_iter, tol)
    else:
        search = _Search(frame.deviation, torch.Generator().manual_seed(seed), n_init, max_iter, tol)
        count = search.select(data, n_components, progress) if select else n_components
        best = search.best(data, count)
    return frame.backward_mixture(best)


class _Frame(NamedTuple):
    """Coordinates x = (z - centre) @ whitener in which the latents have unit covariance."""

    centre: Tensor
    whitener: Tensor
    inverse: Tensor
    deviation: Tensor  # of the latents along the axes of x

    @classmethod
    def of(cls, z: Tensor, weights: Tensor) -> _Frame:
        share = weights / weights.sum()
        centre = share @ z
        spread = (z - centre).T @ ((z - centre) * share[:, None])
        floor = 1e-9 * spread.diagonal().mean() + torch.finfo(torch.float64).tiny
        values, axes = torch.linalg.eigh(spread)
        deviation = values.clamp_min(floor).sqrt()
        return cls(centre, axes / deviation, (axes * deviation).T, deviation)

    def forward(self, z: Tensor) -> Tensor:
        return (z - self.centre) @ self.whitener

    def forward_covariance(self, covariances: Tensor) -> Tensor:
        return self.whitener.T @ covariances @ self.whitener

    def forward_mixture(self, mixture: GaussianMixture) -> GaussianMixture:
        means, covariances = self.forward(mixture.means), self.forward_covariance(mixture.covariances)
        return GaussianMixture.unchecked(mixture.weights, means, covariances)

    def backward_mixture(self, mixture: GaussianMixture) -> GaussianMixture:
        order = mixture.weights.argsort(descending=True)
        means = mixture.means[order] @ self.inverse + self.centre
        covariances = self.inverse.T @ mixture.covariances[order] @ self.inverse
        return GaussianMixture.unchecked(mixture.weights[order], means, (covariances + covariances.mT) / 2)


class _Data(Protocol):
    """Latents to fit: what EM needs to know about them."""

    x: Tensor
    weights: Tensor

    def expect(self, mixture: GaussianMixture) -> tuple[Tensor, float]:
        """Moments (C, 1 + d + d d) of 1, x, x x^T under the responsibilities; mean log-likelihood."""

    def subset(self, index: Tensor) -> _Data:
        """Some of the latents."""


def _features(x: Tensor) -> Tensor:
    """1, x and x x^T side by side: (n, d) gives (n, 1 + d + d d)."""
    return torch.cat([torch.ones_like(x[:, :1]), x, (x[:, :, None] * x[:, None]).flatten(1)], dim=1)


class _Exact:
    """Latents without error: log densities and moments are two matrix products with their features."""

    def __init__(self, x: Tensor, weights: Tensor) -> None:
        self.x, self.weights, self.features = x, weights, _features(x)

    def subset(self, index: Tensor) -> _Exact:
        return _Exact(self.x[index], self.weights[index])

    def expect(self, mixture: GaussianMixture) -> tuple[Tensor, float]:
        coefficients = _log_joint_coefficients(mixture)
        moments, total = torch.zeros_like(coefficients), 0.0
        size = max(1, _CHUNK // mixture.n_components)
        for features, weights in zip(self.features.split(size), self.weights.split(size), strict=True):
            log_joint = features @ coefficients.T
            log_prob = log_joint.logsumexp(-1, keepdim=True)
            gamma = log_joint.sub_(log_prob).exp_().mul_(weights[:, None])
            moments += gamma.T @ features
            total += float(weights @ log_prob[:, 0])
        return moments, total / float(self.weights.sum())


def _log_joint_coefficients(mixture: GaussianMixture) -> Tensor:
    """Coefficients (C, 1 + d + d d) of log pi_c N(x; mu_c, Sigma_c) as a polynomial in x."""
    cholesky = torch.linalg.cholesky(mixture.covariances)
    precision = torch.cholesky_inverse(cholesky)
    linear = (precision @ mixture.means[..., None])[..., 0]
    log_det = 2 * cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    square = (linear * mixture.means).sum(-1)
    constant = mixture.weights.log() - 0.5 * (log_det + square + mixture.latent_dim * math.log(2 * math.pi))
    return torch.cat([constant[:, None], linear, -0.5 * precision.flatten(1)], dim=1)


class _Noisy:
    """Latents with errors of known covariance (extreme deconvolution).

    Every particle has its own covariance with every component, so that a step over all pairs is slow; between two of
    those only the pairs with a responsibility above a millionth are computed.
    """

    def __init__(self, x: Tensor, weights: Tensor, noise: Tensor) -> None:
        self.x, self.weights, self.noise = x, weights, noise
        self._active: Tensor | None = None
        self._calls = 0

    def subset(self, index: Tensor) -> _Noisy:
        return _Noisy(self.x[index], self.weights[index], self.noise[index])

    def expect(self, mixture: GaussianMixture) -> tuple[Tensor, float]:
        count, dim = mixture.means.shape
        if self._active is None or self._active.shape[1] != count or self._calls % _REFRESH == 0:
            self._active = torch.ones(len(self.x), count, dtype=torch.bool, device=self.x.device)
            self._calls = 0
        self._calls += 1
        moments, total = self.x.new_zeros(count, 1 + dim + dim * dim), 0.0
        for rows in torch.arange(len(self.x), device=self.x.device).split(max(1, 2**17 // count)):
            moments, log_prob = self._expect_rows(mixture, rows, moments)
            total += float(self.weights[rows] @ log_prob)
        return moments, total / float(self.weights.sum())

    def _expect_rows(self, mixture: GaussianMixture, rows: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
        assert self._active is not None
        row, c = self._active[rows].nonzero(as_tuple=True)
        i = rows[row]
        covariance, residual = mixture.covariances[c], self.x[i] - mixture.means[c]
        cholesky = torch.linalg.cholesky(covariance + self.noise[i])
        white = torch.linalg.solve_triangular(cholesky, residual[..., None], upper=False)[..., 0]
        log_det = cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_pair = mixture.weights.log()[c] - 0.5 * white.square().sum(-1) - log_det
        log_joint = torch.full((len(rows), mixture.n_components), -torch.inf, dtype=torch.float64, device=rows.device)
        log_joint[row, c] = log_pair - mixture.latent_dim / 2 * math.log(2 * math.pi)
        log_prob = log_joint.logsumexp(-1)
        gamma = (log_joint - log_prob[:, None]).exp()
        self._active[rows] = gamma > 1e-6
        kept = gamma[row, c] > 1e-6
        row, c, i, cholesky, residual, covariance = (t[kept] for t in (row, c, i, cholesky, residual, covariance))
        gain = torch.cholesky_solve(covariance, cholesky).mT
        mean = mixture.means[c] + (gain @ residual[..., None])[..., 0]
        second = covariance - gain @ covariance + mean[:, :, None] * mean[:, None]
        features = torch.cat([torch.ones_like(mean[:, :1]), mean, second.flatten(1)], dim=1)
        return moments.index_add(0, c, features * (gamma[row, c] * self.weights[i])[:, None]), log_prob


def _data(x: Tensor, weights: Tensor, noise: Tensor | None) -> _Data:
    return _Exact(x, weights) if noise is None else _Noisy(x, weights, noise)


def _maximise(moments: Tensor) -> GaussianMixture:
    """The mixture with the given moments (C, 1 + d + d d), its covariances shrunk towards their average."""
    dim = int(math.sqrt(moments.shape[1] - 1))
    mass = moments[:, 0].clamp_min(1e-12)
    means = moments[:, 1 : dim + 1] / mass[:, None]
    scatter = moments[:, dim + 1 :].unflatten(1, (dim, dim)) - mass[:, None, None] * means[:, :, None] * means[:, None]
    strength = _PRIOR * dim
    average = scatter.sum(0) / mass.sum()
    covariances = (scatter + strength * average) / (mass + strength)[:, None, None]
    covariances = (covariances + covariances.mT) / 2 + _FLOOR * torch.eye(dim).to(covariances)
    return GaussianMixture.unchecked(mass / mass.sum(), means, covariances)


def _expectation_maximisation(
    data: _Data, mixture: GaussianMixture, max_iter: int, tol: float
) -> tuple[GaussianMixture, float]:
    """EM from a mixture until a step gains less than `tol`; the mixture and its mean log-likelihood."""
    last = -math.inf
    for _ in range(max_iter):
        moments, log_likelihood = data.expect(mixture)
        mixture = _maximise(moments)
        if log_likelihood - last < tol:
            break
        last = log_likelihood
    return mixture, log_likelihood


@dataclass(frozen=True)
class _Search:
    """How to look for the best mixture of some latents."""

    deviation: Tensor  # (d,), of the latents along the axes of x
    generator: torch.Generator
    n_init: int
    max_iter: int
    tol: float

    def best(self, data: _Data, count: int) -> GaussianMixture:
        """The best of several starts: each is run briefly, the most likely one to convergence."""
        results = []
        for k in range(self.n_init):
            start = _initialise(data, count, self.generator, self.deviation ** (k % 2))
            results.append(_expectation_maximisation(data, start, self.max_iter // 10, 10 * self.tol))
        best = max(results, key=lambda result: result[1])[0]
        return _expectation_maximisation(data, best, self.max_iter, self.tol)[0]

    def select(self, data: _Data, bound: int, progress: bool) -> int:
        """The number of components with the highest likelihood on a quarter of the latents, left out of the fit."""
        n = len(data.x)
        order = torch.randperm(n, generator=self.generator).to(data.x.device)
        train, test = data.subset(order[n // 4 :]), data.subset(order[: n // 4])
        brief = replace(self, n_init=max(2, self.n_init // 2), max_iter=self.max_iter // 3, tol=10 * self.tol)
        scores: dict[int, float] = {}
        for count in _ladder(min(bound, len(train.x))):
            scores[count] = test.expect(brief.best(train, count))[1]
            if progress:
                print(f"mixture of {count}: held-out log-likelihood {scores[count]:.3f} a particle")
            best = max(scores, key=scores.__getitem__)
            if [c > best for c in scores].count(True) == 2:
                break
        return best


def _initialise(
    data: _Data, count: int, generator: torch.Generator, scale: Tensor, lloyd: int = 5
) -> GaussianMixture:
    """k-means++ seeds, a few Lloyd steps, and the mixture of the clusters; distances are those of x * scale."""
    x, weights = data.x * scale, data.weights
    centres = x[_draw(weights, generator)][None]
    nearest = (x - centres[0]).square().sum(-1)
    while len(centres) < count:
        new = x[_draw(weights * nearest, generator)]
        centres = torch.cat([centres, new[None]])
        nearest = torch.minimum(nearest, (x - new).square().sum(-1))
    features = _features(data.x)
    for _ in range(lloyd):
        label = torch.cdist(x, centres).argmin(-1)
        moments = features.new_zeros(count, features.shape[1]).index_add(0, label, features * weights[:, None])
        means = moments[:, 1 : x.shape[1] + 1] / moments[:, :1].clamp_min(1e-300)
        centres = torch.where(moments[:, :1] > 0, means * scale, centres)
    return _maximise(moments)


def _draw(weights: Tensor, generator: torch.Generator) -> int:
    """One index with probability proportional to `weights` (any number of them, unlike torch.multinomial)."""
    cumulative = weights.cumsum(0)
    level = torch.rand((), dtype=torch.float64, generator=generator).to(cumulative) * cumulative[-1]
    return min(int(torch.searchsorted(cumulative, level)), len(weights) - 1)


def _ladder(bound: int) -> list[int]:
    """Component numbers to try: 1, 2, 3, 4, 6, 8, 11, 16, ... up to the bound."""
    rungs = sorted({round(2 ** (k / 2)) for k in range(64)})
    return [c for c in rungs if c < bound] + [bound]


def _require_data(
    z: Tensor | np.ndarray, noise: Tensor | np.ndarray | None, weights: Tensor | np.ndarray | None, count: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The data as float64 tensors, or `InputError`."""
    z = torch.as_tensor(z).detach().double()
    if z.ndim != 2 or z.numel() == 0:
        raise InputError("latents", f"shape {tuple(z.shape)}", "(n, d)", "Give one row per particle.")
    n, dim = z.shape
    if not 1 <= count <= n:
        remedy = "Ask for fewer components or give more latents."
        raise InputError("n_components", f"{count} components for {n} latents", f"1 to {n}", remedy)
    weights = z.new_ones(n) if weights is None else torch.as_tensor(weights).to(z)
    if weights.shape != (n,) or not (weights >= 0).all() or not weights.sum() > 0:
        found = f"shape {tuple(weights.shape)} or a negative or no positive weight"
        raise InputError("weights", found, f"({n},) numbers of at least 0", "Give one weight per latent.")
    if noise is not None:
        noise = torch.as_tensor(noise).to(z)
        if noise.shape != (n, dim, dim):
            remedy = "Give one covariance per latent."
            raise InputError("noise_covariances", f"shape {tuple(noise.shape)}", f"{(n, dim, dim)}", remedy)
    for name, values in (("latents", z), ("weights", weights), ("noise_covariances", noise)):
        if values is not None and not values.isfinite().all():
            raise InputError(name, "NaN or infinity", "finite numbers", "Look for diverged training or empty images.")
    return z, noise, weights
