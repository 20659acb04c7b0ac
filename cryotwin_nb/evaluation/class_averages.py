"""Average images of states along the main viewing directions, like 2-D class averages, for a person to judge.

No map and no decoder is involved: the images of a state that share a viewing direction are centred, turned to the same
in-plane angle by their poses, and averaged with their CTFs as weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation
from torch import Tensor

from cryotwin_nb.errors import InputError, guarded, whole
from cryotwin_nb.imaging.fourier import fft2, grid, ifft2
from cryotwin_nb.particles.formation import ImageFormation
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.streaming import batches
from cryotwin_nb.reconstruction.halves import measured

_NEAR = 20.0  # degrees from a viewing direction within which images are averaged
_CANDIDATES = 500  # directions among which the main ones are chosen


@dataclass(frozen=True, eq=False)
class ClassAverages:
    """Average images by state and viewing direction.

    Attributes
    ----------
    images : (S, V, D, D) float32
        Average images, yx, corrected for the CTF, light on dark; image grey values. 0 if there are no images.
    counts : (S, V) int64
        Number of images in each average.
    rotations : (V, 3, 3) float32
        Poses of the averages.
    names : list of str
        Names of the states.
    pixel_size : float
        Pixel size, Å.
    """

    images: np.ndarray
    counts: np.ndarray
    rotations: np.ndarray
    names: list[str]
    pixel_size: float


@guarded()
def class_averages(
    particles: Particles,
    labels: ArrayLike,
    n_views: int = 6,
    *,
    imaging: ImageFormation | None = None,
    progress: bool = False,
) -> ClassAverages:
    """Average the images of each state along the viewing directions that have the most images.

    Parameters
    ----------
    particles : Particles
        Particles with poses and CTF.
    labels : (n,) int or str
        State of each image; each value is one row of averages.
    n_views : int
        Number of viewing directions, at least 20 degrees times two apart.
    imaging : ImageFormation, optional
        Measured image formation, such as `model.imaging`; by default the noise is measured on the particles.
    progress : bool
        Show a progress bar.

    Returns
    -------
    ClassAverages
        Images within 20 degrees of each direction, averaged for each state.

    Raises
    ------
    InputError
        If there is not one label for each image, or `n_views` is not a positive integer.

    Notes
    -----
    With whitened images X and transfer functions A = CTF / sigma, an average is sum A X / (sum A^2 + c) in Fourier
    space, where c is a tenth of the largest value of sum A^2: frequencies at which few CTFs transfer signal are not
    amplified.

    Examples
    --------
    >>> averages = ct.evaluation.class_averages(particles, [0] * len(particles), n_views=2)
    >>> averages.images.shape
    (1, 2, 32, 32)
    """
    n_views = whole("n_views", n_views, "Pass the number of viewing directions.")
    names, label = np.unique(np.asarray(labels), return_inverse=True)
    if np.shape(labels) != (len(particles),):
        found, expected = f"labels of shape {np.shape(labels)}", f"{len(particles)}, one for each image"
        raise InputError("class_averages", found, expected, "Pass the state of each image, from `assign`, for example.")
    imaging = measured(particles, 0.4, imaging)
    rotations = particles.require_views()[0]
    views = main_views(rotations[:, :, 2], n_views)
    near = rotations[:, :, 2] @ views[:, :, 2].T
    view = np.where(near.max(1) > np.cos(np.deg2rad(_NEAR)), near.argmax(1), -1)
    shape, rows = (len(names), len(views)), np.flatnonzero(view >= 0)
    place = np.ravel_multi_index((label[rows], view[rows]), shape)
    angles = _in_plane(views[view[rows]], rotations[rows])
    size = particles.box_size
    data, power = torch.zeros(shape[0] * shape[1], size, size), torch.zeros(shape[0] * shape[1], size, size)
    done = 0
    for batch in batches(imaging, particles, 256, "class averages" if progress else None, rows):
        now = slice(done, done + len(batch.data))
        done = now.stop
        where, angle = torch.as_tensor(place[now]), torch.as_tensor(angles[now], dtype=torch.float32)
        matched = ifft2(imaging.plane.scatter(batch.data * batch.transfer)).real
        data.index_add_(0, where, turned(matched.cpu(), angle))
        power.index_add_(0, where, turned(imaging.plane.scatter(batch.transfer.square()).cpu(), angle))
    images = particles.pixel_size * _divided(data, power).view(*shape, size, size).numpy()
    counts = np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
    return ClassAverages(images, counts, views, [str(name) for name in names], particles.pixel_size)


def main_views(directions: np.ndarray, n: int) -> np.ndarray:
    """Return up to n poses (V, 3, 3) float32 along directions (m, 3), apart from each other, with many others near

    The densest of 500 directions is taken first, then the densest of those that share no image with it, and so on.
    """
    chosen = directions[np.linspace(0, len(directions) - 1, min(_CANDIDATES, len(directions))).astype(int)]
    density = (chosen @ directions.T > np.cos(np.deg2rad(_NEAR))).sum(1)
    views: list[np.ndarray] = []
    free = np.ones(len(chosen), bool)
    while free.any() and len(views) < n:
        best = int(np.where(free, density, -1).argmax())
        views.append(chosen[best])
        free &= chosen @ chosen[best] < np.cos(np.deg2rad(2 * _NEAR))
    angles = [[np.arctan2(v[1], v[0]), np.arccos(np.clip(v[2], -1, 1)), 0] for v in views]
    return Rotation.from_euler("ZYZ", angles).as_matrix().astype(np.float32)


def _in_plane(views: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Return the angles (m,) by which images at poses (m, 3, 3) are turned relative to those of views (m, 3, 3)."""
    change = views.transpose(0, 2, 1) @ rotations
    return np.arctan2(change[:, 1, 0] - change[:, 0, 1], change[:, 0, 0] + change[:, 1, 1])


def turned(images: Tensor, angles: Tensor) -> Tensor:
    """Turn images (m, D, D) about their centre D//2 such that poses R Rz(angle) become R; bilinear interpolation."""
    size, (cosine, sine) = images.shape[-1], (angles.cos(), angles.sin())
    x, y = grid(size, 2, images.device).float().unbind(-1)
    there = torch.stack(
        [
            cosine[:, None, None] * x + sine[:, None, None] * y,
            -sine[:, None, None] * x + cosine[:, None, None] * y,
        ],
        dim=-1,
    )
    places = (2 * (there + size // 2) + 1) / size - 1
    return torch.nn.functional.grid_sample(images[:, None], places, align_corners=False)[:, 0]


def _divided(data: Tensor, power: Tensor) -> Tensor:
    """Return CTF-corrected averages (m, D, D) from the sums of A X, as images, and of A^2, in Fourier space."""
    least = 0.1 * power.flatten(1).amax(1)[:, None, None]
    return ifft2(fft2(data) / (power + least).clamp_min(1e-20)).real
