"""Coordinate architecture of the cryoTWIN paper: image encoder and Fourier-coordinate decoder, both residual MLPs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cryotwin_nb.imaging.fourier import ifft2, n_shells
from cryotwin_nb.imaging.optics import slice_coordinates
from cryotwin_nb.models.average import AverageMap
from cryotwin_nb.models.layers import LatentFactors, ResidualMLP, ViewEncoder, maps_of
from cryotwin_nb.models.networks import CoordinateOptions, Networks
from cryotwin_nb.models.scales import deviation_amplitude, signal_amplitude
from cryotwin_nb.models.views import ball_points, lattice_points, placed_images, turned_images
from cryotwin_nb.particles.formation import Chunks, ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.backprojection import MARGIN
from cryotwin_nb.runtime import distributed

_MEASURED, _MEASURED_PLAIN = 2000, 256  # images used to set the scales of the networks
_SPACING, _REACH = 1.0, 10.0  # points of the encoder: least spacing, pixels, and most points along a radius
_START = 0.1  # factor of the decoder's initial output, which is added to the average map


class CoordinateNetworks(Networks):
    """Encoder X -> (z, w) and decoder (v, z) -> complex Fourier coefficient of the density.

    Unless the option `plain` is set, the average map (a back-projection, no variations) is subtracted from the images
    and added to the decoder's output; the encoder receives images back-projected to points of the particle
    (`ViewEncoder`), and also learns from images simulated with the decoder; and the decoder is a product of two MLPs,
    one of v and one of z: a single MLP of both can differ between neighbouring latents, and learns the noise of the
    images there.

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
    coarse_to_fine = True
    makes_records = False

    encoder: ResidualMLP
    inside: Tensor
    signal: Tensor
    gain: Tensor
    n_images: Tensor
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
        width, depth, n_features, size = options.width, options.depth, options.n_features, imaging.plane.box_size
        self.plain, self.simulates, self._bfloat16 = options.plain, not options.plain, False
        self.training_defaults = {"epochs": 24 if self.plain else 16, "batch_size": 32}
        self.register_buffer("inside", imaging.window.flatten() > 0, persistent=False)
        places = lattice_points(imaging.particle_radius, max(_SPACING, imaging.particle_radius / _REACH))
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("signal", torch.ones(n_shells(size), dtype=torch.float64))
        self.register_buffer("points", ball_points(n_features, imaging.particle_radius, seed))
        self.decoder, n_out = ResidualMLP(n_features, width, depth, 2 * n_features), latent_dim + n_components
        if self.plain:
            self.encoder = ResidualMLP(int(self.inside.sum()) + 3, width, depth, n_out)
            self.from_latent = nn.Linear(latent_dim, width, bias=False)
        else:
            self.encoder = ViewEncoder(len(places), width, depth, latent_dim, n_out, options.view_width)
            self.betas = (0.9, 0.99)  # gradients change faster than 0.999 follows in a few thousand steps
            self.average = AverageMap(size)
            self.register_buffer("gain", torch.ones((), dtype=torch.float64))
            self.register_buffer("n_images", torch.ones((), dtype=torch.float64))
            self.factors = LatentFactors(latent_dim, options.latent_width, width)
            self.decoder.last = nn.Linear(width, 2 * n_features, bias=False)
            with torch.no_grad():  # start at the average map
                self.decoder.last.weight *= _START

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
            amplitude, n_images = deviation_amplitude(self.imaging, self.average, chunks)
            self.signal.copy_(amplitude)
            self.n_images.fill_(n_images)
            self._measure_input(chunks)
        return iter(())

    def distortion(self, batch: ImageBatch, z: Tensor, n: int | None = None) -> Tensor:
        """Return || W (X - prediction) ||^2 (m,) of images decoded at z (m, d), over the first n coefficients."""
        return self.imaging.distortion(batch, self.slices(batch.rotations, z, n) * batch.transfer[:, :n])

    def terms(self, batch: ImageBatch, z: Tensor, n: int | None, some: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the distortion (m,), over the first n coefficients, and minus twice the log prior of the maps (m,).

        With indices `some` of these coefficients, sums over them are scaled up to the expected sums over all n. The
        prior is Gaussian: deviations from the average map have in each shell the power measured in the images. It is
        divided by the number of images, and weighted like the distortion.
        """
        n = n or len(self.imaging.frequencies)
        some = torch.arange(n, device=z.device) if some is None else some
        frequencies, scale = self.imaging.frequencies[some], n / len(some)
        positions = slice_coordinates(frequencies, batch.rotations)
        weights = self.imaging.weights(batch.group)[:, some] * scale
        slices = deviations = self.density(positions, z)
        prior = z.new_zeros(len(z))
        if not self.plain:
            slices = deviations + self.average.slices(frequencies, batch.rotations)
            relative = (deviations / self._amplitude(positions)).abs().square()
            voxels = 2 * frequencies.norm(dim=1)  # of a shell of the volume, for each of a shell of a slice
            prior = (weights * voxels * relative).sum(-1) / self.n_images.float()
        residual = batch.data[:, some] - slices * batch.transfer[:, some]
        return (weights * (residual.real.square() + residual.imag.square())).sum(-1), prior

    def measure(self, batch: ImageBatch) -> None:
        """Use images (or this process's share) to set the amplitude that scales the decoder's output (`plain`)."""
        self.signal.copy_(signal_amplitude(self.imaging, batch, len(self.signal)))

    def _measure_input(self, chunks: Chunks) -> None:
        """Set the scale of what is encoded."""
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
            out = self.encoder.encoded(seen, views).float()
        return out[:, : self.latent_dim] * self.noise_width, out[:, self.latent_dim :]

    def filtered(self, batch: ImageBatch) -> Tensor:
        """Return phase-flipped, Wiener-weighted images (m, D, D)."""
        imaging = self.imaging
        snr = (batch.transfer.square() * self.signal[imaging.shell].square()).float()
        return ifft2(imaging.plane.scatter(batch.data * batch.transfer.sign() * (snr / (1 + snr)).sqrt())).real

    def score_head(self) -> tuple[Tensor, Tensor]:
        """Return the rows of the last layer that give w: weight (C, width) and bias (C,), modifiable in place."""
        return self.encoder.last.weight[self.latent_dim :], self.encoder.last.bias[self.latent_dim :]

    def slices(self, rotations: Tensor, z: Tensor, n: int | None = None) -> Tensor:
        """Return the first n coefficients of central slices (m, P) of the densities at z (m, d) for `rotations`."""
        frequencies = self.imaging.frequencies[:n]
        deviations = self.density(slice_coordinates(frequencies, rotations), z)
        return deviations if self.plain else deviations + self.average.slices(frequencies, rotations)

    def density(self, positions: Tensor, z: Tensor) -> Tensor:
        """Return Fourier coefficients (m, P) of densities at z (m, d) and positions (m or 1, P, 3) in grid units.

        F(v) = sum_j [a_j(v, z) cos(2 pi v.r_j) - i b_j(v, z) sin(2 pi v.r_j)] with points r_j inside the particle.
        The network receives v only through the cosines, so a and b are even in v and F(-v) = F(v)* by construction.
        Unless the networks are `plain`, this is the deviation from the average map.
        """
        if not self.plain:
            return self.deviations(positions, z[:, None])[:, 0]
        cosine, sine = self._waves(positions)
        with self._autocast():
            h = self.decoder.hidden(self.decoder.first(cosine) + self.from_latent(z / self.noise_width)[:, None])
            a, b = self.decoder.last(h).chunk(2, dim=-1)
        real, imaginary = (a * cosine).sum(-1, dtype=torch.float32), -(b * sine).sum(-1, dtype=torch.float32)
        return torch.complex(real, imaginary) * self._amplitude(positions)

    def deviations(self, positions: Tensor, z: Tensor) -> Tensor:
        """Return deviations (m, k, P) from the average map at positions (m or 1, P, 3) and latents z (m, k, d).

        They are sum_c f_c(z) h_c(v) sum_j [a_jc cos - i b_jc sin], with hidden units h, factors f, and the last layer's
        weights a and b, so that densities at the same positions differ only in their factors.
        """
        cosine, sine = self._waves(positions)
        with self._autocast():
            factors, (a, b) = self.factors(z / self.noise_width), self.decoder.last.weight.chunk(2)
            h = self.decoder.hidden(self.decoder.first(cosine))
            real, imaginary = factors @ (h * (cosine @ a)).mT, -factors @ (h * (sine @ b)).mT
        return torch.complex(real.float(), imaginary.float()) * self._amplitude(positions)[:, None]

    def _waves(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines (m, P, J) of the phases between positions and the points r_j."""
        phase = positions @ self.points.T * (2 * torch.pi / self.imaging.plane.box_size)
        dtype = torch.bfloat16 if self._bfloat16 else torch.float32
        return phase.cos().to(dtype), phase.sin().to(dtype)

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
        """Return densities (m, D, D, D) at z (m, d)."""

        def decode(positions: Tensor, some: Tensor) -> Tensor:
            if self.plain:
                return torch.cat([self.density(positions[None], latent) for latent in some.split(1)])
            return self.deviations(positions[None], some[None])[0]

        size = self.imaging.plane.box_size
        found = maps_of(decode, z, size, size / 2 if self.plain else (size + MARGIN) / 2)
        return found if self.plain else found * self.average.mask(self.imaging) + self.average.map
