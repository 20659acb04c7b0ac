"""Figures that show how well the images support the maps of a pathway, and where they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cryotwin_nb.plotting.style import COLOURS, GREY, HALO, as_numpy, styled

if TYPE_CHECKING:
    from cryotwin_nb.evaluation.support_result import PathwaySupport

_MOST = 6  # differences drawn, the most significant ones
_VAGUE = 0.2  # standard error above which a share is not shown


@styled
def path_support(support: PathwaySupport, *, figure: FigureBase | None = None) -> FigureBase:
    """Plot the supported resolution, the number of nearby images and the supported amplitude along a path.

    Flagged points are orange, with a cross if no resolution is supported. In the bottom panel, a cross marks a shell
    in which the decoded map has detail that the images do not show; grey marks a shell with too few images to decide.

    Parameters
    ----------
    support : PathwaySupport
        Result of `pathway_support`.
    figure : Figure or SubFigure, optional
        Figure to draw into; by default a new one.
    """
    figure = plt.figure(figsize=(8.4, 6.4)) if figure is None else figure
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 4))
    points = np.arange(len(support.latents))
    flagged = np.isin(points, support.flagged)
    colours = np.where(flagged, COLOURS[1], COLOURS[0])
    _resolution(top, support, points, flagged)
    middle.bar(points, support.n_effective, width=0.7, color=colours)
    for x, count in zip(points, support.n_effective, strict=True):
        middle.annotate(f"{count:.0f}", (x, count), (0, 2), textcoords="offset points", ha="center", size=8)
    middle.set(ylabel="nearby images")
    middle.margins(y=0.25)
    _shares(figure, bottom, support, points)
    bottom.set(xlabel="point of the path", ylabel="spatial frequency (1/Å)", xlim=(-0.5, len(points) - 0.5))
    bottom.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    return figure


def _resolution(panel: Axes, support: PathwaySupport, points: np.ndarray, flagged: np.ndarray) -> None:
    """Plot the supported resolution, with the finest on top; a cross at the bottom marks a point that has none."""
    frequency = 1 / support.resolution  # 0 if no resolution is supported
    none = ~np.isfinite(support.resolution)
    panel.plot(points, np.where(none, np.nan, frequency), color=COLOURS[0])
    for chosen, colour, label in ((~flagged, COLOURS[0], "supported"), (flagged, COLOURS[1], "flagged")):
        rows = points[chosen & ~none]
        panel.plot(rows, frequency[rows], "o", color=colour, label=label)
    panel.plot(points[none], np.zeros(none.sum()), "X", ms=9, color=COLOURS[1], label="no resolution", clip_on=False)
    panel.axhline(support.frequency[-1], color="0.7", lw=0.8, ls=":")
    above: dict[str, Any] = {"xytext": (0, 5), "textcoords": "offset points", "ha": "right", "size": 8, "color": GREY}
    panel.annotate("Nyquist", (len(points) - 0.5, support.frequency[-1]), **above)
    for x, y, value in zip(points, frequency, support.resolution, strict=True):
        if np.isfinite(value):
            offset: dict[str, Any] = {"xytext": (0, -14), "textcoords": "offset points", "path_effects": HALO}
            panel.annotate(f"{value:.0f}", (x, y), ha="center", size=8, **offset)
    panel.set(ylim=(0, 1.2 * support.frequency[-1]), ylabel="resolution supported\nby the images (Å)")
    panel.yaxis.set_major_formatter(FuncFormatter(lambda f, _: f"{1 / f:.0f}" if f > 0 else "none"))
    panel.set_yticks([f for f in panel.get_yticks() if f < 1.01 * support.frequency[-1]])
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)


def _shares(figure: FigureBase, panel: Axes, support: PathwaySupport, points: np.ndarray) -> None:
    """Plot the share of the decoded amplitude supported by the images, for each shell and point."""
    known = support.shell_error < _VAGUE
    shares = np.ma.masked_where(~known, support.shell_support)
    step = support.frequency[0]
    extent = (-0.5, len(points) - 0.5, step / 2, support.frequency[-1] + step / 2)
    panel.set_facecolor("0.88")
    style: dict[str, Any] = {"origin": "lower", "aspect": "auto", "interpolation": "none", "vmin": 0, "vmax": 1}
    image = panel.imshow(shares.T, extent=extent, cmap="cividis", **style)
    beyond = np.argwhere(support.beyond_images)
    panel.plot(beyond[:, 0], support.frequency[beyond[:, 1]], "x", ms=6, mew=1.6, color=COLOURS[1])
    edges = np.repeat(np.append(points - 0.5, len(points) - 0.5), 2)[1:-1]
    line: dict[str, Any] = {"color": "black", "lw": 1.6, "path_effects": HALO}
    panel.plot(edges, np.repeat(1 / support.resolution, 2), label="supported resolution", **line)
    panel.set(ylim=(0, extent[3]))
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    note = "cross: not in the images; grey: too few images"
    panel.text(1, 1.02, note, transform=panel.transAxes, ha="right", size=8, color=GREY)
    bar = figure.colorbar(image, ax=panel, pad=0.01, fraction=0.04, extend="max")
    bar.set_label("share of the decoded\namplitude in the images")


@styled
def density_differences(support: PathwaySupport, *, figure: FigureBase | None = None) -> FigureBase:
    """Show where decoded maps differ from the images: a section of the map of the images through each difference.

    Density that the decoded map shows but the images do not contain is outlined in orange, and density that the images
    contain but the map does not show in blue; a cross marks the centre. Up to six differences are drawn, the most
    significant ones.

    Parameters
    ----------
    support : PathwaySupport
        Result of `pathway_support`.
    figure : Figure or SubFigure, optional
        Figure to draw into; by default a new one.
    """
    chosen = sorted(support.differences, key=lambda difference: -difference.significance)[:_MOST]
    columns = max(1, min(3, len(chosen)))
    rows = max(1, -(-len(chosen) // columns))
    figure = plt.figure(figsize=(2.8 * columns, 3.1 * rows)) if figure is None else figure
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(chosen) :]:
        panel.axis("off")
    if not chosen:
        panels[0].text(0.5, 0.5, "no differences", ha="center", va="center", color=GREY)
    for panel, difference in zip(panels, chosen, strict=False):
        volume, size = as_numpy(support.maps[difference.point]), len(difference.mask)
        x, y, z = difference.centre
        section = int(np.clip(round(z / support.voxel_size) + size // 2, 0, size - 1))
        edge = support.voxel_size * (np.array([0, size]) - size // 2 - 0.5)
        panel.imshow(volume[section], cmap="gray", origin="lower", extent=(*edge, *edge))
        axis = support.voxel_size * (np.arange(size) - size // 2)
        outline = difference.mask.max(0).astype(float)  # of the whole region, in projection
        panel.contour(axis, axis, outline, [0.5], colors=COLOURS[1] if difference.shown else COLOURS[0])
        panel.plot(x, y, "+", ms=9, mew=2, color=COLOURS[1] if difference.shown else COLOURS[0])
        kind = "not in the images" if difference.shown else "not shown"
        panel.set_title(f"point {difference.point}, z {z:+.0f} Å\n{kind}")
        panel.set(xlabel="x (Å)", ylabel="y (Å)")
    return figure
