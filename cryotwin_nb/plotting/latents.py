"""Scatter plots of the latent space: particles, means of the mixture, pathways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import components_of_labels
from cryotwin_nb.plotting.colours import state_colours
from cryotwin_nb.plotting.marks import draw_path, draw_stars, opacity, points_of
from cryotwin_nb.plotting.style import (
    COLOURS,
    DENSITY,
    HALO,
    PLAIN,
    Array,
    as_numpy,
    axes,
    plain,
    plain_legend,
    styled,
)

if TYPE_CHECKING:
    from cryotwin_nb.evaluation import Embedding
    from cryotwin_nb.mixture.gaussian import GaussianMixture
    from cryotwin_nb.pathways.ridgeline import Pathway


@styled
def latent_scatter(
    z: Array,
    prior: GaussianMixture | None = None,
    path: Pathway | Array | Sequence[Pathway | Array] | None = None,
    *,
    colour: Array | None = None,
    colour_label: str = "",
    labels: Sequence | None = None,
    projection: Array | Callable[[Tensor], Array] | None = None,
    components: tuple[int, int] = (1, 2),
    n_named: int = 6,
    max_points: int = 20_000,
    ax: Axes | None = None,
) -> Axes:
    """Plot latents in two dimensions, with the prior's means as stars and one or more pathways.

    Parameters
    ----------
    z : (n, d) float
        Latents of the particles.
    prior : GaussianMixture, optional
        Mixture whose means are drawn as stars, with area increasing with weight. Points are coloured by its log
        density unless `colour` or `labels` is given.
    path : Pathway or (K+1, d) float, or a list of them, optional
        Paths to draw as lines with numbered points. A Pathway is drawn along its dense curve and labelled with its
        method.
    colour : (n,) float, optional
        Values to colour the points by.
    colour_label : str
        Label of the colour bar.
    labels : (n,) str, optional
        Labels to colour the points by; each label is written above its points.
    projection : (d, 2) float or callable, optional
        Matrix applied to the centred latents, or a function from (m, d) latents to (m, 2) coordinates, such as the
        transform of a t-SNE embedding. By default the two principal components given by `components`.
    components : (int, int)
        Principal components on the two axes, numbered from 1.
    n_named : int
        Number of stars labelled with their component's index, in order of decreasing weight.
    max_points : int
        Maximum number of latents drawn; if there are more, they are sampled at regular intervals.
    ax : Axes, optional
        Axes to draw into; by default those of a new figure.
    """
    ax, points = axes(ax, 5.2, 4.3), points_of(z)
    flatten, names = _projection(points, projection, components)
    shown = np.linspace(0, len(points) - 1, min(max_points, len(points))).astype(int)
    if colour is None and labels is None and prior is not None:
        colour, colour_label = prior.log_prob(points), "log density of the prior (nats)"
    if labels is not None:
        words = np.asarray(labels).astype(str)
        if words.shape != (len(points),):
            found, remedy = f"labels of shape {words.shape}", "Pass one label per latent."
            raise InputError("labels", found, f"({len(points)},)", remedy)
        _draw_labelled(ax, flatten(points)[shown], words[shown])
    else:
        _draw_coloured(ax, flatten(points)[shown], None if colour is None else as_numpy(colour)[shown], colour_label)
    if prior is not None:
        draw_stars(ax, flatten(points_of(prior.means)), as_numpy(prior.weights), n_named)
    for i, one in enumerate([] if path is None else path if isinstance(path, (list, tuple)) else [path]):
        draw_path(ax, one, flatten, (COLOURS[1], COLOURS[6], COLOURS[2])[i % 3])
    if prior is not None or path is not None:
        plain_legend(ax, *ax.get_legend_handles_labels(), loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    ax.set(xlabel=names[0], ylabel=names[1], aspect="equal")
    return ax


@styled
def embedding_scatter(
    embedding: Embedding,
    prior: GaussianMixture | None = None,
    *,
    show: Array | str = "latents",
    labels: Sequence | None = None,
    names: Mapping[int, str] | None = None,
    n_named: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """Plot a t-SNE map of the latents, of samples from the prior, or of other points embedded in the same map.

    Parameters
    ----------
    embedding : Embedding
        Result of `embed_tsne`.
    prior : GaussianMixture, optional
        Mixture whose means are drawn as stars, with area increasing with weight.
    show : {"latents", "samples"} or (m, 2) float
        Points to draw. Unless these are the latents, the latents are drawn in grey behind them.
    labels : (n,) str, optional
        Labels to colour the latents by.
    names : mapping of int to str, optional
        Names of components; each name is written beside the component of that name with the largest
        weight.
    n_named : int
        Number of stars labelled with their component's index, in order of decreasing weight, if `names` is not given.
    ax : Axes, optional
        Axes to draw into; by default those of a new figure.
    """
    ax = axes(ax, 4.6, 4.3)
    if isinstance(show, str) and show == "latents":
        if labels is None:
            alpha = opacity(len(embedding.latents))
            ax.scatter(*embedding.latents.T, color=COLOURS[0], alpha=alpha, label="latents", **_SPOTS)
        else:
            _draw_labelled(ax, embedding.latents, np.asarray(labels).astype(str))
    else:
        points = embedding.samples if isinstance(show, str) else as_numpy(show)
        ax.scatter(*embedding.latents.T, color="0.82", label="latents", **_SPOTS)
        ax.scatter(*points.T, color=COLOURS[2], alpha=0.5, label="samples", **_SPOTS)
    if prior is not None:
        draw_stars(ax, embedding.means, as_numpy(prior.weights), 0 if names else n_named)
        for name, c in components_of_labels(prior, names).items() if names else ():
            style: dict[str, Any] = {"textcoords": "offset points", "zorder": 6, "path_effects": HALO}
            ax.annotate(plain(name), embedding.means[c], (5, 3), **style, **PLAIN)
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.set_xlabel("t-SNE map", loc="right")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=2, markerscale=1 if prior is not None else 2)
    return ax


def _projection(
    z: Tensor, projection: Any, components: tuple[int, int]
) -> tuple[Callable[[Tensor], np.ndarray], list[str]]:
    """Return the function that projects latents (m, d) to the plane, (m, 2), and the labels of the axes."""
    if callable(projection):
        return lambda x: as_numpy(projection(x)), ["embedding 1", "embedding 2"]
    centre, dim = z.mean(0), z.shape[1]
    if projection is not None:
        matrix = points_of(projection)
        if tuple(matrix.shape) != (dim, 2):
            found = f"shape {tuple(matrix.shape)}"
            raise InputError("projection", found, f"({dim}, 2)", "Pass two directions as columns, or a function.")
        names = ["direction 1 (latent units)", "direction 2 (latent units)"]
    else:
        if not 1 <= min(components) <= max(components) <= min(z.shape):
            found = f"components {components} of {dim} dimensions"
            remedy = "Choose other components, or pass a projection."
            raise InputError("latent_scatter", found, f"two from 1 to {min(z.shape)}", remedy)
        chosen = [c - 1 for c in components]
        _, spread, directions = torch.linalg.svd(z - centre, full_matrices=False)
        matrix, share = directions[chosen].T, (spread**2 / (spread**2).sum().clamp_min(1e-30))[chosen].tolist()
        names = [f"PC {c} (latent units; {s:.0%} of the variance)" for c, s in zip(components, share)]
    return lambda x: as_numpy((x - centre) @ matrix), names


_SPOTS: dict[str, Any] = {"s": 4, "linewidths": 0, "rasterized": True}


def _draw_labelled(ax: Axes, xy: np.ndarray, labels: np.ndarray) -> None:
    """Draw points coloured by label, in random order so that no label covers the others."""
    names = sorted(set(labels))
    colours = state_colours(names)
    order = np.random.default_rng(0).permutation(len(xy))
    x, y = xy[order].T
    ax.scatter(x, y, c=[colours[name] for name in labels[order]], alpha=opacity(len(xy)), **_SPOTS)
    for name in names:
        x, y = np.median(xy[labels == name, 0]), np.percentile(xy[labels == name, 1], 90)
        ax.text(x, y, plain(name), ha="center", va="bottom", weight="bold", zorder=10, path_effects=HALO, **PLAIN)


def _draw_coloured(ax: Axes, xy: np.ndarray, values: np.ndarray | None, label: str) -> None:
    """Draw points coloured by value, with the highest values on top, or all points in one colour."""
    if values is None:
        ax.scatter(xy[:, 0], xy[:, 1], color=COLOURS[0], alpha=opacity(len(xy)), **_SPOTS)
        return
    order, (low, high) = values.argsort(), np.percentile(values, (2, 99.8))
    style: dict[str, Any] = {"cmap": DENSITY, "vmin": low, "vmax": high, "alpha": max(0.5, opacity(len(xy)))}
    x, y = xy[order].T
    marks = ax.scatter(x, y, c=values[order], **style, **_SPOTS)
    bar = ax.figure.colorbar(marks, cax=ax.inset_axes((1.02, 0.1, 0.025, 0.8)), extend="min")
    if bar.solids is not None:
        bar.solids.set_alpha(1)
    bar.set_label(plain(label), **PLAIN)
