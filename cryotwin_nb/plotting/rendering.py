"""Orthographic ray caster for isosurfaces: shaded pictures of density maps without a GPU or a browser.

For each pixel, the density is sampled along a ray from the viewer through the map. Linear interpolation between two
samples locates the first point at which the density reaches the contour level. The surface normal points along the
negative density gradient.
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
"""Colours of a surface, of density gained and of density lost (RGB from 0 to 1; safe for colour-blind readers)."""

_LIGHT = torch.tensor([-0.42, 0.50, 0.76])  # right, up, towards the viewer: light from the upper left
_AMBIENT, _FOG = 0.38, 0.40
_FINE = 72  # minimum edge length of the upsampled map, voxels


class SurfaceHits(NamedTuple):
    """Intersections of the rays of a picture with the isosurface.

    Attributes
    ----------
    hit : (H, H) bool
        True where the ray intersects the surface.
    position : (H, H, 3) float32
        Offset of the first intersection from the centre of the map, voxels, along the right, up and
        towards-the-viewer axes of the view; zero if there is no intersection.
    normal : (H, H, 3) float32
        Unit normal along the same axes, pointing out of the density; zero if there is no intersection.
    """

    hit: Tensor
    position: Tensor
    normal: Tensor


def view_from(azimuth: float = 0.0, elevation: float = 0.0) -> Tensor:
    """Return the axes of a view, (3, 3): rows point right, up and towards the viewer, in xyz.

    At zero angles, the view is down the z axis with x to the right and y up, as when ChimeraX opens a map.

    Parameters
    ----------
    azimuth : float
        Degrees; positive values show more of the molecule's right side.
    elevation : float
        Degrees; positive values show more of the molecule's top.
    """
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    right = (np.cos(a), 0.0, -np.sin(a))
    towards = (np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e))
    return torch.tensor(np.array([right, np.cross(towards, right), towards]), dtype=torch.float32)


def contour_level(maps: ArrayLike | Tensor, sigma: float = 2.5) -> float:
    """Return a common contour level for several maps: mean plus `sigma` standard deviations over all their voxels.

    Parameters
    ----------
    maps : (..., D, D, D) float
        Density maps, all in the same unit.
    sigma : float
        Number of standard deviations.
    """
    values = torch.as_tensor(maps).double()
    return float(values.mean() + sigma * values.std())


def automatic_sigma(maps: ArrayLike | Tensor) -> float:
    """Return the `sigma` for `contour_level` that best separates particle from solvent in maps (..., D, D, D).

    This is Otsu's threshold (1979), which maximises the variance between the two classes. Unlike a fixed number of
    standard deviations, it does not depend on how much of the box is empty.
    """
    values = torch.as_tensor(maps).double().flatten().numpy()
    counts, edges = np.histogram(np.minimum(values, np.quantile(values, 0.999)), bins=256)
    centres, below = (edges[1:] + edges[:-1]) / 2, counts.cumsum()[:-1]
    sums, above = (counts * centres).cumsum(), len(values) - below
    between = np.square(sums[-1] * below / len(values) - sums[:-1]) / np.maximum(below * above, 1)
    return float((edges[1 + between.argmax()] - values.mean()) / max(values.std(), 1e-300))


def surface_hits(volume: ArrayLike | Tensor, level: float, size: int = 240, view: Tensor | None = None) -> SurfaceHits:
    """Find the first crossing of the contour level along each of a set of parallel rays, one per pixel.

    Parameters
    ----------
    volume : (D, D, D) float
        Density map, zyx.
    level : float
        Contour level in the unit of the map.
    size : int
        Edge length H of the picture, pixels; it spans D voxels.
    view : (3, 3) float, optional
        Axes of the view; by default the result of `view_from()`.

    Notes
    -----
    Maps with fewer than 72 voxels per edge are first upsampled by zero-padding their Fourier transform. This adds no
    information, but makes linear interpolation between samples accurate. Density more than D/2 voxels in front of
    or behind the centre is not drawn.
    """
    fine, factor = _upsampled(_require_map(volume))
    view = view_from() if view is None else view
    count = fine.shape[-1]
    # coordinates of the rays along right and up, in upsampled voxels; row 0 is the top of the picture
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
    """Render a shaded picture of the isosurface of a map.

    Parameters
    ----------
    volume : (D, D, D) float
        Density map, zyx.
    level : float
        Contour level in the unit of the map.
    size : int
        Edge length of the picture, pixels; it spans D voxels.
    view : (3, 3) float, optional
        Axes of the view; by default the result of `view_from()`.
    colour : (float, float, float)
        Colour of the surface, RGB from 0 to 1.
    difference : (D, D, D) float, optional
        Map minus a reference, in the unit of the map, sampled one voxel below the surface. The surface is blue
        where the difference approaches +`level` (density gained) and orange where it approaches -`level` (density
        lost).

    Returns
    -------
    (size, size, 3) float32
        RGB from 0 to 1, on a white background.
    """
    view = view_from() if view is None else view
    hits = surface_hits(volume, level, size, view)
    paint = torch.tensor(colour).expand(size, size, 3)
    if difference is not None:
        below = hits.position - hits.normal  # one voxel below the surface
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
        found, remedy = f"shape {tuple(volume.shape)}", "Pass a single cubic map with an even edge length."
        raise InputError("map to draw", found, "(D, D, D)", remedy)
    return volume


def _upsampled(volume: Tensor) -> tuple[Tensor, int]:
    """Upsample a map by an integer factor by zero-padding its Fourier transform; return the map and the factor."""
    size = volume.shape[-1]
    factor = -(-_FINE // size)
    return (volume if factor == 1 else fourier_padded(volume, factor * size)), factor


def _sample(fields: Tensor, points: Tensor) -> Tensor:
    """Interpolate fields (F, D, D, D) at voxel offsets (H, W, 3) from the centre, xyz: (H, W, F), 0 outside the box."""
    size = fields.shape[-1]
    place = (points + size // 2) * (2 / (size - 1)) - 1
    values = grid_sample(fields[None], place[None, None], align_corners=True)
    return values[0, :, 0].permute(1, 2, 0)
