"""Marks in plots of the latent space: opacity of the dots, stars at the means of the mixture, paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from torch import Tensor

from cryotwin_nb.mixture.points import require_points
from cryotwin_nb.plotting.style import HALO, apart


def opacity(n: int) -> float:
    """Return the opacity of n dots, with which clusters keep their shades and single dots remain visible."""
    return float(np.clip((1500 / max(n, 1)) ** 0.5, 0.15, 0.9))


def draw_stars(ax: Axes, xy: np.ndarray, weights: np.ndarray, n_named: int) -> None:
    """Draw the means as small translucent stars, area by weight; label the `n_named` largest with their index."""
    area = 10 + 70 * weights / weights.max()
    style: dict[str, Any] = {
        "facecolors": (1, 1, 1, 0.6),
        "edgecolors": (0, 0, 0, 0.75),
        "linewidths": 0.6,
        "zorder": 4,
    }
    ax.scatter(xy[:, 0], xy[:, 1], marker="*", s=area, label="means (area: weight)", **style)
    for c in np.argsort(-weights)[:n_named]:
        offset = (2 + 0.4 * area[c] ** 0.5, 2)
        ax.annotate(str(c), xy[c], offset, textcoords="offset points", zorder=6, size=8, path_effects=HALO)


def draw_path(ax: Axes, path: Any, flatten: Callable[[Tensor], np.ndarray], colour: str) -> None:
    """Draw a path as a line with a dot at each step; number the dots where there is room."""
    latents = points_of(getattr(path, "latents", path))
    curve, xy = flatten(points_of(getattr(path, "curve", latents))), flatten(latents)
    halo = [withStroke(linewidth=4, foreground="white")]
    ax.plot(
        curve[:, 0],
        curve[:, 1],
        color=colour,
        lw=2,
        zorder=7,
        path_effects=halo,
        label=getattr(path, "method", "") or "path",
    )
    numbered = apart(xy, 0.045 * np.ptp(np.array(ax.dataLim), axis=0).max())
    for dots, area in ((np.arange(len(xy)), 14), (numbered, 95)):
        ax.scatter(xy[dots, 0], xy[dots, 1], s=area, color="white", edgecolors=colour, zorder=8)
    for k in numbered:
        ax.text(xy[k, 0], xy[k, 1], str(k), ha="center", va="center_baseline", size=6.5, zorder=9)


def points_of(values: Any) -> Tensor:
    """Convert an array (m, d) to a float32 tensor on the CPU; raise `InputError` for NaN, infinity or no row."""
    return require_points(values).cpu().float()
