"""Which maps of a pathway do the images support? Each is made again from the images near it, without the decoder.

Two questions are asked at each point of a path. How much is known there: how many images show a particle like it, and
to what resolution do two halves of them agree? And is what the decoder shows there in the images: regressed on the
decoded map, shell by shell and region by region, do they follow it fully (1) or not at all (0)?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation.metric import Decode, as_decode
from cryotwin_nb.imaging.fourier import fft3, fsc, grid
from cryotwin_nb.particles.formation import ImageFormation, evenly
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.pathways.ridgeline import Pathway
from cryotwin_nb.reconstruction.backprojection import NormalEquations
from cryotwin_nb.reconstruction.homogeneous import (
    PADDING,
    Pair,
    back_project,
    density_power,
    expected_correlation,
    measured,
    n_effective,
    particle_mask,
    require_halves,
    solve_pair,
)

BANDWIDTHS = (0.7, 1.0, 1.4, 2.0)
"""Kernel radii tried, in standard errors of one image's latent; beyond the last, an image shows another particle."""

_ENOUGH = 10  # images that a bandwidth must hold to be judged
_FEW = 5  # images, below which a point is flagged
_SHELL_LIMIT, _LOCAL_LIMIT = 0.8, 0.6  # shares of the decoded amplitude below which it is flagged
_DEPARTED = 1.5  # times the supported resolution at which the decoded map may part from that of the images
_SIGNIFICANT = 5.0  # standard errors
_WINDOW = 1 / 16  # standard deviation of the regions, share of the box
_MEMORY = 2**29  # bytes of normal equations held at once


