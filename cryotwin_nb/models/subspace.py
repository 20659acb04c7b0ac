"""Subspace architecture: near-isometric latents of a linear subspace of maps that EM finds with closed-form steps.

A density is V_0 + sum_k c_k(z) U_k with orthonormal U_k (`reconstruction.eigenvolumes`). With c(z) = s z, the mapping
from latents to densities is exactly isometric. If the basis has more dimensions than the latent space, a small network
whose output starts at zero can make c(z) curved. Given the basis, rate-distortion training only needs sufficient
statistics of the images (`Records`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cryotwin_nb.imaging.fourier import n_shells
from cryotwin_nb.imaging.lattice import HalfBall
from cryotwin_nb.imaging.masks import map_mask, spherical_mask
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.isolated import unnamed
from cryotwin_nb.mixture.moments import StoredMixture
from cryotwin_nb.models.networks import Networks, SubspaceOptions
from cryotwin_nb.models.records import Curve, Records, deconvolved, linearised, pack, transformed, unpack
from cryotwin_nb.particles.formation import Chunks, ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.backprojection import MARGIN
from cryotwin_nb.reconstruction.eigenvolumes import Eigenvolumes, begin, iterate
from cryotwin_nb.reconstruction.statistics import projections
from cryotwin_nb.runtime import distributed

_RADII = (0.3, 0.3, 0.3, 0.3, 0.5, 0.5, 0.7, 1.0, 1.0)  # maximum |k| of each Gaussian-prior pass, fraction of Nyquist
_TIGHTENED = 7  # pass before which the mask is fitted to the density (option tight_mask)
_SAMPLE = 5000  # images used to fit the density of the coefficients
_COMPONENTS = 32  # maximum number of components of that density
_CONTRAST_SPREAD = 0.1  # initial standard deviation of the contrasts
_LEAST_SPREAD = 0.03  # smaller spreads are not fitted, unless asked for
_DECIDED = 6  # pass from which this is decided


class SubspaceNetworks(Networks):
    """Encoder and decoder of the subspace architecture.

    Parameters
    ----------
    imaging, latent_dim, noise_width, options
        As in `Networks`.
    n_components, seed : int
        Number C of components; seed of the closed-form passes.
    """

    Options = SubspaceOptions
    # Images are not windowed, so that their noise stays white: the maps are masked instead.
    imaging_options: ClassVar[dict[str, Any]] = {"windowed": False, "margin": MARGIN}
    training_defaults: ClassVar[dict[str, int]] = {"epochs": 30, "batch_size": 256}
    coarse_to_fine = False
    makes_records = True
    n_passes = len(_RADII) + 3

    mask: Tensor
    mean: Tensor
    basis: Tensor
    variances: Tensor
    power: Tensor
    uncertainty: Tensor
    contrast_spread: Tensor
    scale: Tensor

    def __init__(
        self,
        imaging: ImageFormation,
        latent_dim: int,
        n_components: int,
        noise_width: float,
        options: SubspaceOptions,
        seed: int = 0,
    ) -> None:
        super().__init__(imaging, latent_dim, noise_width)
        self._cached: tuple[tuple, Tensor] | None = None
        self.options, self.seed = options, seed
        n_basis, width = options.n_basis or latent_dim, options.width
        size = imaging.plane.box_size
        self.register_buffer("mask", spherical_mask(size, imaging.particle_radius, size / 16))
        self.register_buffer("mean", torch.zeros(size, size, size))
        self.register_buffer("basis", torch.zeros(n_basis, size, size, size))
        self.register_buffer("variances", torch.ones(n_basis, dtype=torch.float64))
        self.register_buffer("power", torch.ones(n_shells(size), n_basis + 1, dtype=torch.float64))
        self.register_buffer("uncertainty", torch.zeros(n_shells(size), n_basis + 1, n_basis + 1, dtype=torch.float64))
        self.register_buffer("contrast_spread", torch.zeros((), dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.density = StoredMixture(n_basis)
        self.hidden = nn.Sequential(nn.Linear(n_basis, width), nn.Tanh())
        self.last = nn.Linear(width, latent_dim + n_components)
        self.curve = Curve(latent_dim, width, n_basis) if n_basis > latent_dim else None
        self._reset()

    @property
    def eigenvolumes(self) -> Eigenvolumes:
        """Average map, basis and spectrum of the subspace."""
        spread = float(self.contrast_spread)
        return Eigenvolumes(self.mean, self.basis, self.variances, self.power, self.uncertainty, self.mask, spread)

    @eigenvolumes.setter
    def eigenvolumes(self, new: Eigenvolumes) -> None:
        for name in ("mean", "basis", "variances", "power", "uncertainty"):
            setattr(self, name, getattr(new, name).to(self.mask.device))
        self.contrast_spread.fill_(new.contrast_spread)

    def passes(
        self, chunks: Chunks, beta: float, done: int = 0, groups: np.ndarray | None = None
    ) -> Iterator[tuple[float, float, float]]:
        """Run the closed-form passes after the first `done`; yield the radius, log-evidence and duration of each."""
        radius = self.imaging.plane.box_size / 2 + MARGIN
        for number in range(done, self.n_passes):
            started, share, evidence = time.perf_counter(), 1.0, float("nan")
            if number == 0:
                self._reset()
                spread = _CONTRAST_SPREAD if self.options.contrast else 0.0
                self.eigenvolumes = begin(self.imaging, chunks(), self.mask, len(self.basis), self.seed, spread)
            elif number <= len(_RADII):
                if self.options.tight_mask and number == _TIGHTENED:
                    self._tighten()
                share = _RADII[number - 1]
                found, evidence, _ = iterate(self.eigenvolumes, self.imaging, chunks(), share * radius)
                self.eigenvolumes = self._decided(found) if number >= _DECIDED else found
                self.density.set(self.eigenvolumes.prior)
            else:
                first = number == len(_RADII) + 1
                density = self._density(self._sample(chunks), groups) if first else self.density.mixture
                moments = self.eigenvolumes.moments(density)
                found, evidence, frame = iterate(self.eigenvolumes, self.imaging, chunks(), radius, moments)
                self.eigenvolumes = self._decided(found)
                self.density.set(transformed(density, *frame))
                self.scale.fill_(self._scale(chunks, beta))
            yield share * radius, evidence, time.perf_counter() - started

    def _decided(self, found: Eigenvolumes) -> Eigenvolumes:
        """Return the result of a pass, with all contrasts 1 if the images do not show that they vary."""
        off = self.options.contrast == "auto" and found.contrast_spread < _LEAST_SPREAD
        return replace(found, contrast_spread=0.0) if off else found

    def _reset(self) -> None:
        """Reset mask and networks, because weights from an earlier training run belong to the basis of that run."""
        size = self.imaging.plane.box_size
        self.mask.copy_(spherical_mask(size, self.imaging.particle_radius, size / 16))
        with torch.no_grad():
            self.last.weight[: self.latent_dim] = 0
            self.last.bias[: self.latent_dim] = 0
            if self.curve is not None:
                self.curve.last.weight.zero_()

    def _tighten(self) -> None:
        """Restrict the mask to regions in which the density or one of its variations is large."""
        power = self.mean.square() + torch.tensordot(self.variances.float(), self.basis.square(), 1)
        self.mask.mul_(map_mask(power.sqrt()).to(self.mask))

    def _density(self, records: Records, groups: np.ndarray | None) -> GaussianMixture:
        """Return the density that the coefficients would have without image noise (extreme deconvolution)."""

        def fitted() -> GaussianMixture:
            n, own = len(records.b), None if groups is None else groups[: len(records.b)]
            with unnamed():
                start = GaussianMixture.fit(records.expected, min(_COMPONENTS, n), seed=self.seed, groups=own)
            return deconvolved(records.b, unpack(records.precision), self.variances, start).to("cpu")

        return distributed.first(fitted).to(self.mask.device)  # each process has its own GPU

    def _sample(self, chunks: Chunks) -> Records:
        """Return the records of the first `_SAMPLE` images."""
        mine = Records(*map(torch.cat, zip(*[self.prepare(batch) for batch in chunks(_SAMPLE)], strict=True)))
        n = round(distributed.total(len(mine.b)))
        return Records(*(distributed.gather(part, n) for part in tuple(mine)))

    def _scale(self, chunks: Chunks, beta: float) -> float:
        """Return the scale s in c = s z at which noise of width T adds beta/2 to the distortion in each dimension."""
        weighted = unpack(self._sample(chunks).G_weighted)
        ratio = float(weighted.diagonal(dim1=-2, dim2=-1)[:, : self.latent_dim].mean())
        return (6 * beta / self.noise_width**2 / ratio) ** 0.5

    def prepare(self, batch: ImageBatch) -> Records:
        """Return the records of images."""
        found, imaging = self.eigenvolumes, self.imaging
        ball = found.ball(imaging.plane.box_size / 2 + MARGIN)
        lattice = self._lattice(ball)
        full = found.statistics(found.project(ball, lattice, batch, imaging), batch, imaging)
        weights = imaging.weights(batch.group)
        weighted = projections(ball, lattice, batch, imaging.frequencies, weights).statistics()
        given = found.given(full, self.density.mixture)
        a, objective = given.mean, weighted.given(given.mean)
        parts = (given.b.float(), pack(given.G.float()), objective.b, pack(objective.G), objective.energy)
        return Records(given.expected.float(), a.float(), given.error.float(), *parts)

    def encode(self, batch: ImageBatch | Records) -> tuple[Tensor, Tensor]:
        """Return latents z (m, d) and component scores w (m, C) of images or records."""
        return self._encode((batch if isinstance(batch, Records) else self.prepare(batch)).expected)

    def _encode(self, expected: Tensor) -> tuple[Tensor, Tensor]:
        out = self.last(self.hidden(expected / self.variances.sqrt().float()))
        z = expected[:, : self.latent_dim] / self.scale.float() + self.noise_width * out[:, : self.latent_dim]
        return z, out[:, self.latent_dim :]

    def score_head(self) -> tuple[Tensor, Tensor]:
        """Return the rows of the last layer that give w: weight (C, width) and bias (C,), modifiable in place."""
        return self.last.weight[self.latent_dim :], self.last.bias[self.latent_dim :]

    def coefficients(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coefficients c (m, K) at latents z (m, d), and the Jacobians dc/dz (m, K, d)."""
        s = self.scale.float()
        jacobian = torch.eye(len(self.basis), self.latent_dim, device=z.device).expand(len(z), -1, -1)
        c = z @ jacobian[0].T
        if self.curve is not None:
            bend, slope = self.curve(z / self.noise_width)
            c, jacobian = c + self.noise_width * bend, jacobian + slope
        return s * c, s * jacobian

    def distortion(self, batch: Records, z: Tensor, n: int | None = None) -> Tensor:
        """Return || W (X - prediction) ||^2 (m,) of images decoded at z (m, d)."""
        c, _ = self.coefficients(z)
        quadratic = (c[:, None] @ unpack(batch.G_weighted))[:, 0]
        return batch.energy + ((quadratic - 2 * batch.b_weighted) * c).sum(-1)

    def anisometry(self, z: Tensor) -> Tensor:
        """Return the mean of || J^T J / s^2 - 1 ||^2 over latents z (m, d), J = dc/dz; 0 for an isometry of scale s."""
        if self.curve is None:
            return z.new_zeros(())
        jacobian = self.coefficients(z)[1] / self.scale.float()
        identity = torch.eye(self.latent_dim, device=z.device)
        return (jacobian.mT @ jacobian - identity).square().sum((-2, -1)).mean()

    def slices(self, rotations: Tensor, z: Tensor, n: int | None = None) -> Tensor:
        """Return the first n coefficients of central slices (m, P) of the densities at z (m, d) for `rotations`."""
        ball = self.eigenvolumes.ball(self.imaging.plane.box_size / 2 + MARGIN)
        slices = ball.slices(self._lattice(ball), self.imaging.frequencies[:n].contiguous(), rotations)
        c = self.coefficients(z)[0]
        real, imaginary = slices.chunk(2, dim=-1)
        weights = torch.cat([torch.ones_like(c[:, :1]), c], dim=1)[..., None]
        return torch.complex((real @ weights)[..., 0], (imaginary @ weights)[..., 0])

    @torch.no_grad()
    def volumes(self, z: Tensor) -> Tensor:
        """Return densities (m, D, D, D) at z (m, d)."""
        return self.mean + torch.tensordot(self.coefficients(z)[0], self.basis, 1)

    def deconvolve(self, records: Records, start: GaussianMixture, seed: int) -> GaussianMixture:
        """Return the density that the latents would have without image noise, fitted with initial mixture `start`."""
        rows = torch.randperm(len(records.b), generator=torch.Generator().manual_seed(seed))[:_SAMPLE]
        records = records.take(rows.to(records.b.device))
        z = self.encode(records)[0].detach()
        b, G = linearised(records.b, unpack(records.precision), z, *self.coefficients(z))
        return deconvolved(b, G, z.double().var(0), start)

    def _lattice(self, ball: HalfBall) -> Tensor:
        """Return the maps on the lattice, cached until the maps change."""
        now = (self.mean, self.mean._version, self.basis, self.basis._version)
        if self._cached is None or any(a is not b for a, b in zip(self._cached[0], now, strict=True)):
            self._cached = (now, self.eigenvolumes.lattice(ball))
        return self._cached[1]
