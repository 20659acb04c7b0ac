"""Coordinate architecture of the cryoTWIN paper: image encoder and Fourier-coordinate decoder, both residual MLPs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, relu

from cryotwin_nb.imaging.fourier import grid, ifft2, ifft3, n_shells, shell_mean
from cryotwin_nb.imaging.optics import slice_coordinates
from cryotwin_nb.models.networks import CoordinateOptions, Networks
from cryotwin_nb.particles.formation import Chunks, ImageBatch, ImageFormation
from cryotwin_nb.runtime import distributed

_MEASURED = 256  # images used to set the scale of the decoder's output


class ResidualMLP(nn.Module):
    """MLP of a linear layer, `depth` residual layers h + relu(W h) and a linear layer."""

    def __init__(self, n_in: int, width: int, depth: int, n_out: int) -> None:
        super().__init__()
        self.first = nn.Linear(n_in, width)
        self.residual = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, n_out)

    def hidden(self, h: Tensor) -> Tensor:
        """Apply only the residual layers."""
        h = relu(h)
        for layer in self.residual:
            h = h + relu(layer(h))
        return h

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.hidden(self.first(x)))


class CoordinateNetworks(Networks):
    """Encoder X -> (z, w) and decoder (v, z) -> complex Fourier coefficient of the density.

    Parameters
    ----------
    imaging : ImageFormation
        Image formation of the data set.
    latent_dim, n_components : int
        d and C: lengths of z and w.
    noise_width : float
        Width T of the noise. The encoder's output is multiplied by T, and the decoder's input is divided by T.
    options : CoordinateOptions
        Options of the architecture.
    seed : int
        Seed of the positional features.
    """

    Options = CoordinateOptions
    training_defaults: ClassVar[dict[str, int]] = {"epochs": 24, "batch_size": 16}
    coarse_to_fine = True
    makes_records = False

    inside: Tensor
    signal: Tensor
    points: Tensor

    def __init__(
        self,
        imaging: ImageFormation,
        latent_dim: int,
        n_components: int,
        noise_width: float,
        options: CoordinateOptions,
        seed: int = 0,
    ) -> None:
        super().__init__(imaging, latent_dim, noise_width)
        width, depth, n_features = options.width, options.depth, options.n_features
        self._bfloat16 = False
        size = imaging.plane.box_size
        inside = imaging.window.flatten() > 0
        self.register_buffer("inside", inside, persistent=False)
        self.register_buffer("signal", torch.ones(n_shells(size), dtype=torch.float64))
        self.encoder = ResidualMLP(int(inside.sum()) + 3, width, depth, latent_dim + n_components)
        generator = torch.Generator().manual_seed(seed)
        points = torch.randn(n_features, 3, generator=generator)
        points *= torch.rand(n_features, 1, generator=generator) ** (1 / 3) / points.norm(dim=1, keepdim=True)
        self.register_buffer("points", points * imaging.particle_radius)
        self.decoder = ResidualMLP(n_features, width, depth, 2 * n_features)
        self.from_latent = nn.Linear(latent_dim, width, bias=False)

    def passes(
        self, chunks: Chunks, beta: float, done: int = 0, groups: np.ndarray | None = None
    ) -> Iterator[tuple[float, float, float]]:
        """Use the first images to set the scale of the decoder's output; there are no closed-form passes."""
        self.measure(ImageBatch(*map(torch.cat, zip(*map(tuple, chunks(_MEASURED)), strict=True))))
        return iter(())

    def distortion(self, batch: ImageBatch, z: Tensor, n: int | None = None) -> Tensor:
        """Return || W (X - prediction) ||^2 (m,) of images decoded at z (m, d), over the first n coefficients."""
        return self.imaging.distortion(batch, self.slices(batch.rotations, z, n) * batch.transfer[:, :n])

    def measure(self, batch: ImageBatch) -> None:
        """Use images (or this process's share of them) to set the radial amplitude that scales the decoder's output."""
        shells = len(self.signal)
        sums = torch.stack([batch.data.abs().square().sum(0), batch.transfer.square().sum(0)]).double()
        distributed.all_sum(sums)
        sums /= distributed.total(len(batch.data))
        power, seen = shell_mean(sums, self.imaging.shell, shells)
        power = power - 1
        self.signal.copy_((power.clamp_min(1e-3) / seen.clamp_min(1e-12)).sqrt())

    def encode(self, batch: ImageBatch) -> tuple[Tensor, Tensor]:
        """Return latents z (m, d) and component scores w (m, C) of images."""
        images, direction = self.canonical_images(batch)
        with self._autocast():
            out = self.encoder(torch.cat([images.flatten(1)[:, self.inside], direction], dim=1))
        return out[:, : self.latent_dim].float() * self.noise_width, out[:, self.latent_dim :].float()

    def score_head(self) -> tuple[Tensor, Tensor]:
        """Return the rows of the last layer that give w: weight (C, width) and bias (C,), modifiable in place."""
        return self.encoder.last.weight[self.latent_dim :], self.encoder.last.bias[self.latent_dim :]

    def canonical_images(self, batch: ImageBatch) -> tuple[Tensor, Tensor]:
        """Return phase-flipped, Wiener-weighted images (m, D, D) at a canonical in-plane angle, and views (m, 3).

        The pose is known, so the encoder need not learn that an image that is rotated in the plane or seen from behind
        (mirrored) shows the same structure: only views on a hemisphere remain.
        """
        imaging = self.imaging
        snr = (batch.transfer.square() * self.signal[imaging.shell].square()).float()
        flipped = batch.data * batch.transfer.sign() * (snr / (1 + snr)).sqrt()
        images = ifft2(imaging.plane.scatter(flipped)).real
        turn, direction = canonical_view(batch.rotations)
        size = images.shape[-1]
        pixels = grid(size, 2, images.device).float() @ turn.transpose(1, 2)[:, None]
        normalised = (pixels + size // 2 + 0.5) * (2 / size) - 1
        turned = grid_sample(images[:, None], normalised, padding_mode="zeros", align_corners=False)[:, 0]
        return turned / size**0.5, direction

    def slices(self, rotations: Tensor, z: Tensor, n: int | None = None) -> Tensor:
        """Return the first n coefficients of central slices (m, P) of the densities at z (m, d) for `rotations`."""
        return self.density(slice_coordinates(self.imaging.frequencies[:n], rotations), z)

    def density(self, positions: Tensor, z: Tensor) -> Tensor:
        """Return Fourier coefficients (m, P) of densities at z (m, d) and positions (m or 1, P, 3) in grid units.

        F(v) = sum_j [a_j(v, z) cos(2 pi v.r_j) - i b_j(v, z) sin(2 pi v.r_j)] with points r_j inside the particle.
        The network receives v only through the cosines, so a and b are even in v and F(-v) = F(v)* by construction.
        """
        phase = positions @ self.points.T * (2 * torch.pi / self.imaging.plane.box_size)
        dtype = torch.bfloat16 if self._bfloat16 else torch.float32
        cosine, sine = phase.cos().to(dtype), phase.sin().to(dtype)
        with self._autocast():
            h = self.decoder.first(cosine) + self.from_latent(z / self.noise_width)[:, None]
            a, b = self.decoder.last(self.decoder.hidden(h)).chunk(2, dim=-1)
        real, imaginary = (a * cosine).sum(-1, dtype=torch.float32), -(b * sine).sum(-1, dtype=torch.float32)
        return torch.complex(real, imaginary) * self._amplitude(positions)

    @contextmanager
    def in_bfloat16(self, wanted: bool) -> Iterator[None]:
        """Return a context in which the MLPs' products are computed in bfloat16 if `wanted`; phases stay float32."""
        self._bfloat16 = wanted
        try:
            yield
        finally:
            self._bfloat16 = False

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.points.device.type, dtype=torch.bfloat16, enabled=self._bfloat16)

    def _amplitude(self, positions: Tensor) -> Tensor:
        """Return the radial amplitude at positions, interpolated linearly between shells."""
        radius = positions.norm(dim=-1).clamp_max(len(self.signal) - 1.001)
        lower, signal = radius.long(), self.signal.float()
        return torch.lerp(signal[lower], signal[lower + 1], radius - lower)

    @torch.no_grad()
    def volumes(self, z: Tensor) -> Tensor:
        """Return densities (m, D, D, D) at z (m, d): decode the lattice inside Nyquist, then transform back."""
        size = self.imaging.plane.box_size
        lattice = grid(size, 3, z.device).reshape(-1, 3)
        half = ((lattice.float().norm(dim=1) < size / 2) & (lattice[:, 2] >= 0)).nonzero().flatten()
        mirrored = ((size // 2 - lattice[half]) * lattice.new_tensor([1, size, size**2])).sum(1)
        maps = []
        for latent in z.split(1):
            spectrum = torch.zeros(size**3, dtype=torch.complex64, device=z.device)
            for rows, mirror in zip(half.split(65536), mirrored.split(65536), strict=True):
                values = self.density(lattice[rows].float()[None], latent)[0]
                spectrum[mirror], spectrum[rows] = values.conj(), values
            maps.append(ifft3(spectrum.view(size, size, size)).real)
        return torch.stack(maps)


def canonical_view(rotations: Tensor) -> tuple[Tensor, Tensor]:
    """Return the in-plane rotations that bring images with equal or opposite viewing directions into a common frame.

    Parameters
    ----------
    rotations : (m, 3, 3)
        Poses.

    Returns
    -------
    turn : (m, 2, 2)
        Pixel y of the canonical image is pixel turn @ y of the original image.
    direction : (m, 3)
        Viewing direction, with z >= 0.
    """
    behind = rotations[:, 2, 2] < 0
    flip = torch.where(behind[:, None], rotations.new_tensor([1.0, -1.0, -1.0]), rotations.new_ones(3))
    pose = rotations * flip[:, None, :]
    direction = pose[:, :, 2]
    across = torch.stack([-direction[:, 1], direction[:, 0], torch.zeros_like(direction[:, 0])], dim=1)
    degenerate = across.norm(dim=1, keepdim=True) < 1e-6
    x_axis = torch.nn.functional.normalize(torch.where(degenerate, across.new_tensor([1.0, 0, 0]), across), dim=1)
    y_axis = torch.linalg.cross(direction, x_axis)
    canonical = torch.stack([x_axis, y_axis], dim=2)
    turn = flip[:, :2, None] * (pose[:, :, :2].transpose(1, 2) @ canonical)
    return turn, direction
