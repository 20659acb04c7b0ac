"""Fit a Gaussian mixture to a set of latents and select its number of components.

Expectation-maximisation (EM) cannot choose the number of components: with too many, a mixture overfits the sample.
`fit_components` scores mixtures on held-out latents, for a geometric series of component numbers and several strengths
of the covariance prior, and refits the best combination to all latents. All computations use coordinates in which
the latents have unit variance, so the result does not depend on the units of the latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.components import Components
from cryotwin_nb.mixture.em import Latents, NoisyLatents, expectation_maximisation, without_empty
from cryotwin_nb.mixture.groups import number_groups
from cryotwin_nb.mixture.isolated import set_aside
from cryotwin_nb.mixture.maximisation import live_axes
from cryotwin_nb.mixture.points import as_numbers, require_points
from cryotwin_nb.mixture.selection import Search


_AGAIN = 10  # EM iterations after components without latents are dropped, as a divisor of `max_iter`

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
    frame = _Frame.of(z, weights, start)
    x = frame.forward(z)
    exact, latents = Latents(x, weights), Latents(x, weights)
    if noise is not None:
        latents = NoisyLatents(x, weights, frame.forward_covariance(noise))
    if start is not None:
        mixture, live = frame.forward_mixture(Components(*(part.to(z.device) for part in start))), frame.live
    else:
        leading = Latents(x[:, : frame.live], weights)
        search = Search(frame.deviation[: frame.live], torch.Generator().manual_seed(seed), n_init, max_iter, tol)
        if select:
            n_components, strength = search.select(leading, number, n_components, progress)
        mixture, live = search.best(leading, n_components, strength), frame.live
        mixture = mixture if live == x.shape[1] else exact.lifted(mixture, strength)
    tol = tol if noise is None else 10 * tol
    if noise is not None or start is not None:
        mixture, _ = expectation_maximisation(latents, mixture, strength, max_iter, tol, live)
    if not (weighted and start is not None):  # draws of a bootstrap keep the indices of components
        brief = max(1, max_iter // _AGAIN)
        mixture = without_empty(latents, mixture, strength, brief, tol, live, assigned=select)
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
    """Coordinates x = (z - centre) @ whitener, in which the latents have unit variance along every axis.

    The axes are the principal axes of the latents, or of the density from which a fit starts, which can be known without
    the errors of the latents; those of largest variance come first.
    """

    centre: Tensor
    whitener: Tensor
    inverse: Tensor
    deviation: Tensor  # standard deviations (d,) of the latents along the axes of x
    live: int  # number of axes that are not dead

    @classmethod
    def of(cls, z: Tensor, weights: Tensor, start: Components | None = None) -> _Frame:
        share = weights / weights.sum()
        centre = share @ z
        spread = (z - centre).T @ ((z - centre) * share[:, None])
        floor = 1e-9 * spread.diagonal().mean() + 1e-18 * centre.square().mean() + 1e-30
        values, axes = torch.linalg.eigh(spread if start is None else start.covariance().to(spread))
        values, axes = values.flip(0).clamp_min(0), axes.flip(1)
        deviation = (axes * (spread @ axes)).sum(0).clamp_min(floor).sqrt()
        return cls(centre, axes / deviation, (axes * deviation).T, deviation, live_axes(values.sqrt()))

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
