"""Subspace architecture: near-isometric latents of a linear subspace of maps that EM finds with closed-form steps.

A density is V_0 + sum_k c_k(z) U_k with orthonormal U_k (`reconstruction.eigenvolumes`). With c(z) = s z, the mapping
from latents to densities is exactly isometric. If the basis has more dimensions than the latent space, a small network
whose output starts at zero can make c(z) curved. Given the basis, rate-distortion training only needs sufficient
statistics of the images (`Records`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cryotwin_nb.imaging.fourier import n_shells
from cryotwin_nb.imaging.lattice import HalfBall
from cryotwin_nb.imaging.masks import spherical_mask
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.moments import StoredMixture
from cryotwin_nb.models import closed_form
from cryotwin_nb.models.networks import Networks, SubspaceOptions
from cryotwin_nb.models.records import Curve, Records, deconvolved, linearised, pack, unpack
from cryotwin_nb.particles.formation import Chunks, ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.backprojection import MARGIN
from cryotwin_nb.reconstruction.eigenvolumes import Eigenvolumes
from cryotwin_nb.reconstruction.spectrum import Spectrum
from cryotwin_nb.reconstruction.statistics import projections

_SAMPLE = 5000  # images used to deconvolve the density of the latents
_MOST = 12  # directions at the start, if the images choose their number
_CURVED = 5  # latent dimension below which motions need more directions than they have parameters


class SubspaceNetworks(Networks):
    """Encoder and decoder of the subspace architecture.

    Parameters
    ----------
    imaging, noise_width, options
        As in `Networks`.
    latent_dim : int or None
        Dimension d of the latent space; None if the images choose it.
    n_components, seed : int
        Number C of components; seed of the closed-form passes.
    """

    Options = SubspaceOptions
    coarse_to_fine = False
    makes_records = True
    n_passes = closed_form.N_PASSES

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
        latent_dim: int | None,
        n_components: int,
        noise_width: float,
        options: SubspaceOptions,
        seed: int = 0,
    ) -> None:
        n_basis = options.n_basis or (latent_dim if latent_dim and latent_dim >= _CURVED else _MOST)
        super().__init__(imaging, latent_dim or n_basis, noise_width)
        self.training_defaults = {"epochs": 30, "batch_size": 256}
        self._cached: tuple[tuple, Tensor] | None = None
        self.options, self.seed, self.n_components = options, seed, n_components
        self.chooses_dim = latent_dim is None
        self.chooses_basis = options.n_basis is None and (latent_dim is None or latent_dim < _CURVED)
        self.chosen = not self.chooses_dim  # whether the dimension of the latents is known
        self.spectrum: Spectrum | None = None
        size = imaging.plane.box_size
        self.register_buffer("mask", spherical_mask(size, imaging.particle_radius, size / 16))
        self.register_buffer("mean", torch.zeros(size, size, size))
        self.register_buffer("basis", torch.zeros(n_basis, size, size, size))
        self.register_buffer("variances", torch.ones(n_basis, dtype=torch.float64))
        self.register_buffer("power", torch.ones(n_shells(size), n_basis + 1, dtype=torch.float64))
        self.register_buffer("uncertainty", torch.zeros(n_shells(size), n_basis + 1, n_basis + 1, dtype=torch.float64))
        self.register_buffer("contrast_spread", torch.zeros((), dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self._make_layers()
        self.reset()

    def _make_layers(self) -> None:
        """Create the density of the coefficients and the layers, for the present numbers of directions."""
        n_basis, width = len(self.basis), self.options.width
        self.density = StoredMixture(n_basis)
        self.hidden = nn.Sequential(nn.Linear(n_basis, width), nn.Tanh())
        self.last = nn.Linear(width, self.latent_dim + self.n_components)
        self.curve = Curve(self.latent_dim, width, n_basis) if n_basis > self.latent_dim else None

    def resize(self, latent_dim: int, n_basis: int) -> bool:
        """Keep `n_basis` directions, use the first `latent_dim` as latents, start the layers anew; return if needed."""
        if (latent_dim, n_basis) == (self.latent_dim, len(self.basis)):
            return False
        self.latent_dim = latent_dim
        self.basis, self.variances = self.basis[:n_basis].clone(), self.variances[:n_basis].clone()
        self.power = self.power[:, : n_basis + 1].clone()
        self.uncertainty = self.uncertainty[:, : n_basis + 1, : n_basis + 1].clone()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self._make_layers()
        self.to(self.mask.device)
        self._reset_layers()
        return True

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

    @staticmethod
    def imaging_options(options: SubspaceOptions) -> dict[str, Any]:
        """Return options of the `ImageFormation`: images are not windowed, so that their noise stays white."""
        return {"windowed": False, "margin": MARGIN}  # the maps are masked instead

    def passes(
        self, chunks: Chunks, beta: float, done: int = 0, groups: np.ndarray | None = None
    ) -> Iterator[tuple[float, float, float]]:
        """Run the closed-form passes after the first `done`; yield the radius, log-evidence and duration of each."""
        yield from closed_form.passes(self, chunks, beta, done, groups)

    def reset(self) -> None:
        """Reset mask and networks, because weights from an earlier training run belong to the basis of that run."""
        size = self.imaging.plane.box_size
        self.mask.copy_(spherical_mask(size, self.imaging.particle_radius, size / 16))
        self._reset_layers()

    def _reset_layers(self) -> None:
        with torch.no_grad():
            self.last.weight[: self.latent_dim] = 0
            self.last.bias[: self.latent_dim] = 0
            if self.curve is not None:
                self.curve.last.weight.zero_()

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
        likelihood = (given.b.float(), pack(given.G.float()))
        kept = slice(None) if found.contrast_spread else slice(0)
        exact = (full.b[:, kept], pack(full.G)[:, kept])
        distortion = (objective.b, pack(objective.G), objective.energy)
        return Records(given.expected.float(), a.float(), given.error.float(), *likelihood, *exact, *distortion)

    def encode(self, batch: ImageBatch | Records) -> tuple[Tensor, Tensor]:
        """Return latents z (m, d) and component scores w (m, C) of images or records."""
        return self._encode((batch if isinstance(batch, Records) else self.prepare(batch)).expected)

    def ignore(self, directions: Tensor) -> None:
        """Keep directions (K,) bool out of the latents; contrasts could enter through them."""
        with torch.no_grad():
            self.get_parameter("hidden.0.weight")[:, directions] = 0

    @property
    def live(self) -> Tensor:
        """Directions (K,) bool that are not ignored."""
        return (self.get_parameter("hidden.0.weight").detach() != 0).any(0)

    def _encode(self, expected: Tensor) -> tuple[Tensor, Tensor]:
        expected = expected * self.live  # a weight of 0 then has no gradient and stays 0
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

    def live_coefficients(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return `coefficients` that are 0 in ignored directions: images are not evidence of latents there."""
        c, jacobian = self.coefficients(z)
        return c * self.live, jacobian * self.live[:, None]

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
