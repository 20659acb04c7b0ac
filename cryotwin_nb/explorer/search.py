"""Path search for the explorer: all paths, and the maps, profile and support by images of one of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import Decode
from cryotwin_nb.explorer.job import Report
from cryotwin_nb.explorer.packing import decoded
from cryotwin_nb.explorer.paths import find_paths, path_title
from cryotwin_nb.explorer.request import PathRequest, Place
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways import Landscape, PathProfile, Pathway, State, find_states, measure_barrier, profile
from cryotwin_nb.pathways.ends import end_point

OnMap = Callable[[list[Pathway], int, int, Tensor], None]
"""Function called with all paths, the index of the decoded one, a step and its map, as soon as it is decoded."""


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
    names : mapping of int to str, optional
        Names of the components, by which ends can be given besides the names of states.
    """

    def __init__(
        self,
        prior: GaussianMixture,
        latents: Tensor,
        decode: Decode,
        evidence: Any,
        support: Any = None,
        names: dict[int, str] | None = None,
    ) -> None:
        self.prior, self.latents, self.decode = prior, latents, decode
        self.evidence, self.support = latents if evidence is None else evidence, support
        weights = prior.weights.tolist()
        heaviest = sorted((names or {}).items(), key=lambda item: weights[item[0]])
        self._named = {name: component for component, name in heaviest}
        self._landscape: Landscape | None = None
        self._states: list[State] | None = None
        self._lock = threading.Lock()

    def find(
        self,
        request: PathRequest,
        report: Report,
        chosen: int = 0,
        known: list[Pathway] | None = None,
        on_map: OnMap | None = None,
        first: int = 0,
    ) -> PathAnswer:
        """Find the paths for a request, unless they are `known`, and decode the chosen one, from step `first`."""
        report(0.0, "path")
        paths = known or find_paths(request, self.prior, self.landscape, self.evidence, self.place)
        chosen = min(chosen, len(paths) - 1)
        points = paths[chosen].latents
        maps: Tensor | None = None
        for n, k in enumerate(sorted(range(len(points)), key=lambda k: abs(k - first))):
            report(0.3 + 0.6 * n / len(points), f"map {n + 1} of {len(points)}")
            (volume,) = decoded(self.decode, points[[k]], None if maps is None else maps.shape[-1])
            if maps is None:
                maps = volume.new_empty((len(points), *volume.shape))
            maps[k] = volume
            if on_map is not None:
                on_map(paths, chosen, k, volume)
        report(0.9, "nearby particles")
        path = paths[chosen]
        near, barrier = profile(path, self.prior, self.latents), self._barrier(path)
        assert maps is not None  # a path has at least two points
        return PathAnswer(request, paths, chosen, maps, near, barrier)

    def states(self) -> list[State]:
        """Return the states of the density, found once."""
        landscape = self.landscape()
        with self._lock:
            if self._states is None:
                self._states = find_states(self.prior, landscape=landscape)
            return self._states

    def place(self, name: str, value: Place) -> Any:
        """Return a component, a state or a latent for an end or way-point.

        Raises
        ------
        InputError
            If it is not a component, a name or a latent of this mixture.
        """
        if isinstance(value, str):
            return self._of_name(name, value)
        if isinstance(value, tuple):
            end_point(self.prior, name, np.array(value))
            return torch.tensor(value, dtype=torch.float64)
        if not 0 <= value < self.prior.n_components:
            expected = f"a component from 0 to {self.prior.n_components - 1}"
            raise InputError(name, f"component {value}", expected, "Hover over a star to see its component.")
        return value

    def _of_name(self, name: str, value: str) -> int | State:
        """Return the heaviest component with a name or, if none has it, the state of that name."""
        if value in self._named:
            return self._named[value]
        states = {state.name: state for state in self.states()}
        if value not in states:
            expected = ", ".join([*self._named, *states])
            raise InputError(name, f"name {value!r}", f"one of {expected}", "Choose a state by its name.")
        return states[value]

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

    def landscape(self) -> Landscape:
        """Return the landscape of the density, computed once."""
        with self._lock:
            if self._landscape is None:
                self._landscape = Landscape.of(self.prior)
            return self._landscape
