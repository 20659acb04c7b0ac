"""Rate-distortion training: the objective of Eq. 3, epochs, history, checkpoints and exact resume."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import require_writable
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.models.history import History
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.runtime import distributed
from cryotwin_nb.training.trainer import Trainer, has_bfloat16, objective

__all__ = ["TrainingConfig", "fit", "has_bfloat16", "objective"]


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
        Of the order of the images and of the latent noise.
    device : str, optional
        By default a GPU where there is one.
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
        positive = ("epochs", "beta", "batch_size", "learning_rate", "start_radius")
        for name in (*positive, "checkpoint_every", "checkpoint_minutes"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                remedy = f"The default is {getattr(type(self), name)}."
                raise InputError(f"TrainingConfig.{name}", f"{getattr(self, name)}", "a positive number", remedy)
        for name, default in vars(type(self)).items():
            if isinstance(default, int | float) and name in self.__dataclass_fields__:
                # plain numbers: NumPy's could be written to a checkpoint but not read back
                object.__setattr__(self, name, type(default)(getattr(self, name)))
        for name in ("epochs", "batch_size"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, int(getattr(self, name)))
        if self.precision not in ("auto", "float32", "bfloat16"):
            found = repr(self.precision)
            raise InputError("TrainingConfig.precision", found, "'auto', 'float32' or 'bfloat16'", "Choose one.")


def fit(
    model: CryoTwin,
    particles: Particles,
    config: TrainingConfig | None = None,
    resume: str | os.PathLike | None = None,
    callbacks: Iterable[Callable[[History, CryoTwin], None]] = (),
    progress: bool = True,
) -> History:
    """Train a model in place: minimise the mean over the images of distortion + beta * rate (Eq. 3).

    Parameters
    ----------
    model : CryoTwin
    particles : Particles
        With poses and CTF.
    config : TrainingConfig, optional
    resume : path, optional
        A checkpoint of the same configuration. The result equals that of a run that was never interrupted.
    callbacks : iterable of callables, optional
        Called as callback(history, model) after each epoch, in every process.

    Returns
    -------
    History

    Raises
    ------
    InputError
        If the particles do not suit the model, the checkpoint does not suit either, or a file cannot be read or
        written.
    FloatingPointError
        If the loss stays non-finite; the last checkpoint is untouched.

    Notes
    -----
    Of several processes that have joined (`distributed.joined`; `torchrun ... -m cryotwin_nb train` does it) all call
    this, with the same arguments. They share the work, end with the same model, and the first writes and shows.
    """
    config = config or TrainingConfig()
    model.check(particles)
    if model.config["n_components"] > len(particles):
        found, expected = f"C = {model.config['n_components']}", f"at most one per image ({len(particles)})"
        raise InputError("n_components", found, expected, "Use fewer components or more images.")
    distributed.require_enough(len(particles))
    progress = progress and distributed.rank() == 0
    model.to(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if config.checkpoint:
        require_writable(Path(config.checkpoint).parent)  # now, not when the first pass is done
    trainer = Trainer(model, particles, config)
    if resume is not None:
        trainer.restore(resume)
        model.check(particles)
    else:
        model.imaging.measure(particles)
    trainer.closed_form(progress)
    bar = tqdm(
        total=trainer.epochs, initial=trainer.history.epochs, desc="training", unit="epoch", disable=not progress
    )
    with bar:
        while trainer.history.epochs < trainer.epochs:
            trainer.epoch()
            bar.update()
            bar.set_postfix(distortion=f"{trainer.history.distortion[-1]:.1f}", rate=f"{trainer.history.rate[-1]:.1f}")
            if trainer.history.epochs % config.checkpoint_every == 0:
                trainer.save()
            for callback in callbacks:
                callback(trainer.history, model)
    if config.final_em:
        trainer.finish()
        if progress:
            used, bound = trainer.history.n_components, model.config["n_components"]
            tqdm.write(f"The prior uses {used} of at most {bound} components.")
    return trainer.history
