"""Support of the decoded maps of a pathway by the images: comparison with maps reconstructed from nearby images.

Four things are measured at each point of a path. The first is the amount of data: how many images show a similar
particle, and to what resolution their half maps agree. The second is the share of the decoded map that the images
contain, from 0 (none) to 1 (all): the images are regressed on the decoded map, shell by shell and region by region.
The third is what differs locally, in both directions (`differences`), and the fourth whether a map is a blend of two
others where the images show an intermediate (`blends`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.errors import POSITIVE, InputError, guarded
from cryotwin_nb.evaluation.differences import Blocks
from cryotwin_nb.evaluation.information import distances
from cryotwin_nb.evaluation.path_maps import PathMaps
from cryotwin_nb.evaluation.support_point import compare_point
from cryotwin_nb.evaluation.support_result import PathwaySupport
from cryotwin_nb.formats.copies import effective_copies, merge_duplicates
from cryotwin_nb.mixture.points import require_points
from cryotwin_nb.particles.formation import ImageFormation
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.quality import bad_rows
from cryotwin_nb.pathways.ridgeline import Pathway
from cryotwin_nb.reconstruction.backprojection import NormalEquations
from cryotwin_nb.reconstruction.halves import (
    PADDING,
    Pair,
    back_project,
    density_power,
    measured,
    n_effective,
    require_halves,
)

BANDWIDTHS = (0.7, 1.0, 1.4, 2.0)
"""Candidate kernel radii, in standard errors of one image's latent; images beyond the largest radius show other
structures."""

_ENOUGH = 10  # minimum effective number of images to evaluate a bandwidth
_MEMORY = 2**29  # bytes of normal equations held in memory at once


@guarded(bandwidth=POSITIVE)
def pathway_support(
    model: Any,
    particles: Particles,
    path: Pathway | Tensor | ArrayLike,
    *,
    maps: Tensor | ArrayLike | None = None,
    latents: Tensor | ArrayLike | None = None,
    bandwidth: float | None = None,
    imaging: ImageFormation | None = None,
    halves: np.ndarray | None = None,
    seed: int = 0,
    blocks: Blocks | None = None,
    progress: bool = False,
) -> PathwaySupport:
    """Compare each decoded map of a path with the images near its point.

    Parameters
    ----------
    model : CryoTwin, callable or None
        Model, or any function from latents (k, d) to maps (k, D, D, D); the scale of the maps is fitted. None if `maps`
        and `latents` are given.
    particles : Particles
        Particles with poses and CTF. Images not used in training make the test stricter.
    path : Pathway or (m, d) float
        Points of the path.
    maps : (m, D, D, D) float, optional
        Maps of the points, zyx, such as those of another program; by default they are decoded. Without a model, latents
        between the points have interpolated maps, and distances follow from the differences of successive maps.
    latents : (n, d) float, optional
        Latents of the particles; by default, they are embedded with the model.
    bandwidth : float, optional
        Radius of the kernel, in standard errors of one image's latent. By default, chosen for each point among
        `BANDWIDTHS` by cross-validation.
    imaging : ImageFormation, optional
        Image formation with measured noise; by default that of the model, or one measured on the particles.
    halves : (n,) int, optional
        Half-set of each image, 0 or 1; by default drawn at random.
    seed : int
        Seed of the random half-sets.
    blocks : mapping of str to (J, 3), optional
        Positions xyz of labelled blocks, Å from the centre of the box; differences are reported with the nearest one.
        For simulated particles: `particles.truth.blocks()`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    PathwaySupport
        Number of images, resolution and support at each point, differences of density, and cross-fades.

    Raises
    ------
    InputError
        If latents or maps do not match the particles or the path, or a setting is out of range.

    Notes
    -----
    The distance r of an image from a point z is measured in standard errors of an image's latent:
    r^2 = (z_i - z)^T I (z_i - z), where I is the expected Fisher information of one image: the decoder's metric,
    weighted by CTF and noise. The latent space therefore need not be isometric. The kernel is 1 - (r / bandwidth)^2.

    Cross-validation: for each bandwidth, the map from one half-set predicts those images of the other half-set
    that lie within the smallest bandwidth containing ten images. Bandwidths are bounded, because prediction alone would
    favour including particles of other states, which share most of the density; a gap between two states would then
    seem supported.

    `shell_support` is <A M, X> / |A M|^2 over the images X near a point, where A M is the decoded map, projected and
    CTF-modulated like the images. It is the least-squares estimate of the share of the decoded amplitude that the
    images contain; its standard error follows from the noise. The estimate requires no resolved map, so it also
    assesses detail finer than `resolution`. It does not detect a decoder that has fitted the noise of these images.

    `differences` compares both ways: the misfit of the images, solved for the density that the decoded map lacks, has
    a known noise in each window. A difference is reported if it exceeds six standard errors of this noise and half of
    the typical density of the particle. The
    map compared is the mean of the maps decoded for the images near the point, so their heterogeneity does not matter.

    `blends` lists the points whose map is a blend of two others of the path between which density moves. If the images
    show something else, the map is a cross-fade. If they show the blend too, as with a block that is half occupied, it
    is not; and if too few images are near, it is undecided.

    Examples
    --------
    >>> path = ct.max_flux(model.prior, start=0, end=1, n_steps=5)
    >>> ct.pathway_support(model, particles, path, latents=z).n_effective.shape
    (6,)
    """
    points = require_points(getattr(path, "latents", path), where="path").float().cpu()
    if latents is None and not hasattr(model, "embed"):
        remedy = "Pass them with latents=: a decode function cannot embed particles."
        raise InputError("latents", "None", "the latents of the particles", remedy)
    z = require_points(model.embed(particles, progress=progress) if latents is None else latents).float().cpu()
    _require(points, z, len(particles))
    own = getattr(model, "imaging", None)
    imaging = measured(particles, 0.4, own if imaging is None else imaging)
    halves = require_halves(halves, particles, seed)
    candidates = np.array(BANDWIDTHS if bandwidth is None else [bandwidth], dtype=np.float64)
    shown = PathMaps.of(model, maps, points, z, particles, imaging)
    distance = distances(shown.metric, points, z).numpy()
    distance[:, bad_rows(particles, np.flatnonzero((distance < candidates[-1]).any(0)))] = np.inf
    near = np.flatnonzero((distance < candidates[-1]).any(0))
    power = density_power(particles, near if len(near) else np.arange(len(particles)), imaging)
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(points), desc="support", unit="point", disable=not progress) as bar:
        for chunk in _chunks(len(points), len(candidates), imaging):
            weights = (1 - np.square(distance[chunk, None] / candidates[:, None])).clip(0)
            merged = merge_duplicates(weights.reshape(-1, len(z)), particles.identity, particles.require_views()[0])
            pairs = iter(back_project(particles, merged, halves, imaging, progress))
            for k, own in zip(chunk, merged.reshape(weights.shape), strict=True):
                choices = [next(pairs) for _ in candidates]
                best = choose_bandwidth(choices, own, power)
                weight, copies = torch.as_tensor(own[best]), effective_copies(own[best], particles.identity)
                centre = (weight @ z.double() / weight.sum()).float() if bool(weight.any()) else points[k]
                offset = float(distances(shown.metric[k : k + 1], points[k : k + 1], centre[None]))
                row = {"n_effective": n_effective(own[best]), "bandwidth": candidates[best], "offset": offset}
                average = shown.near(k, z, own[best])
                rows.append(row | compare_point(int(k), shown, average, choices[best], power, copies, blocks))
                bar.update()
    frequency = np.arange(1, particles.box_size // 2 + 1) / (particles.box_size * particles.pixel_size)
    listed = {name: sum((row.pop(name) for row in rows), ()) for name in ("differences", "blends")}
    columns: dict[str, Any] = {name: np.array([row[name] for row in rows]) for name in rows[0]} | listed
    columns["maps"] = torch.as_tensor(columns["maps"])
    return PathwaySupport(latents=points, frequency=frequency, voxel_size=particles.pixel_size, **columns)


def _require(points: Tensor, z: Tensor, n: int) -> None:
    remedy = "Pass a pathway of this model, and the latents of these particles in the same order."
    if points.ndim != 2 or len(points) == 0 or not bool(torch.isfinite(points).all()):
        sentence = f"path must hold finite latents of shape (m, d); found points of shape {tuple(points.shape)}."
        raise InputError("path", f"points of shape {tuple(points.shape)}", "finite latents (m, d)", remedy, sentence)
    if tuple(z.shape) != (n, points.shape[1]) or not bool(torch.isfinite(z).all()):
        found, expected = f"an array of shape {tuple(z.shape)}", f"finite values of shape ({n}, {points.shape[1]})"
        raise InputError("latents", found, expected, remedy, f"latents must be {expected}; found {found}.")


def _chunks(n_points: int, n_candidates: int, imaging: ImageFormation) -> Iterator[np.ndarray]:
    """Yield the indices of points whose normal equations are held in memory together."""
    one = NormalEquations(imaging, float(imaging.plane.radius or 0), 1, PADDING).sums
    at_once = max(1, _MEMORY // (2 * n_candidates * one.numel() * one.element_size()))
    yield from np.array_split(np.arange(n_points), -(-n_points // at_once))


def choose_bandwidth(choices: list[Pair], weights: np.ndarray, power: Tensor) -> int:
    """Return the index of the bandwidth whose half maps best predict the images of the other half-set.

    Parameters
    ----------
    choices : list of Pair
        Normal equations of each bandwidth, from narrow to wide.
    weights : (H, n)
        Kernel weights of each bandwidth.
    power : (n_shells,)
        Radial power spectrum of the density.
    """
    enough = [j for j, own in enumerate(weights) if n_effective(own) >= _ENOUGH]
    if not enough:
        return len(choices) - 1
    target = choices[enough[0]]
    scores = []
    for j in enough:
        score = 0.0
        for volume, other in zip(choices[j].half_maps(power), reversed(target), strict=True):
            agreement = other.agreement(volume)
            score += float((2 * agreement.cross - agreement.power)[1:].sum())
        scores.append(score)
    return enough[int(np.argmax(scores))]
