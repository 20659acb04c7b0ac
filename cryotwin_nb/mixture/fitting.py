"""Fit a Gaussian mixture to a set of latents and select its number of components.

Expectation-maximisation (EM) cannot choose the number of components: with too many, a mixture overfits the sample.
`fit_components` scores mixtures on held-out latents, for a geometric series of component numbers and several strengths
of the covariance prior, and refits the best combination to all latents. All computations use coordinates in which
the latents have unit covariance, so the result does not depend on the units of the latents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.components import Components, halves
from cryotwin_nb.mixture.em import Latents, NoisyLatents, clusters, expectation_maximisation
from cryotwin_nb.mixture.groups import arrange, number_groups
from cryotwin_nb.mixture.isolated import set_aside
from cryotwin_nb.mixture.points import as_numbers, require_points

_STRENGTHS = (0.5, 2.0, 8.0, 32.0)  # strengths to try for the covariance prior, in units of d latents


class FitOptions(NamedTuple):
    """Fit options, documented in `GaussianMixture.fit`."""

    select: bool
    strength: float
    n_init: int
    max_iter: int
    tol: float
    progress: bool


def fit_components(
    z: Tensor | np.ndarray,
    n_components: int,
    noise_covariances: Tensor | np.ndarray | None,
    weights: Tensor | np.ndarray | None,
    groups: Tensor | np.ndarray | None,
    seed: int,
    start: Components | None,
    options: FitOptions,
) -> Components:
    """Return the components of a mixture fitted to latents; see `GaussianMixture.fit` for the arguments."""
    select, strength, n_init, max_iter, tol, progress = options
    weighted = weights is not None
    z, noise, weights = _require_data(z, noise_covariances, weights, n_components if start is None else 1)
    number = number_groups(groups, len(z))
    if not weighted:
        kept = set_aside(z, n_components if start is None else len(start.weights), seed)
        z, weights, number = z[kept], weights[kept], number_groups(number[kept.cpu()], int(kept.sum()))
        noise = None if noise is None else noise[kept]
        n_components = min(n_components, len(z))
    frame = _Frame.of(z, weights)
    x = frame.forward(z)
    exact = Latents(x, weights)
    if start is not None:
        mixture = frame.forward_mixture(Components(*(part.to(z.device) for part in start)))
    else:
        search = _Search(frame.deviation, torch.Generator().manual_seed(seed), n_init, max_iter, tol)
        if select:
            n_components, strength = search.select(exact, number, n_components, progress)
        mixture = search.best(exact, n_components, strength)
    if noise is not None:
        noisy = NoisyLatents(x, weights, frame.forward_covariance(noise))
        mixture, _ = expectation_maximisation(noisy, mixture, strength, max_iter, 10 * tol)
    elif start is not None:
        mixture, _ = expectation_maximisation(exact, mixture, strength, max_iter, tol)
    if start is None:
        order = mixture.weights.argsort(descending=True)
        mixture = Components(mixture.weights[order], mixture.means[order], mixture.covariances[order])
    fitted = frame.backward_mixture(mixture)
    if not all(part.isfinite().all() for part in fitted):
        found = f"latents between {float(z.min()):.3g} and {float(z.max()):.3g}"
        remedy = "Leave out latents far from all others; pass a `start` that was fitted to latents like these."
        raise InputError("GaussianMixture.fit", found, "latents that a mixture describes", remedy)
    return fitted


@dataclass(frozen=True)
class _Frame:
    """Whitened coordinates x = (z - centre) @ whitener, in which the latents have unit covariance."""

    centre: Tensor
    whitener: Tensor
    inverse: Tensor
    deviation: Tensor  # standard deviations (d,) of the latents along the axes of x

    @classmethod
    def of(cls, z: Tensor, weights: Tensor) -> _Frame:
        share = weights / weights.sum()
        centre = share @ z
        spread = (z - centre).T @ ((z - centre) * share[:, None])
        floor = 1e-9 * spread.diagonal().mean() + 1e-18 * centre.square().mean() + 1e-30
        values, axes = torch.linalg.eigh(spread)
        deviation = values.clamp_min(floor).sqrt()
        return cls(centre, axes / deviation, (axes * deviation).T, deviation)

    def forward(self, z: Tensor) -> Tensor:
        return (z - self.centre) @ self.whitener

    def forward_covariance(self, covariances: Tensor) -> Tensor:
        return self.whitener.T @ covariances @ self.whitener

    def forward_mixture(self, mixture: Components) -> Components:
        means, covariances = self.forward(mixture.means), self.forward_covariance(mixture.covariances)
        return Components(mixture.weights, means, covariances)

    def backward_mixture(self, mixture: Components) -> Components:
        means = mixture.means @ self.inverse + self.centre
        covariances = self.inverse.T @ mixture.covariances @ self.inverse
        return Components(mixture.weights, means, (covariances + covariances.mT) / 2)


@dataclass(frozen=True)
class _Search:
    """Search for the best mixture for a set of latents."""

    deviation: Tensor  # standard deviations (d,) of the latents along the axes of x, as in `_Frame`
    generator: torch.Generator
    n_init: int
    max_iter: int
    tol: float

    def best(self, latents: Latents, count: int, strength: float) -> Components:
        """Return the best mixture from several starts: run each briefly, then the most likely one to convergence.

        Half of the starts use k-means in the original coordinates, the other half in whitened coordinates.
        """
        results, brief = [], max(1, self.max_iter // 10)
        for k in range(self.n_init):
            start = clusters(latents, count, self.deviation ** (k % 2), strength, self.generator)
            results.append(expectation_maximisation(latents, start, strength, brief, 10 * self.tol))
        best = max(results, key=lambda result: result[1])[0]
        best = _revive(best, float(latents.weights.sum()))
        return expectation_maximisation(latents, best, strength, self.max_iter, self.tol)[0]

    def select(self, latents: Latents, number: Tensor, bound: int, progress: bool) -> tuple[int, float]:
        """Return the number of components and the prior strength with the highest held-out likelihood.

        Latents of one group, by its `number` (n,), are held out together.

        First the number of components increases at a fixed strength until two successive steps bring no improvement.
        Then the number and the strength are varied until no neighbour on the grid is better.
        """
        n = int(number.max()) + 1
        if n < 8:
            return 1, _STRENGTHS[1]
        rows, place = (t.to(latents.x.device) for t in arrange(number, torch.randperm(n, generator=self.generator)))
        fold, n_folds = place % 4, min(4, max(1, round(10_000 / n)))
        folds = [(latents.subset(rows[fold == i]), latents.subset(rows[fold != i])) for i in range(n_folds)]
        brief = replace(self, n_init=max(2, self.n_init // 2), max_iter=max(1, self.max_iter // 3), tol=10 * self.tol)
        rungs = _ladder(min(bound, n // 2))
        jacobian = float(self.deviation.log().sum())

        @cache
        def score(rung: int, level: int) -> float:
            if not (0 <= rung < len(rungs) and 0 <= level < len(_STRENGTHS)):
                return -math.inf
            count, strength = rungs[rung], _STRENGTHS[level]
            scores = [test.expect(brief.best(train, count, strength))[1] for test, train in folds]
            mean = sum(scores) / len(scores) - jacobian
            if progress:
                trial = f"{count} components, prior strength {strength:g}"
                print(f"{trial}: held-out log-likelihood {mean:.3f} nats per latent")
            return mean

        best, level = 0, 1
        for rung in range(len(rungs)):
            best = max(best, rung, key=lambda r: score(r, level))
            if rung == best + 2:
                break
        while True:
            steps = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1))
            top = max(((best + i, level + j) for i, j in steps), key=lambda place: score(*place))
            if top == (best, level):
                return rungs[best], _STRENGTHS[level]
            best, level = top


def _ladder(bound: int) -> list[int]:
    """Return the numbers of components to try: 1, 2, 3, 4, 6, 8, 11, 16, ... and the bound."""
    rungs = sorted({round(2 ** (k / 2)) for k in range(64)})
    return [count for count in rungs if count < bound] + [bound]


def _revive(mixture: Components, n: float) -> Components:
    """Replace each component whose mass is below one latent by half of the component with the largest weight."""
    weights, means, covariances = mixture.weights.clone(), mixture.means.clone(), mixture.covariances.clone()
    for dead in (weights * n < 1).nonzero().flatten().tolist():
        heaviest = int(weights.argmax())
        weights[[heaviest, dead]] = (weights[heaviest] + weights[dead]) / 2
        means[[heaviest, dead]], narrower = halves(means[heaviest], covariances[heaviest], 0.5)
        covariances[[heaviest, dead]] = narrower
    return Components(weights, means, covariances)


def _require_data(
    z: Tensor | np.ndarray, noise: Tensor | np.ndarray | None, weights: Tensor | np.ndarray | None, count: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the data as float64 tensors, or raise `InputError`."""
    z = require_points(z).double()
    n, dim = z.shape
    if not 1 <= count <= n:
        remedy = "Use fewer components or pass more latents."
        raise InputError("n_components", f"{count} components for {n} latents", f"1 to {n}", remedy)
    weights = z.new_ones(n) if weights is None else as_numbers(weights, "weights", "Pass one weight per latent.").to(z)
    if weights.shape != (n,) or not (weights >= 0).all() or not weights.sum() > 0:
        found, expected = f"weights of shape {tuple(weights.shape)}", f"{n} non-negative numbers, not all zero"
        remedy = "Pass one weight per latent."
        raise InputError("weights", found, expected, remedy, f"weights must be {expected}; found {found}.")
    if noise is not None:
        noise = as_numbers(noise, "noise_covariances", "Pass one covariance per latent.").to(z)
        if noise.shape != (n, dim, dim):
            remedy = "Pass one covariance per latent."
            raise InputError("noise_covariances", f"shape {tuple(noise.shape)}", f"{(n, dim, dim)}", remedy)
        lowest = torch.linalg.eigvalsh(torch.nan_to_num(noise))[:, 0]
        if (lowest < -1e-6 * noise.diagonal(dim1=-2, dim2=-1).abs().amax(-1)).any():
            worst = f"a matrix with eigenvalue {lowest.min():.3g}"
            raise InputError("noise_covariances", worst, "no negative eigenvalue", "Pass covariances, not precisions.")
    for name, values in (("weights", weights), ("noise_covariances", noise)):
        if values is not None and not values.isfinite().all():
            raise InputError(name, "NaN or infinity", "finite numbers", "Check for diverged training and empty images.")
    return z, noise, weights
