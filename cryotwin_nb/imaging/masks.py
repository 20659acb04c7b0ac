"""Soft masks for maps: a ball, or a shape derived from a map."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import grid


def spherical_mask(box_size: int, radius: float, width: float) -> Tensor:
    """Soft ball (D, D, D): 1 inside `radius` voxels, a raised cosine over the next `width` voxels, then 0."""
    return soft_edge(grid(box_size, 3).float().norm(dim=-1) - radius, width)


def map_mask(
    volume: Tensor | np.ndarray, level: float | None = None, extend: float = 2.0, width: float = 3.0
) -> Tensor:
    """Soft mask (D, D, D) float32 around the largest connected piece of a map above a level.

    Parameters
    ----------
    volume : (D, D, D) float
        Map, zyx; smooth it first if it is noisy.
    level : float, optional
        Density of the surface; by default a tenth of the map's 99.9th percentile.
    extend : float
        Distance around the surface at which the mask stays 1, voxels.
    width : float
        Width of the raised cosine beyond that distance, over which the mask falls to 0, voxels.

    Raises
    ------
    InputError
        If no voxel is above the level.
    """
    from scipy import ndimage  # slow to import, not needed to load a model

    values = torch.as_tensor(volume).detach().cpu().numpy()
    level = 0.1 * float(np.quantile(values, 0.999)) if level is None else level
    pieces, count = ndimage.label(values > level)
    if count == 0:
        found = f"no voxel above {level:.3g}"
        raise InputError("map_mask", found, "a level below the maximum of the map", "Lower the level.")
    largest = pieces == np.argmax(np.bincount(pieces.flat)[1:]) + 1
    distance = ndimage.distance_transform_edt(~largest)
    return soft_edge(torch.as_tensor(distance).float() - extend, width)


def soft_edge(distance: Tensor, width: float) -> Tensor:
    """1 where `distance` is at most 0, a raised cosine up to `width`, then 0."""
    return 0.5 + 0.5 * torch.cos(torch.pi * (distance / max(width, 1e-6)).clamp(0, 1))
