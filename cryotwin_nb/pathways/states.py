"""States of a density: groups of modes separated by low-density saddles, with their components and mass."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from cryotwin_nb.errors import InputError, guarded
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.live import live_dim
from cryotwin_nb.mixture.points import require_points
from cryotwin_nb.pathways.dead import expected_there, without_dead
from cryotwin_nb.pathways.landscape import Landscape

_ERRORS = 1.5  # depth of the saddle beside a small state, in units of d / sqrt(N - d): three standard errors
_CHANCE = 4.0  # standard errors below which the largest difference of counts is attributed to chance
_PLACES = 17  # number of points on an edge among which the saddle is searched
_EMPTY = 1e-9  # mass below which no set of particles has a particle in the state


@dataclass(frozen=True, eq=False)
class State:
    """One state of a mixture.

    Attributes
    ----------
    name : str
        Name of the state; the state with the largest mass is "S1".
    latent : (d,) float64
        Densest mode of the state; decode it to obtain the map of the state.
    components : tuple of int
        Indices of the components that belong to the state.
    mass : float
        Sum of the weights of these components.
    log_prob : float
        Log density at `latent`.
    junk : bool
        Whether the state looks like junk: another particle, for example. Only set if the images have been judged
        (`outlier_scores`).
    """

    name: str
    latent: Tensor
    components: tuple[int, ...]
    mass: float
    log_prob: float
    junk: bool = False

    @property
    def title(self) -> str:
        """Name of the state for lists and menus."""
        return f"{self.name} (looks like junk)" if self.junk else self.name


@guarded()
def find_states(
    prior: GaussianMixture,
    threshold: float = 0.2,
    least_mass: float = 0.0,
    landscape: Landscape | None = None,
    latents: Tensor | np.ndarray | None = None,
    junk: Collection[int] = (),
) -> list[State]:
    """Return the states of a density, in order of decreasing mass.

    Two groups of modes form one state if the ratio of the density at the saddle between them to the density at the
    lower of their maxima is above `threshold`. States without particles are omitted: those whose mass is zero, those
    whose own maximum belongs to another state, and, if `latents` are given, those to which no latent belongs.

    Parameters
    ----------
    prior : GaussianMixture
        Density whose states are found.
    threshold : float
        Threshold of the density ratio, between 0 and 1; higher values distinguish more states.
    least_mass : float
        Minimum mass; states with a smaller mass are omitted.
    landscape : Landscape, optional
        Landscape of `prior`, if already computed.
    latents : (n, d) float, optional
        Latents of the particles to which `prior` was fitted. A small state then also needs a deeper saddle, because the
        log density at a maximum fitted to N latents has an error: in d live axes, about d / (2 sqrt(N - d)) nats. And
        a clump of particles on the straight line between two larger states is only a state if there are significantly
        fewer particles at the saddle.
    junk : collection of int
        Components that look like junk: `model.history.junk`, or `OutlierScores.junk_components`. States that consist
        mainly of these are marked.

    Returns
    -------
    list of State

    Raises
    ------
    InputError
        If the threshold is not between 0 and 1, or the latents do not have the dimension of `prior`.

    Notes
    -----
    Hennig (2010) defines the ratio for a pair of components; here it is evaluated for the whole mixture. Groups are
    merged in order of decreasing density at the saddle between them, the group with the lower maximum into the other
    (merge tree: Chazal, Guibas, Oudot and Skraba 2013).

    Examples
    --------
    >>> states = ct.find_states(model.prior)
    >>> states[0].name
    'S1'
    """
    if not 0 < threshold < 1:
        raise InputError("threshold", f"{threshold}", "a number between 0 and 1", "Start with 0.2 (Hennig 2010).")
    prior = prior.detach()
    landscape = landscape or Landscape.of(prior)
    points = None if latents is None else require_points(latents, prior.latent_dim).to(prior.means)
    dips = None if points is None else _Dips(prior, points)
    group = _merged(landscape, -float(np.log(threshold)), dips)
    owner = group[: prior.n_components]
    energy, states = landscape.energy.numpy(), []
    for root in np.unique(owner):
        components = tuple(np.flatnonzero(owner == root).tolist())
        mass = float(prior.weights[list(components)].sum())
        members = np.flatnonzero(group == root)
        peak = int(members[energy[members].argmin()])
        latent = expected_there(prior, landscape.points[peak, None])[0]
        states.append(State("", latent, components, mass, float(prior.log_prob(latent[None]))))
    states = _occupied(prior, states, points)
    states = sorted((s for s in states if s.mass >= least_mass), key=lambda s: -s.mass)
    bad = np.isin(np.arange(prior.n_components), list(junk)) * prior.weights.numpy()
    marks = [bool(bad[list(s.components)].sum() > s.mass / 2) for s in states]
    return [replace(s, name=f"S{i + 1}", junk=mark) for i, (s, mark) in enumerate(zip(states, marks, strict=True))]


def _occupied(prior: GaussianMixture, states: list[State], points: Tensor | None) -> list[State]:
    """Return the states that hold particles; see `find_states`."""
    places = assign(prior, states, torch.stack([s.latent for s in states]))
    kept = (places == np.arange(len(states))) & np.array([s.mass >= _EMPTY for s in states])
    if points is not None:
        kept &= np.bincount(assign(prior, states, points), minlength=len(states)) > 0
    return [s for s, k in zip(states, kept, strict=True) if k]


def assign(prior: GaussianMixture, states: list[State], z: Tensor) -> np.ndarray:
    """Return the index of the state to which each latent most likely belongs.

    Parameters
    ----------
    prior : GaussianMixture
        Density.
    states : list of State
        States of `prior`.
    z : (n, d) float
        Latents.

    Returns
    -------
    (n,) int64 array
    """
    shares = without_dead(prior).responsibilities(torch.as_tensor(z))
    return torch.stack([shares[:, list(s.components)].sum(1) for s in states], dim=1).argmax(1).cpu().numpy()


class _Dips:
    """Numbers of particles at the maximum of a group of modes and on the way from there to the saddle.

    Particles are counted in four equal cylinders along the line from the maximum to the saddle, in the metric of the
    average covariance of the components.
    """

    def __init__(self, prior: GaussianMixture, points: Tensor) -> None:
        covariance = (prior.weights[:, None, None] * prior.covariances).sum(0)
        self._whiten = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
        self._points = points @ self._whiten
        self._wide = float(chi2.ppf(0.99, max(1, points.shape[1] - 1)))

    def __len__(self) -> int:
        return len(self._points)

    def are_between(self, top: Tensor, neighbour: Tensor, others: Tensor) -> bool:
        """Return whether a maximum lies on a straight line from a neighbouring one to another one of `others`."""
        lines, away = (others - neighbour) @ self._whiten, (top - neighbour) @ self._whiten
        square = lines.square().sum(1).clamp_min(1e-18)
        share = lines @ away / square
        off = (away - share[:, None] * lines).square().sum(1)
        return bool(((share > 0) & (share < 1) & (off < 4 * self._wide)).any())

    def are_chance(self, top: Tensor, saddle: Tensor) -> bool:
        """Return whether the smallest of the numbers is not significantly below that at the maximum."""
        line = (saddle - top) @ self._whiten
        length = float(line.norm())
        if length < 1e-9:
            return True
        away = self._points - top @ self._whiten
        along = away @ line / length
        inside = away.square().sum(1) - along.square() < self._wide
        share = (along / length)[inside]
        at_top, *beside = (int(((share - place / 3).abs() < 1 / 6).sum()) for place in range(4))
        return at_top - min(beside) < _CHANCE * (at_top + min(beside)) ** 0.5


def _merged(landscape: Landscape, depth: float, dips: _Dips | None) -> np.ndarray:
    """Return the index of the densest point in each point's group.

    Groups are separated by `depth` nats or more, in addition to the error of the lower maximum if it is fitted to the
    group's share of the particles in `dips`. A group between two heavier ones also needs a significant dip in the
    number of particles.
    """
    n = np.inf if dips is None else len(dips)
    energy, mixture = landscape.energy.numpy(), landscape.mixture
    parent, latents = np.arange(len(energy)), np.zeros(len(energy))
    latents[: mixture.n_components] = n * mixture.weights.numpy()
    dim = live_dim(mixture.weights, mixture.means, mixture.covariances)

    def summit(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    apart: set[tuple[int, ...]] = set()
    order = np.argsort(landscape.ceiling, kind="stable")
    for e in order:
        (i, j), barrier = landscape.edges[e], landscape.ceiling[e]
        a, b = sorted((summit(int(i)), summit(int(j))), key=lambda s: (energy[s], s))
        if a == b:
            continue
        merges = barrier - energy[b] < depth + _ERRORS * dim / max(latents[b] - dim, 0.25) ** 0.5
        if not merges and dips is not None and (a, b) not in apart and (b, a) not in apart:
            heavier = [root for root in np.unique(parent) if parent[root] == root and latents[root] > latents[b]]
            on_passage = dips.are_between(landscape.points[b], landscape.points[a], landscape.points[heavier])
            merges = on_passage and dips.are_chance(landscape.points[b], _highest(landscape, int(i), int(j)))
            apart |= set() if merges else {(a, b)}  # other edges between the two have higher saddles
        if merges:
            parent[b] = a
            latents[a] += latents[b]
            apart = {tuple(a if root == b else root for root in pair) for pair in apart}
    return np.array([summit(i) for i in range(len(energy))])


def _highest(landscape: Landscape, i: int, j: int) -> Tensor:
    """Return the point (d,) of lowest density on the edge between two points."""
    share = torch.linspace(0, 1, _PLACES).to(landscape.points)[:, None]
    places = (1 - share) * landscape.points[i] + share * landscape.points[j]
    return places[landscape.mixture.log_prob(places).argmin()]
