"""Figure of the report of `prepare`: defocus, views, spectrum and example images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cryotwin_nb.plotting.curves import resolution_ticks
from cryotwin_nb.plotting.pictures import scale_bar
from cryotwin_nb.plotting.style import COLOURS, DENSITY, GREY, styled

if TYPE_CHECKING:
    from cryotwin_nb.preparation.report import Preparation


@styled
def preparation(report: Preparation) -> Figure:
    """Plot defocus, views, power spectrum and example images of a prepared stack, showing suspicious images first.

    Parameters
    ----------
    report : Preparation
        Report of `prepare`.
    """
    figure = plt.figure(figsize=(9.5, 5.6))
    upper, lower = np.array(figure.subfigures(2, 1, height_ratios=(1.25, 1)), object)
    _defocus(report, upper.add_subplot(1, 3, 1))
    _views(report, upper)
    _power(report, upper.add_subplot(1, 3, 3))
    _images(report, lower)
    return figure


def _defocus(report: Preparation, ax: Axes) -> None:
    ax.set(xlabel="defocus (µm)", ylabel="images")
    if report.defocus is None:
        ax.text(0.5, 0.5, "no CTF", transform=ax.transAxes, ha="center", color=GREY)
        return
    ax.hist(report.defocus, bins=40, color=COLOURS[0])


def _views(report: Preparation, figure) -> None:
    """Plot the views in a Mollweide projection, pooling opposite views because they give mirror images."""
    if report.views is None:
        ax = figure.add_subplot(1, 3, 2)
        ax.axis("off")
        ax.text(0.5, 0.5, "no poses", transform=ax.transAxes, ha="center", color=GREY)
        return
    ax = figure.add_subplot(1, 3, 2, projection="mollweide")
    v = np.concatenate([report.views, -report.views])
    longitude, height = np.arctan2(v[:, 1], v[:, 0]), v[:, 2]
    bins = int(np.clip((len(report.views) / 15) ** 0.5, 6, 36))
    edges = np.linspace(-np.pi, np.pi, 2 * bins + 1), np.linspace(-1, 1, bins + 1)  # equal areas
    counts = np.histogram2d(longitude, height, edges)[0]
    mean = max(counts.mean(), 1e-9)
    mesh = ax.pcolormesh(edges[0], np.arcsin(edges[1]), counts.T / mean, cmap=DENSITY, vmin=0, rasterized=True)
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"viewing directions (evenness {report.evenness:.2f})")
    bar = figure.colorbar(mesh, ax=ax, orientation="horizontal", shrink=0.7, aspect=25, pad=0.06)
    bar.set_label("density relative to the mean")


def _power(report: Preparation, ax: Axes) -> None:
    ax.semilogy(report.frequency, report.image_power, color=COLOURS[0], label="images")
    if report.noise_power is not None:
        ax.semilogy(report.frequency, report.noise_power, color=COLOURS[1], ls="--", label="noise")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    ax.set(xlim=(0, report.frequency[-1]), ylabel="power (grey value²)")
    resolution_ticks(ax, report.frequency[-1])


def _images(report: Preparation, figure) -> None:
    """Show up to seven example images, with the reasons below those that are suspicious."""
    shown = list(report.examples)[:7]
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for panel, row in zip(panels, shown):
        image = report.examples[row]
        low, high = np.percentile(image, (0.5, 99.5))
        panel.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="lower")
        panel.axis("off")
        reasons = report.suspicious.get(row, "").replace("; ", "\n").replace("duplicate of image", "same as")
        panel.set_title(f"image {row}", fontsize=8.5, pad=3, color=COLOURS[1] if reasons else "black")
        panel.text(0.5, -0.04, reasons.replace("standard deviation", "std."), transform=panel.transAxes, **_BELOW)
    scale_bar(panels[0], report.pixel_size, "white")
    count = len(report.suspicious)
    note = f"{count} suspicious image{'' if count == 1 else 's'} of {report.n:,}; each on its own grey scale"
    figure.suptitle(note, size=9)


_BELOW = {"ha": "center", "va": "top", "size": 7.5, "color": COLOURS[1]}
