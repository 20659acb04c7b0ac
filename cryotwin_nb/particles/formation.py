"""Preparation of particle images for a model: whitening by the measured noise, centring, half plane and weights.

`ImageFormation` turns recorded images into coefficients X(k) exp(-2 pi i k.t) / sigma(|k|), whose noise has unit power,
and provides `transfer` = CTF / sigma, the factor that turns a slice into a prediction of these coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import HalfPlane, fft2, fft3, grid, half_plane, ifft3, n_shells, shell_mean
from cryotwin_nb.imaging.optics import circular_window, masked_power, noise_spectrum, shift_phases
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.quality import cleaned, image_quality


class ImageBatch(NamedTuple):
    """Images prepared for a model: whitened and centred coefficients on the half plane.

    Attributes
    ----------
    data : (m, P) complex64
        X(k) exp(-2 pi i k.t) / sigma; noise of unit power.
    transfer : (m, P) float32
        CTF / sigma, by which a slice is multiplied to predict `data`.
    rotations : (m, 3, 3) float32
        Poses: R in v = R nu.
    group : (m,) int64
        Row of `ImageFormation.noise` that each image was whitened by: 0 for the whole set, g + 1 for optics group g.
    """

    data: Tensor
    transfer: Tensor
    rotations: Tensor
    group: Tensor

    def take(self, rows: Tensor) -> ImageBatch:
        """Return the batch that contains only the images in `rows`."""
        return ImageBatch(*(field[rows] for field in tuple(self)))


class Chunks(Protocol):
    """Function that yields this process's share of all images, or of the first n images, in order."""

    def __call__(self, n: int | None = None) -> Iterable[ImageBatch]: ...


