"""Errors of the recorded poses, apart from motions of the structure.

A subspace of maps is fitted to the images, together with a small change of each image's pose. Changes of the pose are
normally distributed around the recorded pose; the standard deviations of rotations and shifts are those of the largest
evidence. What a subspace cannot represent, such as a motion too small for principal directions, would be mistaken for
pose errors. Therefore regions of the structure can also move against each other, in a few collective modes: an error of
the pose moves all regions as one body about all three axes, a motion does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq, minimize
from torch import Tensor

from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.backprojection import MARGIN
from cryotwin_nb.reconstruction.eigenvolumes import Eigenvolumes, begin, iterate
from cryotwin_nb.reconstruction.pose_statistics import POSE, Linearised, PoseStatistics, moved, regions

_RECORDED = (0.3, 0.3, 0.3, 0.3, 0.5, 0.5, 0.7, 0.7, 1.0, 1.0)  # radii of passes at the recorded poses, of Nyquist
_CHANGED = (0.5, 0.5, 0.7, 1.0, 1.0)  # radii of passes at changed poses
_N_BASIS, _N_REGIONS, _MOST_MODES = 6, 6, 3
_CONTRAST_SPREAD = 0.1
_START = (np.log(np.radians(3.0) / 3**0.5), np.log(0.5))  # of the search: rotation, radians; shift, pixels
_LEAST, _LARGEST = (1e-4, 1e-3), (0.5, 5.0)  # standard deviations: radians, pixels
_DROP = 1.92  # nats below the largest evidence at the ends of a 95 % interval


@dataclass(frozen=True)
class PoseErrors:
    """Typical errors of the poses of a set of images.

    Attributes
    ----------
    rotation, shift : float
        Root-mean-square rotation error, degrees, and standard deviation of the shift along each axis, Å.
    rotation_interval, shift_interval : tuple of float
        95 % intervals.
    n_modes : int
        Number of collective modes in which regions of the structure move against each other, beyond the subspace.
    motion : float
        Root-mean-square displacement of the regions in these modes, Å.
    """

    rotation: float
    rotation_interval: tuple[float, float]
    shift: float
    shift_interval: tuple[float, float]
    n_modes: int
    motion: float

    def table(self) -> list[tuple[str, str]]:
        """Return the errors as names and texts."""
        (a, b), (c, d) = self.rotation_interval, self.shift_interval
        return [
            ("rotation errors, apart from motions", f"{self.rotation:.1f}° ({a:.1f} to {b:.1f}°)"),
            ("shift errors, along each axis", f"{self.shift:.1f} Å ({c:.1f} to {d:.1f} Å)"),
        ]


def quick_subspace(imaging: ImageFormation, batches: Sequence[ImageBatch], mask: Tensor, seed: int = 0) -> Eigenvolumes:
    """Return six principal directions of images at their recorded poses, with the spread of their contrasts.

    Parameters
    ----------
    imaging : ImageFormation
        Measured image formation.
    batches : sequence of ImageBatch
        Images at the recorded poses.
    mask : (D, D, D)
        Soft support of the maps.
    seed : int
        Seed of the initial directions.
    """
    found = begin(imaging, batches, mask, _N_BASIS, seed, _CONTRAST_SPREAD)
    for share in _RECORDED:
        found = iterate(found, imaging, batches, share * (imaging.plane.box_size / 2 + MARGIN))[0]
    return found


def pose_errors(
    imaging: ImageFormation, batches: Sequence[ImageBatch], found: Eigenvolumes, pixel_size: float, seed: int = 0
) -> PoseErrors:
    """Return the typical errors of the poses of images.

    Parameters
    ----------
    imaging : ImageFormation
        Measured image formation.
    batches : sequence of ImageBatch
        Images at the recorded poses.
    found : Eigenvolumes
        Result of `quick_subspace` for these images.
    pixel_size : float
        Pixel size, Å.
    seed : int
        Seed of the regions.

    Notes
    -----
    The evidence is that of a Laplace approximation around the changed poses. A mode is accepted if it gains more nats
    than it has parameters.
    """
    radius = imaging.plane.box_size / 2 + MARGIN
    weights = regions(found.mean, _N_REGIONS, seed)
    widths, changes = np.array(_START), [torch.zeros(len(batch.data), POSE, dtype=torch.float64) for batch in batches]
    for share in _CHANGED:
        kept = weights if share == 1 else weights[:0]
        seen = _gathered(Linearised.of(found, share * radius, kept), batches, imaging, changes)
        best, _ = _with_modes(seen, widths, seed)
        widths = best[:2]
        changes = list(_most_likely(seen, best).split([len(change) for change in changes]))
        changed = [moved(batch, change, imaging) for batch, change in zip(batches, changes, strict=True)]
        found = iterate(found, imaging, changed, share * radius)[0]
    seen = _gathered(Linearised.of(found, radius, weights), batches, imaging, changes)
    return _result(seen, *_with_modes(seen, widths, seed), pixel_size)


def _gathered(
    maps: Linearised, batches: Sequence[ImageBatch], imaging: ImageFormation, changes: Sequence[Tensor]
) -> PoseStatistics:
    parts = [maps.statistics(batch, imaging, change) for batch, change in zip(batches, changes, strict=True)]
    return PoseStatistics(*map(torch.cat, zip(*parts, strict=True)))


def _with_modes(seen: PoseStatistics, start: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Return the parameters of the largest evidence, with as many modes as gain evidence, and the evidence."""
    poses = PoseStatistics(seen.h[:, :POSE], seen.J[:, :POSE, :POSE])
    best, evidence = _largest(poses, start)
    widths, size, rng = best, seen.h.shape[1] - POSE, np.random.default_rng(seed)
    for n_modes in range(1, _MOST_MODES + 1 if size else 0):
        tried, gained = _largest(seen, np.concatenate([widths, 0.03 * rng.normal(size=n_modes * size)]))
        if gained < evidence + size:
            break
        best, evidence = tried, gained
    return best, evidence


