"""Models for the figures: stored ones, or models that are trained when they are missing, and how long that takes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from cryotwin_nb.demo.paper.sources import COORDINATE, SUBSPACE
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.training import TrainingConfig, fit

PAPER = {"latent_dim": 8, "n_components": 100}
"""Dimension d of the latents and number C of components in the paper."""


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
        print(f"No {file} in {stored}: it is trained here, in about {minutes_of(model, particles):.0f} minutes.")
        checkpoint = kept / f"{file}.pt"
        config = TrainingConfig(seed=seed, checkpoint=checkpoint)
        fit(model, particles, config, resume=checkpoint if checkpoint.exists() else None)
        model.save(kept / file)
        models[name] = model
    return models


def minutes_of(model: CryoTwin, particles: Particles, n: int | None = None) -> float:
    """Return the estimated duration of training on n images (by default, on these), from trials on some of these."""
    n = len(particles) if n is None else n
    if not model.networks.makes_records:
        few = min(len(particles), 128)
        return _seconds(model, particles, few) * model.networks.training_defaults["epochs"] * n / few / 60
    few = min(len(particles), 2000)  # closed-form steps take the same time for any number of images
    half, whole = (_seconds(model, particles, m) for m in (few // 2, few))
    per_image = max(whole - half, 0.0) / (few - few // 2)
    return (max(whole - few * per_image, 0.0) + n * per_image) / 60


def _seconds(model: CryoTwin, particles: Particles, few: int) -> float:
    """Return the duration of training on a few images: of one epoch, or of all closed-form passes."""
    settings = {key: value for key, value in model.requested.items() if value is not None}
    settings["n_components"] = min(settings["n_components"], max(few // 4, 1))
    on_records, started = model.networks.makes_records, time.perf_counter()
    config = TrainingConfig(epochs=None if on_records else 1, final_em=on_records)
    fit(CryoTwin(**settings), particles[np.arange(few)], config, progress=False)
    return time.perf_counter() - started
