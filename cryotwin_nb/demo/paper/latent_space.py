"""Figures of the latent space: training step (1), t-SNE maps (2a, 2b), isometry (4), and the prior of cryoDRGN (5)."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cryotwin_nb import evaluation, plotting
from cryotwin_nb.demo.paper.montage import draw_rows
from cryotwin_nb.demo.paper.sources import COORDINATE, CRYODRGN, Method, Sources
from cryotwin_nb.imaging.fourier import ifft2
from cryotwin_nb.plotting.colours import state_colours
from cryotwin_nb.plotting.style import HALO, PLAIN

_EMBEDDED, _DRAWN = 3000, 1500  # latents in a t-SNE map; samples of the prior placed in it
_SPOTS: dict[str, Any] = {"s": 5, "linewidths": 0, "rasterized": True}
_PAPER_R = {COORDINATE: 0.77, CRYODRGN: 0.52}
_PAPER_KL = {COORDINATE: 0.25, CRYODRGN: 5.7}


class TsneMaps:
    """t-SNE maps of each method, computed once for several figures."""

    def __init__(self, sources: Sources, seed: int) -> None:
        self.sources, self.seed = sources, seed
        self.shown = np.linspace(0, len(sources.labels) - 1, min(_EMBEDDED, len(sources.labels))).astype(int)
        self._maps: dict[str, evaluation.Embedding] = {}

    def __getitem__(self, method: Method) -> evaluation.Embedding:
        if method.name not in self._maps:
            z = method.latents[self.shown]
            found = evaluation.embed_tsne(z, method.prior, n_samples=_DRAWN, seed=self.seed)
            self._maps[method.name] = found
        return self._maps[method.name]


def training_step(sources: Sources, maps: TsneMaps) -> tuple[Figure, str]:
    """Fig. 1: diagram of a training step, with one image and its prediction by the coordinate networks."""
    name, model = next(((m.name, model) for m, model in sources.trained if m.name == COORDINATE), (None, None))
    pictures: list[Any] = [None, None]
    if model is not None:
        row = int(np.flatnonzero(sources.settled)[0])
        batch = model.imaging.batch(sources.particles, np.array([row]))
        with torch.no_grad():
            z = sources.methods[COORDINATE].latents[row : row + 1]
            predicted = model.networks.slices(batch.rotations, z) * batch.transfer
        plane = model.imaging.plane
        pictures = [ifft2(plane.scatter(values)).real[0] for values in (batch.data, predicted)]
    figure = plotting.training_diagram(*pictures)
    shown = f"the image and its prediction are of the {name} networks" if name else "without images"
    return figure, f"Diagram of a training step (Eq. 3); {shown}."


def latents_and_means(sources: Sources, maps: TsneMaps) -> tuple[Figure, str]:
    """Fig. 2a: t-SNE maps of the latents, with the means of the prior as stars and the names of the states."""
    figure, panels = _row(sources)
    colours = state_colours(sources.states)
    for ax, method in zip(panels, sources.methods.values(), strict=True):
        found, labels = maps[method], sources.labels[maps.shown]
        x, y = found.latents.T
        ax.scatter(x, y, c=[colours.get(label, "0.7") for label in labels], alpha=0.6, **_SPOTS)
        if method.names:
            area = 12 + 120 * (method.prior.weights / method.prior.weights.max()).numpy()
            style: dict[str, Any] = {"color": "white", "edgecolors": "black", "linewidths": 0.7, "zorder": 4}
            x, y = found.means.T
            ax.scatter(x, y, marker="*", s=area, **style)
        _name(ax, found.latents, labels, sources.states)
        ax.set_title(method.name + ("" if method.names else " (prior without means to mark)"))
    used = ", ".join(f"{m.name} {m.prior.n_components}" for m in sources.methods.values() if m.names)
    return figure, (
        "t-SNE maps of the latents, coloured by state; stars are the means of the mixture, with areas that increase "
        f"with their weights. Components in use: {used} (paper: C = 100)."
    )


def latents_and_samples(sources: Sources, maps: TsneMaps) -> tuple[Figure, str]:
    """Fig. 2b: samples of the prior in the same maps, with the KL divergences."""
    figure, panels = _row(sources)
    lines = []
    for ax, method in zip(panels, sources.methods.values(), strict=True):
        _samples(ax, maps[method].latents, maps[method].samples)
        kl = evaluation.kl_divergence(method.latents, method.prior, seed=maps.seed)
        ax.set_title(f"{method.name}: KL {round(kl, 2) + 0.0:.2f} nats")  # no -0.00
        paper = f" (paper {_PAPER_KL[method.name]:g})" if method.name in _PAPER_KL else ""
        lines.append(f"{method.name} {kl:.3f}{paper}")
    return figure, (
        "Samples of the prior (green) in the maps of Fig. 2a, over the latents (grey). KL divergence of the latents "
        f"from the prior by KLIEP, nats: {', '.join(lines)}."
    )


def isometry(sources: Sources, maps: TsneMaps) -> tuple[Figure, str]:
    """Fig. 4: inner products of pairs of small steps in map space against those in latent space, on one scale."""
    shown = {m.name: found for m in sources.methods.values() if (found := m.isometry) is not None}
    figure, panels = plt.subplots(1, len(shown), figsize=(3.3 * len(shown), 3.2), squeeze=False, sharey=True)
    lines = []
    for ax, (name, result) in zip(panels[0], shown.items(), strict=True):
        latent, volume = np.asarray(result.latent_products), np.asarray(result.volume_products) / result.scale
        unit = np.abs(np.concatenate([latent, volume])).max()
        ax.axline((0, 0), slope=1, color="0.6", lw=0.8)
        ax.plot(latent / unit, volume / unit, "o", ms=3.5, alpha=0.6, mew=0)
        low, high = result.correlation_interval
        ax.set(title=f"{name}: r = {result.correlation:.2f}", xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
        ax.set_xlabel("dz₁·dz₂ (of the largest)")
        paper = f"; paper {_PAPER_R[name]:g}" if name in _PAPER_R else ""
        lines.append(f"{name} {result.correlation:.3f} ({low:.3f} to {high:.3f}{paper})")
    panels[0, 0].set_ylabel("dV₁·dV₂, divided by the fitted slope")
    return figure, (
        "Isometry: each dot is a pair of small random steps from the latent of an image. All panels have the same "
        f"scale, and an isometry lies on the line. Correlation r with 95 % interval: {', '.join(lines)}."
    )


def fixed_prior(sources: Sources, maps: TsneMaps) -> tuple[Figure, str] | None:
    """Fig. 5: latents of cryoDRGN, samples of its prior and of a fitted mixture, and its structures."""
    method = sources.methods.get(CRYODRGN)
    if method is None:
        return None
    figure = plt.figure(figsize=(11, 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.6, 1), squeeze=False)[:, 0]
    panels, found = above.subplots(1, 3, sharex=True, sharey=True), maps[method]
    colours, labels = state_colours(sources.states), sources.labels[maps.shown]
    panels[0].scatter(*found.latents.T, c=[colours.get(label, "0.7") for label in labels], alpha=0.6, **_SPOTS)
    _name(panels[0], found.latents, labels, sources.states)
    repaired = method.density
    _samples(panels[1], found.latents, found.samples)
    _samples(panels[2], found.latents, found.transform(repaired.sample(_DRAWN, seed=maps.seed)))
    titles = ("a  latents", "b  samples of its prior, N(0, I)", "samples of a fitted mixture")
    for ax, title in zip(panels, titles, strict=True):
        _bare(ax)
        ax.set_title(title)
    rows = []
    if method.state_maps is not None:
        rows.append(("c  states", method.state_maps, list(sources.states)))
    if method.prior_maps is not None:
        rows.append(("samples of\nthe prior", method.prior_maps, [""] * len(method.prior_maps)))
    draw_rows(below, rows, sources.particles.pixel_size)
    kl = evaluation.kl_divergence(method.latents, repaired, seed=maps.seed)
    return figure, (
        "cryoDRGN: latents by state (a), samples of its fixed prior in the same map (b) and of a mixture fitted to the "
        f"latents afterwards (KL {kl:.3f} nats), and its maps of the states and at samples of the prior (c)."
    )


def _row(sources: Sources) -> tuple[Figure, list[Axes]]:
    count = len(sources.methods)
    figure, panels = plt.subplots(1, count, figsize=(3.9 * count, 3.9), layout="constrained", squeeze=False)
    for ax in panels[0]:
        _bare(ax)
    return figure, list(panels[0])


def _bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[["left", "bottom"]].set_visible(False)


def _samples(ax: Axes, latents: np.ndarray, samples: np.ndarray) -> None:
    ax.scatter(*latents.T, color="0.82", **_SPOTS)
    ax.scatter(*samples.T, color=plotting.COLOURS[2], alpha=0.5, **_SPOTS)


def _name(ax: Axes, xy: np.ndarray, labels: np.ndarray, states: tuple[str, ...]) -> None:
    """Write the name of each state at its densest place: the latent nearest to the median of its latents."""
    for state in states:
        own = xy[labels == state]
        if len(own):
            x, y = own[np.linalg.norm(own - np.median(own, axis=0), axis=1).argmin()]
            style: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 6, "path_effects": HALO}
            ax.text(x, y, state, size=9, weight="bold", **style, **PLAIN)