class ImageFormation(nn.Module):
    """Properties shared by the images of a data set: grid, noise spectrum and weights of the distortion.

    Parameters
    ----------
    box_size : int
        Box size D, pixels.
    weighting : {"volume", "paper"}
        Weighting of frequencies in the distortion, scaled so that the mean of W^2 over the plane is 1.
        "paper": W^2 = kappa |k|, the ramp of the cryoTWIN paper (where W is the fourth root of s^2 + t^2).
        "volume": W^2 = kappa |k| sigma^2 / max(<CTF^2>, `ctf_floor`), which undoes whitening and the mean CTF, so that
        the expected distortion of an error dV in the volume is kappa/2 ||dV||^2 (projection-slice theorem). Errors
        count less in the lowest shells, where <CTF^2> is below the floor, and not at all in the mean density.
    particle_radius : float
        Radius that contains the particle, as a fraction of the box; noise is measured outside it.
    ctf_floor : float
        Lower bound of <CTF^2>, which keeps the weights of the lowest shells finite.
    windowed : bool
        Multiply the images by a soft disc slightly larger than the particle. This hides the surroundings from the
        model, but correlates the noise of neighbouring coefficients.
    margin : float
        Coefficients with |k| < D/2 + margin (grid units) are used.
    """

    window: Tensor
    frequencies: Tensor
    multiplicity: Tensor
    shell: Tensor
    noise: Tensor
    ctf_power: Tensor
    pixel_size: Tensor

    def __init__(
        self,
        box_size: int,
        weighting: str = "volume",
        particle_radius: float = 0.4,
        ctf_floor: float = 0.05,
        windowed: bool = True,
        margin: float = 0.0,
    ) -> None:
        super().__init__()
        if weighting not in ("volume", "paper"):
            raise InputError("weighting", repr(weighting), "'volume' or 'paper'", "Choose one of the two.")
        self.plane: HalfPlane = half_plane(box_size, box_size / 2 + margin)
        self.weighting, self.ctf_floor, self.windowed = weighting, ctf_floor, windowed
        self.particle_radius = particle_radius * box_size
        width = box_size / 16
        self.register_buffer("window", circular_window(box_size, self.particle_radius, width), persistent=False)
        self.register_buffer("frequencies", self.plane.frequencies, persistent=False)
        self.register_buffer("multiplicity", self.plane.multiplicity, persistent=False)
        self.register_buffer("shell", self.plane.shell, persistent=False)
        self.register_buffer("noise", torch.ones(1, n_shells(box_size), dtype=torch.float64))
        self.register_buffer("ctf_power", torch.ones(n_shells(box_size), dtype=torch.float64))
        self.register_buffer("pixel_size", torch.zeros((), dtype=torch.float64))

    @property
    def measured(self) -> bool:
        """True once `measure` has been called."""
        return float(self.pixel_size) > 0

    @property
    def solvent(self) -> Tensor:
        """Mask (D, D, D) of the voxels outside the particle and beyond the soft edge of the windows and masks."""
        size = self.plane.box_size
        return grid(size, 3).float().norm(dim=-1) >= self.particle_radius + size / 16

    def measure(self, particles: Particles, n_images: int = 2000, min_group: int = 1000) -> None:
        """Measure the noise power and <CTF^2> of a data set in each shell.

        Row 0 of `noise` is the noise power of the whole set, and row g + 1 is the noise power of optics group g.

        Parameters
        ----------
        particles : Particles
            The data set.
        n_images : int
            Maximum number of images used, for the whole set and for each optics group.
        min_group : int
            Minimum number of images of an optics group; smaller groups are assigned the noise of the whole set.

        Raises
        ------
        InputError
            If the pixels outside the particle contain no noise (masked or constant images).
        """
        self.pixel_size.fill_(particles.pixel_size)
        image_quality(particles)  # its parts, measured below, are compared with the whole set
        self.noise = self.noise_of_groups(particles, n_images, min_group).to(self.noise.device)
        sample = evenly(np.arange(len(particles)), n_images)
        ctf = particles.require_views()[1]
        frequencies = self.plane.frequencies / (self.plane.box_size * particles.pixel_size)
        power = _mean(sample, lambda rows: ctf[rows](frequencies).square().mean(0))
        self.ctf_power.copy_(shell_mean(power, self.plane.shell, n_shells(self.plane.box_size)))

    def noise_of_groups(
        self, particles: Particles, n_images: int = 2000, min_group: int = 1000, scaled: bool = True
    ) -> Tensor:
        """Return the noise power (1 + groups, n_shells), as in `measure`, of images on one scale or as recorded."""
        groups = particles.optics_group
        pooled = self._noise_of(particles, evenly(np.arange(len(particles)), n_images), scaled)
        rows = []
        for group in range(int(groups.max()) + 1):
            members = np.flatnonzero(groups == group)
            enough = len(members) >= min_group and len(members) < len(particles)
            rows.append(self._noise_of(particles, evenly(members, n_images), scaled) if enough else pooled)
        return torch.stack([pooled, *rows])

    def knows_groups(self, particles: Particles) -> bool:
        """Return whether the particles have exactly the optics groups seen by `measure`."""
        return np.array_equal(np.unique(particles.optics_group), np.arange(len(self.noise) - 1))

    def _noise_of(self, particles: Particles, indices: np.ndarray, scaled: bool) -> Tensor:
        radius = self.particle_radius
        kept = np.flatnonzero(image_quality(chosen := particles[indices]).kept)
        power = torch.zeros_like(self.ctf_power)
        if len(kept):
            masked = _mean(kept, lambda rows: masked_power(cleaned(chosen, rows, scaled=scaled), radius))
            power = noise_spectrum(masked, radius)
        if self.windowed:
            power *= float(self.window.square().mean())
        if not bool(torch.isfinite(power).all()) or not 1e-32 < power[1 : self.plane.box_size // 2].min() < 1e37:
            remedy = "Use unmasked images as extracted, not scaled by extreme factors, or a smaller particle_radius."
            where = f"{len(indices)} images"
            raise InputError(where, "no noise outside the particle", "images with their background", remedy)
        return power / particles.pixel_size**2

    @property
    def kappa(self) -> Tensor:
        """Factor that scales the mean of W^2 over the plane (with the pooled noise) to 1."""
        raw = self._raw_weights(self.noise[0])
        return self.multiplicity.sum() / (raw * self.multiplicity).sum()

    def weights(self, group: Tensor | None = None) -> Tensor:
        """Return W^2 times the multiplicity: (P,) float32, or (m, P) for images whitened by given rows of `noise`."""
        noise = self.noise[0] if group is None else self.noise[group]
        return (self.kappa * self._raw_weights(noise) * self.multiplicity).float()

    def _raw_weights(self, noise: Tensor) -> Tensor:
        """Return W^2 / kappa (..., P) for noise powers (..., n_shells)."""
        ramp = self.frequencies.double().norm(dim=1)
        if self.weighting == "paper":
            return ramp.expand(*noise.shape[:-1], -1)
        return ramp * (noise / self.ctf_power.clamp_min(self.ctf_floor))[..., self.shell]

    def distortion(self, batch: ImageBatch, prediction: Tensor) -> Tensor:
        """Return ||W (X - prediction)||^2 of each image, (m,), over the first `prediction.shape[1]` coefficients."""
        n = prediction.shape[-1]
        residual = batch.data[:, :n] - prediction
        weights = self.weights(batch.group)[:, :n]
        return (weights * (residual.real.square() + residual.imag.square())).sum(-1)

    def in_distortion_metric(self, maps: Tensor) -> Tensor:
        """Filter maps (m, D, D, D) so that their squared distances equal distortions averaged over all poses and CTFs.

        The transform is multiplied by sqrt(g / (2 |v|)) with g = W^2 <CTF^2> / sigma^2 (projection-slice theorem).
        In this metric, theory predicts J^T J = 6 beta / T^2 for the Jacobian J of an unconstrained decoder.
        """
        size, shells = self.plane.box_size, len(self.ctf_power)
        weights = shell_mean(self._raw_weights(self.noise[0]) * self.kappa, self.shell, shells)
        radius = grid(size, 3, maps.device).float().norm(dim=-1)
        shell = radius.round().long()
        gain = (weights * self.ctf_power / self.noise[0])[shell].float() / (2 * radius).clamp_min(1)
        gain[(radius >= size / 2) | (radius == 0)] = 0
        return torch.stack([ifft3(fft3(volume) * gain.sqrt()).real for volume in maps])

    def batch(self, particles: Particles, indices: np.ndarray) -> ImageBatch:
        """Read images and prepare them for a model, on the device of this module."""
        device = self.window.device
        rotations, ctf = particles.require_views()
        images = cleaned(particles, indices, device)
        outside = 1 - self.window
        images = images - (images * outside).sum((-2, -1), keepdim=True) / outside.sum()
        known = particles.optics_group[indices] + 1 if self.knows_groups(particles) else np.zeros(len(indices), int)
        group = torch.as_tensor(known, device=device)
        frequencies = self.frequencies / (self.plane.box_size * float(self.pixel_size))
        whitening = self.noise[group][:, self.shell].rsqrt().float()
        centring = shift_phases(frequencies, torch.as_tensor(particles.shifts[indices], device=device)).conj()
        data = (
            self.plane.gather(fft2(images * self.window if self.windowed else images))
            / float(self.pixel_size)
            * centring
            * whitening
        )
        transfer = ctf[indices](frequencies) * whitening
        return ImageBatch(data, transfer, torch.as_tensor(rotations[indices], device=device), group)


def _mean(indices: np.ndarray, function: Callable[[np.ndarray], Tensor], chunk: int = 100) -> Tensor:
    """Return the mean over all particles, in bounded memory; `function` returns the mean over a chunk."""
    chunks = np.array_split(indices, -(-len(indices) // chunk))
    return torch.stack([function(rows) * len(rows) for rows in chunks]).sum(0) / len(indices)


def evenly(indices: np.ndarray, n: int) -> np.ndarray:
    """Return at most n of the indices, evenly spaced."""
    return indices if len(indices) <= n else indices[np.linspace(0, len(indices) - 1, n).astype(np.int64)]
