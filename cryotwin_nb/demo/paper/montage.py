"""Rows of surfaces, each row with a label and each map with a title."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import FigureBase
from torch import Tensor

from cryotwin_nb.plotting.pictures import _filled, scale_bar
from cryotwin_nb.plotting.rendering import contour_level, render_surface
from cryotwin_nb.plotting.style import PLAIN

_SIZE, _SIGMA = 200, 2.0  # edge length of a picture, pixels; contour level, standard deviations above the mean

Row = tuple[str, Tensor, Sequence[str]]
"""Label, maps (m, D, D, D) and titles of a row; a row without titles has none above its maps."""


def draw_rows(figure: FigureBase, rows: Sequence[Row], voxel_size: float, compared: bool = False) -> None:
    """Draw rows of maps into a figure, all at one contour level and cropped alike.

    Parameters
    ----------
    figure : Figure or SubFigure
        Figure to draw into.
    rows : sequence of Row
        Rows from the top; they can have different lengths.
    voxel_size : float
        Å.
    compared : bool
        Colour what a map has gained (blue) or lost (orange) since the one to its left.
    """
    if not rows:
        return
    level = contour_level(torch.cat([maps for _, maps, _ in rows]), _SIGMA)
    pictures = []
    for _, maps, _ in rows:
        before = [maps[max(0, i - 1)] for i in range(len(maps))]
        changes = [m - b if compared else None for m, b in zip(maps, before, strict=True)]
        pictures.append(
            [render_surface(m, level, size=_SIZE, difference=c) for m, c in zip(maps, changes, strict=True)]
        )
    used = np.stack([picture for row in pictures for picture in row]).min(axis=(0, 3)) < 1
    across, along = _filled(used)
    panels = figure.subplots(len(rows), max(len(row) for row in pictures), squeeze=False)
    for ax in panels.flat:
        ax.axis("off")
    for axes, row, (label, _, titles) in zip(panels, pictures, rows, strict=True):
        for ax, picture in zip(axes, row):
            ax.imshow(picture[across, along])
        for ax, title in zip(axes, titles):
            ax.set_title(title, fontsize=8, pad=2, **PLAIN)
        style = {"transform": axes[0].transAxes, "ha": "right", "va": "center", "fontsize": 9}
        axes[0].text(-0.06, 0.5, label, **style, **PLAIN)
    scale_bar(panels[0, 0], voxel_size * rows[0][1].shape[-1] / _SIZE)
