"""Linear-subspace heterogeneity: probabilistic PCA on slices by EM with closed-form E and M steps.

Each density is V = V_0 + sum_k c_k U_k with orthonormal maps U_k. Poses and CTF are known and projection is linear, so
both steps of expectation-maximisation (EM) are least-squares problems without a learning rate:

* E: the posterior of the coefficients c of each image, Gaussian or a mixture of Gaussians (`statistics`);
* M: given the moments of c, every voxel of (V_0, U_1, ..., U_K) has (K+1) x (K+1) normal equations.

Tipping and Bishop (1999) introduced probabilistic PCA; Tagare et al. (2015), Punjani and Fleet (2021, 3DVA) and Gilles
and Singer (2025, RECOVAR) applied it to slices. Here each shell has a Wiener prior, all maps are masked in real space
in every M-step, and the resolution increases from pass to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryotwin_nb.imaging.fourier import fft3, grid, ifft3
from cryotwin_nb.imaging.lattice import HalfBall, half_ball
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.backprojection import MARGIN, NormalEquations, SignalPower
from cryotwin_nb.reconstruction.principal import _bounded, _continued, _orthonormal, _power, _principal, accelerated
from cryotwin_nb.reconstruction.statistics import (
    Contrasts,
    Projections,
    Statistics,
    augmented,
    contrasts,
    posterior,
    projections,
    with_contrast,
)
from cryotwin_nb.runtime import distributed

# Padding factor of the lattice from which slices are interpolated. A coarse lattice would add ghosts of the particle's
# rim to every image; when images are inserted, such ghosts fall outside the mask.
_READING = 2.5

Moments = Callable[[Statistics], tuple[Tensor, Tensor, Tensor]]
"""E-step: from full statistics of images to E[c~] (m, Q), E[c~ c~^T] (m, Q, Q) and log-evidence (m,); c~ = a (1, c)."""


@dataclass(frozen=True)
class Eigenvolumes:
    """Average map and orthonormal directions of variation.

    Attributes
    ----------
    mean : (D, D, D) float32
        V_0, image grey value per Å.
    basis : (K, D, D, D) float32
        U_k, orthonormal, in order of decreasing variance.
    variances : (K,) float64
        Variances of the coefficients c_k (the spectrum), in units of |V|^2.
    power : (n_shells, K + 1) float64
        Expected power of a Fourier coefficient of V_0 and of each U_k, in each shell: the Wiener priors.
    uncertainty : (n_shells, K + 1, K + 1) float64
        Posterior covariance of the Fourier coefficients of V_0 and the U_k at one frequency, averaged over each shell.
    mask : (D, D, D) float32
        Soft support of all maps.
    contrast_spread, contrast_error : float
        Standard deviation of the image contrasts, 0 if all are assumed to be 1, and its standard error.
    """

    mean: Tensor
    basis: Tensor
    variances: Tensor
    power: Tensor
    uncertainty: Tensor
    mask: Tensor
    contrast_spread: float = 0.0
    contrast_error: float = 0.0

    @property
    def prior(self) -> GaussianMixture:
        """Gaussian prior of the coefficients."""
        weight, zero = self.variances.new_ones(1), torch.zeros_like(self.variances)
        return GaussianMixture.unchecked(weight, zero[None], self.variances.diag()[None])

    def ball(self, radius: float) -> HalfBall:
        """Return the lattice for slices below a radius, grid units."""
        return half_ball(self.mean.shape[-1], radius, _READING)

    @property
    def maps(self) -> Tensor:
        """V_0 and the U_k, (K + 1, D, D, D)."""
        return torch.cat([self.mean[None], self.basis])

    def lattice(self, ball: HalfBall) -> Tensor:
        """Return the maps on a lattice, ready for slicing: (V, 2 (K + 1))."""
        return ball.from_volumes(self.maps)

    def project(self, ball: HalfBall, lattice: Tensor, batch: ImageBatch, imaging: ImageFormation) -> Projections:
        """Project the maps at the poses of images, within the ball's radius and unweighted."""
        n = int((imaging.frequencies.norm(dim=1) < ball.radius).sum())
        return projections(ball, lattice, batch, imaging.frequencies[:n], imaging.multiplicity[:n])

    def statistics(self, seen: Projections, batch: ImageBatch, imaging: ImageFormation) -> Statistics:
        """Return the statistics of images, taking the `uncertainty` of the maps into account.

        The uncertainty of a map adds to its power, as in variational Bayes: directions that are mostly noise then
        explain little instead of fitting the noise of each image.
        """
        exact, n = seen.statistics(), seen.data.shape[1] // 2
        power = batch.transfer[:, 1:n].square() * imaging.multiplicity[1:n]
        by_shell = power.new_zeros(len(power), len(self.uncertainty)).index_add_(1, imaging.shell[1:n], power)
        return exact._replace(G=exact.G + torch.tensordot(by_shell, self.uncertainty.float(), 1))

    def moments(self, prior: GaussianMixture | None = None) -> Moments:
        """Return the E-step with a prior for the coefficients, by default the Gaussian prior."""
        prior = prior or self.prior

        def fixed(full: Statistics) -> tuple[Tensor, Tensor, Tensor]:
            given = full.given(torch.ones_like(full.energy))
            expected = posterior(given.b, given.G, prior)
            return *augmented(expected.mean, expected.covariance), expected.log_evidence - given.energy / 2

        def varying(full: Statistics) -> tuple[Tensor, Tensor, Tensor]:
            expected = posterior(full.b, full.G, with_contrast(prior, self.contrast_spread))
            second = expected.mean[:, :, None] * expected.mean[:, None] + expected.covariance
            return expected.mean, second, expected.log_evidence - full.energy / 2

        return varying if self.contrast_spread else fixed

    def given(self, full: Statistics, prior: GaussianMixture) -> Contrasts:
        """Return the contrasts of images and the likelihood of their coefficients, whose density is `prior`."""
        if self.contrast_spread:
            return contrasts(full, prior, self.contrast_spread)
        one = torch.ones_like(full.energy)
        known = full.given(one)
        expected = posterior(known.b, known.G, prior).mean
        return Contrasts(one, torch.zeros_like(one), expected, known.b, known.G)


