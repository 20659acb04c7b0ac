"""What a path is asked for with: the part of the explorer that a file can keep."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.gaussian import GaussianMixture

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
        As in Algorithm 1.
    seed : int
        Seed of the samples.
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


def fingerprint(prior: GaussianMixture) -> str:
    """Short hash of a mixture, by which a file tells whether it belongs to it."""
    parts = (prior.weights, prior.means, prior.covariances)
    values = torch.cat([part.detach().cpu().flatten() for part in parts]).numpy()
    return hashlib.sha256(np.round(values, 6).astype("<f4").tobytes()).hexdigest()[:16]
