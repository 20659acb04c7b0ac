"""Heterogeneity as a linear subspace: probabilistic PCA on slices, by closed-form expectation-maximisation.

Each density is V = V_0 + sum_k c_k U_k with orthonormal maps U_k. Poses and CTF are known and projection is linear, so
both steps are least squares, without a learning rate:

* E: the posterior of the coefficients c of each image, Gaussian or a mixture of Gaussians (`likelihood`);
* M: given the moments of c, every voxel of (V_0, U_1, ..., U_K) has (K+1) x (K+1) normal equations.

Probabilistic PCA: Tipping and Bishop 1999. With slices: Tagare et al. 2015, Punjani and Fleet 2021 (3DVA), Gilles and
Singer 2025 (RECOVAR). Here each shell has its prior (Wiener) and all maps have a support in real space in every M-step,
and the resolution rises from pass to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryotwin_nb.formation import ImageBatch, ImageFormation
from cryotwin_nb.fourier import fft3, grid, ifft3, n_shells, shell_mean
from cryotwin_nb.lattice import HalfBall, half_ball
from cryotwin_nb.likelihood import Statistics, contrasts, posterior, statistics
from cryotwin_nb.mixture import GaussianMixture

MARGIN = 1.0  # grid units beyond Nyquist up to which slices are used: the last shell reaches half a unit beyond

Moments = Callable[[Statistics], tuple[Tensor, Tensor, Tensor]]
"""E-step: full statistics of images to E[c~] (m, Q), E[c~ c~^T] (m, Q, Q) of c~ = a (1, c), and log-evidence (m,)."""


@dataclass(frozen=True)
class Subspace:
    """An average map and orthonormal directions of variation.

    Attributes
    ----------
    mean : (D, D, D) float32
        V_0, image grey value per Å.
    basis : (K, D, D, D) float32
        U_k, orthonormal, by falling variance.
    variances : (K,) float64
        Variances of the coefficients c_k, the spectrum; in the units of |V|^2.
    power : (n_shells, K + 1) float64
        Expected power of a Fourier coefficient of V_0 and of each U_k, in each shell: the Wiener priors.
    mask : (D, D, D) float32
        Soft support of all maps.
    contrast_spread : float
        Standard deviation of the images' contrasts; 0 where all are taken to be 1.
    padding : float
        Of the lattice that slices are read from.
    """

    mean: Tensor
    basis: Tensor
    variances: Tensor
    power: Tensor
    mask: Tensor
    contrast_spread: float = 0.0
    padding: float = 1.5

    @property
    def prior(self) -> GaussianMixture:
        """The Gaussian prior of the coefficients."""
        weight, zero = self.variances.new_ones(1), torch.zeros_like(self.variances)
        return GaussianMixture.unchecked(weight, zero[None], self.variances.diag()[None])

    def ball(self, radius: float) -> HalfBall:
        """The lattice for slices below a radius, grid units."""
        return half_ball(self.mean.shape[-1], radius, self.padding)

    def lattice(self, ball: HalfBall) -> Tensor:
        """V_0 and the U_k on a lattice, ready for slicing: (V, 2 (K + 1))."""
        return ball.from_volumes(torch.cat([self.mean[None], self.basis]))

    def contrasts(self, full: Statistics) -> Tensor:
        """Contrast (m,) of each image."""
        if self.contrast_spread == 0:
            return torch.ones(len(full.b), dtype=torch.float64, device=full.b.device)
        return contrasts(full, self.variances, self.contrast_spread)

    def moments(self, prior: GaussianMixture | None = None) -> Moments:
        """The E-step with a prior of the coefficients, by default the Gaussian one."""
        prior = prior or self.prior

        def function(full: Statistics) -> tuple[Tensor, Tensor, Tensor]:
            a = self.contrasts(full)
            given = full.given(a)
            expected = posterior(given.b, given.G, prior)
            return *augmented(a, expected.mean, expected.covariance), expected.log_evidence - given.energy / 2

        return function


def augmented(contrast: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """E[c~] (m, Q) and E[c~ c~^T] (m, Q, Q) of c~ = a (1, c), from the contrast a and the moments of c."""
    first = torch.cat([torch.ones_like(mean[:, :1]), mean], dim=1)
    second = first[:, :, None] * first[:, None]
    second[:, 1:, 1:] += covariance
    return contrast[:, None] * first, contrast[:, None, None] ** 2 * second


def spherical_mask(box_size: int, radius: float, width: float) -> Tensor:
    """Soft ball (D, D, D): 1 inside `radius` voxels, a raised cosine over the next `width` voxels, then 0."""
    distance = grid(box_size, 3).float().norm(dim=-1)
    return 0.5 + 0.5 * torch.cos(torch.pi * ((distance - radius) / width).clamp(0, 1))


def begin(
    imaging: ImageFormation,
    chunks: Iterable[ImageBatch],
    mask: Tensor,
    n_basis: int,
    seed: int = 0,
    contrast_spread: float = 0.0,
    padding: float = 1.5,
) -> Subspace:
    """The homogeneous reconstruction, and random directions with its spectrum, to start from.

    Parameters
    ----------
    chunks : iterable of ImageBatch
        All the images.
    mask : (D, D, D)
        Support.
    """
    size = imaging.plane.box_size
    step = _MStep(imaging, half_ball(size, size / 2 + MARGIN, padding), 1)
    shells, signal, seen = len(imaging.ctf_power), 0.0, 0.0
    for batch in chunks:
        one = torch.ones(len(batch.data), 1, device=mask.device)
        step.add(batch, one, one[..., None])
        signal = signal + shell_mean((batch.data.abs().square() - 1).mean(0), imaging.shell, shells) * len(one)
        seen = seen + shell_mean(batch.transfer.square().mean(0), imaging.shell, shells) * len(one)
    power = _smooth_spectrum(torch.as_tensor(signal), torch.as_tensor(seen))
    mean, _ = step.solve(power[:, None], mask)
    noise = torch.randn(n_basis, size, size, size, generator=torch.Generator().manual_seed(seed)).to(mask.device)
    shell = grid(size, 3, mask.device).float().norm(dim=-1).round().long()
    shaped = torch.stack([ifft3(fft3(part) * power.sqrt().float()[shell]).real for part in noise]) * mask
    basis = torch.linalg.qr(shaped.flatten(1).T).Q.T.reshape(shaped.shape)
    variances = torch.full((n_basis,), 0.05 * float(mean.square().sum()) / n_basis, dtype=torch.float64).to(mask.device)
    powers = torch.cat([power[:, None], _power(basis)], dim=1)
    return Subspace(mean[0], basis, variances, powers, mask, contrast_spread, padding)


def iterate(
    subspace: Subspace,
    imaging: ImageFormation,
    chunks: Iterable[ImageBatch],
    radius: float,
    moments: Moments | None = None,
) -> tuple[Subspace, float, tuple[Tensor, Tensor]]:
    """One pass of expectation-maximisation over all the images, at frequencies below `radius` (grid units).

    Parameters
    ----------
    moments : callable, optional
        The E-step; by default with the Gaussian prior.

    Returns
    -------
    subspace : Subspace
    log_evidence : float
        Mean over the images, nats, of the old subspace.
    frame : matrix (K, K), average (K,)
        The new coefficients are frame @ (c - average).
    """
    moments = moments or subspace.moments()
    ball = subspace.ball(radius)
    n = int((imaging.frequencies.norm(dim=1) < radius).sum())
    lattice, step = subspace.lattice(ball), _MStep(imaging, ball, len(subspace.basis) + 1)
    evidence, second_total, contrast_square = 0.0, 0.0, 0.0
    for batch in chunks:
        full = statistics(ball, lattice, batch, imaging.frequencies[:n], imaging.multiplicity[:n])
        first, second, log_evidence = moments(full)
        step.add(batch, first.float(), second.float())
        evidence += float(log_evidence.sum())
        second_total = second_total + second.sum(0)
        contrast_square += float((first[:, 0] - 1).square().sum())
    total = torch.as_tensor(second_total)
    maps, uncertainty = step.solve(subspace.power, subspace.mask)
    average = total[0, 1:] / total[0, 0]
    mean = maps[0] + torch.tensordot(average.float(), maps[1:], 1)
    basis_frame, variances = _principal(maps[1:], total[1:, 1:] / total[0, 0] - average[:, None] * average)
    basis = torch.tensordot(basis_frame.float(), maps[1:], 1)
    rotated = torch.einsum("ki,sij,kj->sk", basis_frame, uncertainty[:, 1:, 1:], basis_frame)
    power = torch.cat([_power(mean[None]) + uncertainty[:, :1, 0], _power(basis) + rotated], dim=1)
    power = _continued(power, subspace.power[:, 0], radius)
    spread = max((contrast_square / step.count) ** 0.5, 0.01) if subspace.contrast_spread else 0.0
    new = replace(subspace, mean=mean, basis=basis, variances=variances, power=power, contrast_spread=spread)
    return new, evidence / step.count, (torch.linalg.inv(basis_frame).T, average)


def reestimate(
    subspace: Subspace, imaging: ImageFormation, chunks: Iterable[ImageBatch], moments: Moments
) -> tuple[Subspace, Tensor]:
    """The maps that fit given coefficients best, in the orthonormal frame nearest to the one they are given in.

    Returns
    -------
    subspace : Subspace
    frame : (K, K) float64
        Symmetric; the new coefficients are frame @ c.
    """
    radius = subspace.mean.shape[-1] / 2 + MARGIN
    ball = subspace.ball(radius)
    lattice, step = subspace.lattice(ball), _MStep(imaging, ball, len(subspace.basis) + 1)
    for batch in chunks:
        full = statistics(ball, lattice, batch, imaging.frequencies, imaging.multiplicity)
        first, second, _ = moments(full)
        step.add(batch, first.float(), second.float())
    maps, _ = step.solve(subspace.power, subspace.mask)
    left, values, right = torch.linalg.svd(maps[1:].flatten(1), full_matrices=False)
    frame = ((left * values) @ left.T).double()
    variances = frame.square() @ subspace.variances
    return replace(subspace, mean=maps[0], basis=(left @ right).view_as(subspace.basis), variances=variances), frame


class _MStep:
    """Normal equations of the maps: right-hand sides and matrices of every voxel, summed over the images."""

    def __init__(self, imaging: ImageFormation, ball: HalfBall, n_maps: int) -> None:
        self.imaging, self.ball, self.n_maps = imaging, ball, n_maps
        self.n_frequencies = int((imaging.frequencies.norm(dim=1) < ball.radius).sum())
        columns = 2 * n_maps + n_maps * (n_maps + 1) // 2
        self.sums = torch.zeros(len(ball), columns, device=imaging.window.device)
        self.count = 0

    def add(self, batch: ImageBatch, first: Tensor, second: Tensor) -> None:
        """Take in images with E[c~] (m, Q) and E[c~ c~^T] (m, Q, Q)."""
        n, (row, column) = self.n_frequencies, torch.tril_indices(self.n_maps, self.n_maps)
        transfer, half = batch.transfer[:, :n], self.imaging.multiplicity[:n] / 2  # each pair of conjugates once
        values, powers = batch.data[:, :n] * transfer * half, transfer.square() * half
        frequencies = self.imaging.frequencies[:n]
        self.ball.insert(self.sums, frequencies, batch.rotations, values, powers, first, second[:, row, column])
        self.count += len(first)

    def solve(self, power: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (Q, D, D, D), and the mean posterior covariance (n_shells, Q, Q) of their coefficients in each shell.

        Notes
        -----
        A map that is confined to a mask has fewer independent Fourier coefficients than the padded lattice has voxels,
        by the factor `oversampling`; a voxel's share of the prior is smaller by as much, and so is the variance that
        is left once the mask has averaged neighbouring voxels.
        """
        ball = self.ball
        oversampling = ball.scale**3 * mask.numel() / float(mask.square().sum())
        ball.close(self.sums, self.n_maps)
        precision = 1 / (oversampling * power)
        solution, covariance = ball.solve(self.sums, precision)
        solution[ball.positions.float().norm(dim=1).to(solution.device) > (ball.radius - MARGIN / 2) * ball.scale] = 0
        return ball.to_volumes(solution) * mask, covariance / oversampling


