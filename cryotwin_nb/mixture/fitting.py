"""Fit a Gaussian mixture to a set of latents and select its number of components.

Expectation-maximisation (EM) cannot choose the number of components: with too many, a mixture overfits the sample.
`fit_components` scores mixtures on held-out latents, for a geometric series of component numbers and several strengths
of the covariance prior, and refits the most parsimonious good combination to all latents. All computations use
coordinates in which the latents have unit variance, so the result does not depend on the units of the latents.
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
from cryotwin_nb.mixture.live import component_width, live_axes, local_spread
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
    x, live, brief = frame.forward(z), frame.live, max(1, max_iter // _AGAIN)
    exact, latents, tol_here = Latents(x, weights), Latents(x, weights), tol
    if noise is not None:
        latents, tol_here = NoisyLatents(x, weights, frame.forward_covariance(noise)), 10 * tol
    if start is not None:
        mixture = frame.forward_mixture(Components(*(part.to(z.device) for part in start)))
    else:
        leading = Latents(x[:, :live], weights)
        search = Search(frame.deviation[:live], torch.Generator().manual_seed(seed), n_init, max_iter, tol)
        if select:
            n_components, strength = search.select(leading, number, n_components, progress)
        mixture = search.best(leading, n_components, strength)
        least = min(live + 1.0, len(x)) if select else 1 - 1e-6  # fewer latents do not determine a covariance
        mixture = without_empty(leading, mixture, strength, brief, 10 * tol, None, least, assigned=select)
        mixture = mixture if live == x.shape[1] else exact.lifted(mixture, strength)
    if noise is not None or start is not None:
        mixture, _ = expectation_maximisation(latents, mixture, strength, max_iter, tol_here, live)
    if not (weighted and start is not None):  # draws of a bootstrap keep the indices of components
        mixture = without_empty(latents, mixture, strength, brief, tol_here, live, assigned=select)
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

    The axes are the principal axes of the latents, those of largest variance first. If a fit starts from a density with
    dead axes, they are those of this density, which do not depend on the errors or the weights of the latents.
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
        values, axes = torch.linalg.eigh(spread)
        deviation, live = values.clamp_min(floor).sqrt(), len(values)
        if start is not None:
            of_start, axes_of_start = torch.linalg.eigh(start.covariance().to(spread))
            live = live_axes(of_start.clamp_min(0).sqrt().flip(0), component_width(start))
            if live < len(values):
                axes = axes_of_start
                deviation = (axes * (spread @ axes)).sum(0).clamp_min(floor).sqrt()
        elif len(values) > 1:
            live = live_axes(deviation.flip(0), local_spread(z))
        axes, deviation = axes.flip(1), deviation.flip(0)
        return cls(centre, axes / deviation, (axes * deviation).T, deviation, live)

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
