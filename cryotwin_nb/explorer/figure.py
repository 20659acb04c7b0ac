"""The explorer's view as a matplotlib figure, for publication and for saved notebooks, which have no kernel."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase

from cryotwin_nb.explorer.view import View
from cryotwin_nb.plotting.marks import draw_path, draw_stars
from cryotwin_nb.plotting.pathways import path_profile
from cryotwin_nb.plotting.pictures import _filled, scale_bar
from cryotwin_nb.plotting.rendering import render_surface
from cryotwin_nb.plotting.style import COLOURS, HALO, PLAIN, plain, plain_legend, styled

_MOST_DOTS = 50_000


@styled
def draw_view(view: View, pixels: int = 360) -> Figure:
    """Draw the scatter plot with the path, the map at the current step (`pixels` wide) and the profile."""
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
    if view.voxel_size is not None:
        scale_bar(right, view.voxel_size * view.maps.shape[-1] / pixels)
    right.set_title(f"step {view.step} of {len(view.path.latents) - 1}, contour {view.sigma:.1f} σ")
    note = "since the start: blue gained, orange lost"
    right.text(0.5, -0.02, note, transform=right.transAxes, ha="center", size=8)
    if view.profile is not None:
        path_profile(view.profile, figure=lower)
        if view.support is not None:
            _draw_resolutions(lower.axes[-1], view.profile.step_position, view.support)
        for panel in lower.axes[:2]:
            panel.axvline(view.profile.step_position[view.step], color=COLOURS[3], lw=2, zorder=0)
    return figure


def picture(view: View, colours: int = 128) -> bytes:
    """Return the figure of `draw_view` as a PNG with few colours, about 50 kB."""
    from PIL import Image  # comes with matplotlib

    drawn = io.BytesIO()
    draw_view(view, 240).savefig(drawn, format="png", dpi=90)
    small = io.BytesIO()
    few = Image.open(drawn).convert("RGB").quantize(colours, method=Image.Quantize.MAXCOVERAGE, kmeans=3)
    few.save(small, format="png", optimize=True)
    return small.getvalue()


def _draw_resolutions(ax: Axes, at: np.ndarray, support: Any) -> None:
    """Plot the half-map resolutions above the bars on a second axis, with the finest on top."""
    resolution = np.asarray(support.resolution, float)
    known = resolution[np.isfinite(resolution)]
    if not len(known):
        return
    ax.set_ylim(top=2.4 * ax.get_ylim()[1])
    twin = ax.twinx()
    twin.plot(at, np.where(np.isfinite(resolution), resolution, np.nan), "D--", ms=4, lw=1, color=COLOURS[1])
    fine, coarse = known.min(), known.max()
    span = max(coarse - fine, 1.0)
    twin.set_ylim(coarse + 1.1 * span, fine - 0.2 * span)
    twin.set_yticks([coarse, fine], [f"{coarse:.1f}", f"{fine:.1f}"])
    twin.spines["right"].set_visible(True)
    twin.set_ylabel("half maps (Å)", color=COLOURS[1])


def _draw_plane(ax: Axes, view: View) -> None:
    plane, order = view.plane, view.colouring.order
    order = order[:: -(-len(order) // _MOST_DOTS)]
    (x, y), rgb = view.points[order].T, view.colouring.rgb[order] / 255
    ax.scatter(x, y, c=rgb, s=4, alpha=min(1, max(0.2, 4000 / len(order))), linewidths=0, rasterized=True)
    draw_stars(ax, view.means, view.weights, 0 if view.names else 6)
    heaviest = {name: c for c, name in sorted(view.names.items(), key=lambda item: view.weights[item[0]])}
    for name, c in heaviest.items():
        style: dict[str, Any] = {"textcoords": "offset points", "zorder": 9, "path_effects": HALO}
        ax.annotate(plain(name), view.means[c], (5, 3), **style, **PLAIN)
    if view.path is not None:
        draw_path(ax, view.path, plane.place, COLOURS[6])
        x, y = plane.place(view.path.latents[view.step][None])[0]
        ax.scatter(x, y, s=130, color=COLOURS[3], edgecolors="black", zorder=10)
    ax.set(xlabel=plane.axes[0] or "embedding", ylabel=plane.axes[1], aspect="equal")
    if not any(plane.axes):
        ax.set(xticks=[], yticks=[])
    legend = view.colouring.legend
    title = f"colour: {legend['title']}"
    if "ramp" in legend:
        title += f", {legend['low']} (dark) to {legend['high']} (bright)"
    if "entries" in legend:
        handles, labels = ax.get_legend_handles_labels()
        for name, colour in legend["entries"]:
            handles, labels = [*handles, ax.scatter([], [], color=colour, s=12)], [*labels, name]
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
        plain_legend(ax, handles, labels, fontsize=7, handletextpad=0.1, borderpad=0, **place)
    ax.set_title(plain(title), size=8, **PLAIN)