def begin(
    imaging: ImageFormation,
    chunks: Iterable[ImageBatch],
    mask: Tensor,
    n_basis: int,
    seed: int = 0,
    contrast_spread: float = 0.0,
) -> Eigenvolumes:
    """Return a starting point: the homogeneous reconstruction and random directions with the same power spectrum.

    Parameters
    ----------
    imaging : ImageFormation
        Measured image formation.
    chunks : iterable of ImageBatch
        All the images, or this process's share of them if there are several processes.
    mask : (D, D, D)
        Soft support of the maps.
    n_basis : int
        K, number of directions.
    seed : int
        Seed of the random directions.
    contrast_spread : float
        Standard deviation of the image contrasts; 0 if all contrasts are assumed to be 1.
    """
    size = imaging.plane.box_size
    step, signal = NormalEquations(imaging, size / 2 + MARGIN, 1), SignalPower(imaging)
    for batch in chunks:
        step.add_images(batch, torch.ones(len(batch.data), device=mask.device))
        signal.add(batch)
    step.join()
    signal.join()
    power = signal.spectrum
    mean, _ = step.solve(torch.zeros_like(mask)[None], power[:, None], mask)
    noise = torch.randn(n_basis, size, size, size, generator=torch.Generator().manual_seed(seed)).to(mask.device)
    shell = grid(size, 3, mask.device).float().norm(dim=-1).round().long()
    shaped = torch.stack([ifft3(fft3(part) * power.sqrt().float()[shell]).real for part in noise]) * mask
    basis = _orthonormal(shaped)
    variances = torch.full((n_basis,), 0.05 * float(mean.square().sum()) / n_basis, dtype=torch.float64).to(mask.device)
    powers = torch.cat([power[:, None], _power(basis)], dim=1)
    uncertainty = powers.new_zeros(len(power), n_basis + 1, n_basis + 1)
    return Eigenvolumes(mean[0], basis, variances, powers, uncertainty, mask, contrast_spread)


def iterate(
    before: Eigenvolumes,
    imaging: ImageFormation,
    chunks: Iterable[ImageBatch],
    radius: float,
    moments: Moments | None = None,
) -> tuple[Eigenvolumes, float, tuple[Tensor, Tensor]]:
    """Run one pass of expectation-maximisation over all the images.

    Parameters
    ----------
    before : Eigenvolumes
        Result of the previous pass.
    imaging : ImageFormation
        Measured image formation.
    chunks : iterable of ImageBatch
        All the images, or this process's share of them if there are several processes.
    radius : float
        Coefficients with |k| < radius (grid units) are used.
    moments : callable, optional
        E-step; by default, the E-step with the Gaussian prior.

    Returns
    -------
    after : Eigenvolumes
        Updated maps.
    log_evidence : float
        Mean log-evidence of the images under `before`, nats.
    frame : matrix (K, K), average (K,)
        The new coefficients are frame @ (c - average).
    """
    moments = moments or before.moments()
    ball = before.ball(radius)
    lattice, step = before.lattice(ball), NormalEquations(imaging, radius, len(before.basis) + 1)
    evidence, known, first_total = 0.0, 0.0, torch.zeros(step.n_maps, dtype=torch.float64, device=lattice.device)
    total = torch.zeros(step.n_maps, step.n_maps, dtype=torch.float64, device=lattice.device)
    for batch in chunks:
        seen = before.project(ball, lattice, batch, imaging)
        first, second, log_evidence = moments(before.statistics(seen, batch, imaging))
        step.add(batch, seen.residuals(first.float(), second.float()), second.float())
        evidence += float(log_evidence.sum())
        known += float((before.contrast_spread**2 - second[:, 0, 0] + first[:, 0] ** 2).square().sum())
        first_total += first.sum(0)
        total += second.sum(0)
    step.join()
    distributed.all_sum(first_total, total)
    evidence, known = distributed.total(evidence), distributed.total(known)
    maps, uncertainty = step.solve(before.maps, before.power, before.mask)
    varying = before.contrast_spread > 0
    change, variances, spread = _principal(maps, first_total / step.count, total / step.count, varying)
    maps = torch.tensordot(change.float(), maps, 1)
    maps = torch.cat([maps[:1], _orthonormal(maps[1:])])  # rounding makes the weakest maps non-orthogonal
    uncertainty = _bounded(change @ uncertainty @ change.mT, len(maps[0]))
    power = _power(maps) + uncertainty.diagonal(dim1=-2, dim2=-1)
    new = replace(
        before,
        mean=maps[0],
        basis=maps[1:],
        variances=variances,
        power=_continued(power, before.power[:, 0], radius),
        uncertainty=uncertainty,
        contrast_spread=accelerated(before.contrast_spread, spread, known / step.count) if varying else 0.0,
        contrast_error=before.contrast_spread**3 / (2 * max(known, 1e-300)) ** 0.5,
    )
    average = change[0, 1:] / change[0, 0]
    return new, evidence / step.count, (change[0, 0] * torch.linalg.inv(change[1:, 1:]).T, average)