def _result(seen: PoseStatistics, best: np.ndarray, evidence: float, pixel_size: float) -> PoseErrors:
    """Return the widths with their intervals, in degrees and Å."""
    size = seen.h.shape[1] - POSE
    n_modes = (len(best) - 2) // size
    scales = float(np.degrees(1)) * 3**0.5, pixel_size
    (rotation, turned), (shift, shifted) = (
        (scale * float(np.exp(best[i])), [scale * end for end in _interval(seen, best, evidence, i)])
        for i, scale in enumerate(scales)
    )
    motion = float(np.sqrt(np.square(best[2:]).sum() / (size / 3))) * pixel_size
    return PoseErrors(rotation, (turned[0], turned[1]), shift, (shifted[0], shifted[1]), n_modes, motion)


def _interval(seen: PoseStatistics, best: np.ndarray, evidence: float, which: int) -> tuple[float, float]:
    """Return the standard deviations at which the evidence, with all others refitted, is lower by `_DROP`."""

    def drop(log_width: float) -> float:
        return evidence - _largest(seen, best, {which: log_width})[1] - _DROP

    least, most = np.log(_LEAST[which]), np.log(_LARGEST[which])
    low = least if drop(least) < 0 else brentq(drop, least, best[which], xtol=0.02)
    high = most if drop(most) < 0 else brentq(drop, best[which], most, xtol=0.02)
    return (0.0 if low == least else float(np.exp(low))), float(np.exp(high))


def _factor(parameters: Tensor, size: int) -> Tensor:
    """Return F (size, 5 + number of modes): the covariance of the columns of `PoseStatistics` is F F^T."""
    widths = parameters[:2].exp()
    pose = torch.cat([widths[:1].expand(3), widths[1:].expand(2)]).diag()
    modes = parameters[2:].view(size - POSE, -1) if size > POSE else parameters.new_zeros(0, 0)
    return torch.block_diag(pose, modes) if modes.numel() else torch.cat([pose, pose.new_zeros(size - POSE, POSE)])


def _evidence(seen: PoseStatistics, parameters: Tensor) -> Tensor:
    """Return the log-evidence of all images: of changes with the covariance F F^T, against none."""
    F = _factor(parameters, seen.h.shape[1])
    factor = torch.linalg.cholesky(torch.eye(F.shape[1], dtype=F.dtype) + F.T @ seen.J @ F)
    pulled = torch.linalg.solve_triangular(factor, (seen.h @ F)[..., None], upper=False)
    return pulled.square().sum() / 2 - factor.diagonal(dim1=1, dim2=2).log().sum()


def _largest(
    seen: PoseStatistics, start: np.ndarray, fixed: dict[int, float] | None = None
) -> tuple[np.ndarray, float]:
    """Return the parameters of the largest evidence, some of them `fixed`, and the evidence."""

    def lost(values: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(values, requires_grad=True)
        negative = -_evidence(seen, parameters)
        (slope,) = torch.autograd.grad(negative, parameters)
        return float(negative.detach()), slope.numpy()

    bounds = [*zip(np.log(_LEAST), np.log(_LARGEST), strict=True), *([(-10.0, 10.0)] * (len(start) - 2))]
    for place, value in (fixed or {}).items():
        bounds[place] = (value, value)
    start = np.clip(start, *np.transpose(bounds))
    result = minimize(lost, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 150})
    return result.x, -float(result.fun)


def _most_likely(seen: PoseStatistics, parameters: np.ndarray) -> Tensor:
    """Return the most likely change (m, 5) of each pose, without their common rotation."""
    F = _factor(torch.as_tensor(parameters), seen.h.shape[1])
    inner = torch.eye(F.shape[1], dtype=F.dtype) + F.T @ seen.J @ F
    changes = torch.linalg.solve(inner, (seen.h @ F)[..., None])[..., 0] @ F[:POSE].T
    changes[:, :3] -= changes[:, :3].mean(0)
    return changes
