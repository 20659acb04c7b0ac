"""Half-set reconstruction: back-project two half-sets of images, and estimate the noise from their agreement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.copies import split_in_halves
from cryotwin_nb.imaging.fourier import shell_mean
from cryotwin_nb.imaging.fsc import FscCurve, fsc, noise_deviation
from cryotwin_nb.imaging.masks import spherical_mask
from cryotwin_nb.particles.formation import ImageFormation, evenly
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.reconstruction.backprojection import MARGIN, NormalEquations, SignalPower

PADDING = 1.5  # padding factor of the lattice; larger than in the M-step because there are no iterations here
_BATCH = 256


def expected_correlation(half_map_fsc: np.ndarray) -> np.ndarray:
    """Return the expected correlation of a map with the truth, given its half-map FSC: sqrt(2 FSC / (1 + FSC))."""
    positive = np.maximum(half_map_fsc, 0)
    return np.sqrt(2 * positive / (1 + positive))


class Pair(NamedTuple):
    """Normal equations of one map for each half-set of the images."""

    first: NormalEquations
    second: NormalEquations

    def half_maps(self, power: Tensor) -> Tensor:
        """Return the half maps (2, D, D, D), given the power (n_shells,) of the density."""
        mask = particle_mask(self.first.imaging)
        return torch.cat([equations.solve(None, power[:, None], mask)[0] for equations in self])


def n_effective(weights: np.ndarray) -> float:
    """Return the effective number of images with weights w (n,): (sum w)^2 / sum w^2, or 0 if all are 0."""
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def measured(particles: Particles, particle_radius: float, imaging: ImageFormation | None = None) -> ImageFormation:
    """Return the given image formation if it is suitable, or one measured on the particles if none is given.

    Raises
    ------
    InputError
        If the given image formation has not been measured, or was measured with another box size.
    """
    if imaging is None:
        imaging = ImageFormation(particles.box_size, particle_radius=particle_radius, windowed=False, margin=MARGIN)
        imaging.measure(particles)
    if not imaging.measured or imaging.plane.box_size != particles.box_size:
        found = f"one for images of {imaging.plane.box_size} pixels" if imaging.measured else "one that is not measured"
        remedy = "Call imaging.measure(particles), or omit imaging."
        raise InputError("imaging", found, f"one measured on images of {particles.box_size} pixels", remedy)
    return imaging


def require_halves(halves: np.ndarray | None, particles: Particles, seed: int) -> np.ndarray:
    """Validate and return the half-set of each image (n,) int64; by default a random split that parts no copies."""
    n = len(particles)
    if halves is None:
        return split_in_halves(particles.identity, seed)
    halves = np.asarray(halves)
    if halves.shape != (n,) or not np.isin(halves, (0, 1)).all():
        found = f"an array of shape {halves.shape} with values from {halves.min(initial=0)} to {halves.max(initial=0)}"
        raise InputError("halves", found, f"0 or 1 for each of the {n} images", "Subtract 1 from rlnRandomSubset.")
    return halves.astype(np.int64)


def particle_mask(imaging: ImageFormation) -> Tensor:
    """Return the soft spherical mask (D, D, D) applied to all maps."""
    size = imaging.plane.box_size
    return spherical_mask(size, imaging.particle_radius, size / 16).to(imaging.window.device)


def density_power(particles: Particles, rows: np.ndarray, imaging: ImageFormation, n_images: int = 1000) -> Tensor:
    """Return the power (n_shells,) of the density, estimated from up to `n_images` of the images in `rows`."""
    signal = SignalPower(imaging)
    for chunk in _chunks(evenly(rows, n_images), progress=False):
        signal.add(imaging.batch(particles, chunk))
    return signal.bound


def back_project(
    particles: Particles, weights: np.ndarray, halves: np.ndarray, imaging: ImageFormation, progress: bool = False
) -> list[Pair]:
    """Return the normal equations of both half-sets for each set of weights (S, n).

    Each set of weights is scaled such that its sum is `n_effective`. The equations then have nearly the same noise as
    for `n_effective` images with weight 1, and the prior has the same influence.
    """
    squares = np.square(weights).sum(1, keepdims=True)
    weights = weights * np.divide(weights.sum(1, keepdims=True), squares, where=squares > 0, out=np.zeros_like(squares))
    radius = float(imaging.plane.radius or 0)
    pairs = [Pair(*(NormalEquations(imaging, radius, 1, PADDING) for _ in range(2))) for _ in weights]
    for rows in _chunks(np.flatnonzero(weights.any(0)), progress):
        batch = imaging.batch(particles, rows)
        here = torch.as_tensor(weights[:, rows], dtype=torch.float32).to(batch.transfer)
        for pair, own in zip(pairs, here, strict=True):
            for half, equations in enumerate(pair):
                members = torch.as_tensor(halves[rows] == half).to(own.device) & (own > 0)
                if bool(members.any()):
                    equations.add_images(batch.take(members), own[members])
    return pairs


def _chunks(rows: np.ndarray, progress: bool) -> Iterator[np.ndarray]:
    with tqdm(total=len(rows), desc="back-projecting", unit="image", disable=not progress) as bar:
        for start in range(0, len(rows), _BATCH):
            chunk = rows[start : start + _BATCH]
            yield chunk
            bar.update(len(chunk))


def solve_pair(pair: Pair, power: Tensor, voxel_size: float, copies: float = 1.0) -> tuple[Tensor, FscCurve, Tensor]:
    """Return the half maps (2, D, D, D), their FSC, and the map of all the images (D, D, D).

    Parameters
    ----------
    pair : Pair
        Normal equations of both half-sets; the second is merged into the first.
    power : (n_shells,)
        Power of the density, used as the prior of the half maps.
    voxel_size : float
        Voxel size, Å.
    copies : float
        Number of rows per image (`effective_copies`).
    """
    half_maps, (whole, second) = pair.half_maps(power).cpu(), pair
    mask = particle_mask(whole.imaging)
    curve = fsc(half_maps[0], half_maps[1], voxel_size)
    curve = replace(curve, noise=noise_deviation(mask, copies))
    whole.merge(second)
    return half_maps, curve, whole.solve(None, _wiener_prior(whole, curve, mask)[:, None], mask)[0][0].cpu()


def _wiener_prior(whole: NormalEquations, curve: FscCurve, mask: Tensor) -> Tensor:
    """Return the prior power (n_shells,) at which evenly sampled shells are filtered by 2 FSC / (1 + FSC).

    From the first shell without correlation onwards, the filter factor is about 0.002. Shell 0, the mean, is treated
    like shell 1.
    """
    shell, shells = whole.ball.shell.to(whole.sums.device), len(whole.imaging.ctf_power)
    information = whole.oversampling(mask) * shell_mean(whole.sums[:, 2], shell, shells)
    alike = np.clip(curve.correlation, 1e-3, 1 - 1e-4)
    alike[np.cumsum(curve.correlation <= 0) > 0] = 1e-3
    alike = np.concatenate([alike[:1], alike, np.full(shells - len(alike) - 1, 1e-3)])
    return torch.as_tensor(2 * alike / (1 - alike)).to(information) / information.clamp_min(1e-30)
