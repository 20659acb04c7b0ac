"""Style shared by all figures: colours, fonts, and helpers to create axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from unicodedata import category

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.patheffects import AbstractPathEffect, withStroke
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.plotting.colours import COLOURS as COLOURS
from cryotwin_nb.plotting.colours import DENSITY as DENSITY

GREY = "0.35"
"""Colour of notes and guide lines."""

HALO: list[AbstractPathEffect] = [withStroke(linewidth=2.5, foreground="white")]
"""Path effects that keep text and lines legible on top of points."""

STYLE: dict[Any, Any] = {
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "figure.dpi": 80,
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
"""matplotlib settings applied while a figure is drawn; the settings of the session do not change."""

PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}
"""Properties of texts with names and labels of the user: dollar signs are shown, not typeset."""

Array = np.ndarray | Tensor
_P = ParamSpec("_P")
_R = TypeVar("_R")


def styled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a function to draw with the settings in `STYLE`."""

    @wraps(function)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        plt.draw_if_interactive()  # select the backend now: rc_context would roll it back
        with plt.rc_context(STYLE):
            return function(*args, **kwargs)

    return drawn


def as_numpy(values: Any) -> np.ndarray:
    """Convert arrays, tensors (on any device, with or without gradient) and sequences of them to float64 arrays."""
    if isinstance(values, (list, tuple)):
        return np.array([as_numpy(v) for v in values])
    try:
        return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        found = f"{type(values).__name__} that is not read as numbers ({error})"
        raise InputError("values to draw", found, "an array of numbers", "Pass an array or a tensor.") from error


def axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Return the given Axes, or those of a new figure of the given size in inches."""
    return ax if ax is not None else plt.subplots(figsize=(width, height))[1]


def plain(text: object) -> str:
    """Return a text without characters that cannot be drawn: control characters become the replacement character."""
    return "".join("\ufffd" if category(c) in ("Cc", "Cs") and c != "\n" else c for c in str(text))


def plain_legend(ax: Axes, handles: Sequence[Any], labels: Sequence[object], **style: Any) -> Legend:
    """Draw a legend that shows all labels as they are, also those with dollar signs or a leading underscore."""
    legend = ax.legend(handles, [f"{number}" for number in range(len(labels))], **style)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set(text=plain(label), **PLAIN)
    return legend


def apart(points: np.ndarray, gap: float) -> list[int]:
    """Return indices of points (m, 2) with room for a number: the last, then each over `gap` away from all chosen."""
    kept = [len(points) - 1]
    for k in range(len(points) - 1):
        if np.linalg.norm(points[kept] - points[k], axis=1).min() > gap:
            kept.append(k)
    return kept
