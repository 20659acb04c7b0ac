"""Figures of pathways: the graph of routes and the population profile along a path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.plotting.pictures import _cubes, _filled
from cryotwin_nb.plotting.rendering import contour_level, render_surface, view_from
from cryotwin_nb.plotting.style import COLOURS, GREY, HALO, PLAIN, Array, axes, plain, styled

if TYPE_CHECKING:
    from cryotwin_nb.pathways import PathConfidence, PathProfile, Route, State


@styled
def route_graph(
    routes: Sequence[Route],
    decode: Callable[[Tensor], Array] | None = None,
    names: Mapping[str, str] | None = None,
    *,
    sigma: float = 2.0,
    view: tuple[float, float] = (0.0, 0.0),
    ax: Axes | None = None,
) -> Axes:
    """Draw the states along routes and the flux between them as a graph.

    Parameters
    ----------
    routes : sequence of Route
        Routes from `find_routes`, all between the same two states.
    decode : callable, optional
        Decoder from latents (m, d) to maps, such as `model.volumes`. If given, the states are drawn as surfaces, all
        at the same contour level.
    names : mapping of str to str, optional
        Titles of the states, keyed by state name.
    sigma : float
        Contour level of the surfaces, in standard deviations above the mean; see `map_montage`.
    view : (float, float)
        Azimuth and elevation of the surfaces in degrees; see `view_from`.
    ax : Axes, optional
        Axes to draw into; by default those of a new figure.
    """
    if not routes:
        raise InputError("route_graph", "no routes", "at least one", "Lower the argument least_share of find_routes.")
    states, places = _layout(routes)
    height = 1.6 + 1.35 * len({round(y, 2) for _, y in places.values()})
    ax = axes(ax, 9.0, min(max(height, 3.0), 7.5))
    flux: dict[tuple[str, str], float] = {}
    for route in routes:
        for a, b in pairwise(s.name for s in route.states):
            flux[a, b] = flux.get((a, b), 0.0) + route.share
    for (a, b), share in flux.items():
        (x0, y0), (x1, y1) = places[a], places[b]
        ax.plot([x0, x1], [y0, y1], color=COLOURS[5], lw=1 + 16 * share, alpha=0.55, solid_capstyle="round", zorder=1)
        middle = (0.5 * (x0 + x1), 0.5 * (y0 + y1))
        ax.annotate(f"{share:.0%}", middle, ha="center", va="center", size=8, zorder=4, path_effects=HALO)
    pictures = None if decode is None else _thumbnails(decode, states, sigma, view)
    for number, state in enumerate(states.values()):
        x, y = places[state.name]
        title = plain((names or {}).get(state.name, state.name))
        if pictures is None:
            ax.scatter(x, y, s=150 + 6000 * state.mass, color="white", edgecolors="black", zorder=2)
            ax.annotate(title, (x, y), ha="center", va="center", weight="bold", zorder=5, **PLAIN)
            continue
        ax.add_artist(AnnotationBbox(OffsetImage(pictures[number], zoom=0.5), (x, y), frameon=False, zorder=2))
        style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "zorder": 5, "path_effects": HALO}
        ax.annotate(f"{title} ({state.mass:.0%})", (x, y), (0, -44), weight="bold", **style, **PLAIN)
    (left, right), (low, high) = ((min(v), max(v)) for v in zip(*places.values()))
    ax.set(xlim=(left - 0.09, right + 0.09), ylim=(low - 0.75, high + 0.6))
    ax.axis("off")
    note = "lines: share of the flux from left to right; in brackets: share of all particles in the state"
    ax.set_title(note, size=8, color=GREY, y=-0.02)
    return ax


def _layout(routes: Sequence[Route]) -> tuple[dict[str, State], dict[str, tuple[float, float]]]:
    """Return the states by name and their positions: x is the distance travelled; y keeps similar routes together."""
    from scipy.cluster.hierarchy import leaves_list, linkage  # slow to import and not needed by other figures
    from scipy.spatial.distance import pdist

    states = {state.name: state for route in routes for state in route.states}
    passes = np.array([[any(s.name == name for s in route.states) for name in states] for route in routes])
    order = leaves_list(linkage(pdist(passes.astype(float)), optimal_ordering=True)) if len(routes) > 2 else range(2)
    row = {int(r): -float(i) for i, r in enumerate(order)}
    travelled: dict[str, list[float]] = {name: [] for name in states}
    for route in routes:
        steps = [float((b.latent - a.latent).norm()) for a, b in pairwise(route.states)]
        for state, way in zip(route.states, np.concatenate([[0.0], np.cumsum(steps)]) / sum(steps), strict=True):
            travelled[state.name].append(float(way))
    places = {}
    for column, name in enumerate(states):
        through = [row[r] for r in range(len(routes)) if passes[r, column]]
        places[name] = (float(np.mean(travelled[name])), float(np.mean(through)))
    return states, places


def _thumbnails(
    decode: Callable[[Tensor], Array], states: Mapping[str, State], sigma: float, view: tuple[float, float]
) -> list[np.ndarray]:
    """Render the states at one contour level, cropped, on a transparent background: a list of (h, w, 4)."""
    cubes = _cubes(decode(torch.stack([state.latent for state in states.values()]).float()))
    level = contour_level(cubes, sigma)
    pictures = np.stack([render_surface(m, level, size=180, view=view_from(*view)) for m in cubes])
    rows, columns = _filled(pictures.min(axis=(0, 3)) < 1)
    solid = (pictures.min(axis=3, keepdims=True) < 1).astype(pictures.dtype)
    return list(np.concatenate([pictures, solid], axis=3)[:, rows, columns])


@styled
def path_profile(
    profile: PathProfile, confidence: PathConfidence | None = None, *, figure: FigureBase | None = None
) -> FigureBase:
    """Plot the population per unit length, the density and the nearby particles along a path.

    Parameters
    ----------
    profile : PathProfile
        Result of `pathways.profile`.
    confidence : PathConfidence, optional
        Result of `bootstrap_path`. If given, the legend shows the 90 % intervals of both barriers, and the interval of
        the barrier in population per unit length is shaded.
    figure : Figure or SubFigure, optional
        Figure to draw into; by default a new one.
    """
    figure = plt.figure(figsize=(6.4, 4.4)) if figure is None else figure
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    labels = ["population per length", "density"]
    if confidence is not None:
        for i, name in enumerate(("line_barrier", "barrier")):
            labels[i] += ": barrier {:.1f} to {:.1f} nats".format(*confidence.interval(name))
    top.plot(profile.position, profile.energy, color=COLOURS[5], lw=0.8, label=labels[1])
    top.plot(profile.position, profile.line_energy, color=COLOURS[0], label=labels[0])
    at = np.interp(profile.step_position, profile.position, profile.line_energy)
    top.plot(profile.step_position, at, "o", ms=4, color=COLOURS[0])
    for k, (x, y) in enumerate(zip(profile.step_position, at, strict=True)):
        top.annotate(str(k), (x, y), (0, 5), textcoords="offset points", ha="center", size=7, path_effects=HALO)
    if confidence is not None:
        top.axhspan(*confidence.interval("line_barrier"), color=COLOURS[0], alpha=0.15, lw=0)
    legend = top.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    legend.set_title("90 % bootstrap intervals" if confidence is not None else "", prop={"size": 8})
    top.set_ylabel("-log relative to\nthe start (nats)")
    top.margins(y=0.12)
    gap = np.diff(profile.step_position).min()
    bottom.bar(profile.step_position, profile.counts, width=0.7 * gap, color=COLOURS[2])
    for x, count in zip(profile.step_position, profile.counts, strict=True):
        bottom.annotate(str(count), (x, count), (0, 2), textcoords="offset points", ha="center", size=7)
    bottom.set(xlabel="distance along the path (latent units)", ylabel="particles\nnear")
    bottom.margins(y=0.2)
    return figure
