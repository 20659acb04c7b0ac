"""Results of the three programs that the figures of the paper compare, as arrays and models."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb import evaluation
from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import Isometry
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.models.storage import fingerprint
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.pathways import assign, find_states
from cryotwin_nb.training import TrainingConfig, fit

COORDINATE, CRYODRGN, SUBSPACE = "coordinate", "cryoDRGN", "subspace"
PAPER = {"latent_dim": 8, "n_components": 100}
"""Dimension d of the latents and number C of components in the paper."""
_N_PAIRS = 100  # of steps, whose inner products are compared
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
    def isometry(self) -> Isometry:
        """Inner products of pairs of small steps, in latent space and in map space."""
        if self.model is None:
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
        Results by name, in the order of the figures' columns.
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
        return evaluation.components_of_labels(method.prior, method.names).get(state)


def gather(particles: Particles, models: dict[str, CryoTwin], cryodrgn: Path | None) -> Sources:
    """Compute latents and names; maps and isometry follow when a figure needs them.

    Parameters
    ----------
    particles : Particles
        Particles that all models were trained on.
    models : dict of str to CryoTwin
        Trained models by name, the subspace model among them.
    cryodrgn : Path, optional
        Stored results of cryoDRGN for the same particles (.npz), as `benchmarks/cryodrgn_baseline.py` writes them.
    """
    latents = {name: model.embed(particles) for name, model in models.items()}
    if particles.truth is not None:
        truth = particles.truth
        labels, settled, states = truth.labels, ~truth.between, tuple(truth.states)
    else:
        prior = models[SUBSPACE].prior
        found = find_states(prior, least_mass=_LEAST_MASS, latents=latents[SUBSPACE])
        own = assign(prior, found, latents[SUBSPACE])
        states = tuple(state.name for state in found)
        labels, settled = np.array([*states, "none"])[own], own >= 0
    members, methods = [torch.as_tensor((labels == state) & settled) for state in states], {}
    for name, model in models.items():
        z, prior = latents[name], model.prior
        typical = torch.stack([_median_latent(z[own]) for own in members])
        methods[name] = Method(name, z, prior, evaluation.label_components(prior, z, labels), typical, model)
    digest = "".join(fingerprint(model.state_dict())[:16] for model in models.values())
    if cryodrgn is not None:
        methods[CRYODRGN] = _stored(cryodrgn, len(particles), states)
        digest += str(cryodrgn.stat().st_size)
    order = [name for name in (COORDINATE, CRYODRGN, SUBSPACE) if name in methods]
    return Sources(particles, labels, settled, states, {name: methods[name] for name in order}, digest)


def _median_latent(z: Tensor) -> Tensor:
    """Return the latent nearest to the median of latents (m, d)."""
    return z[torch.cdist(z, z.median(0).values[None]).argmin()]


def _stored(path: Path, n: int, states: tuple[str, ...]) -> Method:
    """Return the stored results of cryoDRGN."""
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays}
    z = torch.as_tensor(found["latents"].astype(np.float32))
    if len(z) != n:
        remedy = "Omit it, or pass the results of a run on these particles."
        raise InputError(path, f"latents of {len(z):,} particles", f"{n:,}", remedy)
    if tuple(map(str, found["state_names"])) != states:
        del found["state_maps"]
    d = z.shape[1]
    normal = GaussianMixture(torch.ones(1), torch.zeros(1, d), torch.eye(d)[None])
    return Method(CRYODRGN, z, normal, {}, torch.as_tensor(found["state_latents"]), stored=found)


def obtain(particles: Particles, stored: Path, kept: Path, dataset: str, seed: int = 0) -> dict[str, CryoTwin]:
    """Return the coordinate and the subspace model: stored ones, or models trained now and kept.

    Parameters
    ----------
    particles : Particles
        Particles to train on.
    stored : Path
        Folder with `<dataset>.safetensors` and `<dataset>-coordinate.safetensors`.
    kept : Path
        Folder in which models that are trained here are stored, with checkpoints from which training resumes.
    dataset : str
        Name of the data set, the first part of the file names.
    seed : int
        Seed of models and training.
    """
    models = {}
    for name, file in ((SUBSPACE, f"{dataset}.safetensors"), (COORDINATE, f"{dataset}-coordinate.safetensors")):
        there = next((folder / file for folder in (stored, kept) if (folder / file).exists()), None)
        if there is not None:
            models[name] = CryoTwin.load(there)
            continue
        settings = {} if name == SUBSPACE else PAPER
        model = CryoTwin(particles.box_size, name, seed=seed, **settings)  # type: ignore[arg-type]
        print(f"No {file} in {stored}: it is trained here, in about {_minutes(model, particles):.0f} minutes.")
        checkpoint = kept / f"{file}.pt"
        config = TrainingConfig(seed=seed, checkpoint=checkpoint)
        fit(model, particles, config, resume=checkpoint if checkpoint.exists() else None)
        model.save(kept / file)
        models[name] = model
    return models


def _minutes(model: CryoTwin, particles: Particles) -> float:
    """Return the estimated duration of training, from a trial on some of the images."""
    on_records, epochs = model.networks.makes_records, model.networks.training_defaults["epochs"]
    few = particles[np.arange(min(len(particles), 2000 if on_records else 128))]
    settings = {key: value for key, value in model.requested.items() if value is not None}
    started = time.perf_counter()
    fit(
        CryoTwin(**settings), few, TrainingConfig(epochs=None if on_records else 1, final_em=on_records), progress=False
    )
    return (time.perf_counter() - started) * len(particles) / len(few) * (1 if on_records else epochs) / 60


def recipe(path: Path) -> str:
    """Return how the stored results of cryoDRGN were made, in one line."""
    with np.load(path, allow_pickle=False) as arrays:
        made = json.loads(str(arrays["recipe"]))
    return f"{made['program']}, {made['epochs']} epochs"
