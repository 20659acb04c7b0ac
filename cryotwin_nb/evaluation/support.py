"""Support of the decoded maps of a pathway by the images: comparison with maps reconstructed from nearby images.

Two things are measured at each point of a path. The first is the amount of data: how many images show a similar
particle, and to what resolution their half maps agree. The second is the share of the decoded map that the images
contain, from 0 (none) to 1 (all): the images are regressed on the decoded map, shell by shell and region by region.
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
from cryotwin_nb.evaluation.information import distances, information
from cryotwin_nb.evaluation.metric import Decode, as_decode
from cryotwin_nb.evaluation.support_result import PathwaySupport
from cryotwin_nb.formats.copies import effective_copies, merge_duplicates
from cryotwin_nb.imaging.fsc import fsc
from cryotwin_nb.mixture.points import require_points
from cryotwin_nb.particles.formation import ImageFormation, evenly
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
    particle_mask,
    require_halves,
    solve_pair,
)

BANDWIDTHS = (0.7, 1.0, 1.4, 2.0)
"""Candidate kernel radii, in standard errors of one image's latent; images beyond the largest radius show other
structures."""

_ENOUGH = 10  # minimum effective number of images to evaluate a bandwidth
_WINDOW = 1 / 16  # standard deviation of the Gaussian windows, fraction of the box
_MEMORY = 2**29  # bytes of normal equations held in memory at once


@guarded(bandwidth=POSITIVE)
def pathway_support(
    model: Any,
    particles: Particles,
    path: Pathway | Tensor | ArrayLike,
    *,
    latents: Tensor | ArrayLike | None = None,
    bandwidth: float | None = None,
    imaging: ImageFormation | None = None,
    halves: np.ndarray | None = None,
    seed: int = 0,
    progress: bool = False,
) -> PathwaySupport:
    """Compare each decoded map of a path with a map reconstructed from nearby images only.

    Parameters
    ----------
    model : CryoTwin or callable
        Model, or any function from latents (k, d) to maps (k, D, D, D); the scale of the maps is fitted.
    particles : Particles
        Particles with poses and CTF. Images not used in training make the test stricter.
    path : Pathway or (m, d) float
        Points of the path.
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
    progress : bool
        Show a progress bar.

    Returns
    -------
    PathwaySupport
        Number of images, resolution and support at each point.

    Raises
    ------
    InputError
        If the latents do not match the particles or the path, or a setting is out of range.

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

    Examples
    --------
    >>> path = ct.max_flux(model.prior, start=0, end=1, n_steps=5)
    >>> ct.pathway_support(model, particles, path, latents=z).n_effective.shape
    (6,)
    """
    decode = as_decode(model)
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
    metric = information(decode, points, 0.01 * float(z.std(0).norm()), imaging)
    metric *= _grey_value(decode, particles, z, imaging) ** 2
    distance = distances(metric, points, z).numpy()
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
                weight = torch.as_tensor(own[best])
                centre = (weight @ z.double() / weight.sum()).float() if bool(weight.any()) else points[k]
                decoded = torch.as_tensor(decode(torch.stack([points[k], centre])))
                offset = float(distances(metric[k : k + 1], points[k : k + 1], centre[None]))
                row = {"n_effective": n_effective(own[best]), "bandwidth": candidates[best], "offset": offset}
                copies = effective_copies(own[best], particles.identity)
                rows.append(row | _compared(choices[best], power, decoded, particles.pixel_size, copies))
                bar.update()
    frequency = np.arange(1, particles.box_size // 2 + 1) / (particles.box_size * particles.pixel_size)
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    maps = torch.as_tensor(columns.pop("maps"))
    return PathwaySupport(latents=points, maps=maps, frequency=frequency, voxel_size=particles.pixel_size, **columns)


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


def _grey_value(decode: Decode, particles: Particles, z: Tensor, imaging: ImageFormation, n: int = 256) -> float:
    """Return the factor that scales decoded maps to the grey value per Å of the images.

    It is estimated from up to `n` images and the mean of a few of their decoded maps.
    """
    rows = np.setdiff1d(rows := evenly(np.arange(len(particles)), n), bad_rows(particles, rows))
    equations = NormalEquations(imaging, float(imaging.plane.radius or 0), 1, PADDING)
    batch = imaging.batch(particles, rows)
    equations.add_images(batch, torch.ones(len(rows)).to(batch.transfer))
    mean = torch.as_tensor(decode(z[evenly(rows, 16)])).float().mean(0).to(equations.sums)
    agreement = equations.agreement(mean * particle_mask(imaging))
    return float(agreement.cross[1:].sum() / agreement.power[1:].sum())


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


def _compared(pair: Pair, power: Tensor, decoded: Tensor, voxel_size: float, copies: float) -> dict[str, Any]:
    """Compute the fields of `PathwaySupport` for one point from its normal equations.

    Parameters
    ----------
    decoded : (2, D, D, D)
        Maps decoded at the point and at the weighted mean of the latents of the images near it.
    copies : float
        Number of rows per image (`effective_copies`); the noise of copies does not average out.
    """
    _, curve, volume = solve_pair(pair, power, voxel_size, copies)
    equations = pair.first  # after merging: the equations of all images
    mask = particle_mask(equations.imaging)
    at_point, at_centre = decoded.float().to(equations.sums) * mask
    cross, square = (part[1 : len(mask) // 2 + 1].cpu().numpy() for part in equations.agreement(at_centre))
    scale = float(cross.sum() / square.sum()) if cross.any() else 1.0
    to_decoded = fsc(volume, np.sign(scale) * at_point.cpu(), voxel_size)
    local_support, local_error = equations.local_agreement(scale * at_centre, mask, _WINDOW * len(mask))
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 if there are no images
        shell_support, shell_error = cross / square / scale, np.sqrt(copies / (2 * square)) / abs(scale)
    return {
        "maps": volume.numpy(),
        "half_map_fsc": curve.correlation,
        "resolution": curve.resolution(0.143),
        "decoded_fsc": to_decoded.correlation,
        "departure": to_decoded.resolution(0.5),
        "shell_support": shell_support,
        "shell_error": shell_error,
        "local_support": local_support.numpy(),
        "local_error": copies**0.5 * local_error.numpy(),
        "scale": scale,
    }
