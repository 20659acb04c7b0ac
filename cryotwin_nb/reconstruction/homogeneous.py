"""Maps straight from images: weighted back-projection, corrected for the CTF, in two independent halves.

No decoder takes part, so a map made here holds nothing but what the images show at their poses. Its two half maps say
how much of that is signal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fsc import FscCurve
from cryotwin_nb.particles.formation import ImageFormation
from cryotwin_nb.particles.particles import Particles
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
    """A map from images alone, and the halves that say how far to trust it.

    Attributes
    ----------
    map : (D, D, D) float32
        From all the images, zyx, image grey value per Å; Wiener-filtered by what the half maps have in common.
    half_maps : (2, D, D, D) float32
        From either half, filtered by the spectrum of the density only.
    fsc : FscCurve
        Between the half maps. Both have the soft spherical mask of all maps.
    voxel_size : float
        Å.
    n_effective : float
        (sum w)^2 / sum w^2 of the images' weights w: as many images of equal weight would average out the noise alike.
    halves : (n,) int64
        Which half map each image went into, 0 or 1.
    """

    map: Tensor
    half_maps: Tensor
    fsc: FscCurve
    voxel_size: float
    n_effective: float
    halves: np.ndarray

    @property
    def resolution(self) -> float:
        """Å, where the half maps' FSC falls below 0.143; infinite where they have nothing in common."""
        return self.fsc.resolution(0.143)

    @property
    def expected_fsc(self) -> np.ndarray:
        """Expected correlation (D/2,) of `map` with the true density, sqrt(2 FSC / (1 + FSC)).

        Source: Rosenthal and Henderson 2003.
        """
        return expected_correlation(self.fsc.correlation)


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
    """The map, its half maps and their Fourier shell correlation, from images alone.

    Parameters
    ----------
    particles : Particles
        With poses and CTF.
    weights : (n,) float, optional
        Weights of the images, at least 0; by default all equal. Images of weight 0 are not read.
    particle_radius : float
        Fraction of the box within which the particle lies; maps are masked there, noise is measured outside.
    seed : int
        Seed of the division into halves.
    halves : (n,) int, optional
        0 or 1, the half of each image, for example those of a refinement (rlnRandomSubset - 1).
    imaging : ImageFormation, optional
        A measured one, `model.imaging`: its noise spectrum and particle radius are used. By default the noise is
        measured.
    progress : bool
        Show a bar.

    Returns
    -------
    Reconstruction

    Raises
    ------
    InputError
        If the weights or halves are not one for each image and valid, or all the weights are 0.

    Notes
    -----
    Each half minimises sum_i w_i |X_i - CTF_i slice_i(V)|^2 / sigma^2 plus |V|^2 over a spectrum per shell, taken from
    the images' own power. The filter of the full map is 2 FSC / (1 + FSC) where all coefficients are seen alike, and
    passes more of those seen more often (Scheres 2012). The half maps are independent but for what the images share:
    poses refined against one map, and a selection by latents of one model.
    """
    shape = (len(particles),)
    weights = np.ones(shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != shape:
        found, remedy = f"an array of shape {weights.shape}", "Use reconstruct_many for several sets of weights."
        raise InputError("weights", found, f"{shape}, one for each image", remedy)
    options = {"particle_radius": particle_radius, "seed": seed, "halves": halves, "imaging": imaging}
    return reconstruct_many(particles, weights[None], progress=progress, **options)[0]  # type: ignore[arg-type]


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
    """`reconstruct` for several weightings (S, n), of one pass over the images; all have the same halves."""
    weights = np.asarray(weights, dtype=np.float64)
    imaging = measured(particles, particle_radius, imaging)
    halves = require_halves(halves, len(particles), seed)
    _require_weights(weights, len(particles))
    power = density_power(particles, np.flatnonzero(weights.any(0)), imaging)
    results = []
    for own, pair in zip(weights, back_project(particles, weights, halves, imaging, progress), strict=True):
        maps, curve, whole = solve_pair(pair, power, particles.pixel_size)
        results.append(Reconstruction(whole, maps, curve, particles.pixel_size, n_effective(own), halves))
    return results


def _require_weights(weights: np.ndarray, n: int) -> None:
    remedy = "Give one number of at least 0 for each image."
    if weights.ndim != 2 or weights.shape[1] != n:
        raise InputError("weights", f"an array of shape {weights.shape}", f"(S, {n})", remedy)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError("weights", "negative or infinite values, or NaN", "finite values of at least 0", remedy)
    if not weights.any():
        raise InputError("weights", "0 for every image", "at least one positive weight", remedy)
