"""CryoTwin model: encoder, decoder and trainable prior in one module."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cryotwin_nb.errors import InputError, choice, explained, positive, whole
from cryotwin_nb.imaging.fourier import require_box_size
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.moments import MixtureMoments, StoredMixture
from cryotwin_nb.models.coordinate import CoordinateNetworks
from cryotwin_nb.models.history import History
from cryotwin_nb.models.networks import require_radius, require_records
from cryotwin_nb.models.payload import FORMAT, read_payload, require_stored
from cryotwin_nb.models.records import ImageLikelihood, require_latents
from cryotwin_nb.models.storage import REMEDY, read_model, write_model
from cryotwin_nb.models.subspace import SubspaceNetworks
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.streaming import batches
from cryotwin_nb.runtime import distributed

_ARCHITECTURES: dict[str, Any] = {"subspace": SubspaceNetworks, "coordinate": CoordinateNetworks}


class CryoTwin(nn.Module):
    """Auto-encoder of particle images with a Gaussian-mixture prior (Yamazaki et al. 2023).

    Parameters
    ----------
    box_size : int
        Box size D of the images, pixels.
    architecture : {"subspace", "coordinate"}
        "subspace": a linear subspace, found in minutes on a CPU by EM with closed-form steps; "coordinate": the
        residual MLPs of the paper.
    latent_dim : int
        Dimension d of the latent space (paper: 8).
    n_components : int
        Maximum number C of Gaussians (paper: 100). Training keeps as many as held-out images support.
    noise_width : float
        Width T of the uniform noise on the latents (paper: 3). It only sets the unit of z.
    weighting : {"volume", "paper"}
        Weights of the distortion; see `ImageFormation`.
    particle_radius : float
        Radius of the particle as a fraction of the box size.
    seed : int
        Seed of the initial weights and of the closed-form passes.
    **options
        Options of the architecture: `n_basis`, `width`, `contrast`, `tight_mask` (`SubspaceOptions`), or `width`,
        `depth`, `n_features` (`CoordinateOptions`).

    Examples
    --------
    >>> model = ct.CryoTwin(box_size=32, latent_dim=4, n_components=8)
    >>> history = ct.fit(model, particles, ct.TrainingConfig(epochs=2), progress=False)
    >>> model.volumes(model.embed(particles)[:2]).shape
    torch.Size([2, 32, 32, 32])
    """

    networks: Any  # one of the two architectures, both subclasses of `Networks`

    def __init__(
        self,
        box_size: int,
        architecture: str = "subspace",
        latent_dim: int = 8,
        n_components: int = 100,
        noise_width: float = 3.0,
        weighting: str = "volume",
        particle_radius: float = 0.4,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        require_box_size(box_size)
        kind = _ARCHITECTURES[choice("architecture", architecture, list(_ARCHITECTURES))]
        latent_dim = whole("latent_dim", latent_dim, "Pass a positive integer; the paper uses 8.")
        n_components = whole("n_components", n_components, "Pass a positive integer; the paper uses 100.")
        self.noise_width = positive("noise_width", noise_width, "Pass a positive number; the paper uses 3.")
        particle_radius = require_radius(particle_radius)
        chosen = kind.Options.of(options, latent_dim)
        self.config: dict[str, Any] = {
            "box_size": int(box_size),
            "architecture": architecture,
            "latent_dim": latent_dim,
            "n_components": n_components,
            "noise_width": self.noise_width,
            "weighting": weighting,
            "particle_radius": particle_radius,
            "seed": whole("seed", seed, "Pass 0 or a positive integer.", least=0),
            **asdict(chosen),
        }
        self.history = History()  # training history, empty for an untrained model
        imaging = ImageFormation(box_size, weighting, particle_radius, **kind.imaging_options)
        with torch.random.fork_rng(devices=[]), explained("CryoTwin", "Use a smaller box, latent_dim or n_basis."):
            torch.manual_seed(seed)
            self.networks = kind(imaging, latent_dim, n_components, self.noise_width, chosen, seed)
            self.moments = MixtureMoments(n_components, latent_dim)
        self._prior = StoredMixture(latent_dim)
        self._deconvolved = StoredMixture(latent_dim)

    @property
    def imaging(self) -> ImageFormation:
        """Noise spectrum, CTF power and weights of the data set, measured by `fit`."""
        return self.networks.imaging

    @property
    def prior(self) -> GaussianMixture:
        """Density of the latents, on the CPU; fitted to all latents at the end of training."""
        return self._prior.mixture.to("cpu")

    @prior.setter
    def prior(self, mixture: GaussianMixture) -> None:
        self._prior.set(mixture)

    @property
    def deconvolved_prior(self) -> GaussianMixture:
        """Density of the structures, on the CPU: the prior without the noise that each image adds to its latent.

        Raises
        ------
        InputError
            If the architecture does not estimate latent uncertainties, or the model is untrained.
        """
        require_records("deconvolved_prior", self.networks, "Use `prior`, or fit the model.")
        return self._deconvolved.mixture.to("cpu")

    @deconvolved_prior.setter
    def deconvolved_prior(self, mixture: GaussianMixture) -> None:
        self._deconvolved.set(mixture)

    @property
    def device(self) -> torch.device:
        """Device on which the model computes."""
        return self._prior.weights.device

    def encode(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return latents z (m, d) and component scores w (m, C) of a `batch` prepared by the architecture."""
        return self.networks.encode(batch)

    def predict(self, batch: ImageBatch, z: Tensor, n: int | None = None) -> Tensor:
        """Predict the first `n` coefficients (m, P), by |k|, of a `batch` at latents `z` (m, d), as slice times CTF."""
        return self.networks.slices(batch.rotations, z, n) * batch.transfer[:, :n]

    @torch.no_grad()
    def embed(self, particles: Particles, batch_size: int = 256, progress: bool = False) -> Tensor:
        """Return latents (n, d) float32 of particles, on the CPU. Every process started by torchrun must call this.

        Parameters
        ----------
        particles : Particles
            Particles with poses and CTF.
        batch_size : int
            Images per batch.
        progress : bool
            Show a progress bar.

        Raises
        ------
        InputError
            If the model is untrained, or the particles have a different box or pixel size or lack poses or CTF.
        """
        mine = np.arange(len(particles))[distributed.share(len(particles))]
        images = batches(self.imaging, particles, batch_size, "embedding" if progress else None, mine)
        return distributed.assemble(((self.encode(batch)[0].cpu(),) for batch in images), len(particles))[0]

    @torch.no_grad()
    def likelihood(self, particles: Particles, batch_size: int = 256, progress: bool = False) -> ImageLikelihood:
        """Return the likelihood of latents given images; for `particles`, `batch_size` and `progress`, see `embed`.

        Raises
        ------
        InputError
            As in `embed`; also for the coordinate architecture, which would need a projection per image for each point.
        """
        networks = self.networks
        require_records("likelihood", networks, "Use the latents, model.embed(particles), or fit the model.")
        images = batches(self.imaging, particles, batch_size, "likelihood" if progress else None)
        return ImageLikelihood.of(networks, map(networks.prepare, images), particles.identity)

    @torch.no_grad()
    def volumes(self, z: Tensor | np.ndarray) -> Tensor:
        """Return density maps at latents, (m, D, D, D) float32 on the CPU, zyx, image grey value per Å.

        Images do not determine the mean density (its ramp weight is 0), so it is set such that the density outside the
        particle and its soft edge of D/16 averages to 0.

        Parameters
        ----------
        z : (m, d)
            Latents, at least one.
        """
        z = require_latents(z, self.config["latent_dim"])
        maps = self.networks.volumes(z.to(self.device)).cpu()
        return maps - maps[:, self.imaging.solvent].mean(1)[:, None, None, None]

    def payload(self) -> dict:
        """Return everything needed to restore this model, as plain containers and tensors."""
        state = {name: value.clone() for name, value in self.state_dict().items()}  # saving a view saves its base
        return {"format": FORMAT, "config": self.config, "history": asdict(self.history), "state": state}

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to a .safetensors file at `path`, completely or not at all; missing folders are created."""
        write_model(self.payload(), path)

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device = "cpu") -> CryoTwin:
        """Read a model written by `save`, or the model in a checkpoint (.pt) of `fit`, without executing code from it.

        The prior in a checkpoint is estimated from mini-batches; the final prior of a training run is more accurate.

        Parameters
        ----------
        path, device : path-like, str or torch.device
            File to read; device for the model.

        Raises
        ------
        InputError
            If the file is missing, damaged or not a model.
        """
        read = read_payload if Path(path).suffix.lower() == ".pt" else read_model
        return cls.from_payload(read(path), path).to(device)

    @classmethod
    def from_payload(cls, payload: dict, where: object) -> CryoTwin:
        """Return the model in a `payload` read from `where`."""
        try:
            require_stored(payload, _ARCHITECTURES[payload["config"]["architecture"]].Options)
            model = cls(**payload["config"])
            model.history = History(**payload["history"])
            model.restore(payload["state"])
        except (RuntimeError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            sentence = f"{where} holds no weights that fit its configuration ({error})."
            raise InputError(where, "other weights", "its weights", REMEDY, sentence) from error
        return model

    def restore(self, state: dict[str, Tensor]) -> None:
        """Load a `state`; its noise spectrum can have a different number of rows."""
        self.imaging.noise = torch.empty_like(state["networks.imaging.noise"], device=self.device)
        self.load_state_dict(state)
