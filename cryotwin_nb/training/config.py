"""How a model is trained."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from cryotwin_nb.errors import choice, flag, positive, whole


def _not_negative(name: str, value: Any, remedy: str) -> float:
    return 0.0 if value == 0 else positive(name, value, remedy)


_PRECISIONS = ("auto", "float32", "bfloat16")
_CHECKS: dict[str, tuple[Callable[[str, Any, str], Any], str]] = {
    "epochs": (whole, "Leave it out for the architecture's own number."),
    "beta": (positive, "The default is 2."),
    "batch_size": (whole, "Leave it out for the architecture's own number."),
    "learning_rate": (positive, "The default is 0.001."),
    "warmup": (_not_negative, "It is a share of the run; the default is 0.4."),
    "start_radius": (positive, "It is a share of the radius; the default is 0.5."),
    "precision": (lambda name, value, remedy: choice(name, value, _PRECISIONS, remedy), "Choose one of these."),
    "isometry": (_not_negative, "The default is 10; 0 leaves the penalty out."),
    "seed": (partial(whole, least=0), "Any number from 0 on."),
    "checkpoint_every": (whole, "The default is 1."),
    "checkpoint_minutes": (positive, "The default is 10."),
    "cache_gib": (_not_negative, "0 keeps nothing in memory; the default is 4."),
    "final_em": (flag, "Give True or False."),
}
"""What each setting may be, and what to do where it is not; what they return can be written to a checkpoint."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes
    ----------
    epochs : int, optional
        Passes over the images, or over what is left of them (subspace). By default 24 for the coordinate
        architecture, 30 for the subspace.
    beta : float
        Weight of the rate in Eq. 3. With the distortion in units of the noise, 2 weighs both like a likelihood and
        a prior. The paper's 1/8 belongs to its own scaling of the images and is not comparable.
    batch_size : int, optional
        Images per step. By default 16 (coordinate), 256 (subspace).
    learning_rate : float
        Peak rate of RAdam; falls to zero along a cosine over the run.
    warmup : float
        Share of the run over which beta rises to its value and the resolution to Nyquist.
    start_radius : float
        Share of the frequencies' radius used at the start of the run.
    precision : {"auto", "float32", "bfloat16"}
        Arithmetic of the networks' matrix products. "auto": bfloat16 where the processor has instructions for it.
    isometry : float
        Weight, in units of beta, of the penalty on a departure of the decoder from isometry (subspace, where it is
        curved).
    seed : int
        Seed of the order of the images and of the latent noise.
    device : str, optional
        By default a GPU where there is one.
    checkpoint_every : int
        Epochs from one checkpoint to the next.
    checkpoint_minutes : float
        Minutes after which a checkpoint is also written within an epoch.
    checkpoint : str or path, optional
        File written after each closed-form pass, every `checkpoint_every` epochs, and within an epoch
        that takes longer than `checkpoint_minutes`; `fit(resume=...)` goes on from it.
    cache_gib : float
        Prepared images are kept in memory if they fit in this many GiB and in half of what is free (of the machine,
        and of the limits set on the process); else they are read and prepared anew in every pass.
    final_em : bool
        End with expectation-maximisation of the mixture on all latents.
    """

    epochs: int | None = None
    beta: float = 2.0
    batch_size: int | None = None
    learning_rate: float = 1e-3
    warmup: float = 0.4
    start_radius: float = 0.5
    precision: str = "auto"
    isometry: float = 10.0
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
