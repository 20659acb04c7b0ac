"""Warm start of the paper's networks: a subspace solution supplies latents for the encoder and maps for the decoder.

Both networks are regressed on noise-free targets: the encoder on latents found by expectation-maximisation, the decoder
on slices of maps instead of images. `fit` then trains on the images themselves (Eq. 3 of the cryoTWIN paper).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.optics import slice_coordinates
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.models.networks import AUTO
from cryotwin_nb.particles.formation import ImageBatch
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.quality import usable
from cryotwin_nb.particles.streaming import PreparedImages, require_suitable
from cryotwin_nb.runtime import distributed
from cryotwin_nb.training.objective import has_bfloat16

_PART = 4  # each step uses 1/_PART of the frequencies: targets are noise-free, so more steps help more than full slices
_PAST = 100  # number of steps attributed to the moving moments of the prior, so that they change slowly from the start


def warm_start(
    model: CryoTwin,
    source: CryoTwin,
    particles: Particles,
    epochs: int = 12,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Initialise a coordinate model from a trained subspace model, in place.

    Continue with `fit(model, particles, TrainingConfig(warmup=0, start_radius=1, map_prior=3, ...))`.

    Parameters
    ----------
    model : CryoTwin
        Coordinate model with at least as many components as `source.prior`. If its `latent_dim` is "auto", it takes
        that of the source, and new weights.
    source : CryoTwin
        Trained subspace model with the same box size, latent dimension d and noise width T.
    particles : Particles
        Particles on which the source was trained.
    epochs : int
        Passes over the images.
    batch_size : int
        Images per step.
    learning_rate : float
        Peak learning rate of RAdam; it decays to zero along a cosine.
    seed : int
        Seed of the image order and of the noise on the decoded latents.
    progress : bool
        Show progress bars.

    Raises
    ------
    InputError
        If the two models are incompatible with each other or with the particles.

    Notes
    -----
    The warm start is not part of the paper. The decoder's error is summed over slices with the weight |k|, which makes
    it a distance between volumes (projection-slice theorem), and divided by the power of each shell, so that fine
    detail is not learned last. This error is evaluated at latents with uniform noise of width T, as in training.
    The encoder's error is the squared error of the latents in units of T, plus the cross entropy between its scores and
    the source's responsibilities.
    """
    if model.requested["latent_dim"] == AUTO and source.latent_dim not in (None, model.latent_dim):
        requested = model.requested
        model.__init__(**model.config | {"latent_dim": source.latent_dim})  # type: ignore[misc]
        model.requested = requested
    _require_pair(model, source)
    for either in (model, source):
        require_suitable(either.imaging, particles)
    particles = usable(particles)
    model.imaging.measure(particles)
    latents = source.embed(particles, progress=progress)
    shares = source.prior.responsibilities(latents)
    images = PreparedImages(model.imaging, particles, 0.0, distributed.share(len(particles)))
    for _ in model.networks.passes(images.chunks, 1.0):  # scales, and the average map
        pass
    in_bfloat16 = model.networks.in_bfloat16(has_bfloat16(model.device.type))
    optimizer = torch.optim.RAdam(model.networks.parameters(), lr=learning_rate)
    generator, frequencies = torch.Generator().manual_seed(seed), model.imaging.frequencies
    batches = [
        rows for _ in range(epochs) for rows in torch.randperm(len(particles), generator=generator).split(batch_size)
    ]
    with in_bfloat16, tqdm(batches, desc="warm start", unit="batch", disable=not progress) as bar:
        for step, rows in enumerate(bar):
            batch = model.imaging.batch(particles, rows.numpy())
            noise = (torch.rand(len(rows), latents.shape[1], generator=generator) - 0.5) * model.noise_width
            z, share = latents[rows].to(model.device), shares[rows].to(model.device)
            some = torch.randperm(len(frequencies), generator=generator)[: len(frequencies) // _PART].to(z.device)
            loss = _encoder_error(model, batch, z, share) + _decoder_error(model, source, batch, z + noise.to(z), some)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.networks.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / len(batches)))
            optimizer.step()
    model.prior = source.prior
    model.moments.assign(source.prior, steps=_PAST)


def _encoder_error(model: CryoTwin, batch: ImageBatch, z: Tensor, shares: Tensor) -> Tensor:
    found, scores = model.encode(batch)
    target = pad(shares.float(), (0, scores.shape[1] - shares.shape[1]))
    return ((found - z) / model.noise_width).square().sum(1).mean() + cross_entropy(scores, target)


def _decoder_error(model: CryoTwin, source: CryoTwin, batch: ImageBatch, z: Tensor, some: Tensor) -> Tensor:
    """Return the relative squared error of slices at some frequencies; every shell of the volume has equal weight."""
    imaging, frequencies = model.imaging, model.imaging.frequencies[some]
    power = model.networks.signal[imaging.shell[some]].square().float()
    weights = imaging.multiplicity[some] * frequencies.norm(dim=1) / power
    with torch.no_grad():
        target = source.networks.slices(batch.rotations, z, len(imaging.frequencies))[:, some]
        if not model.networks.plain:
            target = target - model.networks.average.slices(frequencies, batch.rotations)
    error = model.networks.density(slice_coordinates(frequencies, batch.rotations), z) - target
    return (weights * error.abs().square()).sum() / (weights * target.abs().square()).sum()


def _require_pair(model: CryoTwin, source: CryoTwin) -> None:
    if model.networks.makes_records or not source.networks.makes_records:
        found = f"{model.config['architecture']!r} started from {source.config['architecture']!r}"
        remedy = "Pass the coordinate model first, then the trained subspace model."
        sentence = f"warm_start needs a coordinate model started from a subspace model, not {found}."
        raise InputError("warm_start", found, "'coordinate' started from 'subspace'", remedy, sentence)
    for name in ("box_size", "latent_dim", "noise_width"):
        if model.config[name] != source.config[name]:
            sentence = f"The models differ in {name}: {model.config[name]} here, {source.config[name]} in the source."
            remedy = "Create both models with the same settings."
            raise InputError("warm_start", f"{model.config[name]}", f"{source.config[name]}", remedy, sentence)
    if not source.imaging.measured:
        raise InputError("warm_start", "an untrained source", "a trained model", "Fit the source first.")
    if source.prior.n_components > model.config["n_components"]:
        found = f"{source.prior.n_components} components in the source's prior"
        expected = f"at most {model.config['n_components']}"
        raise InputError("warm_start", found, expected, "Create the model with more components.")
