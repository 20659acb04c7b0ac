"""Assumptions about the poses, shifts and CTF of particles, scored by how well they predict the images.

An `Assumption` states how a sample of images was formed. Its score is cross-validated: a map from one half-set of the
images predicts the other half-set, given CTF and noise. The gain of an image is its log-likelihood under the
prediction minus its log-likelihood under pure noise, in nats. The true assumption predicts best for any molecule, so no
reference is needed. A mirror image of the molecule predicts the same images, so handedness cannot be determined.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.formats.copies import effective_copies, merge_duplicates, split_in_halves
from cryotwin_nb.imaging.fourier import shell_mean
from cryotwin_nb.imaging.fsc import FscCurve, fsc, noise_deviation
from cryotwin_nb.imaging.lattice import half_ball
from cryotwin_nb.imaging.masks import spherical_mask
from cryotwin_nb.imaging.optics import CTF, shift_phases
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.quality import image_quality, usable
from cryotwin_nb.preparation.cropping import cropped
from cryotwin_nb.reconstruction.eigenvolumes import begin

_READING = 2.5  # padding factor of the lattice from which slices are interpolated


@dataclass(frozen=True)
class Assumption:
    """Assumption about how images were formed.

    Attributes
    ----------
    rotations : (n, 3, 3)
        Poses.
    shifts : (n, 2)
        Shifts, Å.
    ctf : CTF
        CTF parameters.
    pixel : float
        Ratio of the true to the stated pixel size; the CTF depends on it.
    kind : (n,) int64
        Factor applied to each image. 0: CTF; 1: no CTF, only the sign for dark particles; 2: |CTF| (phases flipped);
        3: CTF^2 (CTF applied twice).
    """

    rotations: Tensor
    shifts: Tensor
    ctf: CTF
    pixel: float
    kind: Tensor


class Sample:
    """Random sample of images on a coarse grid, in two half-sets, with everything needed to predict the images.

    Parameters
    ----------
    particles : Particles
        Particles with poses and CTF.
    n_images : int
        Maximum number of images, drawn at random.
    box_size : int
        Box size of the coarse grid, pixels.
    seed : int
        Seed of the draw and of the split into half-sets.
    """

    def __init__(self, particles: Particles, n_images: int, box_size: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n, self.full_pixel_size = min(n_images, len(particles)), particles.pixel_size
        rows = np.sort(rng.choice(len(particles), n, replace=False))
        drawn = particles[rows]
        chosen, self.quality = usable(drawn), image_quality(drawn)
        n, self.particles = len(chosen), cropped(chosen, box_size)
        self.imaging = imaging = ImageFormation(box_size, windowed=False)
        imaging.measure(self.particles)
        chunks = np.array_split(np.arange(n), -(-n // 200))
        batches = [imaging.batch(self.particles, chunk) for chunk in chunks]
        self.batch = ImageBatch(*map(torch.cat, zip(*map(tuple, batches))))
        self.whitening = imaging.noise[self.batch.group][:, imaging.shell].rsqrt().float()
        self.frequencies = imaging.frequencies / (box_size * self.particles.pixel_size)
        self.mask = spherical_mask(box_size, imaging.particle_radius, box_size / 16)
        self.half = torch.as_tensor(split_in_halves(chosen.identity, rng))
        self.weights = imaging.multiplicity.clone()
        self.weights[0] = 0  # the mean of an image depends on the estimate of its background

    def __len__(self) -> int:
        return len(self.half)

    def part(self, keep: Tensor) -> Sample:
        """Return the sample restricted to the images selected by `keep` (n,) bool."""
        new = copy(self)
        new.particles = self.particles[keep.numpy()]
        new.batch = self.batch.take(keep.nonzero()[:, 0])
        new.whitening, new.half = self.whitening[keep], self.half[keep]
        return new

    @property
    def copies(self) -> float:
        """Number of rows per image, by which the variance of a mean over the rows is multiplied."""
        return len(self) / len(np.unique(self.particles.identity))

    def agreement(self, half_maps: Tensor) -> FscCurve:
        """Return the correlation of the half maps (2, D, D, D)."""
        identity, rotations = self.particles.identity, self.particles.require_views()[0]
        weights = merge_duplicates(np.ones((1, len(self))), identity, rotations)[0]
        curve = fsc(half_maps[0], half_maps[1], self.particles.pixel_size)
        return replace(curve, noise=noise_deviation(self.mask, effective_copies(weights, identity)))

    def stated(self) -> Assumption:
        """Return the assumption stated by the metadata of the particles."""
        rotations, ctf = self.particles.require_views()
        kind = torch.zeros(len(self), dtype=torch.int64)
        return Assumption(torch.as_tensor(rotations), torch.as_tensor(self.particles.shifts), ctf, 1.0, kind)

    def data(self, state: Assumption, rows: Tensor) -> Tensor:
        """Return the coefficients (m, P) of the images in `rows`, centred with the shifts of an assumption."""
        moved = torch.as_tensor(self.particles.shifts)[rows] - state.shifts[rows]
        data = self.batch.data[rows]
        return data * shift_phases(self.frequencies, moved) if bool(moved.any()) else data

    def transfer(self, state: Assumption, rows: Tensor) -> Tensor:
        """Return the factors (m, P) applied to slices: the CTF, or an alternative to it, times the whitening."""
        ctf = state.ctf[rows.numpy()](self.frequencies / state.pixel)
        kind = state.kind[rows, None]
        changed = torch.where(kind == 1, -torch.ones_like(ctf), torch.where(kind == 2, -ctf.abs(), -ctf.square()))
        return torch.where(kind == 0, ctf, changed) * self.whitening[rows]

    def images(self, state: Assumption, rows: Tensor) -> ImageBatch:
        """Return the images in `rows` with the poses, transfer functions and centres of an assumption."""
        parts = self.data(state, rows), self.transfer(state, rows), state.rotations[rows], self.batch.group[rows]
        return ImageBatch(*parts)

    def reconstruct(self, state: Assumption, rows: Tensor) -> Tensor:
        """Reconstruct a map (D, D, D) from the images in `rows`."""
        return begin(self.imaging, [self.images(state, rows)], self.mask, 1).mean

    def batches(self, state: Assumption, most: int | None = None) -> list[ImageBatch]:
        """Return all images, or `most` of them spread evenly, as an assumption has them."""
        rows = torch.linspace(0, len(self) - 1, min(len(self), most or len(self))).round().long()
        return [self.images(state, part) for part in rows.split(200)]

    def halves(self) -> list[tuple[Tensor, Tensor]]:
        """Return the rows to reconstruct from and the rows to predict, for both directions of the cross-validation."""
        first, second = (self.half == 0).nonzero()[:, 0], (self.half == 1).nonzero()[:, 0]
        return [(first, second), (second, first)]

    def slices(self, volume: Tensor, rotations: Tensor) -> Tensor:
        """Return central slices (m, P) complex64 of a map."""
        size = self.imaging.plane.box_size
        ball = half_ball(size, size / 2, _READING)
        slices = ball.slices(ball.from_volumes(volume[None]), self.imaging.frequencies, rotations)
        return torch.view_as_complex(slices)

    def products(self, prediction: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inner products (m,) of predictions with their images and with themselves."""
        with_image = (self.weights * (prediction.conj() * data).real).sum(1)
        return with_image, (self.weights * prediction.abs().square()).sum(1)

    def gains(self, state: Assumption, maps: list[Tensor] | None = None) -> Tensor:
        """Return each image's gain (n,) over pure noise when predicted by the map of the other half-set, nats."""
        gains = torch.zeros(len(self))
        maps = maps or [self.reconstruct(state, rows) for rows, _ in self.halves()]
        for volume, (_, rows) in zip(maps, self.halves()):
            prediction = self.slices(volume, state.rotations[rows]) * self.transfer(state, rows)
            with_image, with_itself = self.products(prediction, self.data(state, rows))
            gains[rows] = with_image - with_itself / 2
        return gains

    def flips(self, state: Assumption) -> tuple[Tensor, float, float]:
        """Return each image's gain (n,) from flipping its phases, the share of flipped images and its standard error.

        Flipping changes the sign of coefficients with a positive CTF. Their agreement with the prediction is compared
        with the agreement, at the same frequencies, of images whose CTF is negative. The ratio of the two is 1 minus
        twice the share, regardless of how well the map predicts these frequencies.
        """
        shell = self.imaging.shell
        sums = torch.zeros(2, 2, len(self), int(shell.max()) + 1)  # by CTF > 0 or <= 0; product with image or itself
        for made_from, rows in self.halves():
            transfer = self.transfer(state, rows)
            A = self.slices(self.reconstruct(state, made_from), state.rotations[rows]) * transfer
            both = (A.conj() * self.data(state, rows)).real * self.weights, A.abs().square() * self.weights
            for sign, there in enumerate((transfer > 0, transfer <= 0)):
                for kind, terms in enumerate(both):
                    part = torch.zeros(len(rows), sums.shape[-1])
                    sums[sign, kind, rows] = part.index_add_(1, shell, terms * there)
        (seen, expected), total = sums[0], sums[1].sum(1)
        agreement = total[0] / total[1].clamp_min(1e-30)  # per shell
        agreement[total[1] < 1e-3 * total[1].max()] = 0
        seen, expected = (seen * (agreement > 0)).sum(1), (expected * agreement).sum(1)
        ratio = seen.sum() / expected.sum().clamp_min(1e-30)
        error = (self.copies**0.5 * (seen - ratio * expected)).square().sum().sqrt() / expected.sum().clamp_min(1e-30)
        return -2 * sums[0, 0].sum(1), float(1 - ratio) / 2, float(error) / 2

    def signs(self, state: Assumption) -> tuple[float, float]:
        """Return the gains per image of only the positive and only the negative parts of the maps, optimally scaled."""
        sums = torch.zeros(2, 2)
        for made_from, rows in self.halves():
            volume = self.reconstruct(state, made_from)
            for sign, part in enumerate((volume.clamp_min(0), volume.clamp_max(0))):
                prediction = self.slices(part, state.rotations[rows]) * self.transfer(state, rows)
                sums[sign] += torch.stack([p.sum() for p in self.products(prediction, self.data(state, rows))])
        best = sums[:, 0].clamp_min(0).square() / (2 * sums[:, 1].clamp_min(1e-30)) / len(self)
        return float(best[0]), float(best[1])


