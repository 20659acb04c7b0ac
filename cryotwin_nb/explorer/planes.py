"""Two-dimensional projections of the latents, and the colours of their points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import Embedding
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.plotting.colours import DENSITY, state_colours

MAX_POINTS = 500_000
_NEAREST = 10
_MANY = 24  # maximum number of distinct strings or integers treated as labels


@dataclass(frozen=True, eq=False)
class Plane:
    """Two-dimensional projection of the latents.

    Attributes
    ----------
    name : str
        Name in the menu.
    axes : (str, str)
        Labels of the axes; empty if the axes have no meaning.
    place : callable
        Function that maps latents (m, d) to positions (m, 2).
    known : (n, 2) float, optional
        Positions of the particles, if `place` does not give them exactly.
    linear : ((d, 2), (d,)) float, optional
        Matrix A and centre c, if `place` is (z - c) A.
    """

    name: str
    axes: tuple[str, str]
    place: Callable[[Tensor], np.ndarray]
    known: np.ndarray | None = None
    linear: tuple[np.ndarray, np.ndarray] | None = None

    def points(self, latents: Tensor, rows: np.ndarray) -> np.ndarray:
        """Return the positions of some of the particles."""
        return self.place(latents[rows]) if self.known is None else self.known[rows]


def shown_rows(n: int) -> np.ndarray:
    """Return the indices of at most MAX_POINTS of n particles, at regular intervals."""
    return np.linspace(0, n - 1, min(MAX_POINTS, n)).astype(int)


def planes(latents: Tensor, embedding: Embedding | np.ndarray | None) -> dict[str, Plane]:
    """Return the available planes by name: embedding (if given), principal components, pairs of latent dimensions."""
    found = [] if embedding is None else [_embedded(latents, embedding)]
    z = latents.double()
    centre, dim = z.mean(0), z.shape[1]
    variance, directions = torch.linalg.eigh((z - centre).T @ (z - centre))
    variance, directions = variance.flip(0).clamp_min(0), directions.flip(1)
    directions = directions * torch.where(directions.sum(0) < 0, -1.0, 1.0)  # so that signs do not depend on rounding
    share = (variance / variance.sum().clamp_min(1e-300)).tolist()
    if dim > 2:
        for i, j in combinations(range(min(dim, 4)), 2):
            axes = tuple(f"PC {k + 1} (latent units; {share[k]:.0%} of the variance)" for k in (i, j))
            found.append(_linear(f"PC {i + 1}, {j + 1}", axes, directions[:, [i, j]], centre))
    identity = torch.eye(dim, max(dim, 2), dtype=z.dtype)
    for i, j in combinations(range(max(dim, 2)), 2):
        axes = tuple(f"latent {k + 1} (latent units)" if k < dim else "" for k in (i, j))
        found.append(_linear(f"latent {i + 1}, {j + 1}", axes, identity[:, [i, j]], centre * 0))
    return {plane.name: plane for plane in found}


def _embedded(latents: Tensor, embedding: Embedding | np.ndarray | Tensor) -> Plane:
    """Create a plane from an embedding (n, 2); place other points at the weighted mean of their nearest latents."""
    name = "t-SNE" if isinstance(embedding, Embedding) else "embedding"
    known = np.asarray(embedding.latents if isinstance(embedding, Embedding) else embedding, dtype=float)
    if known.shape != (len(latents), 2):
        remedy = "Pass embed_tsne(latents, prior), or another embedding of the same latents."
        raise InputError("embedding", f"shape {known.shape}", f"({len(latents)}, 2)", remedy)
    z = latents.double()

    def place(x: Tensor) -> np.ndarray:
        x = torch.as_tensor(x).double().cpu()
        k, exact = min(_NEAREST, len(z)), "donot_use_mm_for_euclid_dist"  # also exact for coincident points
        parts = [torch.cdist(few, z, compute_mode=exact).topk(k, largest=False) for few in x.split(16)]
        near, which = (torch.cat(part) for part in zip(*parts))
        weight = (1 / near.clamp(min=1e-9))[..., None].numpy()
        return (weight * known[which.numpy()]).sum(1) / weight.sum(1)

    return Plane(name, ("", ""), place, known)


def _linear(name: str, axes: tuple[str, ...], matrix: Tensor, centre: Tensor) -> Plane:
    def place(x: Tensor) -> np.ndarray:
        return ((torch.as_tensor(x).double().cpu() - centre) @ matrix).numpy()

    return Plane(name, (axes[0], axes[1]), place, linear=(matrix.numpy(), centre.numpy()))


@dataclass(frozen=True, eq=False)
class Colouring:
    """Colours of the points and their legend.

    Attributes
    ----------
    rgb : (n, 3) uint8
        Colour of each point.
    order : (n,) int64
        Order in which points are drawn, the last on top.
    legend : dict
        {"title", "entries": [[name, "#rrggbb"], ...]} or {"title", "low", "high", "ramp": ["#rrggbb", ...]}.
    """

    rgb: np.ndarray
    order: np.ndarray
    legend: dict


def colouring(title: str, values: np.ndarray) -> Colouring:
    """Map values (n,) to colours: strings and integers with few distinct values as labels, others by a ramp."""
    values = np.asarray(values)
    if by_label(values):
        return _by_label(title, values.astype(int) if values.dtype.kind in "iubf" else values)
    finite = np.where(np.isfinite(values), values, np.nan).astype(float)
    if np.isnan(finite).all():
        raise InputError(title, "no finite value", "finite numbers", "Choose another column.")
    low, high = np.nanpercentile(finite, (2, 99.8))
    share = np.nan_to_num(np.clip((finite - low) / max(high - low, 1e-12), 0, 1))
    palette = colormaps[DENSITY]
    legend = {
        "title": title,
        "low": f"{low:.3g}",
        "high": f"{high:.3g}",
        "ramp": [to_hex(palette(x)) for x in np.linspace(0, 1, 9)],
    }
    return Colouring((255 * palette(share)[:, :3]).astype(np.uint8), np.argsort(share, kind="stable"), legend)


def by_label(values: np.ndarray) -> bool:
    """Return whether values are labels: strings, or whole numbers of which few are distinct."""
    if values.dtype.kind not in "iubf":
        return True
    whole = values.dtype.kind in "iub" or bool(np.all(values == np.round(values)))
    return whole and len(np.unique(values)) <= _MANY


def _by_label(title: str, values: np.ndarray) -> Colouring:
    texts = values.astype(str)
    names, number, counts = np.unique(texts, return_inverse=True, return_counts=True)
    if len(names) > _MANY:  # only the most frequent labels keep their own colour
        kept = np.argsort(-counts)[: _MANY - 1]
        texts = np.where(np.isin(number, kept), texts, "others")
        names, number = np.unique(texts, return_inverse=True)
    colours = state_colours(names)
    rgb = (255 * np.array([to_rgb(colours[str(name)]) for name in names])).round().astype(np.uint8)[number]
    order = np.random.default_rng(0).permutation(len(texts))
    return Colouring(rgb, order, {"title": title, "entries": [list(entry) for entry in colours.items()]})


def to_colour_by(
    prior: GaussianMixture, latents: Tensor, labels: Any, particles: Any, extra: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
    """Return the values (n,) by which points can be coloured, keyed by title."""
    n = len(latents)
    found: dict[str, Any] = {"log density (nats)": prior.log_prob(latents.float()).detach().cpu().numpy()}
    if labels is not None:
        found["label"] = np.asarray(labels)
    if particles is not None:
        found |= _particle_columns(particles)
    found |= {str(name): np.asarray(values) for name, values in dict({} if extra is None else extra).items()}
    for name, values in found.items():
        if np.shape(values) != (n,):
            found_here, remedy = f"shape {np.shape(values)}", "Pass values for the same particles as the latents."
            raise InputError(f"column {name!r}", found_here, f"({n},), one value for each latent", remedy)
    return found


def _particle_columns(particles: Any) -> dict[str, np.ndarray]:
    found = {}
    if particles.ctf is not None:
        found["defocus (Å)"] = (particles.ctf.defocus_u + particles.ctf.defocus_v) / 2
    if len(np.unique(particles.optics_group)) > 1:
        found["optics group"] = particles.optics_group
    quality = particles._quality  # None if no image was used: then it is not known
    if quality is not None and (quality.status != "good").any():
        found["image status"] = quality.status
    truth = particles.truth
    if truth is not None:
        found["true state"] = np.asarray(truth.labels)
        for name, values in zip(truth.coordinate_names, np.asarray(truth.coordinates).T):
            found[f"true {name}"] = values
    return found
