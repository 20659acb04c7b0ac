"""Results of the three programs that the figures of the paper compare, as arrays and models."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb import evaluation
from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import Isometry
from cryotwin_nb.exchange import read_cryodrgn
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.models.storage import fingerprint
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.pathways import assign, find_states
from cryotwin_nb.plotting.colours import NO_STATE, state_colours

COORDINATE, CRYODRGN, SUBSPACE = "coordinate", "cryoDRGN", "subspace"
_N_PAIRS = 100  # of steps, whose inner products are compared
_N_FITTED = 100  # maximum number of components of a mixture fitted to cryoDRGN's latents
_LEAST_MASS = 0.02  # of a state that is named where there is no ground truth


@dataclass(frozen=True, eq=False)
class Method:
    """Results of one program for all particles.

    Attributes
    ----------
    name : str
        Name of the program or architecture.
    latents : (n, d) float32
        Latents of the particles.
    prior : GaussianMixture
        Prior density of the latents; the standard normal density for cryoDRGN.
    names : dict of int to str
        Names of the components of the prior; empty for cryoDRGN.
    typical : (s, d) float32
        For each state, the latent nearest to the median of its particles.
    model : CryoTwin or None
        Trained model; None for cryoDRGN, of which only arrays are stored.
    stored : dict of str to array
        Stored results, where there is no model.
    """

    name: str
    latents: Tensor
    prior: GaussianMixture
    names: dict[int, str]
    typical: Tensor
    model: CryoTwin | None = None
    stored: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def density(self) -> GaussianMixture:
        """Mixture in which paths are sought: the prior, or for cryoDRGN a mixture fitted to its latents afterwards."""
        return self.prior if self.model is not None else GaussianMixture.fit(self.latents, _N_FITTED)

    def decode(self, latents: Tensor) -> Tensor | None:
        """Return maps (m, D, D, D); without a model, the stored map of the state that is nearest to each latent."""
        if self.model is not None:
            return self.model.volumes(latents)
        maps = self.state_maps
        return None if maps is None else maps[torch.cdist(latents.float(), self.typical.float()).argmin(1)]

    @cached_property
    def isometry(self) -> Isometry | None:
        """Inner products of pairs of small steps, in latent space and in map space; None if they are not stored."""
        if self.model is None:
            if "isometry_products" not in self.stored:
                return None
            return Isometry(*self.stored["isometry_products"])
        return evaluation.isometry(self.model, self.latents, n_pairs=_N_PAIRS)

    @cached_property
    def state_maps(self) -> Tensor | None:
        """Maps (s, D, D, D) of the states, in the order of `Sources.states`; None if other states are stored."""
        return self._maps("state_maps") if self.model is None else self.model.volumes(self.typical)

    @cached_property
    def prior_maps(self) -> Tensor | None:
        """Maps (m, D, D, D) at samples of the prior, where they are stored."""
        return self._maps("prior_maps")

    def _maps(self, name: str) -> Tensor | None:
        return torch.as_tensor(self.stored[name].astype(np.float32)) if name in self.stored else None


@dataclass(frozen=True, eq=False)
class Sources:
    """Everything that the figures are drawn from.

    Attributes
    ----------
    particles : Particles
        Particles of all methods.
    labels : (n,) str
        State of each particle: that of the ground truth, or that which the subspace model assigns it to.
    settled : (n,) bool
        False for particles that are simulated between two states.
    states : tuple of str
        Names of the states.
    methods : dict of str to Method
        Results by name, in the order of the figures' columns; without models whose latents are all equal.
    digest : str
        Hash of the weights and arrays; figures of the same digest need not be drawn again.
    """

    particles: Particles
    labels: np.ndarray
    settled: np.ndarray
    states: tuple[str, ...]
    methods: dict[str, Method]
    digest: str

    @property
    def trained(self) -> list[tuple[Method, CryoTwin]]:
        """Methods with a model, and their models."""
        return [(method, method.model) for method in self.methods.values() if method.model is not None]

    def component(self, method: Method, state: str) -> int | None:
        """Return the component with the largest weight among those named after a state."""
        names = method.names or evaluation.label_components(method.density, method.latents, self.labels)
        return evaluation.components_of_labels(method.density, names).get(state)


def gather(
    particles: Particles, models: dict[str, CryoTwin], cryodrgn: Path | None, labels: np.ndarray | None = None
) -> Sources:
    """Compute latents and names; maps and isometry follow when a figure needs them.

    Parameters
    ----------
    particles : Particles
        Particles that all models were trained on.
    models : dict of str to CryoTwin
        Trained models by name, the subspace model among them.
    cryodrgn : Path, optional
        Stored results of cryoDRGN for the same particles (.npz), as `benchmarks/cryodrgn_baseline.py` writes them; or
        its run folder, of which only latents are read.
    labels : (n,) str, optional
        Published state of each particle, for recorded images.
    """
    latents = {name: model.embed(particles) for name, model in models.items()}
    if particles.truth is not None:
        truth = particles.truth
        labels, settled, states = truth.labels, ~truth.between, tuple(truth.states)
    elif labels is not None:
        states = tuple(state for state in state_colours(labels.tolist()) if state not in NO_STATE)
        settled = np.isin(labels, states)
    else:
        prior = models[SUBSPACE].prior
        found = find_states(prior, least_mass=_LEAST_MASS, latents=latents[SUBSPACE])
        own = assign(prior, found, latents[SUBSPACE])
        states = tuple(state.name for state in found)
        labels, settled = np.array([*states, "none"])[own], own >= 0
    members, methods = [torch.as_tensor((labels == state) & settled) for state in states], {}
    for name, model in models.items():
        z, prior = latents[name], model.prior
        if bool((z == z[0]).all()):  # this model finds no variation in the images
            continue
        typical = torch.stack([_median_latent(z[own]) for own in members])
        methods[name] = Method(name, z, prior, evaluation.label_components(prior, z, labels), typical, model)
    digest = "".join(fingerprint(model.state_dict())[:16] for model in models.values())
    if cryodrgn is not None:
        methods[CRYODRGN] = _stored(cryodrgn, len(particles), states, members)
        digest += str(cryodrgn.stat().st_size)
    order = [name for name in (COORDINATE, CRYODRGN, SUBSPACE) if name in methods]
    return Sources(particles, labels, settled, states, {name: methods[name] for name in order}, digest)


def _median_latent(z: Tensor) -> Tensor:
    """Return the latent nearest to the median of latents (m, d)."""
    return z[torch.cdist(z, z.median(0).values[None]).argmin()]


def _stored(path: Path, n: int, states: tuple[str, ...], members: list[Tensor]) -> Method:
    """Return the stored results of cryoDRGN, or the latents of its run folder."""
    if path.is_dir():
        found: dict[str, np.ndarray] = {"latents": read_cryodrgn(path).latents.numpy()}
    else:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays}
    z = torch.as_tensor(found["latents"].astype(np.float32))
    if len(z) != n:
        remedy = "Omit it, or pass the results of a run on these particles."
        raise InputError(path, f"latents of {len(z):,} particles", f"{n:,}", remedy)
    if tuple(map(str, found.get("state_names", ()))) != states:
        found.pop("state_maps", None)
    d = z.shape[1]
    normal = GaussianMixture(torch.ones(1), torch.zeros(1, d), torch.eye(d)[None])
    typical = torch.stack([_median_latent(z[own]) for own in members])
    return Method(CRYODRGN, z, normal, {}, typical, stored=found)


def recipe(path: Path) -> str:
    """Return how the stored results of cryoDRGN were made, in one line."""
    if path.is_dir():
        return f"latents of the run in {path}"
    with np.load(path, allow_pickle=False) as arrays:
        made = json.loads(str(arrays["recipe"]))
    return f"{made['program']}, {made['epochs']} epochs"