def _smooth_spectrum(signal: Tensor, seen: Tensor) -> Tensor:
    """Power (n_shells,) of the density from sums of CTF^2-weighted power and of CTF^2; unseen shells as the last seen."""
    power = signal.clamp_min(1e-4 * signal[1:].max() * seen / seen.max()) / seen
    last = int(seen.nonzero().max()) - 1  # the last shell with all of its coefficients
    power[last:] = power[last - 1]
    return power


def _power(maps: Tensor) -> Tensor:
    """Mean power (n_shells, Q) of the Fourier coefficients of maps (Q, D, D, D) in each shell."""
    size = maps.shape[-1]
    shell = grid(size, 3, maps.device).reshape(-1, 3).float().norm(dim=-1).round().long()
    return torch.stack([shell_mean(fft3(m).flatten().abs().square(), shell, n_shells(size)) for m in maps], dim=1)


def _continued(power: Tensor, reference: Tensor, radius: float) -> Tensor:
    """The power (n_shells, Q) with what lies beyond `radius` replaced by a reference spectrum, scaled to fit on."""
    last = int(radius - MARGIN)
    outer = slice(max(1, last // 2), last + 1)
    ratio = (power[outer].log().mean(0) - reference[outer].log().mean()).exp()
    return torch.cat([power[: last + 1], ratio * reference[last + 1 :, None]])


def _principal(maps: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix B (K, K) such that B @ maps are orthonormal principal components, and their variances (K,), falling.

    `moment` (K, K) is the second moment of the coefficients of `maps`.
    """
    flat = maps.flatten(1)
    gram, factor = (flat @ flat.T).double(), torch.linalg.cholesky(moment)
    variances, axes = torch.linalg.eigh(factor.T @ gram @ factor)
    variances, axes = variances.flip(0).clamp_min(1e-30), axes.flip(1)
    return (factor @ axes / variances.sqrt()).T, variances
