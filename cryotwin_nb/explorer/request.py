"""Settings of a path search, sent by browsers and files, and therefore checked: ends, way-points and a method."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.gaussian import GaussianMixture

METHODS = ("MaxFlux", "Algorithm 1", "All routes")
MOST_WAYS, MOST_NAME, MOST_COORDINATES = 8, 200, 4096
Place = int | str | tuple[float, ...]
"""An end or way-point: a component, the name of a state, or a latent vector."""


@dataclass(frozen=True)
class PathRequest:
    """Settings of a path search.

    Attributes
    ----------
    start, end : int, str or tuple of float
        Ends of the path: components (their means), names of states, or latents.
    method : {"MaxFlux", "Algorithm 1", "All routes"}
        Function to call: `max_flux`, `ridgeline` or `find_routes`.
    n_steps : int
        Number of steps K.
    omega : float
        Parameter ω of Algorithm 1; see `ridgeline`.
    seed : int
        Seed of the random samples.
    ways : tuple
        Way-points between the ends, in order, given like the ends.
    """

    start: Place
    end: Place
    method: str = "MaxFlux"
    n_steps: int = 11
    omega: float = 2.0
    seed: int = 0
    ways: tuple[Place, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError("method", repr(self.method), " or ".join(map(repr, METHODS)), "Choose one of these.")

    def as_dict(self) -> dict:
        """Return the settings as a dict for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any, where: object = "path request") -> PathRequest:
        """Rebuild a request from untrusted values such as the result of `as_dict`; raise `InputError` otherwise."""
        names = {"start", "end", "method", "n_steps", "omega", "seed"}
        fits = isinstance(values, dict) and names <= set(values) <= names | {"ways"}
        if not fits or not _settings_fit(values):
            found = f"{values!r}"[:80]
            raise InputError(
                where, found, f"the settings {', '.join(sorted(names))}", "Pass a file written by the explorer."
            )
        ways = tuple(_place(way) for way in values.get("ways", ()))
        return cls(**{**values, "start": _place(values["start"]), "end": _place(values["end"]), "ways": ways})


def _settings_fit(values: dict) -> bool:
    ways = values.get("ways", ())
    return (
        isinstance(ways, (list, tuple))
        and len(ways) <= MOST_WAYS
        and all(_is_place(place) for place in (values["start"], values["end"], *ways))
        and isinstance(values["method"], str)
        and _is_whole(values["n_steps"], 2, 1000)
        and _is_number(values["omega"])
        and _is_whole(values["seed"], 0, 2**63 - 1)
    )


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


def _is_place(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return 0 < len(value) <= MOST_COORDINATES and all(map(_is_number, value))
    return _is_whole(value, 0, 2**31) or (isinstance(value, str) and 0 < len(value) <= MOST_NAME)


def _place(value: Any) -> Place:
    return tuple(map(float, value)) if isinstance(value, (list, tuple)) else value


def fingerprint(prior: GaussianMixture) -> str:
    """Return a short hash of a mixture, stored in files to identify the mixture they belong to."""
    parts = (prior.weights, prior.means, prior.covariances)
    values = torch.cat([part.detach().cpu().flatten() for part in parts]).numpy()
    return hashlib.sha256(np.round(values, 6).astype("<f4").tobytes()).hexdigest()[:16]
