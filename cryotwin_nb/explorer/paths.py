"""Paths for the settings of the explorer, by the functions of `pathways`, and their titles."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby, pairwise
from typing import Any

from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer.request import PathRequest, Place
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways import Landscape, Pathway, Route, State, find_routes, max_flux, ridgeline
from cryotwin_nb.pathways.joining import joined


def find_paths(
    request: PathRequest,
    prior: GaussianMixture,
    landscape: Callable[[], Landscape],
    evidence: Any = None,
    place: Callable[[str, Place], Any] = lambda name, value: value,
) -> list[Pathway]:
    """Find the path, or all routes in order of decreasing share. `landscape` is called only if the method needs it.

    `place` converts an end or way-point to a component, a state or a latent.
    """
    start, end = place("start", request.start), place("end", request.end)
    ways, n_steps, seed = [place("way-point", way) for way in request.ways], request.n_steps, request.seed
    if request.method == "Algorithm 1":
        stops = [_component(prior, stop) for stop in (start, *ways, end)]
        legs = [ridgeline(prior, *pair, n_steps, request.omega, seed=seed) for pair in pairwise(stops)]
        return legs if len(legs) == 1 else [joined(prior, legs, n_steps)]
    if request.start == request.end and not ways:
        sentence = f"Start and end are the same, {request.end}."
        raise InputError(
            "end",
            f"{request.end}",
            "another component",
            "Choose two different stars, or any point as the end.",
            sentence,
        )
    if request.method == "MaxFlux":
        return [max_flux(prior, start, end, n_steps, seed=seed, landscape=landscape(), via=ways)]
    options: dict[str, Any] = {"evidence": evidence, "seed": seed, "landscape": landscape(), "via": ways}
    routes: list[Pathway] = [*find_routes(prior, start, end, n_steps=n_steps, **options)]
    if not routes:
        sentence = f"No route connects {request.start} and {request.end}."
        remedy = "Choose ends that are connected by particles, or use MaxFlux as the method."
        raise InputError("routes", "none", "at least one", remedy, sentence)
    return routes


def _component(prior: GaussianMixture, stop: Any) -> int:
    """Return a component, or the heaviest one of a state, for Algorithm 1, which knows only these."""
    if isinstance(stop, State):
        return max(stop.components, key=lambda c: float(prior.weights[c]))
    if isinstance(stop, Tensor):
        remedy = "Choose stars or states as ends, or use MaxFlux as the method."
        raise InputError("method", "Algorithm 1 and a free point", "components as ends", remedy)
    return stop


def path_title(path: Pathway, names: dict[int, str] | None = None) -> str:
    """Return the menu title of a path: its method, cost and barrier, or the share and states of a route."""
    if isinstance(path, Route):
        called = [state_name(state, names) for state in path.states]
        return f"{path.share:.0%}: " + " → ".join(name for name, _ in groupby(called))
    cost = f"log J {path.log_cost:.1f} nats, barrier of the density {path.barrier:.1f} nats"
    return f"{'Algorithm 1' if path.method == 'ridgeline' else path.method}: {cost}"


def state_name(state: Any, names: dict[int, str] | None) -> str:
    """Return the most frequent name among the components of a state, or the state's own name if none has one."""
    given = [names[c] for c in state.components if c in names] if names else []
    return max(set(given), key=given.count) if given else str(state.name)
