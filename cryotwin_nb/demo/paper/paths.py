"""Figures of pathways: Algorithm 1 from C2 to E4 and a second pair (3), and the four joined pathways (6)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure, FigureBase
from scipy.spatial import cKDTree

from cryotwin_nb import evaluation, plotting
from cryotwin_nb.demo.paper.latent_space import TsneMaps
from cryotwin_nb.demo.paper.montage import Row, draw_rows
from cryotwin_nb.demo.paper.sources import SUBSPACE, Method, Sources
from cryotwin_nb.errors import InputError
from cryotwin_nb.pathways import find_routes, find_states, max_flux, measure_barrier, ridgeline
from cryotwin_nb.pathways.ridgeline import Pathway, pathway_from_knots

N_STEPS = 11  # K of the paper
_PAIRS = (("C2", "E4"), ("B", "D4"))
"""Ends of the two paths: those of the paper's Fig. 3a; the text does not give those of 3b."""
_ROUTES = ("B C2 E1 E2 E4 E5", "B C2 C3 E2 E4 E5", "B D1 D2 D4 E4 E5", "B D1 D3 E3 E4 E5")
"""Routes of Davis et al. (2016), along which the paper joins its short paths."""
_OF_CRYODRGN = (
    "cryoDRGN: paths through a mixture that was fitted to its latents afterwards; its decoder is a separate program, "
    "so each step shows its stored map of the nearest state."
)
_NEIGHBOUR, _WIDER = 20, 1.5  # radius within which images are near: 1.5 times the median distance to the 20th


@dataclass(frozen=True, eq=False)
class PathReport:
    """A path with what the images say about it.

    Attributes
    ----------
    path : Pathway
        The path.
    near : (K+1,) int
        Number of images near each point.
    barrier : str
        Barrier measured by counting images, as text.
    order : tuple of str
        Blocks in the order in which they appear; empty without a ground truth.
    """

    path: Pathway
    near: np.ndarray
    barrier: str
    order: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.barrier}; images near each step: {', '.join(map(str, self.near))}"
        return text + (f"; blocks appear in the order {', '.join(self.order)}" if self.order else "")


