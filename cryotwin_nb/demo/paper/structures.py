"""Figures of structures: maps of the states (2c) and their FSC between programs (2d)."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from cryotwin_nb.demo.paper.latent_space import TsneMaps
from cryotwin_nb.demo.paper.montage import Row, draw_rows
from cryotwin_nb.demo.paper.sources import COORDINATE, CRYODRGN, SUBSPACE, Sources
from cryotwin_nb.imaging.fsc import fsc
from cryotwin_nb.imaging.masks import spherical_mask
from cryotwin_nb.plotting.colours import state_colours
from cryotwin_nb.plotting.curves import resolution_ticks

_TRUTH = "ground truth"
_MASK_RADIUS, _MASK_EDGE = 0.4, 2  # of the box; voxels
_LINES = ("-", "--", ":", "-.")


def structures(sources: Sources, maps: TsneMaps) -> tuple[Figure, str]:
    """Fig. 2c: the maps of all states by all methods, at one contour level."""
    rows: list[Row] = [(name, volumes, []) for name, volumes in _state_maps(sources).items()]
    rows[0] = (*rows[0][:2], sources.states)
    figure = plt.figure(figsize=(1.0 + 0.95 * len(sources.states), 0.25 + 0.95 * len(rows)), layout="constrained")
    draw_rows(figure, rows, sources.particles.pixel_size)
    return figure, (
        f"Maps of the {len(sources.states)} states that label Fig. 2a, each decoded at the latent nearest to the "
        "median of the particles of its state, all at one contour level."
    )


def label_fsc(sources: Sources, maps: TsneMaps) -> tuple[Figure, str] | None:
    """Fig. 2d: FSC between the maps of one label by two programs, and of each with the ground truth."""
    volumes, colours = _state_maps(sources), state_colours(sources.states)
    wanted = ((COORDINATE, CRYODRGN), (SUBSPACE, CRYODRGN), (COORDINATE, SUBSPACE))
    with_truth = ((name, _TRUTH) for name in (COORDINATE, CRYODRGN, SUBSPACE))
    pairs = [pair for pair in (*wanted, *with_truth) if set(pair) <= set(volumes)]
    if not pairs:
        return None
    width = min(3, len(pairs))
    size = (3.6 * width, 3.1 * -(-len(pairs) // width))
    figure, panels = plt.subplots(
        -(-len(pairs) // width), width, figsize=size, layout="constrained", squeeze=False, sharey=True
    )
    box, pixel, lines = sources.particles.box_size, sources.particles.pixel_size, []
    mask = spherical_mask(box, _MASK_RADIUS * box, _MASK_EDGE)
    for ax in panels.flat[len(pairs) :]:
        ax.remove()
    for ax, (first, second) in zip(panels.flat, pairs):
        curves = [fsc(a, b, pixel, mask) for a, b in zip(volumes[first], volumes[second], strict=True)]
        for state, curve in zip(sources.states, curves, strict=True):
            style = _LINES[_place(state, sources.states) % len(_LINES)]
            ax.plot(curve.frequency, curve.correlation, style, color=colours[state], lw=1.2, label=state)
        ax.axhline(0.5, color="0.6", lw=0.8, zorder=0)
        ax.set(title=f"{first}, {second}", xlim=(0, curves[0].frequency[-1]), ylim=(0, 1.02))
        resolution_ticks(ax, curves[0].frequency[-1])
        mean = np.mean([curve.area for curve in curves])
        lines.append(f"{first}, {second}: {mean:.3f}")
    panels[0, 0].set_ylabel("FSC")
    panels[0, 0].legend(ncols=3, loc="lower left", handlelength=1.6, columnspacing=0.8)
    return figure, (
        "FSC of the maps with the same label, inside a soft sphere; the paper compares cryoTWIN with cryoDRGN. "
        f"Mean area under the curves: {'; '.join(lines)}."
    )


def _place(state: str, states: tuple[str, ...]) -> int:
    """Return the place of a state among those of its letter, from 0."""
    return [name for name in sorted(states) if name[:1] == state[:1]].index(state)


def _state_maps(sources: Sources) -> dict[str, torch.Tensor]:
    """Return the maps of the states by method, and the true ones where they are known."""
    found = {m.name: m.state_maps for m in sources.methods.values() if m.state_maps is not None}
    if CRYODRGN in found:  # its unit is arbitrary
        own, other = found[CRYODRGN], found[SUBSPACE]
        found[CRYODRGN] = own * ((own * other).sum() / own.square().sum())
    truth = sources.particles.truth
    if truth is not None:
        found[_TRUTH] = torch.stack([truth.volume_at(c) for c in truth.states.values()])
    return found
