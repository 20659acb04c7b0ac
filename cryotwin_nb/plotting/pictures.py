"""Galleries of images and maps, each with a scale bar in Å."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke

from cryotwin_nb.errors import InputError
from cryotwin_nb.plotting.rendering import contour_level, render_surface, view_from
from cryotwin_nb.plotting.style import GREY, PLAIN, Array, as_numpy, plain, styled


@styled
def particle_gallery(images: Array, pixel_size: float, labels: Sequence | None = None, n: int = 12) -> Figure:
    """Show particle images on a common grey scale.

    Parameters
    ----------
    images : (m, D, D) float
        Particle images.
    pixel_size : float
        Pixel size, Å.
    labels : sequence of m, optional
        Titles of the images.
    n : int
        Maximum number of images shown, starting with the first.
    """
    pictures = as_numpy(images[:n])
    if pictures.ndim != 3 or not len(pictures):
        raise InputError("images", f"shape {pictures.shape}", "(m, D, D)", "Pass particles.images(range(12)).")
    columns = min(6, len(pictures))
    figure, panels = _panels(-(-len(pictures) // columns), columns, 1.35, 1.35 if labels is None else 1.55)
    low, high = np.percentile(pictures, (0.5, 99.5))
    for panel, picture in zip(panels.flat, pictures):
        panel.imshow(picture, cmap="gray", vmin=low, vmax=high, origin="lower")
    _titles(panels, labels, len(pictures) if labels is not None else 0)
    scale_bar(panels[0, 0], pixel_size, "white")
    return figure


@styled
def map_montage(
    maps: Array | Sequence[Array],
    voxel_size: float,
    titles: Sequence | None = None,
    *,
    level: float | None = None,
    sigma: float = 2.0,
    reference: Array | str | None = None,
    view: tuple[float, float] = (0.0, 0.0),
    columns: int = 6,
    size: int = 240,
) -> Figure:
    """Show the surfaces of several maps at one common contour level, cropped to the molecule.

    Parameters
    ----------
    maps : (m, D, D, D) float
        Density maps, zyx, all in the same unit.
    voxel_size : float
        Voxel size, Å.
    titles : sequence of m, optional
        Titles of the maps; by default 0 to m-1.
    level : float, optional
        Contour level in the unit of the maps; by default determined by `sigma`.
    sigma : float
        Contour level in standard deviations above the mean, both computed over the voxels of all maps. Ignored if
        `level` is given.
    reference : (D, D, D) float, "first" or "previous", optional
        Map to compare with. Each surface is coloured blue where its map has gained density relative to the
        reference and orange where it has lost density.
    view : (float, float)
        Azimuth and elevation in degrees; see `view_from`.
    columns : int
        Maximum number of maps per row.
    size : int
        Edge length of the pictures before cropping, pixels.
    """
    cubes = _cubes(maps)
    level = contour_level(cubes, sigma) if level is None else level
    pictures = [
        render_surface(m, level, size=size, view=view_from(*view), difference=None if r is None else m - r)
        for m, r in zip(cubes, _references(cubes, reference))
    ]
    rows, cols = _filled(np.stack(pictures).min(axis=(0, 3)) < 1)
    columns = min(columns, len(cubes))
    aspect = (rows.stop - rows.start) / (cols.stop - cols.start)
    figure, panels = _panels(-(-len(cubes) // columns), columns, 1.4, 1.4 * aspect + 0.25)
    for panel, picture in zip(panels.flat, pictures):
        panel.imshow(picture[rows, cols])
    _titles(panels, titles, len(cubes))
    scale_bar(panels[0, 0], voxel_size * cubes.shape[-1] / size)
    note = f"contour {(level - cubes.mean()) / cubes.std():.1f} σ above the mean"
    if reference is not None:
        compared = reference if isinstance(reference, str) else "reference"
        note += f"; blue: gained, orange: lost relative to the {compared} map"
    figure.supxlabel(note, size=8, color=GREY)
    return figure


@styled
def central_slices(maps: Array | Sequence[Array], voxel_size: float, titles: Sequence | None = None) -> Figure:
    """Show the three central sections of maps, one column per map, on a common grey scale.

    Parameters
    ----------
    maps : (m, D, D, D) float
        Density maps, zyx, all in the same unit.
    voxel_size : float
        Voxel size, Å.
    titles : sequence of m, optional
        Titles of the maps; by default 0 to m-1.
    """
    cubes = _cubes(maps)
    middle = cubes.shape[-1] // 2
    figure, panels = _panels(3, len(cubes), 1.5, 1.5)
    sections = {"xy": cubes[:, middle], "xz": cubes[:, :, middle], "yz": cubes[:, :, :, middle]}
    low, high = np.percentile(np.stack(list(sections.values())), (0.5, 99.8))
    for row, (name, pictures) in zip(panels, sections.items()):
        for panel, picture in zip(row, pictures):
            panel.imshow(picture, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="bicubic")
        row[0].text(-0.05, 0.5, name, transform=row[0].transAxes, ha="right", va="center")
    _titles(panels, titles, len(cubes))
    scale_bar(panels[0, 0], voxel_size, "white")
    return figure


def scale_bar(ax: Axes, pixel_size: float, colour: str = "black") -> Rectangle:
    """Draw a scale bar of round length in Å (1, 2 or 5 times a power of ten) at the lower left of an image.

    Parameters
    ----------
    ax : Axes
        Axes of an image drawn by `imshow`, with one data unit per pixel.
    pixel_size : float
        Pixel size of that image, Å.
    colour : str
        Colour of the bar. The outline is white if the bar is "black", and black otherwise.
    """
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    width, height = right - left, top - bottom
    most = 0.4 * width * pixel_size
    power = 10.0 ** np.floor(np.log10(most))
    length = power * max(f for f in (1, 2, 5) if f * power <= most)
    start, other = left + 0.06 * width, "white" if colour == "black" else "black"
    outline: list[AbstractPathEffect] = [withStroke(linewidth=2, foreground=other)]
    bar = Rectangle((start, bottom + 0.05 * height), length / pixel_size, 0.022 * height, color=colour, lw=0)
    ax.add_patch(bar).set_path_effects(outline)
    text = ax.text(start, bottom + 0.09 * height, f"{length:g} Å", color=colour, fontsize=8, va="bottom")
    text.set_path_effects(outline)
    return bar


def _panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Create a figure of empty panels (rows, columns), `width` x `height` inches each."""
    size = (width * columns, height * rows)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    figure, panels = plt.subplots(rows, columns, figsize=size, squeeze=False, layout=layout)
    for panel in panels.flat:
        panel.axis("off")
    return figure, panels