@dataclass(frozen=True, eq=False, repr=False)
class PathwaySupport:
    """What the images say about the maps of a pathway.

    Attributes
    ----------
    latents : (m, d) float32
        Points of the path.
    n_effective : (m,) float64
        Images near each point, (sum w)^2 / sum w^2 of their kernel weights.
    bandwidth : (m,) float64
        Radius of each kernel, in standard errors of one image's latent.
    offset : (m,) float64
        How far the centre of these images' latents is from the point, in the same unit.
    maps : (m, D, D, D) float32
        From the images near each point alone, zyx, image grey value per Å.
    frequency : (D/2,) float64
        Of the curves, 1/Å.
    half_map_fsc : (m, D/2) float64
        Between the half maps of each point.
    resolution : (m,) float64
        Å, where that falls below 0.143: the resolution that the images near the point support; infinite for none.
    decoded_fsc : (m, D/2) float64
        Of the maps from images with the decoded maps.
    departure : (m,) float64
        Å, where that falls below 0.5.
    shell_support : (m, D/2) float64
        Share of the decoded amplitude that the images show, in each shell: 1 for a map that is right, 0 for one that
        has nothing to do with them, above 1 for one that is too weak. NaN where there are no images. The map is the
        one decoded at the centre of the images' latents, so that it is of the same particles.
    shell_error : (m, D/2) float64
        Standard errors of `shell_support`.
    local_support : (m, D, D, D) float32
        The same share around each voxel, within a Gaussian of D/16 voxels; NaN where the decoded map is empty.
    local_error : (m, D, D, D) float32
        Standard errors of `local_support`.
    scale : (m,) float64
        What the decoded map was multiplied by, so that the images show its amplitude in full on the whole. It is about
        1 for decoders that keep the grey values of the images, and where there are no images.
    voxel_size : float
        Å.
    """

    latents: Tensor
    n_effective: np.ndarray
    bandwidth: np.ndarray
    offset: np.ndarray
    maps: Tensor
    frequency: np.ndarray
    half_map_fsc: np.ndarray
    resolution: np.ndarray
    decoded_fsc: np.ndarray
    departure: np.ndarray
    shell_support: np.ndarray
    shell_error: np.ndarray
    local_support: np.ndarray
    local_error: np.ndarray
    scale: np.ndarray
    voxel_size: float

    @property
    def expected_fsc(self) -> np.ndarray:
        """Correlation (m, D/2) that `decoded_fsc` would have if the decoded maps were the truth."""
        return expected_correlation(self.half_map_fsc)

    @property
    def beyond_images(self) -> np.ndarray:
        """(m, D/2) bool, the shells in which the decoder shows more than the images, beyond doubt."""
        return _short(self.shell_support, self.shell_error, _SHELL_LIMIT)

    @property
    def flagged(self) -> tuple[int, ...]:
        """Numbers of the points whose decoded map the images do not support, for whichever of the `reasons`."""
        return tuple(k for k in range(len(self.latents)) if self.reasons(k))

    def reasons(self, point: int) -> list[str]:
        """Why a point is flagged, in words; empty if it is not."""
        if self.n_effective[point] < _FEW or not np.isfinite(self.resolution[point]):
            return [f"hardly any images show a particle like it ({self.n_effective[point]:.0f})"]
        reasons = []
        if self.departure[point] > _DEPARTED * self.resolution[point]:
            reach = f"only to {self.departure[point]:.3g} Å" if np.isfinite(self.departure[point]) else "nowhere"
            reasons.append(f"the decoded map agrees with the images {reach}")
        shells = np.flatnonzero(self.beyond_images[point])
        if len(shells):
            share = self.shell_support[point, shells].min()
            coarse, fine = 1 / self.frequency[[shells[0], shells[-1]]]
            span = f"at {coarse:.3g} Å" if coarse == fine else f"from {coarse:.3g} to {fine:.3g} Å"
            reasons.append(f"detail {span} is not in the images, which show {max(share, 0):.0%} of it")
        support, error = self.local_support[point], self.local_error[point]
        false = _short(support, error, _LOCAL_LIMIT)
        if false.any():
            worst = np.unravel_index(np.where(false, (1 - support) / error, 0).argmax(), false.shape)
            x, y, z = (np.array(worst[::-1]) - len(false) // 2) * self.voxel_size
            share = max(float(support[worst]), 0.0)
            place = f"x {x:+.0f}, y {y:+.0f}, z {z:+.0f} Å from the centre"
            reasons.append(f"density around {place} is not in the images, which show {share:.0%} of it")
        return reasons

    def summary(self) -> str:
        """One line for each point: images, resolution, and what is wrong, if anything."""
        lines = []
        for k, (count, resolution) in enumerate(zip(self.n_effective, self.resolution, strict=True)):
            reach = f"supported to {resolution:.3g} Å" if np.isfinite(resolution) else "no supported resolution"
            lines.append(f"point {k}: {count:.0f} images, {reach}" + "".join(f"; {r}" for r in self.reasons(k)))
        flagged = ", ".join(map(str, self.flagged))
        verdict = f"Not supported by the images: {flagged}." if flagged else "The images support every decoded map."
        return "\n".join([verdict, *lines])

    def __repr__(self) -> str:
        return f"<{self.summary()}>"


def _short(support: np.ndarray, error: np.ndarray, limit: float) -> np.ndarray:
    """Where a share is below a limit, and beyond doubt below 1; nowhere that it is NaN."""
    return (support < limit) & (1 - support > _SIGNIFICANT * error)


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
    """Compare each decoded map of a path with the map made from the images near it alone.

    Parameters
    ----------
    model : CryoTwin or callable
        Or any decode function, (k, d) latents to (k, D, D, D) maps; their scale is fitted.
    particles : Particles
        With poses and CTF. Images that the model was not trained on make the stricter test.
    path : Pathway or (m, d) float
    latents : (n, d) float, optional
        Of the particles; by default the model's.
    bandwidth : float, optional
        Radius of the kernel, in standard errors of one image's latent. By default chosen for each point among
        `BANDWIDTHS` by cross-validation.
    imaging : ImageFormation, optional
        A measured one; by default the model's, or one measured on the particles.
    halves : (n,) int, optional
        0 or 1, the half of each image; by default drawn at random.
    seed : int
        Of the halves.
    progress : bool
        Show a bar.

    Returns
    -------
    PathwaySupport

    Raises
    ------
    InputError
        If the latents do not belong to the particles or the path, or a setting is out of range.

    Notes
    -----
    How far an image is from a point z is counted in standard errors of an image's latent, r^2 = (z_i - z)^T I (z_i - z)
    with I the expected Fisher information of one image, the decoder's metric weighed by CTF and noise. So latents need
    not be isometric. The kernel is 1 - (r / bandwidth)^2.

    Cross-validation: the map from one half at a bandwidth predicts the images of the other half within the smallest
    bandwidth that holds ten images. Bandwidths are bounded, because prediction alone is best served by taking in the
    particles of other states, with which a particle shares most of its density: then a gap between two states would
    seem to be supported by both.

    `shell_support` is <A M, X> / |A M|^2 over the images X near a point, A M the decoded map as they see it: the
    least-squares share of its amplitude, whose standard error follows from the noise. It needs no resolved map, so it
    also judges detail finer than `resolution`. A decoder that has learned the noise of these images agrees with it.
    """
    decode = as_decode(model)
    points = torch.as_tensor(getattr(path, "latents", path), dtype=torch.float32).detach().cpu()
    if latents is None and not hasattr(model, "embed"):
        raise InputError("latents", "none", "the latents of the particles", "A decode function does not know them.")
    z = torch.as_tensor(model.embed(particles, progress=progress) if latents is None else latents).float().cpu()
    _require(points, z, len(particles), bandwidth)
    own = getattr(model, "imaging", None)
    imaging = measured(particles, 0.4, own if imaging is None else imaging)
    halves = require_halves(halves, len(particles), seed)
    candidates = np.array(BANDWIDTHS if bandwidth is None else [bandwidth], dtype=np.float64)
    metric = information(decode, points, 0.01 * float(z.std(0).norm()), imaging)
    metric *= _grey_value(decode, particles, z, imaging) ** 2
    distance = distances(metric, points, z).numpy()
    near = np.flatnonzero((distance < candidates[-1]).any(0))
    power = density_power(particles, near if len(near) else np.arange(len(particles)), imaging)
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(points), desc="support", unit="point", disable=not progress) as bar:
        for chunk in _chunks(len(points), len(candidates), imaging):
            weights = (1 - np.square(distance[chunk, None] / candidates[:, None])).clip(0)
            pairs = iter(back_project(particles, weights.reshape(-1, len(z)), halves, imaging, progress))
            for k, own in zip(chunk, weights, strict=True):
                choices = [next(pairs) for _ in candidates]
                best = choose_bandwidth(choices, own, power)
                weight = torch.as_tensor(own[best])
                centre = (weight @ z.double() / weight.sum()).float() if bool(weight.any()) else points[k]
                decoded = torch.as_tensor(decode(torch.stack([points[k], centre])))
                offset = float(distances(metric[k : k + 1], points[k : k + 1], centre[None]))
                row = {"n_effective": n_effective(own[best]), "bandwidth": candidates[best], "offset": offset}
                rows.append(row | _compared(choices[best], power, decoded, particles.pixel_size))
                bar.update()
    frequency = np.arange(1, particles.box_size // 2 + 1) / (particles.box_size * particles.pixel_size)
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    maps = torch.as_tensor(columns.pop("maps"))
    return PathwaySupport(latents=points, maps=maps, frequency=frequency, voxel_size=particles.pixel_size, **columns)


def _require(points: Tensor, z: Tensor, n: int, bandwidth: float | None) -> None:
    remedy = "Give a pathway of this model, and the latents of these particles in their order."
    if points.ndim != 2 or len(points) == 0 or not bool(torch.isfinite(points).all()):
        raise InputError("path", f"points of shape {tuple(points.shape)}", "finite latents (m, d)", remedy)
    if tuple(z.shape) != (n, points.shape[1]) or not bool(torch.isfinite(z).all()):
        found = f"an array of shape {tuple(z.shape)}, or values that are not finite"
        raise InputError("latents", found, f"finite latents ({n}, {points.shape[1]})", remedy)
    if bandwidth is not None and not 0 < bandwidth < np.inf:
        remedy = "It is a number of standard errors; leave it out to have it chosen."
        raise InputError("bandwidth", f"{bandwidth}", "a positive number", remedy)


def _chunks(n_points: int, n_candidates: int, imaging: ImageFormation) -> Iterator[np.ndarray]:
    """Numbers of the points whose normal equations are held in memory together."""
    one = NormalEquations(imaging, float(imaging.plane.radius or 0), 1, PADDING).sums
    at_once = max(1, _MEMORY // (2 * n_candidates * one.numel() * one.element_size()))
    yield from np.array_split(np.arange(n_points), -(-n_points // at_once))


def _grey_value(decode: Decode, particles: Particles, z: Tensor, imaging: ImageFormation, n: int = 256) -> float:
    """The images' grey value per Å in units of the decoded maps, from up to `n` images and the mean of their maps."""
    rows = evenly(np.arange(len(particles)), n)
    equations = NormalEquations(imaging, float(imaging.plane.radius or 0), 1, PADDING)
    batch = imaging.batch(particles, rows)
    equations.add_images(batch, torch.ones(len(rows)).to(batch.transfer))
    mean = torch.as_tensor(decode(z[evenly(rows, 16)])).float().mean(0).to(equations.sums)
    agreement = equations.agreement(mean * particle_mask(imaging))
    return float(agreement.cross[1:].sum() / agreement.power[1:].sum())


def information(decode: Decode, points: Tensor, step: float, imaging: ImageFormation) -> Tensor:
    """Expected Fisher information (m, d, d) float64 that one image gives about its latent, at points (m, d).

    The decoder's Jacobian is taken by differences of length `step`.
    """
    found = []
    for point in points:
        maps = torch.as_tensor(decode(torch.cat([point[None], point + step * torch.eye(len(point))])))
        seen = _as_seen(maps, imaging).flatten(1)
        jacobian = (seen[1:] - seen[0]) / step
        found.append((jacobian @ jacobian.mH).real.double())
    return torch.stack(found)


def distances(metric: Tensor, points: Tensor, z: Tensor) -> Tensor:
    """Distances (m, n) float64 of latents z (n, d) from points (m, d) in the metric (m, d, d) of each point."""
    away = [(z - point).double() for point in points]
    return torch.stack([((a @ G) * a).sum(1).clamp_min(0).sqrt() for a, G in zip(away, metric, strict=True)])


def _as_seen(maps: Tensor, imaging: ImageFormation) -> Tensor:
    """Transforms (k, D, D, D) of maps, of which inner products are those of whitened images, averaged over poses.

    A shell of the volume has 2 |v| times as many coefficients as that of an image (projection-slice theorem).
    """
    size = maps.shape[-1]
    radius = grid(size, 3).float().norm(dim=-1)
    gain = (imaging.ctf_power / imaging.noise[0]).cpu()[radius.round().long()].float() / (2 * radius).clamp_min(1)
    gain[(radius >= size / 2) | (radius == 0)] = 0
    return torch.stack([fft3(volume) * gain.sqrt() for volume in maps.cpu()])


def choose_bandwidth(choices: list[Pair], weights: np.ndarray, power: Tensor) -> int:
    """Number of the bandwidth, narrow to wide, whose half maps predict best the images of the other half.

    Parameters
    ----------
    choices : list of Pair
        The normal equations of each bandwidth.
    weights : (H, n)
        Their kernel weights.
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


def _compared(pair: Pair, power: Tensor, decoded: Tensor, voxel_size: float) -> dict[str, Any]:
    """Fields of `PathwaySupport` for one point, from its normal equations.

    Parameters
    ----------
    decoded : (2, D, D, D)
        The maps at the point and at the centre of its images.
    """
    _, curve, volume = solve_pair(pair, power, voxel_size)
    equations = pair.first  # of all the images
    mask = particle_mask(equations.imaging)
    at_point, at_centre = decoded.float().to(equations.sums) * mask
    cross, square = (part[1 : len(mask) // 2 + 1].cpu().numpy() for part in equations.agreement(at_centre))
    scale = float(cross.sum() / square.sum()) if cross.any() else 1.0
    to_decoded = fsc(volume, np.sign(scale) * at_point.cpu(), voxel_size)
    local_support, local_error = equations.local_agreement(scale * at_centre, mask, _WINDOW * len(mask))
    with np.errstate(divide="ignore", invalid="ignore"):  # without images
        shell_support, shell_error = cross / square / scale, 1 / np.sqrt(2 * square) / abs(scale)
    return {
        "maps": volume.numpy(),
        "half_map_fsc": curve.correlation,
        "resolution": curve.resolution(0.143),
        "decoded_fsc": to_decoded.correlation,
        "departure": to_decoded.resolution(0.5),
        "shell_support": shell_support,
        "shell_error": shell_error,
        "local_support": local_support.numpy(),
        "local_error": local_error.numpy(),
        "scale": scale,
    }
