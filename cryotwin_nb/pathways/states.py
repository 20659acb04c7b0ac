"""States: modes of a density that are separated by passages, with the components and the mass that belong to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.landscape import Landscape


@dataclass(frozen=True, eq=False)
class State:
    """One state of a mixture.

    Attributes
    ----------
    name : str
        "S1" is the one of most mass.
    latent : (d,) float64
        Its densest mode: what to decode.
    components : tuple of int
        Components that belong to it.
    mass : float
        Share of the density.
    log_prob : float
        Log density at `latent`.
    """

    name: str
    latent: Tensor
    components: tuple[int, ...]
    mass: float
    log_prob: float


def find_states(
    prior: GaussianMixture, threshold: float = 0.2, least_mass: float = 0.0, landscape: Landscape | None = None
) -> list[State]:
    """The states of a density, by falling mass.

    Two groups of modes are one state where the passage between them is nearly as dense as the lower of their maxima:
    where the ratio of the two densities is above `threshold`.

    Parameters
    ----------
    prior : GaussianMixture
    threshold : float
        Between 0 and 1. Higher values tell more states apart.
    least_mass : float
        States of less mass are left out.
    landscape : Landscape, optional
        That of `prior`, when it is there already.

    Raises
    ------
    InputError
        If the threshold is not between 0 and 1.

    Notes
    -----
    The ratio is Hennig's (2010), at the passage of the whole mixture instead of that of a pair. Groups are joined along
    falling density, the lower to the higher (the merge tree: Chazal, Guibas, Oudot and Skraba 2013).
    """
    if not 0 < threshold < 1:
        raise InputError("threshold", f"{threshold}", "a number between 0 and 1", "Start with Hennig's 0.2.")
    landscape = landscape or Landscape.of(prior)
    group = _merged(landscape, -float(np.log(threshold)))
    owner = group[: prior.n_components]
    energy, states = landscape.energy.numpy(), []
    for root in np.unique(owner):
        components = tuple(np.flatnonzero(owner == root).tolist())
        mass = float(prior.weights[list(components)].sum())
        members = np.flatnonzero(group == root)
        peak = int(members[energy[members].argmin()])
        states.append(State("", landscape.points[peak], components, mass, -float(energy[peak])))
    states = sorted((s for s in states if s.mass >= least_mass), key=lambda s: -s.mass)
    return [State(f"S{i + 1}", s.latent, s.components, s.mass, s.log_prob) for i, s in enumerate(states)]


def assign(prior: GaussianMixture, states: list[State], z: Tensor) -> np.ndarray:
    """Index (n,) of the state that each latent (n, d) most likely belongs to."""
    shares = prior.responsibilities(torch.as_tensor(z))
    return torch.stack([shares[:, list(s.components)].sum(1) for s in states], dim=1).argmax(1).cpu().numpy()


def _merged(landscape: Landscape, depth: float) -> np.ndarray:
    """The summit (N,) of the group that each point belongs to; passages of `depth` nats separate groups."""
    energy = landscape.energy.numpy()
    parent = np.arange(len(energy))

    def summit(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    order = np.argsort(landscape.ceiling, kind="stable")
    for e in order:
        (i, j), barrier = landscape.edges[e], landscape.ceiling[e]
        a, b = sorted((summit(int(i)), summit(int(j))), key=lambda s: (energy[s], s))
        if a != b and barrier - energy[b] < depth:
            parent[b] = a
    return np.array([summit(i) for i in range(len(energy))])
