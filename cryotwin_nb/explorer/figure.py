"""The explorer's view as a matplotlib figure: for papers, and for readers of a saved notebook, who have no kernel."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase
from torch import Tensor

from cryotwin_nb.explorer.planes import Colouring, Plane
from cryotwin_nb.pathways import PathProfile
from cryotwin_nb.plotting.latents import draw_path, draw_stars
from cryotwin_nb.plotting.pathways import path_profile
from cryotwin_nb.plotting.pictures import _filled, scale_bar
from cryotwin_nb.plotting.style import COLOURS, HALO, styled
from cryotwin_nb.rendering import render_surface
from cryotwin_nb.ridgeline import Pathway


@dataclass(frozen=True, eq=False)
class View:
    """What the explorer shows.

    Attributes
    ----------
    plane, colouring
        Of the scatter.
    weights : (C,) float
        Of the mixture.
    names : mapping of component to name
    path, profile, maps : optional
        Where a path was computed.
    step : int
    level : float
        Contour, in the maps' unit.
    sigma : float
        The same in standard deviations.
    voxel_size : float
        Å.
    """

    plane: Plane
    colouring: Colouring
    weights: np.ndarray
    names: Mapping[int, str]
    path: Pathway | None
    profile: PathProfile | None
    maps: Tensor | None
    step: int
    level: float
    sigma: float
    voxel_size: float


@styled
def draw_view(view: View, pixels: int = 360) -> Figure:
    """Scatter with path, map of the step (as drawn `pixels` wide), and profile."""
    with_path = view.path is not None
    figure = Figure(figsize=(9.6, 8.0 if with_path else 4.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    upper: FigureBase = figure
    if with_path:
        upper, lower = figure.subfigures(2, 1, height_ratios=(1.25, 1))  # type: ignore[misc]
    left, right = upper.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_plane(left, view)
    right.axis("off")
    if view.path is None or view.maps is None:
        right.text(0.5, 0.5, "Choose two stars\nand compute a path.", ha="center", va="center", color="0.4")
        return figure
    change = view.maps[view.step] - view.maps[0]
    drawn = render_surface(view.maps[view.step], view.level, size=pixels, difference=change)
    rows, columns = _filled(drawn.min(axis=-1) < 1)
    right.imshow(drawn[rows, columns])
    scale_bar(right, view.voxel_size * view.maps.shape[-1] / pixels)
    right.set_title(f"step {view.step} of {len(view.path.latents) - 1}, contour {view.sigma:.1f} σ")
    right.text(0.5, -0.02, "blue: gained since the start, orange: lost", transform=right.transAxes, ha="center", size=8)
    if view.profile is not None:
        path_profile(view.profile, figure=lower)
        for panel in lower.axes:
            panel.axvline(view.profile.step_position[view.step], color=COLOURS[3], lw=2, zorder=0)
    return figure


def picture(view: View, colours: int = 128) -> bytes:
    """`draw_view` as a PNG of few colours, about 50 kB."""
    from PIL import Image  # comes with matplotlib

    drawn = io.BytesIO()
    draw_view(view, 240).savefig(drawn, format="png", dpi=90)
    small = io.BytesIO()
    few = Image.open(drawn).convert("RGB").quantize(colours, method=Image.Quantize.MAXCOVERAGE, kmeans=3)
    few.save(small, format="png", optimize=True)
    return small.getvalue()


def _draw_plane(ax, view: View) -> None:
    plane, order = view.plane, view.colouring.order
    ax.scatter(*plane.points[order].T, c=view.colouring.rgb[order] / 255, s=4, linewidths=0, rasterized=True)
    draw_stars(ax, plane.means, view.weights, 0 if view.names else 6)
    heaviest = {name: c for c, name in sorted(view.names.items(), key=lambda item: view.weights[item[0]])}
    for name, c in heaviest.items():
        ax.annotate(name, plane.means[c], (5, 3), textcoords="offset points", zorder=9, path_effects=HALO)
    if view.path is not None:
        draw_path(ax, view.path, plane.place, COLOURS[6])
        here = plane.place(view.path.latents[view.step][None])[0]
        ax.scatter(*here, s=130, color=COLOURS[3], edgecolors="black", zorder=10)
    ax.set(xlabel=plane.axes[0] or "embedding", ylabel=plane.axes[1], aspect="equal")
    if not any(plane.axes):
        ax.set(xticks=[], yticks=[])
    legend = view.colouring.legend
    title = f"colour: {legend['title']}"
    if "ramp" in legend:
        title += f", {legend['low']} (dark) to {legend['high']} (bright)"
    for name, colour in legend.get("entries", []):
        ax.scatter([], [], color=colour, s=12, label=name)
    if "entries" in legend:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=6, handletextpad=0.1, borderpad=0)
    ax.set_title(title, size=8)
