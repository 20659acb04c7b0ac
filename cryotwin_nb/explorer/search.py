"""Path search for the explorer: all paths, and the maps, profile and support by images of one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import Decode
from cryotwin_nb.explorer.job import Report
from cryotwin_nb.explorer.request import PathRequest
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways import Landscape, PathProfile, Route, find_routes, max_flux, measure_barrier, profile
from cryotwin_nb.pathways.ridgeline import Pathway, ridgeline

_AT_ONCE = 2  # number of maps decoded between progress reports; a job can be stopped at each report


@dataclass(frozen=True, eq=False)
class PathAnswer:
    """Result of a path search: all paths, and one of them decoded.

    Attributes
    ----------
    request : PathRequest
        Settings of the search.
    paths : list of Pathway
        All paths found.
    chosen : int
        Index of the decoded path.
    maps : (K+1, D, D, D) float32
        Maps along the decoded path.
    profile : PathProfile
        Profile of the decoded path.
    barrier : str
        Barrier of the decoded path by counting images, in words.
    support : optional
        Support by images, once computed: `resolution` (K+1,), Å, and `n_effective` (K+1,).
    """

    request: PathRequest
    paths: list[Pathway]
    chosen: int
    maps: Tensor
    profile: PathProfile
    barrier: str = ""
    support: Any = None

    @property
    def path(self) -> Pathway:
        return self.paths[self.chosen]

    def titles(self, names: dict[int, str]) -> list[str]:
        """Return the menu titles of all paths."""
        return [path_title(path, names) for path in self.paths]


class PathSearch:
    """Search for paths; the landscape of the density is computed only once.

    Parameters
    ----------
    prior : GaussianMixture
        Density of the latents.
    latents : (n, d) float
        Latents of the particles.
    decode : callable
        Decoder from latents (m, d) to maps (m, D, D, D).
    evidence
        Evidence for transitions; see `find_routes`.
    support : callable, optional
        Function of a path that returns its support by images; see `PathwayExplorer`.
    """

    def __init__(
        self, prior: GaussianMixture, latents: Tensor, decode: Decode, evidence: Any, support: Any = None
    ) -> None:
        self.prior, self.latents, self.decode = prior, latents, decode
        self.evidence, self.support = latents if evidence is None else evidence, support
        self._landscape: Landscape | None = None

    def find(
        self, request: PathRequest, report: Report, chosen: int = 0, known: list[Pathway] | None = None
    ) -> PathAnswer:
        """Find the paths for a request, unless they are `known`, and decode the chosen one."""
        report(0.0, "path")
        paths = known or find_paths(request, self.prior, self._prior_landscape, self.evidence)
        path = paths[min(chosen, len(paths) - 1)]
        parts: list[Tensor] = []
        count = len(path.latents)
        for part in path.latents.split(_AT_ONCE):
            report(0.3 + 0.6 * _AT_ONCE * len(parts) / count, f"map {_AT_ONCE * len(parts) + 1} of {count}")
            parts.append(torch.as_tensor(self.decode(part)).detach().float().cpu())
        report(0.9, "nearby particles")
        near, barrier = profile(path, self.prior, self.latents), self._barrier(path)
        return PathAnswer(request, paths, paths.index(path), torch.cat(parts), near, barrier)

    def supported(self, answer: PathAnswer, report: Report) -> PathAnswer:
        """Add the support by images to a result.

        Raises
        ------
        InputError
            If the support does not have one resolution and one number of images for each point of the path.
        """
        report(None, "support by images")
        support = self.support(answer.path)
        for name in ("resolution", "n_effective"):
            shape, expected = np.shape(getattr(support, name, ())), (len(answer.path.latents),)
            if shape != expected:
                where, remedy = f"support(path).{name}", "Return the result of pathway_support for the path."
                raise InputError(where, f"shape {shape}", f"{expected}, one value for each point", remedy)
        return replace(answer, support=support)

    def _barrier(self, path: Pathway) -> str:
        """Return the barrier of a path from the images of the evidence or, without them, from the latents."""
        try:
            return str(measure_barrier(path, self.evidence if hasattr(self.evidence, "points") else self.latents))
        except InputError as error:
            return str(error).splitlines()[0]

    def _prior_landscape(self) -> Landscape:
        if self._landscape is None:
            self._landscape = Landscape.of(self.prior)
        return self._landscape


def find_paths(
    request: PathRequest, prior: GaussianMixture, landscape: Callable[[], Landscape], evidence: Any = None
) -> list[Pathway]:
    """Find the path, or all routes in order of decreasing share. `landscape` is called only if the method needs it."""
    ends, n_steps, seed = (request.start, request.end), request.n_steps, request.seed
    if request.method == "Algorithm 1":
        return [ridgeline(prior, *ends, n_steps, request.omega, seed=seed)]
    if request.start == request.end:
        sentence = f"Start and end are the same component, {request.end}."
        raise InputError("end", f"{request.end}", "another component", "Choose two different stars.", sentence)
    if request.method == "MaxFlux":
        return [max_flux(prior, *ends, n_steps, seed=seed, landscape=landscape())]
    options: dict[str, Any] = {"evidence": evidence, "seed": seed, "landscape": landscape()}
    routes: list[Pathway] = [*find_routes(prior, *ends, n_steps=n_steps, **options)]
    if not routes:
        sentence = f"No route connects components {request.start} and {request.end}."
        remedy = "Choose ends that are connected by particles, or use MaxFlux as the method."
        raise InputError("routes", "none", "at least one", remedy, sentence)
    return routes


def path_title(path: Pathway, names: dict[int, str] | None = None) -> str:
    """Return the menu title of a path: its method, cost and barrier, or the share and states of a route."""
    if isinstance(path, Route):
        called = [state_name(state, names) for state in path.states]
        return f"{path.share:.0%}: " + " → ".join(name for name, _ in groupby(called))
    cost = f"log J {path.log_cost:.1f}, barrier {path.barrier:.1f} nats"
    return f"{'Algorithm 1' if path.method == 'ridgeline' else path.method}: {cost}"


def state_name(state: Any, names: dict[int, str] | None) -> str:
    """Return the most frequent name among the components of a state, or the state's own name if none has one."""
    given = [names[c] for c in state.components if c in names] if names else []
    return max(set(given), key=given.count) if given else str(state.name)
