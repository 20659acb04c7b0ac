"""State and steps of a training run: gradient-free passes, epochs, checkpoints."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.models.history import History
from cryotwin_nb.models.records import Records
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.streaming import PreparedImages
from cryotwin_nb.runtime import distributed
from cryotwin_nb.training.checkpoint import Interrupted, read_checkpoint, run_identity, write_checkpoint
from cryotwin_nb.training.config import TrainingConfig
from cryotwin_nb.training.objective import has_bfloat16, objective, simulated_error


class Trainer:
    """Training run: the steps of `training.fit`.

    With several processes (`distributed`), each process prepares its share of the images in the gradient-free passes.
    Batches of the coordinate networks are also divided among the processes. Training on records is so fast that every
    process runs all of it.
    """

    def __init__(self, model: CryoTwin, particles: Particles, config: TrainingConfig) -> None:
        self.model, self.particles, self.config = model, particles, config
        model.history = self.history = History()
        self.optimizer = self._new_optimizer()
        defaults = model.networks.training_defaults
        self.epochs = config.epochs or defaults["epochs"]
        self.batch_size = config.batch_size or defaults["batch_size"]
        self.steps_per_epoch = -(-len(particles) // self.batch_size)
        self.on_records = model.networks.makes_records
        n = len(particles)
        rows = distributed.share(n) if self.on_records else slice(0, n)
        self.images = PreparedImages(model.imaging, particles, config.cache_gib, rows)
        self._records: Records | None = None
        self._interrupted: Interrupted | None = None
        self._saved = time.monotonic()
        wanted = config.precision
        self._bfloat16 = wanted == "bfloat16" or (wanted == "auto" and has_bfloat16(model.device.type))

    def _new_optimizer(self) -> torch.optim.Optimizer:
        betas = self.model.networks.betas
        return torch.optim.RAdam(self.model.parameters(), lr=self.config.learning_rate, betas=betas)

    # Gradient-free passes --------------------------------------------------------------------------------------------

    def closed_form(self, progress: bool) -> None:
        """Run the gradient-free passes of the architecture, except those already in the checkpoint."""
        history, networks = self.history, self.model.networks
        done = len(history.log_evidence)
        with tqdm(total=networks.n_passes, initial=done, desc="closed form", unit="pass", disable=not progress) as bar:
            passes = networks.passes(self.images.chunks, self.config.beta, done, self.particles.identity)
            for radius, log_evidence, seconds in passes:
                self._follow()
                self.agree()
                history.pass_radius.append(radius)
                history.log_evidence.append(log_evidence)
                history.pass_seconds.append(seconds)
                bar.update()
                self.save()
        self.agree()

    def _follow(self) -> None:
        """Adopt the spectrum and the dimensions that a pass has found."""
        networks, history = self.model.networks, self.history
        if (found := networks.spectrum) is None:
            return
        history.variances, history.gains = list(found.variances), list(found.gains)
        history.gain_errors, history.n_examined = list(found.errors), found.n_images
        dims = networks.latent_dim if networks.chosen else None, len(networks.basis)
        if dims != (self.model.latent_dim, self.model.config["n_basis"]):
            self.model.follow()
            self.optimizer = self._new_optimizer()

    @property
    def records(self) -> Records:
        """Records of all the images."""
        if self._records is None:
            parts = (tuple(self.model.networks.prepare(chunk)) for chunk in self.images.chunks())
            self._records = Records(*distributed.assemble(parts, len(self.particles)))
        return self._records

    @torch.no_grad()
    def latents(self) -> Tensor:
        """Return the latents (n, d) of all the images, on the CPU."""
        encode, n = self.model.encode, len(self.particles)
        if self.on_records:
            device = self.model.device
            parts = torch.arange(n, device=device).split(500)
            return torch.cat([encode(self.records.take(rows))[0].cpu() for rows in parts])
        latents = ((encode(chunk)[0].cpu(),) for chunk in self.images.chunks())
        return distributed.assemble(latents, n)[0]

    def finish(self) -> None:
        """Fit the final mixtures to all the latents."""
        model, config, networks = self.model, self.config, self.model.networks
        z, bound = self.latents(), model.config["n_components"]
        identity = self.particles.identity
        model.prior = distributed.first(lambda: GaussianMixture.fit(z, bound, seed=config.seed, groups=identity))
        self.history.n_components = model.prior.n_components
        if self.on_records:
            records = self.records
            fitted = distributed.first(lambda: networks.deconvolve(records, model.prior, config.seed).to("cpu"))
            model.deconvolved_prior = fitted
        self.agree()

    def agree(self) -> None:
        """Copy the state of the first process to all others, because rounding differs between GPUs."""
        if distributed.world() > 1:
            payload = self.model.payload
            state = distributed.first(lambda: {name: value.cpu() for name, value in payload()["state"].items()})
            self.model.restore(state)

    # Epochs ----------------------------------------------------------------------------------------------------------

    def epoch(self) -> None:
        """Run one pass over the images; all random numbers follow from the seed and the number of the epoch."""
        started, done = time.perf_counter(), self.history.epochs
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + done)
        order = torch.randperm(len(self.particles), generator=generator).numpy()
        first, sums, skipped = 0, torch.zeros(2, dtype=torch.float64), 0
        if self._interrupted:
            at, self._interrupted = self._interrupted, None
            first, sums, skipped, started = at.step, at.sums, at.skipped, started - at.seconds
            generator.set_state(at.generator)
        for step, (size, batch) in enumerate(self._batches(order, first), first):
            progress = (done * self.steps_per_epoch + step) / (self.epochs * self.steps_per_epoch)
            terms = self._step(batch, size, progress, generator)
            skipped += terms is None
            sums = sums + (0 if terms is None else terms * size)
            if time.monotonic() - self._saved > 60 * self.config.checkpoint_minutes:
                seconds = time.perf_counter() - started
                self.save(Interrupted(step + 1, sums, skipped, seconds, generator.get_state()))
        if skipped > self.steps_per_epoch // 2:
            remedy = "The last checkpoint is untouched. Try a lower learning_rate or precision='float32'."
            raise FloatingPointError(f"{skipped} of {self.steps_per_epoch} steps had a non-finite gradient. {remedy}")
        self._reseed(generator)
        self.model.prior = self.model.moments.mixture()
        beta, radius = self._schedule((done + 1) / self.epochs)
        values = (*(sums / len(order)).tolist(), beta, radius, time.perf_counter() - started, skipped)
        for name, value in zip(("distortion", "rate", "beta", "radius", "seconds", "skipped"), values, strict=True):
            getattr(self.history, name).append(value)

    def _batches(self, order: np.ndarray, first: int) -> Iterator[tuple[int, Any]]:
        """Return the batches of an epoch from step `first` onwards, as pairs of batch size and this process's input."""
        rows = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)][first:]
        if self.on_records:
            records, device = self.records, self.model.device
            return ((len(r), records.take(torch.as_tensor(r, device=device))) for r in rows)
        mine = [r[distributed.share(len(r))] for r in rows]
        # a process without an image in the last batch prepares one that `objective` discards
        return zip(map(len, rows), self.images.batches(m if len(m) else r[:1] for m, r in zip(mine, rows)))

    def _schedule(self, progress: float) -> tuple[float, float]:
        """Return beta and the maximum frequency used (grid units) at a given share of the run."""
        ramp = min(1.0, progress / max(self.config.warmup, 1e-9))
        radius = float(self.model.imaging.plane.radius or 0)
        if self.model.networks.coarse_to_fine:
            radius *= min(1.0, self.config.start_radius + (1 - self.config.start_radius) * ramp)
        return self.config.beta * 10 ** (2 * ramp - 2), radius

    def _step(self, batch: Any, size: int, progress: float, generator: torch.Generator) -> Tensor | None:
        """Take one step of RAdam; return distortion and rate per image, or None if the gradient is non-finite."""
        model, config = self.model, self.config
        beta, radius = self._schedule(progress)
        n = int((model.imaging.frequencies.norm(dim=1) < radius).sum())
        moments = dict(model.moments.named_buffers())
        self.optimizer.zero_grad(set_to_none=True)
        shared, share = (None, 1.0) if self.on_records else (size, config.coefficients)
        try:
            with model.networks.in_bfloat16(self._bfloat16):
                distortion, rate, z, latents, prior = objective(model, batch, n, generator, shared, share)
                departure = config.isometry * beta * model.networks.anisometry(latents)
                departure = departure + config.map_prior * prior.sum() / size
                if model.networks.simulates and config.simulated and progress > config.warmup:
                    error = simulated_error(model.networks, batch, z, n, size, generator)
                    departure = departure + config.simulated * error.sum() / size
                mean = distortion.double().sum() / size
                loss = (mean + beta * rate.mean() + departure) / model.imaging.multiplicity[:n].sum()
                loss.backward()
            if shared:
                distributed.sum_gradients(model.parameters())
                mean = distributed.gather(distortion.detach(), size).double().mean()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            finite = bool(torch.isfinite(mean) & torch.isfinite(rate).all() & torch.isfinite(norm))
        except torch.linalg.LinAlgError:  # raised for moments of non-finite latents
            finite = False
        if not finite:
            for name, before in moments.items():
                setattr(model.moments, name, before)
            return None
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        self.optimizer.step()
        return torch.stack([mean, rate.mean()]).detach().double().cpu()

    def _reseed(self, generator: torch.Generator) -> None:
        """For each component without particles, split the one with the largest weight, in moments and encoder."""
        moments, head = self.model.moments, self.model.networks.score_head()
        for starved in moments.starved():
            heaviest = int(moments.mixture().weights.argmax())
            moments.split(heaviest, starved, generator)
            with torch.no_grad():
                for parameter in head:
                    noise = torch.randn(parameter[heaviest].shape, generator=generator).to(parameter.device)
                    spread = parameter.std() if parameter.ndim > 1 else 0.0
                    parameter[starved] = parameter[heaviest] + 0.5 * spread * noise

    # Checkpoints -----------------------------------------------------------------------------------------------------

    def save(self, interrupted: Interrupted | None = None) -> None:
        """Write the checkpoint if one is configured, including the position within an interrupted epoch."""
        if self.config.checkpoint and distributed.rank() == 0:
            within = interrupted or self._interrupted
            write_checkpoint(self.config.checkpoint, self.model, self._identity, self.optimizer, within)
        self._saved = time.monotonic()

    def restore(self, path: str | os.PathLike) -> None:
        """Resume from a checkpoint; refuse one of another model, configuration or data set."""
        self._interrupted, state = read_checkpoint(path, self.model, self._identity)
        self.history, self.optimizer = self.model.history, self._new_optimizer()
        self.optimizer.load_state_dict(state)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return run_identity(self.particles, self.config, self.epochs, self.batch_size)
