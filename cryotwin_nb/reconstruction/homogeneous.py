"""Homogeneous reconstruction: weighted, CTF-corrected back-projection of two independent half-sets.

No decoder is involved, so a map contains only what the images show at their poses. The agreement of the two half maps
shows how much of the map is signal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from cryotwin_nb.errors import POSITIVE, InputError, guarded
from cryotwin_nb.formats.copies import effective_copies, merge_duplicates
from cryotwin_nb.imaging.fsc import FscCurve
from cryotwin_nb.mixture.points import as_numbers
from cryotwin_nb.particles.formation import ImageFormation
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.quality import bad_rows
from cryotwin_nb.reconstruction.halves import (
    back_project,
    density_power,
    expected_correlation,
    measured,
    n_effective,
    require_halves,
    solve_pair,
)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Map reconstructed from images alone, with half maps to assess its resolution.

    Attributes
    ----------
    map : (D, D, D) float32
        Map of all the images, zyx, image grey value per Å; Wiener-filtered according to the half-map FSC.
    half_maps : (2, D, D, D) float32
        Maps of the two half-sets, filtered only by the spectrum of the density.
    fsc : FscCurve
        Fourier shell correlation of the half maps, both within the soft spherical mask.
    voxel_size : float
        Voxel size, Å.
    n_effective : float
        (sum w)^2 / sum w^2 of the image weights w: the number of equally weighted images that would give the
        same noise.
    halves : (n,) int64
        Half-set to which each image belongs, 0 or 1.
    """

    map: Tensor
    half_maps: Tensor
    fsc: FscCurve
    voxel_size: float
    n_effective: float
    halves: np.ndarray

    @property
    def resolution(self) -> float:
        """Resolution at which the half-map FSC falls below 0.143, Å; infinite if the half maps agree by chance only."""
        return self.fsc.resolution(0.143)

    @property
    def expected_fsc(self) -> np.ndarray:
        """Expected correlation (D/2,) of `map` with the true density, sqrt(2 FSC / (1 + FSC)).

        Source: Rosenthal and Henderson 2003.
        """
        return expected_correlation(self.fsc.correlation)


@guarded(particle_radius=POSITIVE)
def reconstruct(
    particles: Particles,
    weights: ArrayLike | Tensor | None = None,
    *,
    particle_radius: float = 0.4,
    seed: int = 0,
    halves: np.ndarray | None = None,
    imaging: ImageFormation | None = None,
    progress: bool = False,
) -> Reconstruction:
    """Reconstruct a map, its half maps and their Fourier shell correlation from images alone.

    Parameters
    ----------
    particles : Particles
        Particles with poses and CTF.
    weights : (n,) float, optional
        Weights of the images, at least 0; by default all equal. Images of weight 0 are not read.
    particle_radius : float
        Radius of the particle as a fraction of the box size. Maps are masked to this radius; noise is measured outside.
    seed : int
        Seed of the random split into half-sets.
    halves : (n,) int, optional
        Half-set of each image, 0 or 1, for example from a refinement (rlnRandomSubset - 1).
    imaging : ImageFormation, optional
        Measured image formation, such as `model.imaging`: its noise spectrum and particle radius are used. By default
        the noise is measured on the particles.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Reconstruction
        Map, half maps and their Fourier shell correlation.

    Raises
    ------
    InputError
        If weights or half-sets are invalid or not given for every image, or all weights are 0.

    Notes
    -----
    Each half map minimises sum_i w_i |X_i - CTF_i slice_i(V)|^2 / sigma^2 plus the regulariser |V|^2 / tau^2, where
    tau^2 is the signal power per shell, estimated from the images. The filter of the full map is 2 FSC / (1 + FSC) for
    evenly sampled coefficients and passes more of the coefficients that are sampled more often (Scheres 2012). The half
    maps are independent unless their images depend on common information, such as poses refined against one map or a
    selection based on the latents of one model.

    Examples
    --------
    >>> average = ct.reconstruct(particles)
    >>> average.half_maps.shape
    torch.Size([2, 32, 32, 32])
    """
    shape = (len(particles),)
    weights = np.ones(shape) if weights is None else _numbers(weights)
    if weights.shape != shape:
        found, remedy = f"an array of shape {weights.shape}", "Use reconstruct_many for several sets of weights."
        raise InputError("weights", found, f"{shape}, one for each image", remedy)
    options = {"particle_radius": particle_radius, "seed": seed, "halves": halves, "imaging": imaging}
    return reconstruct_many(particles, weights[None], progress=progress, **options)[0]  # type: ignore[arg-type]


@guarded(particle_radius=POSITIVE)
def reconstruct_many(
    particles: Particles,
    weights: ArrayLike | Tensor,
    *,
    particle_radius: float = 0.4,
    seed: int = 0,
    halves: np.ndarray | None = None,
    imaging: ImageFormation | None = None,
    progress: bool = False,
) -> list[Reconstruction]:
    """Run `reconstruct` for several sets of weights (S, n) in one pass over the images, with the same half-sets."""
    given = _numbers(weights)
    imaging = measured(particles, particle_radius, imaging)
    halves = require_halves(halves, particles, seed)
    _require_weights(given, len(particles))
    given = given / given.max(1, keepdims=True).clip(1e-300)  # so that their squares cannot overflow
    given[:, bad_rows(particles, np.flatnonzero(given.any(0)))] = 0
    merged = merge_duplicates(given, particles.identity, particles.require_views()[0])
    power = density_power(particles, np.flatnonzero(merged.any(0)), imaging)
    results = []
    for own, pair in zip(merged, back_project(particles, merged, halves, imaging, progress), strict=True):
        maps, curve, whole = solve_pair(pair, power, particles.pixel_size, effective_copies(own, particles.identity))
        results.append(Reconstruction(whole, maps, curve, particles.pixel_size, n_effective(own), halves))
    return results


def _numbers(weights: ArrayLike | Tensor) -> np.ndarray:
    return as_numbers(weights, "weights", "Pass one non-negative number per image.").cpu().double().numpy()


def _require_weights(weights: np.ndarray, n: int) -> None:
    remedy = "Pass one non-negative number per image."
    if weights.ndim != 2 or weights.shape[1] != n:
        raise InputError("weights", f"an array of shape {weights.shape}", f"(S, {n})", remedy)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError("weights", "negative or infinite values, or NaN", "finite, non-negative values", remedy)
    if not weights.any():
        raise InputError("weights", "0 for every image", "at least one positive weight", remedy)