def report(sources: Sources, method: Method, path: Pathway) -> PathReport:
    """Measure a path with the images: barrier, images near each step, order of blocks."""
    z = method.latents.double().numpy()
    tree = cKDTree(z)
    radius = _WIDER * float(np.median(tree.query(z[:: max(1, len(z) // 2000)], _NEIGHBOUR + 1)[0][:, -1]))
    near = np.array([len(rows) for rows in tree.query_ball_point(path.latents.double().numpy(), radius)])
    model = method.model
    order: tuple[str, ...] = ()
    on_records = model is not None and model.networks.makes_records
    try:
        images = model.likelihood(sources.particles) if model is not None and on_records else method.latents
        barrier = str(measure_barrier(path, images))
    except InputError as error:
        barrier = str(error)
    if model is not None and sources.particles.truth is not None:
        order = evaluation.path_block_order(model.volumes, path.latents, sources.particles.truth)
    return PathReport(path, near, barrier, order)


def short_paths(sources: Sources, maps: TsneMaps) -> tuple[Figure, str] | None:
    """Fig. 3: Algorithm 1 between two pairs of states; the straight line and the path of least resistance beside it."""
    panels, lines = [], []
    for letter, (start, end) in zip("ab", _pairs(sources), strict=False):
        rows: list[Row] = []
        for method in sources.methods.values():
            ends = sources.component(method, start), sources.component(method, end)
            if ends[0] is None or ends[1] is None:
                continue
            prior = method.density
            straight = pathway_from_knots(prior, prior.means[list(ends)], N_STEPS)
            paths = {
                "Algorithm 1": ridgeline(prior, ends[0], ends[1], N_STEPS, seed=maps.seed),
                "straight line": straight,
                "max_flux": max_flux(prior, ends[0], ends[1], N_STEPS),
            }
            for name, path in paths.items():
                found = report(sources, method, path)
                lines.append(f"- {letter}, {start} to {end}, {method.name}, {name}: {found}")
                titles = [f"{k}: {n:,}" for k, n in enumerate(found.near)]
                volumes = None if name == "straight line" else method.decode(path.latents)
                if volumes is not None:
                    rows.append((f"{method.name}\n{name}", volumes, titles))
        if rows:
            panels.append((f"{letter}   {start} to {end}", rows))
    if not panels:
        return None
    figure = plt.figure(figsize=(12.5, 1.25 * sum(len(rows) + 0.3 for _, rows in panels)), layout="constrained")
    parts = figure.subfigures(len(panels), 1, height_ratios=[len(rows) for _, rows in panels], squeeze=False)
    for part, (title, rows) in zip(parts[:, 0], panels, strict=True):
        part.suptitle(title, x=0.02, ha="left", weight="bold", size=10)
        draw_rows(part, rows, sources.particles.pixel_size, compared=True)
    return figure, (
        f"Paths of K = {N_STEPS} steps; above each map, its step and the number of images near it. Blue: gained, "
        f"orange: lost since the map to the left. {_OF_CRYODRGN}\n\n" + "\n".join(lines)
    )


def joined_paths(sources: Sources, maps: TsneMaps) -> tuple[Figure, str] | None:
    """Fig. 6: pathways joined from short paths along the four published routes, and the graph of the routes found."""
    drawn: list[tuple[str, list[Row]]] = []
    lines = []
    for method in sources.methods.values():
        rows: list[Row] = []
        for route in _ROUTES:
            chain = [sources.component(method, state) for state in route.split()]
            if None in chain:
                continue
            parts = [ridgeline(method.density, a, b, N_STEPS, seed=maps.seed) for a, b in pairwise(chain)]  # type: ignore[arg-type]
            points = torch.stack([parts[0].latents[0], *(p.latents[k] for p in parts for k in (N_STEPS // 2, -1))])
            volumes, names = method.decode(points), route.split()
            if volumes is None:
                continue
            titles = [names[0], *(title for name in names[1:] for title in ("", name))]
            rows.append(("", volumes, titles))
            if method.model is not None and sources.particles.truth is not None:
                whole = torch.cat([part.latents for part in parts])
                order = evaluation.path_block_order(method.model.volumes, whole, sources.particles.truth)
                lines.append(
                    f"- {method.name}, {route.replace(' ', '-')}: blocks appear in the order {', '.join(order)}"
                )
        if rows:
            drawn.append((f"{method.name}: Algorithm 1 between neighbours, joined", rows))
    if not drawn:
        return None
    figure = plt.figure(figsize=(15, 4.9 * len(drawn)), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.5, 1), squeeze=False)[0]
    for part, (title, rows) in zip(left.subfigures(len(drawn), 1, squeeze=False)[:, 0], drawn, strict=True):
        part.suptitle(title, size=10)
        draw_rows(part, rows, sources.particles.pixel_size, compared=True)
    lines.append(f"- {_graph(sources, right)}")
    return figure, (
        "Pathways joined from short ones, whose ends must be chosen by hand: the map of each state and one between. "
        "Right: the routes that the images support, by the subspace model, found without naming an intermediate state. "
        f"{_OF_CRYODRGN}"
        "\n\n" + "\n".join(lines)
    )


def _graph(sources: Sources, figure: FigureBase) -> str:
    """Draw the routes from the first state of a route to the last; return them as text."""
    if SUBSPACE not in sources.methods:
        return "routes by `find_routes`: none, because the subspace model is left out"
    method = sources.methods[SUBSPACE]
    ends = [sources.component(method, name) for name in (_ROUTES[0].split()[0], _ROUTES[0].split()[-1])]
    start, end = ends
    assert method.model is not None
    assert start is not None
    assert end is not None
    evidence = method.model.likelihood(sources.particles)
    states = find_states(method.prior, least_mass=0.02, latents=method.latents)
    routes = find_routes(method.prior, start, end, evidence=evidence, states=states, n_draws=50)
    nearest = {s.name: int(torch.cdist(s.latent[None], method.prior.means).argmin()) for r in routes for s in r.states}
    names = {state: method.names.get(component, state) for state, component in nearest.items()}
    ax = figure.subplots()
    plotting.route_graph(routes, method.model.volumes, names, ax=ax)
    ax.set_title(f"{method.name}: routes found from the images", size=10)
    found = [f"{'-'.join(names[s.name] for s in route.states)} {route.share:.0%}" for route in routes]
    return f"routes by `find_routes`: {', '.join(found)} (planted: 30, 30, 20 and 20 %)"


def _pairs(sources: Sources) -> tuple[tuple[str, str], ...]:
    """Return the ends of the paths: the paper's, or the states with the most and the next most particles."""
    if all(name in sources.states for pair in _PAIRS for name in pair):
        return _PAIRS
    masses = {state: int((sources.labels == state).sum()) for state in sources.states}
    heaviest = sorted(masses, key=masses.__getitem__, reverse=True)
    return tuple(zip(heaviest[::2], heaviest[1::2], strict=False))[:2]
