"""What the browser draws, as JSON and bytes: stars, points, colours, paths and profiles."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cryotwin_nb.explorer.planes import Colouring, Plane
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.ridgeline import Pathway, equidistant

if TYPE_CHECKING:  # SciPy is slow to import
    from cryotwin_nb.pathways import PathProfile

_CORNERS = 120  # number of points per path drawn
_PROFILE = 300  # number of points of a profile drawn


def components_drawn(prior: GaussianMixture, names: Mapping[int, str], junk: Collection[int]) -> list[dict[str, Any]]:
    """Return mass, name, label (only for the largest component of that name), tooltip and mark of each component."""
    weights = prior.weights.tolist()
    heaviest = {name: c for c, name in sorted(names.items(), key=lambda item: weights[item[0]])}
    drawn = []
    for c, weight in enumerate(weights):
        name = names.get(c, "")
        tip = f"component {c}, weight {weight:.1%}"
        label = name if heaviest.get(name) == c else ""
        tip = f"{name}, {tip}" if name else tip
        drawn.append({"mass": weight, "name": name, "label": label, "tip": tip, "junk": c in junk})
    return drawn


def plane_drawn(plane: Plane, prior: GaussianMixture) -> dict[str, Any]:
    """Return the axes of a plane and the positions of the stars in it."""
    known = any(plane.axes)
    return {
        "name": plane.name,
        "axes": list(plane.axes) if known else ["embedding", ""],
        "unit": "latent units" if known else "",
        "stars": plane.place(prior.means).tolist(),
    }


def linear_planes_drawn(planes: Mapping[str, Plane], prior: GaussianMixture) -> dict[str, dict[str, Any]]:
    """Return the linear planes by name, each with the matrix and the centre by which latents are projected."""
    found = {}
    for name, plane in planes.items():
        if plane.linear is not None:
            matrix, centre = plane.linear
            found[name] = plane_drawn(plane, prior) | {"matrix": matrix.tolist(), "centre": centre.tolist()}
    return found


def points_drawn(plane: Plane, latents: torch.Tensor, rows: np.ndarray) -> bytes:
    """Return the positions (n, 2) of the particles, float32."""
    return plane.points(latents, rows).astype("<f4").tobytes()


def colours_drawn(colouring: Colouring) -> tuple[dict[str, Any], bytes]:
    """Return the legend and the colours (n, 3) of the particles, one byte each."""
    return colouring.legend, colouring.rgb.tobytes()


def paths_drawn(plane: Plane, paths: list[Pathway], chosen: int, titles: list[str]) -> dict[str, Any]:
    """Return the paths as lines in a plane, with their shares, and the steps of the chosen one."""
    curves = [equidistant(path.curve, _CORNERS) for path in paths]
    lines = [plane.place(curve).tolist() for curve in curves]
    shares = [float(getattr(path, "share", 1.0)) for path in paths]
    routes = [{"curve": line, "share": s, "name": t} for line, s, t in zip(lines, shares, titles, strict=True)]
    drawn = {"routes": routes, "chosen": chosen, "steps": plane.place(paths[chosen].latents).tolist()}
    # The same in latent space, with which the page draws other planes.
    latents = [torch.as_tensor(curve).float().tolist() for curve in curves]
    return drawn | {"latents": latents, "points": torch.as_tensor(paths[chosen].latents).float().tolist()}


def profile_drawn(profile: PathProfile) -> dict[str, Any]:
    """Return the log density along a path and the number of particles near each step."""
    length = float(profile.position[-1])
    across = np.linspace(0, length, _PROFILE)
    return {
        "length": length,
        "density": np.interp(across, profile.position, -profile.energy).round(4).tolist(),
        "at": profile.step_position.tolist(),
        "here": np.interp(profile.step_position, profile.position, -profile.energy).round(4).tolist(),
        "counts": profile.counts.tolist(),
        "radius": float(profile.radius),
    }


def support_drawn(support: Any) -> dict[str, Any]:
    """Return the resolution of the half maps at each step, the number of images, and the findings in words."""
    resolution = np.asarray(support.resolution, float)
    with_words = hasattr(support, "findings")
    return {
        "resolution": [float(r) if np.isfinite(r) else None for r in resolution],
        "images": np.asarray(support.n_effective, float).tolist(),
        "verdict": support.verdict if with_words else "",
        "findings": [list(support.findings(k)) if with_words else [] for k in range(len(resolution))],
    }
