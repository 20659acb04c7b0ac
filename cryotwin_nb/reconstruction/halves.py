"""Two half sets of images, back-projected side by side, and what their agreement says of the noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import shell_mean
from cryotwin_nb.imaging.fsc import FscCurve, fsc
from cryotwin_nb.imaging.masks import spherical_mask
from cryotwin_nb.particles.formation import ImageFormation, evenly
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.reconstruction.backprojection import MARGIN, NormalEquations, SignalPower

PADDING = 1.5  # of the lattice; nothing is iterated here, so it is finer than in the M-step
_BATCH = 256


def expected_correlation(half_map_fsc: np.ndarray) -> np.ndarray:
    """Correlation of a map with the truth, given that of its half maps: sqrt(2 FSC / (1 + FSC))."""
    positive = np.maximum(half_map_fsc, 0)
    return np.sqrt(2 * positive / (1 + positive))


class Pair(NamedTuple):
    """The normal equations of one map from the images of either half."""

    first: NormalEquations
    second: NormalEquations

    def half_maps(self, power: Tensor) -> Tensor:
        """The maps (2, D, D, D) from either half, given the power (n_shells,) of the density."""
        mask = particle_mask(self.first.imaging)
        return torch.cat([equations.solve(None, power[:, None], mask)[0] for equations in self])


def n_effective(weights: np.ndarray) -> float:
    """(sum w)^2 / sum w^2 of weights (n,); 0 where all are 0."""
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def measured(particles: Particles, particle_radius: float, imaging: ImageFormation | None = None) -> ImageFormation:
    """The image formation given, if it has been measured; else one measured on these particles."""
    if imaging is None:
        imaging = ImageFormation(particles.box_size, particle_radius=particle_radius, windowed=False, margin=MARGIN)
        imaging.measure(particles)
    if not imaging.measured or imaging.plane.box_size != particles.box_size:
        found = f"a model for {imaging.plane.box_size} pixels" if imaging.measured else "a model that saw no images"
        remedy = "Call imaging.measure(particles), or leave it out."
        raise InputError("imaging", found, f"a model measured on images of {particles.box_size} pixels", remedy)
    return imaging


def require_halves(halves: np.ndarray | None, n: int, seed: int) -> np.ndarray:
    """The halves (n,) int64 given, checked, or equal ones drawn at random."""
    if halves is None:
        return np.random.default_rng(seed).permutation(n) % 2
    halves = np.asarray(halves)
    if halves.shape != (n,) or not np.isin(halves, (0, 1)).all():
        found = f"an array of shape {halves.shape} with values from {halves.min(initial=0)} to {halves.max(initial=0)}"
        raise InputError("halves", found, f"0 or 1 for each of the {n} images", "Subtract 1 from rlnRandomSubset.")
    return halves.astype(np.int64)


def particle_mask(imaging: ImageFormation) -> Tensor:
    """The soft ball (D, D, D) that all maps are confined to."""
    size = imaging.plane.box_size
    return spherical_mask(size, imaging.particle_radius, size / 16).to(imaging.window.device)


def density_power(particles: Particles, rows: np.ndarray, imaging: ImageFormation, n_images: int = 1000) -> Tensor:
    """Power (n_shells,) of the density in up to `n_images` of the images numbered `rows`."""
    signal = SignalPower(imaging)
    for chunk in _chunks(evenly(rows, n_images), progress=False):
        signal.add(imaging.batch(particles, chunk))
    return signal.bound


def back_project(
    particles: Particles, weights: np.ndarray, halves: np.ndarray, imaging: ImageFormation, progress: bool = False
) -> list[Pair]:
    """Normal equations of both halves for each of the weightings (S, n).

    The weights of a weighting are scaled such that their sum is `n_effective`: the noise of its sums is then nearly
    that of equal weights of 1, and the prior weighs against it alike.
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


def solve_pair(pair: Pair, power: Tensor, voxel_size: float) -> tuple[Tensor, FscCurve, Tensor]:
    """Half maps (2, D, D, D), their FSC, and the map of all the images (D, D, D); the pair's first takes in the second.

    Parameters
    ----------
    power : (n_shells,)
        Power of the density, the prior of the half maps.
    """
    half_maps, (whole, second) = pair.half_maps(power).cpu(), pair
    curve = fsc(half_maps[0], half_maps[1], voxel_size)
    whole.merge(second)
    mask = particle_mask(whole.imaging)
    return half_maps, curve, whole.solve(None, _wiener_prior(whole, curve, mask)[:, None], mask)[0][0].cpu()


def _wiener_prior(whole: NormalEquations, curve: FscCurve, mask: Tensor) -> Tensor:
    """Power (n_shells,) of the density at which each shell is passed by 2 FSC / (1 + FSC), as voxels seen alike are.

    The shells from the first without correlation on are passed by a few thousandths, the mean like the first shell.
    """
    shell, shells = whole.ball.shell.to(whole.sums.device), len(whole.imaging.ctf_power)
    information = whole.oversampling(mask) * shell_mean(whole.sums[:, 2], shell, shells)
    alike = np.clip(curve.correlation, 1e-3, 1 - 1e-4)
    alike[np.cumsum(curve.correlation <= 0) > 0] = 1e-3
    alike = np.concatenate([alike[:1], alike, np.full(shells - len(alike) - 1, 1e-3)])
    return torch.as_tensor(2 * alike / (1 - alike)).to(information) / information.clamp_min(1e-30)
