"""Shaded pictures of density maps, without a GPU or a browser: an orthographic ray caster for isosurfaces.

A ray per pixel walks from the viewer through the map and stops where the density first reaches the contour, found
between two samples by linear interpolation. The surface's normal there is minus the gradient of the density.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import grid_sample

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import fourier_padded

GREY, BLUE, ORANGE = (0.74, 0.76, 0.79), (0.0, 0.447, 0.698), (0.902, 0.624, 0.0)
"""Colours of a surface, of density gained and of density lost (RGB from 0 to 1; told apart by the colour-blind)."""

_LIGHT = torch.tensor([-0.42, 0.50, 0.76])  # right, up, towards the viewer: from the upper left, as in drawings
_AMBIENT, _FOG = 0.38, 0.40
_FINE = 72  # voxels along an edge that the map is refined to, at least


class SurfaceHits(NamedTuple):
    """Where the rays of a picture meet the contour.

    Attributes
    ----------
    hit : (H, H) bool
        True where the ray meets the surface.
    position : (H, H, 3) float32
        Offset of the first crossing from the centre of the map, voxels, along the right, up and towards-the-viewer
        axes of the view; zero where nothing was hit.
    normal : (H, H, 3) float32
        Unit normal in the same axes, pointing out of the density.
    """

    hit: Tensor
    position: Tensor
    normal: Tensor


def view_from(azimuth: float = 0.0, elevation: float = 0.0) -> Tensor:
    """Axes of a view, (3, 3): rows point right, up and towards the viewer, in xyz.

    Zero angles look down the z axis with x to the right and y up, as ChimeraX does on opening a map. A positive
    `azimuth` (degrees) shows more of the molecule's right side, a positive `elevation` (degrees) more of its top.
    """
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    right = (np.cos(a), 0.0, -np.sin(a))
    towards = (np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e))
    return torch.tensor(np.array([right, np.cross(towards, right), towards]), dtype=torch.float32)


def contour_level(maps: ArrayLike | Tensor, sigma: float = 2.5) -> float:
    """One contour for maps (..., D, D, D): `sigma` standard deviations above the mean of all their voxels."""
    values = torch.as_tensor(maps).double()
    return float(values.mean() + sigma * values.std())


def automatic_sigma(maps: ArrayLike | Tensor) -> float:
    """The contour of `contour_level` that best parts the voxels of maps (..., D, D, D) into particle and solvent.

    Otsu's threshold (1979), which makes the variance between the two classes largest; unlike a fixed number of
    standard deviations it does not depend on how much of the box is empty.
    """
    values = torch.as_tensor(maps).double().flatten().numpy()
    counts, edges = np.histogram(np.minimum(values, np.quantile(values, 0.999)), bins=256)
    centres, below = (edges[1:] + edges[:-1]) / 2, counts.cumsum()[:-1]
    sums, above = (counts * centres).cumsum(), len(values) - below
    between = np.square(sums[-1] * below / len(values) - sums[:-1]) / np.maximum(below * above, 1)
    return float((edges[1 + between.argmax()] - values.mean()) / max(values.std(), 1e-300))


def surface_hits(volume: ArrayLike | Tensor, level: float, size: int = 240, view: Tensor | None = None) -> SurfaceHits:
    """First crossings of the contour along parallel rays, one per pixel of a picture as wide as the map.

    Parameters
    ----------
    volume : (D, D, D) float
        Map, zyx.
    level : float
        Contour, in the map's unit.
    size : int
        H, pixels; the picture spans D voxels.
    view : (3, 3), optional
        See `view_from`.

    Notes
    -----
    Maps smaller than 72 voxels are first refined by zero-padding their transform, which adds no information but lets
    straight lines between samples follow the curve. What lies more than D/2 from the centre in depth is not drawn.
    """
    fine, factor = _refined(_require_map(volume))
    view = view_from() if view is None else view
    count = fine.shape[-1]
    # the ray's coordinates, in fine voxels, along right and up; row 0 is the top of the picture
    across = (torch.arange(size) + 0.5) * count / size - count / 2
    up, right = torch.meshgrid(-across, across, indexing="ij")
    depths = torch.arange(count, -1, -1) - count / 2
    depth, previous = torch.full((size, size), torch.nan), torch.full((size, size), -torch.inf)
    for c in depths.tolist():
        value = _sample(fine[None], torch.stack([right, up, torch.full_like(up, c)], dim=-1) @ view)[..., 0]
        crossing = depth.isnan() & (value >= level)
        back = ((value - level) / (value - previous)).nan_to_num(0.0)
        depth = torch.where(crossing, c + back, depth)
        previous = value
    hit = ~depth.isnan()
    position = torch.where(hit[..., None], torch.stack([right, up, depth], dim=-1), 0.0)
    slope = torch.stack(torch.gradient(fine)[::-1])
    normal = -_sample(slope, position @ view) @ view.T
    normal = torch.where(hit[..., None], normal / normal.norm(dim=-1, keepdim=True).clamp_min(1e-12), 0.0)
    return SurfaceHits(hit, position / factor, normal)


def render_surface(
    volume: ArrayLike | Tensor,
    level: float,
    *,
    size: int = 240,
    view: Tensor | None = None,
    colour: tuple[float, float, float] = GREY,
    difference: ArrayLike | Tensor | None = None,
) -> np.ndarray:
    """Shaded picture of the surface where a map crosses a contour.

    Parameters
    ----------
    volume, level, size, view
        As in `surface_hits`.
    colour : tuple
        RGB from 0 to 1.
    difference : (D, D, D) float, optional
        Map minus a reference, in the map's unit: where it just below the surface nears +`level` the surface turns blue
        (gained), where it nears -`level` orange (lost).

    Returns
    -------
    (size, size, 3) float32
        RGB from 0 to 1 on white.
    """
    view = view_from() if view is None else view
    hits = surface_hits(volume, level, size, view)
    paint = torch.tensor(colour).expand(size, size, 3)
    if difference is not None:
        below = hits.position - hits.normal  # one voxel under the surface
        amount = _sample(_require_map(difference)[None], below @ view) / abs(level)
        for sign, target in ((1, BLUE), (-1, ORANGE)):
            strength = (1.5 * sign * amount - 0.3).clamp(0, 1)
            paint = paint + strength * (torch.tensor(target) - paint)
    light = _LIGHT / _LIGHT.norm()
    shade = _AMBIENT + (1 - _AMBIENT) * (hits.normal @ light).clamp_min(0)
    distance = 0.5 - hits.position[..., 2] / np.shape(volume)[-1]  # 0 at the front of the box, 1 at its back
    fog = _FOG * distance.clamp(0, 1)[..., None]
    picture = paint * shade[..., None] * (1 - fog) + fog
    return torch.where(hits.hit[..., None], picture, 1.0).clamp(0, 1).numpy()


def _require_map(volume: ArrayLike | Tensor) -> Tensor:
    volume = torch.as_tensor(volume).detach().float().cpu()
    if volume.ndim != 3 or len(set(volume.shape)) != 1 or volume.shape[0] % 2:
        found, remedy = f"shape {tuple(volume.shape)}", "Give one map at a time, a cube of even size."
        raise InputError("map to draw", found, "(D, D, D)", remedy)
    return volume


def _refined(volume: Tensor) -> tuple[Tensor, int]:
    """The map on a grid finer by an integer factor, by zero-padding of its transform, and the factor."""
    size = volume.shape[-1]
    factor = -(-_FINE // size)
    return (volume if factor == 1 else fourier_padded(volume, factor * size)), factor


def _sample(fields: Tensor, points: Tensor) -> Tensor:
    """Trilinear values (H, W, F) of fields (F, D, D, D) at voxel offsets (H, W, 3) from the centre, xyz; 0 outside."""
    size = fields.shape[-1]
    place = (points + size // 2) * (2 / (size - 1)) - 1
    values = grid_sample(fields[None], place[None, None], align_corners=True)
    return values[0, :, 0].permute(1, 2, 0)
