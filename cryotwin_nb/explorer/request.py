"""Settings of a path search, which can be stored in a file."""

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
    """Settings of a path search.

    Attributes
    ----------
    start, end : int
        Components whose means are the ends of the path.
    method : {"MaxFlux", "Algorithm 1", "All routes"}
        Function to call: `max_flux`, `ridgeline` or `find_routes`.
    n_steps : int
        Number of steps K.
    omega : float
        Parameter ω of Algorithm 1; see `ridgeline`.
    seed : int
        Seed of the random samples.
    """

    start: int
    end: int
    method: str = "MaxFlux"
    n_steps: int = 11
    omega: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError("method", repr(self.method), " or ".join(map(repr, METHODS)), "Choose one of these.")

    def as_dict(self) -> dict:
        """Return the settings as a dict for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any, where: object = "path request") -> PathRequest:
        """Rebuild a request from the result of `as_dict`; raise `InputError` for anything else."""
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
            raise InputError(where, found, f"the settings {', '.join(kinds)}", "Pass a file written by the explorer.")
        return cls(**values)


def fingerprint(prior: GaussianMixture) -> str:
    """Return a short hash of a mixture, stored in files to identify the mixture they belong to."""
    parts = (prior.weights, prior.means, prior.covariances)
    values = torch.cat([part.detach().cpu().flatten() for part in parts]).numpy()
    return hashlib.sha256(np.round(values, 6).astype("<f4").tobytes()).hexdigest()[:16]
