"""Complete rate-distortion training: `fit`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import torch
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError, warn_user
from cryotwin_nb.formats.files import require_suffix, require_writable
from cryotwin_nb.formats.outputs import refuse_inputs
from cryotwin_nb.imaging.optics import implausible
from cryotwin_nb.mixture.live import live_dim
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.models.history import History
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.quality import usable
from cryotwin_nb.particles.streaming import require_suitable
from cryotwin_nb.particles.writing import inputs_of
from cryotwin_nb.runtime import distributed
from cryotwin_nb.runtime.locks import writing
from cryotwin_nb.training.config import TrainingConfig
from cryotwin_nb.training.failures import failures_explained, require_device, require_memory, require_values
from cryotwin_nb.training.trainer import Trainer

_PARALLEL = 0.7  # cosine with the average map above which a direction is reported


def fit(
    model: CryoTwin,
    particles: Particles,
    config: TrainingConfig | None = None,
    resume: str | os.PathLike | None = None,
    callbacks: Iterable[Callable[[History, CryoTwin], None]] = (),
    progress: bool = True,
) -> History:
    """Train a model in place: minimise the mean of distortion + beta * rate (Eq. 3 of the cryoTWIN paper).

    Parameters
    ----------
    model : CryoTwin
        Model to train.
    particles : Particles
        Particles with poses and CTF.
    config : TrainingConfig, optional
        Settings; by default `TrainingConfig()`.
    resume : path, optional
        Checkpoint to resume from, of the same configuration. The result is the same as that of an uninterrupted run;
        with the same number of threads, bit-identical.
    callbacks : iterable of callables, optional
        Called as callback(history, model) after each epoch, in every process.
    progress : bool
        Show progress bars.

    Returns
    -------
    History
        Training history, also kept as `model.history`.

    Raises
    ------
    InputError
        If the particles do not suit the model, the checkpoint does not match the run or is being written by another
        process, or a file cannot be read or written.
    FloatingPointError
        If the loss remains non-finite; the last checkpoint is left untouched.

    Notes
    -----
    Images unlike the others are left out, as if they were not in the file, and hot pixels are replaced; a warning names
    them (`image_quality`). They have latents like all others when the particles are embedded.

    If several processes have joined (`distributed.joined`; `torchrun ... -m cryotwin_nb train` does this), all must
    call `fit` with the same arguments. They share the work and end with the same model; only the first one writes files
    and shows progress.

    Examples
    --------
    >>> model = ct.CryoTwin(box_size=32, latent_dim=4, n_components=8)
    >>> history = ct.fit(model, particles, ct.TrainingConfig(epochs=2), progress=False)
    >>> history.epochs
    2
    """
    config = config or TrainingConfig()
    if config.checkpoint:
        refuse_inputs([require_suffix(config.checkpoint, ".pt")], inputs_of(particles))
    require_suitable(model.imaging, particles)
    if particles.source is None:  # `Particles.read` has warned already
        for text in implausible(particles.ctf, particles.shifts, particles.box_size * particles.pixel_size):
            warn_user(f"{particles.where}: {text}")
    if model.config["n_components"] > len(particles):
        found, expected = f"C = {model.config['n_components']}", f"at most one per image ({len(particles)})"
        raise InputError("n_components", found, expected, "Use fewer components or more images.")
    if len(particles) < 2:
        raise InputError(particles.where, "one image", "at least 2 images", "Train on the whole set of particles.")
    distributed.require_enough(len(particles))
    progress = progress and distributed.rank() == 0
    particles = usable(particles, progress)
    require_values(particles)
    model.to(require_device(config.device or ("cuda" if torch.cuda.is_available() else "cpu")))
    with ExitStack() as held:
        if config.checkpoint and distributed.rank() == 0:
            require_writable(Path(config.checkpoint).parent)  # fail now, not after the first pass
            held.enter_context(writing(config.checkpoint))
        require_memory(model)
        with failures_explained(model, particles):
            return _run(Trainer(model, particles, config), resume, callbacks, progress)


def found_directions(model: CryoTwin) -> str:
    """Return what the images support: directions, dimensions of the latents and contrasts, as text."""
    if not model.networks.makes_records:
        prior, dim = model.prior, model.networks.latent_dim
        live = live_dim(prior.weights, prior.means, prior.covariances)
        return (
            f"The latents vary in {live} of {dim} {'dimension' if dim == 1 else 'dimensions'}. The coordinate "
            "architecture does not fit contrasts: if these vary, so do the latents."
        )
    if not model.history.gains:  # resumed from a checkpoint of an earlier build
        return ""
    live, dim, basis = model.spectrum.n_live, model.networks.latent_dim, model.config["n_basis"]
    text = f"{model.spectrum} The latents have {dim} {'dimension' if dim == 1 else 'dimensions'}"
    if live < dim:
        text += f", of which {dim - live} carry nothing"
    elif basis > dim:
        text += f" and trace a curved surface in {basis} directions"
    spread = float(model.networks.contrast_spread)
    text += f". The contrasts vary by {spread:.1%}." if spread else ". The contrasts do not vary."
    average = model.networks.mean.flatten()
    cosines = (model.networks.basis[:dim].flatten(1) @ average).abs() / average.norm().clamp_min(1e-30)
    for number, (cosine, live) in enumerate(zip(cosines.tolist(), model.spectrum.live, strict=False), start=1):
        if live and cosine > _PARALLEL:
            text += (
                f" Direction {number} is nearly parallel to the average map (cosine {cosine:.2f}): along it, "
                "brightness changes more than structure."
            )
    return text


def _run(
    trainer: Trainer,
    resume: str | os.PathLike | None,
    callbacks: Iterable[Callable[[History, CryoTwin], None]],
    progress: bool,
) -> History:
    model, particles, config = trainer.model, trainer.particles, trainer.config
    if resume is not None:
        trainer.restore(resume)
        require_suitable(model.imaging, particles)
    else:
        model.imaging.measure(particles)
    trainer.closed_form(progress)
    if progress and model.networks.makes_records:
        tqdm.write(found_directions(model))
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
            if not model.networks.makes_records:
                tqdm.write(found_directions(model))
    return trainer.history
