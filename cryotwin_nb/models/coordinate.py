"""Coordinate architecture of the cryoTWIN paper: image encoder and Fourier-coordinate decoder, both residual MLPs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from cryotwin_nb.imaging.fourier import grid, ifft2, ifft3, n_shells, shell_mean
from cryotwin_nb.imaging.optics import slice_coordinates
from cryotwin_nb.models.average import AverageMap
from cryotwin_nb.models.networks import CoordinateOptions, Networks
from cryotwin_nb.models.views import lattice_points, placed_images, turned_images
from cryotwin_nb.particles.formation import Chunks, ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.backprojection import MARGIN, SignalPower
from cryotwin_nb.runtime import distributed

_MEASURED, _MEASURED_PLAIN = 2000, 256  # images used to set the scales of the networks
_SPACING, _REACH = 2.0, 10.0  # points of the encoder: least spacing, pixels, and most points along a radius
_START = 0.1  # factor of the decoder's initial output, which is added to the average map


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


class CoordinateNetworks(Networks):
    """Encoder X -> (z, w) and decoder (v, z) -> complex Fourier coefficient of the density.

    Unless the option `plain` is set, the average map (a back-projection, no variations) is subtracted from the images
    and added to the decoder's output; the encoder receives images back-projected to points of the particle; and its
    first layer is multiplied by a function of the view, the decoder's last by a function of the latents.

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
    training_defaults: ClassVar[dict[str, int]] = {"epochs": 24, "batch_size": 32}
    coarse_to_fine = True
    makes_records = False

    inside: Tensor
    signal: Tensor
    gain: Tensor
    points: Tensor
    places: Tensor

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
        width, depth, n_features, self.plain = options.width, options.depth, options.n_features, options.plain
        self._bfloat16, size = False, imaging.plane.box_size
        if not self.plain:
            self.betas = (0.9, 0.99)  # gradients change faster than 0.999 follows in a few thousand steps
        inside = imaging.window.flatten() > 0
        self.register_buffer("inside", inside, persistent=False)
        places = lattice_points(imaging.particle_radius, max(_SPACING, imaging.particle_radius / _REACH))
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("signal", torch.ones(n_shells(size), dtype=torch.float64))
        n_seen = int(inside.sum()) + 3 if self.plain else len(places) + 6
        self.encoder = ResidualMLP(n_seen, width, depth, latent_dim + n_components)
        generator = torch.Generator().manual_seed(seed)
        points = torch.randn(n_features, 3, generator=generator)
        points *= torch.rand(n_features, 1, generator=generator) ** (1 / 3) / points.norm(dim=1, keepdim=True)
        self.register_buffer("points", points * imaging.particle_radius)
        self.decoder = ResidualMLP(n_features, width, depth, 2 * n_features)
        self.from_latent = nn.Linear(latent_dim, width, bias=False)
        if not self.plain:
            self.average = AverageMap(size)
            self.register_buffer("gain", torch.ones((), dtype=torch.float64))
            self.by_view, self.by_latent = nn.Linear(6, width, bias=False), nn.Linear(latent_dim, width, bias=False)
            with torch.no_grad():  # start at the average map, and with equal weights for all views
                self.decoder.last.weight *= _START
                for zero in (self.decoder.last.bias, self.by_view.weight):
                    zero.zero_()

    @staticmethod
    def imaging_options(options: CoordinateOptions) -> dict[str, Any]:
        """Return options of the `ImageFormation`: slices extend beyond Nyquist, so that the last shell is complete."""
        return {} if options.plain else {"margin": MARGIN}

    def passes(
        self, chunks: Chunks, beta: float, done: int = 0, groups: np.ndarray | None = None
    ) -> Iterator[tuple[float, float, float]]:
        """Measure the average map and the scales of the networks' inputs and outputs; no pass is counted."""
        if self.plain:
            self.measure(ImageBatch(*map(torch.cat, zip(*map(tuple, chunks(_MEASURED_PLAIN)), strict=True))))
        else:
            self.average.measure(self.imaging, chunks)
            self._measure_deviations(chunks)
        return iter(())

    def distortion(self, batch: ImageBatch, z: Tensor, n: int | None = None, some: Tensor | None = None) -> Tensor:
        """Return || W (X - prediction) ||^2 (m,) of images decoded at z (m, d), over the first n coefficients.

        With indices `some` of these coefficients, the sum over them is scaled up to the expected sum over all n.
        """
        if some is None:
            return self.imaging.distortion(batch, self.slices(batch.rotations, z, n) * batch.transfer[:, :n])
        n = n or len(self.imaging.frequencies)
        residual = batch.data[:, some] - self.slices(batch.rotations, z, some=some) * batch.transfer[:, some]
        weights = self.imaging.weights(batch.group)[:, some]
        return (weights * (residual.real.square() + residual.imag.square())).sum(-1) * (n / len(some))

    def measure(self, batch: ImageBatch) -> None:
        """Use images (or this process's share of them) to set the radial amplitude that scales the decoder's output."""
        shells = len(self.signal)
        sums = torch.stack([batch.data.abs().square().sum(0), batch.transfer.square().sum(0)]).double()
        distributed.all_sum(sums)
        sums /= distributed.total(len(batch.data))
        power, seen = shell_mean(sums, self.imaging.shell, shells)
        power = power - 1
        self.signal.copy_((power.clamp_min(1e-3) / seen.clamp_min(1e-12)).sqrt())

    def _measure_deviations(self, chunks: Chunks) -> None:
        """Use the images to set the amplitude of deviations from the average map, and the scale of what is encoded."""
        power = SignalPower(self.imaging)
        for batch in chunks():
            power.add(self.average.removed(self.imaging, batch))
        power.join()
        self.signal.copy_(power.spectrum.sqrt())
        inside, sums = self.imaging.window > 0, torch.zeros(2, dtype=torch.float64, device=self.signal.device)
        for batch in chunks(_MEASURED):
            pixels = self.filtered(self.average.removed(self.imaging, batch))[:, inside]
            sums += torch.stack([pixels.double().square().sum(), torch.tensor(float(pixels.numel())).to(sums)])
        distributed.all_sum(sums)
        self.gain.copy_((sums[1] / sums[0].clamp_min(1e-30)).sqrt())

    def encode(self, batch: ImageBatch) -> tuple[Tensor, Tensor]:
        """Return latents z (m, d) and component scores w (m, C) of images."""
        if self.plain:
            images, views = turned_images(self.filtered(batch), batch.rotations)
            seen = images.flatten(1)[:, self.inside] / images.shape[-1] ** 0.5
        else:
            images = self.filtered(self.average.removed(self.imaging, batch)) * self.gain.float()
            seen, views = placed_images(images, batch.rotations, self.places)
        with self._autocast():
            h = self.encoder.first(torch.cat([seen, views], dim=1))
            if not self.plain:
                h = h * (1 + self.by_view(views))
            out = self.encoder.last(self.encoder.hidden(h))
        return out[:, : self.latent_dim].float() * self.noise_width, out[:, self.latent_dim :].float()

    def filtered(self, batch: ImageBatch) -> Tensor:
        """Return phase-flipped, Wiener-weighted images (m, D, D)."""
        imaging = self.imaging
        snr = (batch.transfer.square() * self.signal[imaging.shell].square()).float()
        return ifft2(imaging.plane.scatter(batch.data * batch.transfer.sign() * (snr / (1 + snr)).sqrt())).real

    def score_head(self) -> tuple[Tensor, Tensor]:
        """Return the rows of the last layer that give w: weight (C, width) and bias (C,), modifiable in place."""
        return self.encoder.last.weight[self.latent_dim :], self.encoder.last.bias[self.latent_dim :]

    def slices(self, rotations: Tensor, z: Tensor, n: int | None = None, some: Tensor | None = None) -> Tensor:
        """Return the first n coefficients of central slices (m, P) of the densities at z (m, d), or only `some`."""
        frequencies = self.imaging.frequencies[:n] if some is None else self.imaging.frequencies[some]
        deviations = self.density(slice_coordinates(frequencies, rotations), z)
        return deviations if self.plain else deviations + self.average.slices(frequencies, rotations)

    def density(self, positions: Tensor, z: Tensor) -> Tensor:
        """Return Fourier coefficients (m, P) of densities at z (m, d) and positions (m or 1, P, 3) in grid units.

        F(v) = sum_j [a_j(v, z) cos(2 pi v.r_j) - i b_j(v, z) sin(2 pi v.r_j)] with points r_j inside the particle.
        The network receives v only through the cosines, so a and b are even in v and F(-v) = F(v)* by construction.
        Unless the networks are `plain`, this is the deviation from the average map.
        """
        phase = positions @ self.points.T * (2 * torch.pi / self.imaging.plane.box_size)
        dtype = torch.bfloat16 if self._bfloat16 else torch.float32
        cosine, sine = phase.cos().to(dtype), phase.sin().to(dtype)
        z = z / self.noise_width
        with self._autocast():
            h = self.decoder.hidden(self.decoder.first(cosine) + self.from_latent(z)[:, None])
            if not self.plain:
                h = h * (1 + self.by_latent(z)[:, None])
            a, b = self.decoder.last(h).chunk(2, dim=-1)
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
        reach = size / 2 if self.plain else (size + MARGIN) / 2
        lattice = grid(size, 3, z.device).reshape(-1, 3)
        inside = (lattice.float().norm(dim=1) < reach) & (lattice.abs() < size // 2).all(1)
        half = (inside & (lattice[:, 2] >= 0)).nonzero().flatten()
        mirrored = ((size // 2 - lattice[half]) * lattice.new_tensor([1, size, size**2])).sum(1)
        maps = []
        for latent in z.split(1):
            spectrum = torch.zeros(size**3, dtype=torch.complex64, device=z.device)
            for rows, mirror in zip(half.split(65536), mirrored.split(65536), strict=True):
                values = self.density(lattice[rows].float()[None], latent)[0]
                spectrum[mirror], spectrum[rows] = values.conj(), values
            maps.append(ifft3(spectrum.view(size, size, size)).real)
        found = torch.stack(maps)
        return found if self.plain else found + self.average.map
