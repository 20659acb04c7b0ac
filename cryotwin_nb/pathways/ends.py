"""Ends of a path: components, states or latents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.points import as_numbers
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.states import State, find_states

End = int | str | State | Tensor | np.ndarray


def named(prior: GaussianMixture, name: str, value: End, landscape: Landscape | None = None) -> Any:
    """Return the state with a given name; anything else is returned unchanged."""
    if not isinstance(value, str):
        return value
    states = {state.name: state for state in find_states(prior, landscape=landscape)}
    if value not in states:
        expected = f"one of {', '.join(states)}"
        raise InputError(name, f"state {value!r}", expected, "find_states lists the states with their names.")
    return states[value]


def end_point(prior: GaussianMixture, name: str, value: End) -> Tensor:
    """Return the latent (d,) of an end."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        if not 0 <= value < prior.n_components:
            expected = f"an integer from 0 to {prior.n_components - 1}, or a latent vector"
            raise InputError(name, f"component {value}", expected, "Choose a component by its weight in prior.weights.")
        return prior.means[int(value)]
    remedy = "Pass one latent vector or the index of a component."
    point = as_numbers(value.latent if isinstance(value, State) else value, name, remedy)
    if point.shape != (prior.latent_dim,) or not bool(torch.isfinite(point).all()):
        found, expected = f"shape {tuple(point.shape)}", f"{prior.latent_dim} finite numbers, or a component"
        raise InputError(name, found, expected, remedy)
    return point.to(prior.means)
