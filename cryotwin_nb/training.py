"""Rate-distortion training: the objective of Eq. 3, epochs, history, checkpoints and exact resume."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError
from cryotwin_nb.formation import ImageBatch
from cryotwin_nb.history import History
from cryotwin_nb.mixture import GaussianMixture
from cryotwin_nb.models import CryoTwin, read_payload, write_payload
from cryotwin_nb.models.subspace import Records, SubspaceNetworks
from cryotwin_nb.particles import Particles


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
        File written every `checkpoint_every` epochs; `fit(resume=...)` goes on from it.
    cache_gib : float
        Prepared images are kept in memory if they fit in this many GiB, else prepared anew in every epoch.
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
    cache_gib: float = 4.0
    final_em: bool = True

    def __post_init__(self) -> None:
        positive = ("epochs", "beta", "batch_size", "learning_rate", "start_radius", "checkpoint_every")
        for name in positive:
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
        Called as callback(history, model) after each epoch.

    Returns
    -------
    History

    Raises
    ------
    InputError
        If the particles do not suit the model, or the checkpoint does not suit either.
    FloatingPointError
        If the loss stays non-finite; the last checkpoint is untouched.
    """
    config = config or TrainingConfig()
    model.check(particles)
    if model.config["n_components"] > len(particles):
        found, expected = f"C = {model.config['n_components']}", f"at most one per image ({len(particles)})"
        raise InputError("n_components", found, expected, "Use fewer components or more images.")
    model.to(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    trainer = _Trainer(model, particles, config)
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
            if config.checkpoint and trainer.history.epochs % config.checkpoint_every == 0:
                trainer.save(config.checkpoint)
            for callback in callbacks:
                callback(trainer.history, model)
    if config.final_em:
        trainer.finish()
        if progress:
            used, bound = trainer.history.n_components, model.config["n_components"]
            tqdm.write(f"The prior uses {used} of at most {bound} components.")
    return trainer.history


class _Trainer:
    """The state of a run: optimiser, history, and the images it works on."""

    def __init__(self, model: CryoTwin, particles: Particles, config: TrainingConfig) -> None:
        self.model, self.particles, self.config = model, particles, config
        model.history = self.history = History()
        self.optimizer = torch.optim.RAdam(model.parameters(), lr=config.learning_rate)
        defaults = model.networks.training_defaults
        self.epochs = config.epochs or defaults["epochs"]
        self.batch_size = config.batch_size or defaults["batch_size"]
        self.steps_per_epoch = -(-len(particles) // self.batch_size)
        bytes_needed = len(particles) * len(model.imaging.frequencies) * 12
        self._keep = bytes_needed < config.cache_gib * 2**30
        self._cache: ImageBatch | None = None
        self._prepared: Any = None
        wanted = config.precision
        self._bfloat16 = wanted == "bfloat16" or (wanted == "auto" and has_bfloat16(model.device.type))

    def images(self, rows: np.ndarray) -> ImageBatch:
        """Prepared images on the model's device, from memory if they fit there."""
        if not self._keep:
            return self.model.imaging.batch(self.particles, rows)
        if self._cache is None:
            self._cache = self._everything()
        return self._cache.take(torch.as_tensor(rows, device=self.model.device))

    def _everything(self) -> ImageBatch:
        """All the images, prepared; filled in piece by piece, so that they are held in memory once."""
        n = len(self.particles)
        first = self.model.imaging.batch(self.particles, np.arange(1))
        whole = ImageBatch(*(part.new_empty(n, *part.shape[1:]) for part in tuple(first)))
        for rows in np.array_split(np.arange(n), -(-n // 500)):
            for target, part in zip(tuple(whole), tuple(self.model.imaging.batch(self.particles, rows)), strict=True):
                target[rows[0] : rows[-1] + 1] = part
        return whole

    def chunks(self) -> Iterator[ImageBatch]:
        """All the images in their order."""
        for rows in np.array_split(np.arange(len(self.particles)), -(-len(self.particles) // 256)):
            yield self.images(rows)

    def closed_form(self, progress: bool) -> None:
        """The passes of the architecture that need no gradient; those that a checkpoint has are not done again."""
        history, networks = self.history, self.model.networks
        done = len(history.log_evidence)
        with tqdm(total=networks.n_passes, initial=done, desc="closed form", unit="pass", disable=not progress) as bar:
            for radius, log_evidence, seconds in networks.passes(self.chunks, self.config.beta, done):
                history.pass_radius.append(radius)
                history.log_evidence.append(log_evidence)
                history.pass_seconds.append(seconds)
                bar.update()
                if self.config.checkpoint:
                    self.save(self.config.checkpoint)

    def examples(self, rows: np.ndarray) -> Any:
        """What the objective needs of images: records of them (subspace), or the images (coordinate)."""
        if not isinstance(self.model.networks, SubspaceNetworks):
            return self.images(rows)
        if self._prepared is None:
            records = [tuple(self.model.networks.prepare(chunk)) for chunk in self.chunks()]
            self._prepared = Records(*map(torch.cat, zip(*records, strict=True)))
        return self._prepared.take(torch.as_tensor(rows, device=self.model.device))

    def finish(self) -> None:
        """The mixtures that fit all the latents."""
        model, config, networks = self.model, self.config, self.model.networks
        model.prior = GaussianMixture.fit(self.latents(), model.config["n_components"], seed=config.seed)
        self.history.n_components = model.prior.n_components
        if isinstance(networks, SubspaceNetworks):
            records = self.examples(np.arange(len(self.particles)))
            model.deconvolved_prior = networks.deconvolve(records, model.prior, config.seed)

    def epoch(self) -> None:
        """One pass over the images; what is random in it follows from the seed and the number of the epoch."""
        started, done = time.perf_counter(), self.history.epochs
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + done)
        order = torch.randperm(len(self.particles), generator=generator).numpy()
        sums, skipped = torch.zeros(2, dtype=torch.float64), 0
        for step, start in enumerate(range(0, len(order), self.batch_size)):
            rows = order[start : start + self.batch_size]
            batch = self.examples(rows)
            progress = (done * self.steps_per_epoch + step) / (self.epochs * self.steps_per_epoch)
            terms = self._step(batch, progress, generator)
            skipped += terms is None
            sums += torch.zeros(2) if terms is None else terms * len(rows)
        if skipped > self.steps_per_epoch // 2:
            remedy = "the last checkpoint is untouched; try a lower learning_rate or precision='float32'"
            raise FloatingPointError(f"{skipped} of {self.steps_per_epoch} steps gave no finite gradient; {remedy}.")
        self._reseed(generator)
        self.model.prior = self.model.moments.mixture()
        beta, radius = self._schedule((done + 1) / self.epochs)
        values = (*(sums / len(order)).tolist(), beta, radius, time.perf_counter() - started, skipped)
        for name, value in zip(("distortion", "rate", "beta", "radius", "seconds", "skipped"), values, strict=True):
            getattr(self.history, name).append(value)

    def _schedule(self, progress: float) -> tuple[float, float]:
        """Beta and the radius of the frequencies used (grid units) at a share of the run."""
        ramp = min(1.0, progress / max(self.config.warmup, 1e-9))
        radius = float(self.model.imaging.plane.radius or 0)
        if self.model.networks.coarse_to_fine:
            radius *= min(1.0, self.config.start_radius + (1 - self.config.start_radius) * ramp)
        return self.config.beta * 10 ** (2 * ramp - 2), radius

    def _step(self, batch: ImageBatch, progress: float, generator: torch.Generator) -> Tensor | None:
        """One step of RAdam; returns distortion and rate per image, or None if the gradient was not finite."""
        model, config = self.model, self.config
        beta, radius = self._schedule(progress)
        n = int((model.imaging.frequencies.norm(dim=1) < radius).sum())
        moments = dict(model.moments.named_buffers())
        self.optimizer.zero_grad(set_to_none=True)
        model.networks.mixed_precision = self._bfloat16
        try:
            distortion, rate, latents = objective(model, batch, n, generator)
            departure = config.isometry * beta * model.networks.anisometry(latents)
            loss = ((distortion + beta * rate).mean() + departure) / model.imaging.multiplicity[:n].sum()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            finite = bool(torch.isfinite(loss) & torch.isfinite(norm))
        except torch.linalg.LinAlgError:  # moments of latents that are not finite
            finite = False
        finally:
            model.networks.mixed_precision = False  # latents and maps are float32
        if not finite:
            for name, before in moments.items():
                setattr(model.moments, name, before)
            return None
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        self.optimizer.step()
        return torch.stack([distortion.mean(), rate.mean()]).detach().double().cpu()

    def _reseed(self, generator: torch.Generator) -> None:
        """Give each component that lost its particles half of the heaviest one, in the moments and in the encoder."""
        moments, head = self.model.moments, self.model.networks.score_head()
        for starved in moments.starved():
            heaviest = int(moments.mixture().weights.argmax())
            moments.split(heaviest, starved, generator)
            with torch.no_grad():
                for parameter in head:
                    noise = torch.randn(parameter[heaviest].shape, generator=generator).to(parameter.device)
                    spread = parameter.std() if parameter.ndim > 1 else 0.0
                    parameter[starved] = parameter[heaviest] + 0.5 * spread * noise

    @torch.no_grad()
    def latents(self) -> Tensor:
        """Latents (n, d) of all the images, on the CPU."""
        chunks = np.array_split(np.arange(len(self.particles)), -(-len(self.particles) // 500))
        return torch.cat([self.model.encode(self.examples(chunk))[0].cpu() for chunk in chunks])

    def save(self, path: str | os.PathLike) -> None:
        """Write model, optimiser and history; what is random follows from the seed, so this is all."""
        training = {
            "config": self._identity(),
            "optimizer": self.optimizer.state_dict(),
        }
        write_payload({**self.model.payload(), "training": training}, path)

    def restore(self, path: str | os.PathLike) -> None:
        """Go on from a checkpoint; refuse one of another model, configuration or number of particles."""
        payload = read_payload(path)
        remedy = "Resume with the settings and the particles that the run was started with."
        if "training" not in payload:
            raise InputError(path, "a finished model", "a checkpoint written by fit", remedy)
        if payload["config"] != self.model.config:
            raise InputError(path, f"a model {payload['config']}", f"{self.model.config}", remedy)
        stored = payload["training"]["config"]
        if stored != self._identity():
            changed = {k: (v, self._identity().get(k)) for k, v in stored.items() if self._identity().get(k) != v}
            raise InputError(path, f"other settings (stored, given): {changed}", "the same", remedy)
        self.model.restore(payload["state"])
        self.optimizer.load_state_dict(payload["training"]["optimizer"])
        self.model.history = self.history = History(**payload["history"])

    def _identity(self) -> dict:
        """What must not change between a run and its resumption."""
        ignored = ("device", "checkpoint", "checkpoint_every", "cache_gib", "final_em")
        settings = {k: v for k, v in asdict(self.config).items() if k not in ignored}
        settings |= {"epochs": self.epochs, "batch_size": self.batch_size}
        rotations, _ = self.particles.require_views()
        views = hashlib.sha256(rotations.tobytes() + self.particles.shifts.tobytes()).hexdigest()
        return {**settings, "n_particles": len(self.particles), "views": views}


def objective(model: CryoTwin, batch: Any, n: int | None, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """The two terms of Eq. 3 for each image, distortion (m,) and rate -log Q (m,), and the latents (m, d) decoded.

    Those are z + noise, the noise uniform in [-T/2, T/2]^d; the first n coefficients are compared. The moving moments
    of the prior take in the batch.
    """
    width = model.noise_width
    z, w = model.encode(batch)
    noise = (torch.rand(z.shape, generator=generator) - 0.5).to(z.device) * width
    rate = -model.moments.update(z, w).log_window_mass(z, width)
    return model.distortion(batch, z + noise, n), rate, z + noise


def has_bfloat16(device: str) -> bool:
    """True where products of bfloat16 matrices run on units made for them."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    supported = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device == "cpu" and bool(supported())
