"""Diagram of a training step of the auto-encoder."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from cryotwin_nb.plotting.style import COLOURS, GREY, Array, as_numpy, styled

_BLUE, _ORANGE, _GREEN = COLOURS[:3]
_ARROW = {"arrowstyle": "-|>", "color": "0.2", "shrinkA": 0, "shrinkB": 1}


@styled
def training_diagram(image: Array | None = None, prediction: Array | None = None) -> Figure:
    """Draw how a training step computes the objective: encoder, noise, decoder, prior, distortion and rate.

    The objective is Eq. 3 of the cryoTWIN paper.

    Parameters
    ----------
    image, prediction : (D, D) float, optional
        A particle image and its prediction by the decoder; by default both frames are empty.
    """
    figure = plt.figure(figsize=(9.6, 4.0), layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 96), ylim=(0, 40))
    ax.axis("off")
    _picture(ax, (2, 20), image, "image $I_i$", "$X_i = \\mathcal{F}\\,I_i$")
    _box(ax, (21, 22), (11, 9), "encoder\n$f_\\theta$", _BLUE)
    _box(ax, (52, 22), (13, 9), "decoder\n$g_\\phi$", _BLUE)
    _picture(ax, (80, 20), prediction, "predicted image", "$\\tilde{X}_i$: CTF × slice")
    _box(ax, (30, 5), (17, 8), "prior $P_\\psi$\nGaussian mixture", _GREEN)
    _box(ax, (55, 5), (13, 8), "rate\n$-\\log Q_{z_i}$", _ORANGE)
    _box(ax, (78, 5), (17, 8), "distortion\n$||W\\odot(X_i-\\tilde{X}_i)||^2$", _ORANGE)
    for start, end in (
        ((15, 26.5), (21, 26.5)),
        ((32, 26.5), (39.5, 26.5)),
        ((42.5, 26.5), (52, 26.5)),
        ((65, 26.5), (80, 26.5)),
        ((35, 26.5), (35, 13)),
        ((47, 9), (55, 9)),
        ((86.5, 17), (86.5, 13)),
    ):
        ax.annotate("", end, start, arrowprops=_ARROW)
    ax.plot(41, 26.5, "o", ms=18, mfc="white", mec="0.2")
    ax.text(41, 26.4, "+", ha="center", va="center_baseline", size=13)
    style: dict[str, Any] = {"ha": "center", "va": "bottom", "size": 9}
    ax.text(35.6, 27.3, "$z_i,\\,w_i$", **style)
    ax.text(47.4, 27.3, "$z_i + \\epsilon$", **style)
    _down(ax, (41, 35), 28.6, "noise $\\epsilon \\sim U[-T/2,\\,T/2]^d$")
    _down(ax, (58.5, 35), 31, "frequencies $v = \\hat{R}_i\\,\\nu$ (pose)")
    _down(ax, (72.5, 32), 26.7, "CTF, shift")
    ax.text(36, 18, "moments of $z$,\nweighted by softmax($w$)", ha="left", va="center", size=8, color=GREY)
    ax.plot([8.5, 8.5, 86.5], [17.3, 2, 2], color="0.2", lw=0.9)
    ax.annotate("", (86.5, 5), (86.5, 2), arrowprops=_ARROW)
    ax.text(69, 17.6, "minimised:\ndistortion + β rate", ha="center", va="center", weight="bold", size=9)
    return figure


def _box(ax: Axes, corner: tuple[float, float], sides: tuple[float, float], text: str, colour: str) -> None:
    """Draw a text in a rounded frame."""
    style: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=1.2", "fc": "white", "ec": colour, "lw": 1.8}
    ax.add_patch(FancyBboxPatch(corner, *sides, **style))
    x, y = corner[0] + sides[0] / 2, corner[1] + sides[1] / 2
    ax.text(x, y, text, ha="center", va="center", size=9)


def _down(ax: Axes, top: tuple[float, float], end: float, text: str) -> None:
    """Draw a text with an arrow pointing down from it."""
    ax.annotate(text, (top[0], end), top, ha="center", va="bottom", size=8.5, arrowprops=_ARROW)


def _picture(ax: Axes, corner: tuple[float, float], picture: Array | None, above: str, below: str) -> None:
    """Draw a picture of 13 x 13 units, or an empty frame, with a line of text above and below."""
    x, y = corner
    values = np.full((2, 2), np.nan) if picture is None else as_numpy(picture)
    ax.imshow(values, cmap="gray", origin="lower", extent=(x, x + 13, y, y + 13), aspect="auto", zorder=2)
    ax.add_patch(FancyBboxPatch((x, y), 13, 13, boxstyle="square,pad=0", fc="none", ec="0.2", lw=0.8, zorder=3))
    ax.text(x + 6.5, y + 14, above, ha="center", va="bottom", size=9)
    ax.text(x + 6.5, y - 1, below, ha="center", va="top", size=9)
