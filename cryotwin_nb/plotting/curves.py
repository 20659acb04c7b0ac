"""Curves and tables: density and occupancy along a path, FSC, isometry, noise spectrum, confusion table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from cryotwin_nb.evaluation import passing_step
from cryotwin_nb.plotting.style import (
    COLOURS,
    GREY,
    HALO,
    PLAIN,
    Array,
    apart,
    as_numpy,
    axes,
    plain,
    plain_legend,
    styled,
)

if TYPE_CHECKING:
    from cryotwin_nb.evaluation import Isometry
    from cryotwin_nb.imaging.fsc import FscCurve
    from cryotwin_nb.mixture.gaussian import GaussianMixture
    from cryotwin_nb.particles.formation import ImageFormation
    from cryotwin_nb.pathways.ridgeline import Pathway


@styled
def density_along_path(path: Pathway, prior: GaussianMixture | None = None, ax: Axes | None = None) -> Axes:
    """Plot log density against distance along a pathway, with a numbered dot at each step.

    The arrow marks the barrier: the drop from the density at the start to the minimum along the curve.

    Parameters
    ----------
    path : Pathway
        Pathway to plot.
    prior : GaussianMixture, optional
        Mixture that supplies the density along the curve between the steps; by default straight lines join the steps.
    ax : Axes, optional
        Axes to draw into; by default those of a new figure.
    """
    ax, curve = axes(ax, 6.0, 3.2), torch.as_tensor(as_numpy(path.curve))
    travelled = torch.cat([torch.zeros(1), curve.diff(dim=0).norm(dim=1).cumsum(0)]).numpy()
    place = travelled[torch.cdist(torch.as_tensor(as_numpy(path.latents)), curve).argmin(1).numpy()]
    density, numbers = as_numpy(path.log_prob), apart(np.stack([place, 0 * place], axis=1), 0.03 * travelled[-1])
    line = (place, density) if prior is None else (travelled, as_numpy(prior.log_prob(curve)))
    ax.plot(*line, color=COLOURS[0])
    ax.plot(place, density, "o", ms=4, color=COLOURS[0])
    x, top = line[0][np.argmin(line[1])], density[0]
    style: dict[str, Any] = {"textcoords": "offset points", "path_effects": HALO}
    for k in numbers:
        side = -12 if place[k] == x else 6  # below the tip of the arrow
        ax.annotate(str(k), (place[k], density[k]), (0, side), size=7, ha="center", **style)
    ax.plot([0, x], [top, top], color=COLOURS[1], lw=0.8, ls="--", zorder=0)
    ax.annotate("", (x, top - path.barrier), (x, top), arrowprops={"arrowstyle": "<->", "color": COLOURS[1]})
    towards = "right" if x > travelled[-1] / 2 else "left"
    barrier = f"{path.barrier:.1f}" if path.barrier < 100 else f"{path.barrier:.0f}"  # a tail, known to no decimal
    ax.annotate(f"barrier {barrier} nats", (x, top), (0, 4), color=COLOURS[1], ha=towards, **style)
    ax.set(xlabel="distance along the path (latent units)", ylabel="log density of the prior (nats)")
    ax.margins(y=0.15)
    return ax


@styled
def occupancy_along_path(values: Array, names: Iterable[str], threshold: float = 0.5, ax: Axes | None = None) -> Axes:
    """Plot the occupancy of each block against the step of a path; the legend lists blocks in order of appearance.

    Parameters
    ----------
    values : (K+1, q) float
        Occupancies, from 0 (absent) to 1 (complete).
    names : iterable of q str
        Names of the blocks.
    threshold : float
        Occupancy above which a block is present. A circle marks the interpolated step from which the block stays
        above this threshold.
    ax : Axes, optional
        Axes to draw into; by default those of a new figure.
    """
    ax, values, names = axes(ax, 5.6, 3.2), as_numpy(values), list(names)
    steps, crossings = np.arange(len(values)), [passing_step(v, threshold) for v in as_numpy(values).T]
    lines, labels = [], []
    for i in np.argsort(crossings, kind="stable"):
        when, marker = crossings[i], "os^Dvphx"[i % 8]
        labels.append(f"{names[i]}: step {when:.1f}" if np.isfinite(when) else f"{names[i]}: never")
        lines += ax.plot(steps, values[:, i], marker=marker, ms=3.5, color=COLOURS[i % 8])
        if np.isfinite(when):
            ax.plot(when, threshold if when > 0 else values[0, i], "o", ms=9, mfc="none", mec=COLOURS[i % 8], mew=1.5)
    ax.axhline(threshold, color=GREY, lw=0.8, ls="--", zorder=0)
    ax.set(xlabel="step k along the path", ylabel="occupancy", xticks=steps[:: -(-len(steps) // 25)])
    title = f"passes {threshold:g}"
    plain_legend(ax, lines, labels, title=title, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


@styled
def fsc_curves(
    curves: FscCurve | Sequence[FscCurve],
    labels: Sequence[str] | None = None,
    threshold: float | None = 0.143,
    ax: Axes | None = None,
    colours: Mapping[str, str] | None = None,
) -> Axes:
    """Plot Fourier shell correlations against spatial frequency, with ticks in Å.

    Parameters
    ----------
    curves : FscCurve or sequence of FscCurve
        Curves to plot.
    labels : sequence of str, optional
        Names of the curves in the legend.
    threshold : float, optional
        FSC threshold: 0.143 between half maps, 0.5 against a model. It is drawn as a line, and the legend gives the
        resolution at which each curve crosses it. None omits both.
    ax : Axes, optional
        Axes to draw into; by default those of a new figure.
    colours : mapping of str to str, optional
        Colour of each label, such as `state_colours(labels)`.
    """
    ax, many = axes(ax, 5.0, 3.4), list(curves) if isinstance(curves, Sequence) else [curves]
    named: dict[int, str] = {}
    for i, curve in enumerate(many):
        label = str(labels[i]) if labels is not None else f"curve {i + 1}" if len(many) > 1 else ""
        if threshold is not None:
            never, reach = "better than " if curve.correlation.min() >= threshold else "", curve.resolution(threshold)
            label += ": " if label else ""
            label += f"{never}{reach:.3g} Å" if np.isfinite(reach) else "no resolution"
        named |= {i: label} if label else {}
        colour, dashes = COLOURS[i % 8], ("-", "--")[i // 8 % 2]
        if colours is not None and labels is not None:
            colour, dashes = colours[str(labels[i])], "-"
        ax.plot(curve.frequency, curve.correlation, color=colour, ls=dashes)
    lines = ax.get_lines()[-len(many) :]
    if threshold is not None:
        ax.axhline(threshold, color=GREY, lw=0.8, ls="--", zorder=0)
        ax.annotate(f"{threshold:g}", (1, threshold), xycoords=("axes fraction", "data"), size=8, color=GREY)
    highest = max(c.frequency[-1] for c in many)
    ax.set(xlim=(0, highest), ylim=(min(0, *(c.correlation.min() for c in many)), 1.03), ylabel="correlation")
    resolution_ticks(ax, highest)
    if named:
        plain_legend(ax, [lines[i] for i in named], [*named.values()], loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return ax


def resolution_ticks(ax: Axes, highest: float) -> None:
    """Place ticks at equal steps of frequency (1/Å) and label them with the resolution in Å."""
    ticks = highest * np.arange(1, 6) / 5
    ax.set_xticks([0, *ticks], ["∞", *(f"{1 / t:.3g}" for t in ticks)])
    ax.set_xlabel("resolution (Å; linear in spatial frequency)")


@styled
def isometry_scatter(result: Isometry, ax: Axes | None = None) -> Axes:
    """Plot inner products of pairs of small steps, in map space (vertical) against latent space (horizontal).

    For an isometry up to scale, all pairs fall on a line through the origin. The fitted line and Pearson's r are shown.

    Parameters
    ----------
    result : Isometry
        Inner products and fitted line to plot.
    ax : Axes, optional
        Axes to draw into; by default those of a new figure.
    """
    ax = axes(ax, 3.9, 3.5)
    latent, volume = as_numpy(result.latent_products), as_numpy(result.volume_products)
    ax.scatter(latent, volume, s=10, alpha=0.6, color=COLOURS[0], linewidths=0)
    ends = np.array([latent.min(), latent.max()])
    ax.plot(ends, result.scale * ends, color=COLOURS[1], label=f"r = {result.correlation:.3f}")
    ax.axhline(0, color="0.8", lw=0.6, zorder=0)
    ax.axvline(0, color="0.8", lw=0.6, zorder=0)
    ax.set(xlabel="dz₁·dz₂ (latent units²)", ylabel="dV₁·dV₂ (squared density)")
    ax.ticklabel_format(style="sci", scilimits=(-2, 3), useMathText=True)
    ax.legend(loc="upper left")
    return ax


@styled
def noise_spectrum(imaging: ImageFormation, ax: Axes | None = None) -> Axes:
    """Plot the noise power spectrum used for whitening against resolution, one line per optics group.

    Parameters
    ----------
    imaging : ImageFormation
        Image formation model that holds the noise spectra.
    ax : Axes, optional
        Axes to draw into; by default those of a new figure.
    """
    ax, half = axes(ax, 5.0, 3.4), imaging.plane.box_size // 2
    frequency = np.arange(half + 1) / (imaging.plane.box_size * float(imaging.pixel_size))
    power = as_numpy(imaging.noise)[:, : half + 1]
    for group, values in enumerate(power[1:] if len(power) > 1 else power):
        ax.plot(frequency, values, label=f"optics group {group}", color=COLOURS[group % 8])
    ax.set(xlim=(0, frequency[-1]), ylim=(0, None), ylabel="noise power per Fourier coefficient")
    resolution_ticks(ax, frequency[-1])
    ax.legend()
    return ax


@styled
def confusion_table(counts: Array, rows: Sequence[str], columns: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw a confusion table, with each cell coloured by its fraction of the row total.

    Parameters
    ----------
    counts : (rows, columns) int
        Number of particles, as returned by `evaluation.confusion`.
    rows, columns : sequence of str
        Labels and names, as returned by `evaluation.confusion`.
    ax : Axes, optional
        Axes to draw into; by default those of a new figure.
    """
    counts = as_numpy(counts)
    ax = axes(ax, 1.2 + 0.42 * len(columns), 0.9 + 0.27 * len(rows))
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, j in zip(*counts.nonzero()):
        colour = "white" if share[i, j] > 0.6 else "black"
        ax.text(j, i, f"{counts[i, j]:.0f}", ha="center", va="center", size=7.5, color=colour)
    ax.set_xticks(range(len(columns)), [*map(plain, columns)], **PLAIN)
    if max(map(len, columns)) > 3:
        plt.setp(ax.get_xticklabels(), rotation=35, ha="right")
    ax.set_yticks(range(len(rows)), [*map(plain, rows)], **PLAIN)
    ax.set(xlabel="assigned name", ylabel="label")
    ax.tick_params(length=0)
    return ax
