"""Figure of class averages: one row of images for each state, one column for each viewing direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from cryotwin_nb.plotting.pictures import scale_bar
from cryotwin_nb.plotting.style import PLAIN, plain, styled

if TYPE_CHECKING:
    from cryotwin_nb.evaluation.class_averages import ClassAverages


@styled
def class_averages(averages: ClassAverages, titles: Sequence[str] | None = None) -> Figure:
    """Plot average images by state (rows) and viewing direction (columns), with the number of images in each.

    Parameters
    ----------
    averages : ClassAverages
        Result of `evaluation.class_averages`.
    titles : sequence of str, optional
        Titles of the rows, such as `State.title`, which marks junk; by default the names of the states.
    """
    n_states, n_views = averages.counts.shape
    figure, panels = plt.subplots(
        n_states, n_views, figsize=(0.4 + 1.3 * n_views, 1.5 * n_states), squeeze=False, layout="constrained"
    )
    for row, title in enumerate(averages.names if titles is None else titles):
        low, high = np.percentile(averages.images[row], (1, 99.8))
        for column, ax in enumerate(panels[row]):
            ax.imshow(averages.images[row, column], cmap="gray", vmin=low, vmax=max(high, low + 1e-12), origin="lower")
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{averages.counts[row, column]} images")
        panels[row, 0].set_ylabel(plain(title), **PLAIN)
    scale_bar(panels[0, 0], averages.pixel_size, "white")
    return figure
