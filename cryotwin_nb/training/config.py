"""Settings of a training run, and their checks."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from cryotwin_nb.errors import InputError, choice, flag, positive, whole


def _not_negative(name: str, value: Any, remedy: str) -> float:
    return 0.0 if value == 0 else positive(name, value, remedy)


def _share(name: str, value: Any, remedy: str) -> float:
    found = positive(name, value, remedy)
    if found > 1:
        raise InputError(name, f"{found}", "a share of at most 1", remedy)
    return found


_PRECISIONS = ("auto", "float32", "bfloat16")
_CHECKS: dict[str, tuple[Callable[[str, Any, str], Any], str]] = {
    "epochs": (whole, "Omit it to use the default of the architecture."),
    "beta": (positive, "Pass a positive number; the default is 2."),
    "batch_size": (whole, "Omit it to use the default of the architecture."),
    "learning_rate": (positive, "Pass a positive number; the default is 0.001."),
    "warmup": (_not_negative, "Pass a share of the run; the default is 0.4."),
    "start_radius": (positive, "Pass a share of the maximum frequency; the default is 0.5."),
    "coefficients": (_share, "Pass a share above 0 of at most 1; the default is 0.5."),
    "precision": (lambda name, value, remedy: choice(name, value, _PRECISIONS, remedy), "Choose one of these."),
    "isometry": (_not_negative, "Pass 0 for no penalty, or a positive number; the default is 10."),
    "simulated": (_not_negative, "Pass 0 for no simulated images, or a positive number; the default is 1."),
    "map_prior": (_not_negative, "Pass 0 for no prior, or a positive number; the default is 25."),
    "seed": (partial(whole, least=0, most=2**40), "Pass 0 or a positive integer."),
    "checkpoint_every": (whole, "Pass a positive integer; the default is 1."),
    "checkpoint_minutes": (positive, "Pass a positive number; the default is 10."),
    "cache_gib": (_not_negative, "Pass 0 to keep nothing in memory, or a positive number; the default is 4."),
    "final_em": (flag, "Pass True or False."),
}
"""Check and remedy for each setting; the checked values can be written to a checkpoint."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training run.

    Attributes
    ----------
    epochs : int, optional
        Passes over the images (coordinate) or their sufficient statistics (subspace). By default 16 (coordinate; 24 if
        `plain`) or 30 (subspace).
    beta : float
        Weight of the rate (nats) against the distortion (noise units), as in Eq. 3 of the cryoTWIN paper; 2 weights
        them like a log prior and a log likelihood. The paper's 1/8 refers to another scaling of the images and is not
        comparable.
    batch_size : int, optional
        Images per step. By default 32 (coordinate) or 256 (subspace).
    learning_rate : float
        Peak learning rate of RAdam; it decays to zero along a cosine over the run.
    warmup : float
        Share of the run over which beta rises to its final value and the resolution to Nyquist.
    start_radius : float
        Share of the maximum frequency used at the start of the run.
    coefficients : float
        Share of the Fourier coefficients that each step of the coordinate architecture decodes, drawn at random.
    precision : {"auto", "float32", "bfloat16"}
        Precision of the networks' matrix products. "auto" selects bfloat16 if the device has dedicated units for it.
    isometry : float
        Weight, in units of beta, of the penalty on deviations of the decoder from isometry; used by the subspace
        architecture if n_basis is above latent_dim.
    map_prior : float
        Weight of the Gaussian prior of the coordinate architecture's maps, whose power is that of all deviations from
        the average map: 1 for one direction of variation, n for n equal ones; 0: no prior, as in `plain` networks.
    simulated : float
        Weight of the error of the coordinate architecture's encoder on images that are simulated with its decoder
        during training; 0: no such images, as in `plain` networks.
    seed : int
        Seed of the image order and of the latent noise.
    device : str, optional
        Device to train on; by default a GPU if available.
    checkpoint_every : int
        Number of epochs between checkpoints.
    checkpoint_minutes : float
        Minutes after which a checkpoint is also written within an epoch.
    checkpoint : str or path, optional
        File written after each closed-form pass, every `checkpoint_every` epochs, and within an epoch that takes longer
        than `checkpoint_minutes`; `fit(resume=...)` resumes from this file.
    cache_gib : float
        Maximum memory for prepared images, GiB. The images are kept if they fit within this limit and within half
        of the free memory, of the machine and of the process's limits; otherwise they are read and prepared again in
        every pass.
    final_em : bool
        Finish by fitting the mixture to all latents by expectation-maximisation.

    Examples
    --------
    >>> config = ct.TrainingConfig(epochs=2, checkpoint="checkpoint.pt")
    >>> config.beta
    2.0
    """

    epochs: int | None = None
    beta: float = 2.0
    batch_size: int | None = None
    learning_rate: float = 1e-3
    warmup: float = 0.4
    start_radius: float = 0.5
    coefficients: float = 0.5
    precision: str = "auto"
    isometry: float = 10.0
    map_prior: float = 25.0
    simulated: float = 1.0
    seed: int = 0
    device: str | None = None
    checkpoint: str | os.PathLike | None = None
    checkpoint_every: int = 1
    checkpoint_minutes: float = 10.0
    cache_gib: float = 4.0
    final_em: bool = True

    def __post_init__(self) -> None:
        for name, (check, remedy) in _CHECKS.items():
            value = getattr(self, name)
            if value is not None or name not in ("epochs", "batch_size"):
                object.__setattr__(self, name, check(f"TrainingConfig.{name}", value, remedy))  # plain numbers
