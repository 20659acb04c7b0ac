"""Training curves, drawn after training or live in a notebook."""

from __future__ import annotations

import io
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cryotwin_nb.plotting.style import COLOURS, GREY, styled

if TYPE_CHECKING:
    from cryotwin_nb.models.history import History
    from cryotwin_nb.reconstruction.spectrum import Spectrum


@styled
def training_curves(history: History) -> Figure:
    """Plot the gain in log-evidence of the closed-form passes, if any, and distortion and rate per epoch.

    Log-evidences of passes with different frequency limits are not comparable, so lines join only passes with the same
    maximum |k|, and each line starts at zero. Grey marks epochs in which beta or the resolution still increases. If
    the value of the first epoch is far above all others, it is written as a number instead of drawn as a point.

    Parameters
    ----------
    history : History
        Training history to plot.
    """
    closed_form = bool(history.log_evidence)
    figure, panels = plt.subplots(1, 2 + closed_form, figsize=(11 if closed_form else 8, 2.9))
    if closed_form:
        _passes(history, panels[0])
    _epochs(history, panels[-2], "distortion", "distortion per image", COLOURS[0])
    _epochs(history, panels[-1], "rate", "rate per image (nats)", COLOURS[1])
    if history.epochs:
        note = f"{np.mean(history.seconds):.1f} s per epoch, β = {history.beta[-1]:.3g}"
        panels[-1].text(1, 1, note, transform=panels[-1].transAxes, ha="right", va="bottom", color=GREY, size=8)
    return figure


@styled
def spectrum(found: Spectrum, ax: Axes | None = None) -> Axes:
    """Plot the variance of each direction, with the noise floor, and the evidence of the images for it.

    Parameters
    ----------
    found : Spectrum
        Spectrum of a model (`model.spectrum`).
    ax : Axes, optional
        Axes to draw into.
    """
    ax = ax or plt.subplots(figsize=(4.2, 3.0))[1]
    place, percent = np.arange(1, len(found.variances) + 1), 100 * np.array(found.variances)
    live = place <= found.n_live
    for some, colour, label in ((live, COLOURS[0], "supported (gain of an image)"), (~live, GREY, "not supported")):
        if some.any():
            ax.plot(place[some], percent[some], "o", color=colour, label=label)
    for x, y, gain in zip(place[live], percent[live], np.array(found.gains)[live], strict=True):
        ax.annotate(f"{gain:.2g} nats", (x, y), (5, 3), textcoords="offset points", size=8, color=COLOURS[0])
    if found.noise_floor:
        ax.axhline(100 * found.noise_floor, color=GREY, lw=0.8, ls="--", label="noise floor")
    ax.set(xlabel="direction", ylabel="variance (% of the average map)", xlim=(0.5, len(place) + 1), yscale="log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
    ax.legend(loc="upper right")
    return ax


def _passes(history: History, panel: Axes) -> None:
    """Plot the gain in log-evidence since the first pass at the same maximum |k|; write this |k| above the panel."""
    radius, evidence = np.array(history.pass_radius), np.array(history.log_evidence)
    starts = [0, *(np.flatnonzero(np.diff(radius)) + 1), len(radius)]
    for first, end in pairwise(starts):
        rows = np.arange(first, end)[np.isfinite(evidence[first:end])]
        if len(rows) == 0:
            continue
        panel.plot(rows + 1, evidence[rows] - evidence[rows[0]], "o-", ms=3, color=COLOURS[2])
        if first:
            panel.axvline(first + 0.5, color="0.85", lw=0.8, zorder=0)
        label = {"x": (rows[0] + rows[-1]) / 2 + 1, "y": 1, "s": f"{radius[first]:.3g}"}
        panel.text(**label, transform=panel.get_xaxis_transform(), ha="center", va="bottom", color=GREY, size=8)
    note = f"{sum(history.pass_seconds):.0f} s in total"
    panel.text(0.98, 0.03, note, transform=panel.transAxes, ha="right", va="bottom", color=GREY, size=8)
    panel.text(0, 1, "|k| to ", transform=panel.transAxes, ha="right", va="bottom", color=GREY, size=8)
    panel.set(xlabel="closed-form pass", ylabel="gain in log-evidence (nats)", xlim=(0.5, len(radius) + 0.5))
    panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))


def _epochs(history: History, panel: Axes, name: str, label: str, colour: str) -> None:
    """Plot one term of the objective against the epoch."""
    values, epochs = np.array(getattr(history, name)), np.arange(1, history.epochs + 1)
    ramps = {"β": history.beta, "resolution": history.radius}
    last = {term: _last_rise(ramp) for term, ramp in ramps.items() if _last_rise(ramp)}
    if last:
        note = " and ".join(last) + (" rise" if len(last) > 1 else " rises")
        panel.axvspan(0.5, max(last.values()) + 1, color="0.93", lw=0)
        panel.text(0.5, 1.0, f" {note}", transform=panel.get_xaxis_transform(), va="bottom", color=GREY, size=8)
    first = int(len(values) > 2 and values[0] - values[1:].max() > np.ptp(values[1:]))
    panel.plot(epochs[first:], values[first:], "o-", ms=3, color=colour)
    if first:
        note = f" epoch 1: {values[0]:,.0f}"
        panel.text(0.5, 0.98, note, transform=panel.get_xaxis_transform(), va="top", color=GREY, size=8)
        panel.margins(y=0.15)
    panel.set(xlabel="epoch", ylabel=label, xlim=(0.5, max(2, len(epochs)) + 0.5))
    panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))


def _last_rise(values: list[float]) -> int:
    """Return the index of the last value greater than the one before it; 0 if there is none."""
    rises = [i for i in range(1, len(values)) if values[i] > values[i - 1] * (1 + 1e-9)]
    return rises[-1] if rises else 0


class LivePlot:
    """Callback for `fit` that redraws the training curves below the notebook cell after each epoch.

        history = ct.fit(model, particles, callbacks=[ct.plotting.LivePlot()])

    Outside a notebook, the callback does nothing.
    """

    def __init__(self) -> None:
        self._display: Any = None

    def __call__(self, history: History, model: object = None) -> None:
        """Draw the history so far as a PNG that replaces the previous one.

        Parameters
        ----------
        history : History
            Training history so far.
        model : object, optional
            Model being trained; not used.
        """
        if not _in_notebook():
            return
        from IPython.display import Image, display

        figure, png = training_curves(history), io.BytesIO()
        figure.savefig(png, format="png")
        plt.close(figure)
        if self._display is None:
            self._display = display(Image(png.getvalue()), display_id=True)
        else:
            self._display.update(Image(png.getvalue()))


def _in_notebook() -> bool:
    """Return True in a Jupyter kernel, False in plain Python or IPython in a terminal."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None