def without_ctf(sample: Sample, state: Assumption, rounds: int = 15) -> Assumption:
    """Return the assumption in which every image whose power spectrum shows no CTF has none.

    The model is a mixture of two classes of images with the same expected density spectrum, one with and one without
    the CTF, fitted by expectation-maximisation. It does not use poses, so wrong poses have no effect.
    """
    shell, keep = sample.imaging.shell, (sample.imaging.shell > 0)
    with_ctf = replace(state, kind=torch.zeros_like(state.kind))
    gains = [sample.transfer(with_ctf, torch.arange(len(sample))).double().square(), sample.whitening.double().square()]
    power = sample.batch.data.abs().square().double()
    low = keep & (shell < 6)
    excess = power[:, low].sum(1)
    share = torch.stack([excess <= excess.median(), excess > excess.median()], dim=1).double()
    for _ in range(rounds):
        seen = torch.stack([(share[:, k, None] * (power - 1) * gains[k]).sum(0) for k in (0, 1)]).sum(0)
        weight = torch.stack([(share[:, k, None] * gains[k].square()).sum(0) for k in (0, 1)]).sum(0)
        count = int(shell.max()) + 1
        ratio = shell_mean(seen, shell, count) / shell_mean(weight, shell, count).clamp_min(1e-300)
        signal = ratio.clamp_min(0)[shell]
        expected = [1 + gain * signal for gain in gains]
        terms = [(e.log() + power / e) * sample.imaging.multiplicity / 2 for e in expected]
        log_likelihood = torch.stack([-term[:, keep].sum(1) for term in terms], dim=1)
        share = (log_likelihood + share.mean(0).clamp_min(1e-12).log()).softmax(1)
    return replace(state, kind=torch.where(share[:, 1] > 0.5, 1, state.kind))
