"""What a path is asked for with, and the paths that answer: the part of the explorer that a file can keep."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture import GaussianMixture
from cryotwin_nb.pathways import Landscape, Route, find_routes, max_flux
from cryotwin_nb.ridgeline import Pathway, ridgeline

METHODS = ("MaxFlux", "Algorithm 1", "All routes")


@dataclass(frozen=True)
class PathRequest:
    """The settings of a search for paths.

    Attributes
    ----------
    start, end : int
        Components, whose means are the ends.
    method : {"MaxFlux", "Algorithm 1", "All routes"}
        `max_flux`, `ridgeline` or `find_routes`.
    n_steps : int
        K.
    omega : float
        Of Algorithm 1.
    seed : int
        Of samples.
    """

    start: int
    end: int
    method: str = "MaxFlux"
    n_steps: int = 11
    omega: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError("method", repr(self.method), " or ".join(map(repr, METHODS)), "Choose one of them.")

    def find(self, prior: GaussianMixture, landscape: Callable[[], Landscape], evidence: Any = None) -> list[Pathway]:
        """The path, or all routes by falling share. The landscape of `prior` is asked for only where it is used."""
        ends, n_steps, seed = (self.start, self.end), self.n_steps, self.seed
        if self.method == "Algorithm 1":
            return [ridgeline(prior, *ends, n_steps, self.omega, seed=seed)]
        if self.start == self.end:
            raise InputError("end", f"{self.end}, the same as start", "another component", "Choose two stars.")
        if self.method == "MaxFlux":
            return [max_flux(prior, *ends, n_steps, seed=seed, landscape=landscape())]
        options: dict[str, Any] = {"evidence": evidence, "seed": seed, "landscape": landscape()}
        routes: list[Pathway] = [*find_routes(prior, *ends, n_steps=n_steps, **options)]
        if not routes:
            expected, remedy = "at least one", "Choose ends that particles join, or MaxFlux."
            raise InputError("routes", f"none between components {self.start} and {self.end}", expected, remedy)
        return routes

    def as_dict(self) -> dict:
        """For a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any, where: object = "path request") -> PathRequest:
        """From `as_dict`; anything else is refused."""
        kinds: dict[str, Any] = {
            "start": int,
            "end": int,
            "method": str,
            "n_steps": int,
            "omega": (int, float),
            "seed": int,
        }
        wrong = not isinstance(values, dict) or set(values) != set(kinds)
        if wrong or not all(isinstance(values[k], kind) and values[k] is not True for k, kind in kinds.items()):
            found = f"{values!r}"[:80]
            raise InputError(where, found, f"the settings {', '.join(kinds)}", "Give a file that the explorer wrote.")
        return cls(**values)


def path_title(path: Pathway, names: dict[int, str] | None = None) -> str:
    """What a path is called in a list: its method, or a route's states and share."""
    if isinstance(path, Route):
        called = [state_name(state, names) for state in path.states]
        return f"{path.share:.0%}: " + " → ".join(name for name, _ in groupby(called))
    cost = f"log J {path.log_cost:.1f}, barrier {path.barrier:.1f} nats"
    return f"{'Algorithm 1' if path.method == 'ridgeline' else path.method}: {cost}"


def state_name(state: Any, names: dict[int, str] | None) -> str:
    """A state by the name that most of its components' weight bears, else by its own."""
    given = [names[c] for c in state.components if c in names] if names else []
    return max(set(given), key=given.count) if given else str(state.name)


def fingerprint(prior: GaussianMixture) -> str:
    """Short hash of a mixture, by which a file tells whether it belongs to it."""
    parts = (prior.weights, prior.means, prior.covariances)
    values = torch.cat([part.detach().cpu().flatten() for part in parts]).numpy()
    return hashlib.sha256(np.round(values, 6).astype("<f4").tobytes()).hexdigest()[:16]