def _titles(panels: np.ndarray, titles: Sequence | None, n: int) -> None:
    """Set the titles of the first n panels, by default to their numbers."""
    for i, panel in zip(range(n), panels.flat):
        panel.set_title(plain(i if titles is None else titles[i]), fontsize=9, pad=2, **PLAIN)


def _cubes(maps: Any) -> np.ndarray:
    """Convert one or more maps to (m, D, D, D)."""
    maps = as_numpy(maps)
    maps = maps[None] if maps.ndim == 3 else maps
    if maps.ndim != 4 or len(set(maps.shape[1:])) != 1 or not len(maps):
        raise InputError("maps", f"shape {maps.shape}", "(m, D, D, D)", "Pass model.volumes(z), or one of its maps.")
    return maps


def _references(cubes: np.ndarray, reference: Any) -> list[np.ndarray | None]:
    """Return, for each map, the map to compare it with."""
    if reference is None:
        return [None] * len(cubes)
    if not isinstance(reference, str):
        return [as_numpy(reference)] * len(cubes)
    if reference not in ("first", "previous"):
        raise InputError("reference", repr(reference), "'first', 'previous' or a map", "Pass one of these.")
    return [cubes[0 if reference == "first" else max(0, i - 1)] for i in range(len(cubes))]


def _filled(used: np.ndarray) -> tuple[slice, slice]:
    """Return rows and columns around the used pixels of a picture (H, H), with a margin; all if it is empty."""
    spans, margin = [], round(0.06 * len(used))
    for axis in (1, 0):
        where = np.flatnonzero(used.any(axis))
        low, high = (where[0], where[-1]) if len(where) else (0, len(used))
        spans.append(slice(max(0, low - margin), min(len(used), high + margin + 1)))
    return spans[0], spans[1]
