"""Checkpoints from which training resumes bit-identically; checkpoints of another run are refused.

Sums depend on the number of threads in their last bits, so a resumption with another number is reported.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError, warn_user
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.models.history import History
from cryotwin_nb.models.networks import AUTO
from cryotwin_nb.models.payload import read_payload, write_payload
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.runtime import distributed
from cryotwin_nb.training.config import TrainingConfig

_SAMPLE = 64  # number of images hashed to identify the data set
_FREE_TO_CHANGE = ("device", "checkpoint", "checkpoint_every", "checkpoint_minutes", "cache_gib", "final_em")
_REMEDY = "Resume with the settings and particles with which the run was started."


class Interrupted(NamedTuple):
    """Position of an interrupted run within an epoch.

    Attributes
    ----------
    step : int
        Next step to take.
    sums : (2,) float64
        Distortion and rate, summed over the images so far.
    skipped : int
        Number of steps skipped so far because of a non-finite gradient.
    seconds : float
        Time spent on the epoch so far, s.
    generator : (s,) uint8
        State of the epoch's random number generator.
    """

    step: int
    sums: Tensor
    skipped: int
    seconds: float
    generator: Tensor


def run_identity(particles: Particles, config: TrainingConfig, epochs: int, batch_size: int) -> dict[str, Any]:
    """Return the settings and data hashes that must not change between a run and its resumption."""
    settings = {k: v for k, v in asdict(config).items() if k not in _FREE_TO_CHANGE}
    rotations, ctf = particles.require_views()
    n = len(particles)
    sample = particles.images(np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(np.int64)))
    parts = {
        "views": (rotations, particles.shifts),
        "ctf": tuple(getattr(ctf, field.name) for field in fields(ctf)),
        "images": (sample,),
    }
    digests = {name: _digest(*arrays) for name, arrays in parts.items()}
    return {**settings, "epochs": epochs, "batch_size": batch_size, "n_particles": n, **digests}


def write_checkpoint(
    path: str | os.PathLike,
    model: CryoTwin,
    identity: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    interrupted: Interrupted | None,
) -> None:
    """Write model, optimiser, history and the position within the epoch.

    Nothing else is needed: all random numbers follow from the seed and the state of the epoch's generator.
    """
    within = None if interrupted is None else interrupted._asdict()
    training: dict[str, Any] = {"config": identity, "optimizer": optimizer.state_dict(), "interrupted": within}
    training |= {"threads": torch.get_num_threads(), "requested": model.requested}
    write_payload({**model.payload(), "training": training}, path)


def read_checkpoint(
    path: str | os.PathLike, model: CryoTwin, identity: dict[str, Any]
) -> tuple[Interrupted | None, dict[str, Any]]:
    """Restore a model from a checkpoint; return the position within the epoch, if any, and the optimiser's state.

    Raises
    ------
    InputError
        If the checkpoint belongs to another model, configuration or data set.
    """
    finished = Path(path).suffix.lower() == ".safetensors"
    payload = {} if finished else distributed.first(lambda: read_payload(path))
    if "training" not in payload:
        sentence = f"{path} is a finished model, not a checkpoint written by fit."
        raise InputError(path, "a finished model", "a checkpoint written by fit", _REMEDY, sentence)
    training = payload["training"]
    if listed := _changed(training.get("requested", payload["config"]), model.requested):
        sentence = f"{path} holds a different model: {listed}."
        raise InputError(path, f"a different model: {listed}", "the same model", _REMEDY, sentence)
    if listed := _changed(training["config"], identity):
        sentence = f"{path} was written by a run with different settings: {listed}."
        raise InputError(path, f"different settings: {listed}", "the same settings", _REMEDY, sentence)
    before, now = training.get("threads"), torch.get_num_threads()
    if before not in (None, now) and distributed.rank() == 0:
        text = f"{path} was written with {before} threads and is resumed with {now};"
        warn_user(f"{text} the result will differ from that of an uninterrupted run by rounding errors.")
    if model.networks.makes_records:
        model.networks.chosen = payload["config"]["latent_dim"] != AUTO
    model.restore(payload["state"])
    model.history = History(**payload["history"])
    within = training["interrupted"]
    return None if within is None else Interrupted(**within), training["optimizer"]


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return the settings that differ, with both values, as text."""
    names = [name for name in before | now if before.get(name) != now.get(name)]
    return ", ".join(f"{name} was {before.get(name)!r} and is now {now.get(name)!r}" for name in names)


def _digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()
