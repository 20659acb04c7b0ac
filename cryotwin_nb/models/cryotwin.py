"""CryoTwin model: encoder, decoder and trainable prior in one module."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cryotwin_nb.errors import InputError, explained
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.moments import MixtureMoments, StoredMixture
from cryotwin_nb.models.configuration import ARCHITECTURES, checked
from cryotwin_nb.models.history import History
from cryotwin_nb.models.likelihood import ImageLikelihood
from cryotwin_nb.models.networks import AUTO, require_records
from cryotwin_nb.models.payload import FORMAT, read_payload, require_stored
from cryotwin_nb.models.records import ImageContrasts, require_fitted, require_latents
from cryotwin_nb.models.storage import REMEDY, read_model, write_model
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.streaming import batches
from cryotwin_nb.reconstruction.spectrum import Spectrum
from cryotwin_nb.runtime import distributed


class CryoTwin(nn.Module):
    """Auto-encoder of particle images with a Gaussian-mixture prior (Yamazaki et al. 2023).

    Parameters
    ----------
    box_size : int
        Box size D of the images, pixels.
    architecture : {"subspace", "coordinate"}
        "subspace": a linear subspace, found in minutes on a CPU by EM with closed-form steps; "coordinate": the
        residual MLPs of the paper.
    latent_dim : int or "auto"
        Dimension d of the latent space (paper: 8). "auto": one for each direction that the images support; the
        coordinate networks, which need d beforehand, use 8.
    n_components : int
        Maximum number C of Gaussians (paper: 100); training keeps as many as held-out images support.
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
        `depth`, `n_features`, `plain`, `latent_width` (`CoordinateOptions`).

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
        latent_dim: str | int = AUTO,
        n_components: int = 100,
        noise_width: float = 3.0,
        weighting: str = "volume",
        particle_radius: float = 0.4,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        settings = (architecture, latent_dim, n_components, noise_width, weighting, particle_radius, seed, options)
        self.config, chosen = checked(box_size, *settings)
        self.requested = self.config | ({"latent_dim": AUTO} if latent_dim == AUTO else {})  # before `fit` chooses
        self.noise_width, kind = self.config["noise_width"], ARCHITECTURES[architecture]
        self.history = History()  # training history, empty for an untrained model
        imaging = ImageFormation(box_size, weighting, self.config["particle_radius"], **kind.imaging_options(chosen))
        with torch.random.fork_rng(devices=[]), explained("CryoTwin", "Use a smaller box, latent_dim or n_basis."):
            torch.manual_seed(seed)
            count = self.config["n_components"]
            self.networks = kind(imaging, self.latent_dim, count, self.noise_width, chosen, seed)
            self.follow()

    def follow(self) -> None:
        """Adopt the dimensions of the networks, which `fit` may have chosen; start the prior anew."""
        networks, dim, where = self.networks, self.networks.latent_dim, self.imaging.frequencies.device
        if networks.makes_records:
            self.config |= {"latent_dim": dim if networks.chosen else AUTO, "n_basis": len(networks.basis)}
        self.moments = MixtureMoments(self.config["n_components"], dim).to(where)
        self._prior, self._deconvolved = StoredMixture(dim).to(where), StoredMixture(dim).to(where)

    @property
    def latent_dim(self) -> int | None:
        """Dimension d of the latent space; None until `fit` has chosen it."""
        return None if self.config["latent_dim"] == AUTO else self.config["latent_dim"]

    @property
    def spectrum(self) -> Spectrum:
        """Variances of the directions and the evidence for each; `InputError` if `fit` has not measured them."""
        return self.history.spectrum

    @property
    def imaging(self) -> ImageFormation:
        """Noise spectrum, CTF power and weights of the data set, measured by `fit`."""
        return self.networks.imaging

    @property
    def prior(self) -> GaussianMixture:
        """Density of the latents, on the CPU; fitted to all latents at the end of training."""
        require_fitted("prior", self.config["latent_dim"])
        return self._prior.mixture.to("cpu")

    @prior.setter
    def prior(self, mixture: GaussianMixture) -> None:
        self._prior.set(mixture)

    @property
    def deconvolved_prior(self) -> GaussianMixture:
        """Density of the structures, on the CPU: the prior without the noise that each image adds to its latent.

        `InputError` if the architecture does not estimate latent uncertainties, or the model is untrained.
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
        return distributed.assemble(((self.networks.encode(batch)[0].cpu(),) for batch in images), len(particles))[0]

    @torch.no_grad()
    def likelihood(self, particles: Particles, batch_size: int = 256, progress: bool = False) -> ImageLikelihood:
        """Return the likelihood of latents given images; for `particles`, `batch_size`, `progress`, see `embed`."""
        networks = self.networks
        require_records("likelihood", networks, "Use the latents, model.embed(particles), or fit the model.")
        images = batches(self.imaging, particles, batch_size, "likelihood" if progress else None)
        return ImageLikelihood.of(networks, map(networks.prepare, images), particles.identity)

    @torch.no_grad()
    def contrasts(self, particles: Particles, batch_size: int = 256, progress: bool = False) -> ImageContrasts:
        """Return the contrast of each image and its error; `particles`, `batch_size`, `progress`: see `likelihood`."""
        require_records("contrasts", self.networks, "Fit a subspace model.")
        images = batches(self.imaging, particles, batch_size, "contrasts" if progress else None)
        found = [(r.contrast, r.contrast_error) for r in map(self.networks.prepare, images)]
        return ImageContrasts(*(torch.cat(part).cpu() for part in zip(*found, strict=True)))

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
        require_fitted("volumes", self.config["latent_dim"])
        z = require_latents(z, self.networks.latent_dim)
        maps = self.networks.volumes(z.to(self.device)).cpu()
        return maps - maps[:, self.imaging.solvent].mean(1)[:, None, None, None]

    def payload(self) -> dict:
        """Return everything needed to restore this model, as plain containers and tensors."""
        state = {name: value.clone() for name, value in self.state_dict().items()}  # saving a view saves its base
        return {"format": FORMAT, "config": self.config, "history": asdict(self.history), "state": state}

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to a .safetensors file at `path`, completely or not at all; missing folders are created."""
        require_fitted("save", self.config["latent_dim"])
        write_model(self.payload(), path)

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device = "cpu") -> CryoTwin:
        """Read a model written by `save`, or the model in a checkpoint (.pt) of `fit`, without executing code from it.

        Parameters
        ----------
        path, device : path-like, str or torch.device
            File to read; device for the model. The prior in a checkpoint is estimated from mini-batches.

        Raises
        ------
        InputError
            If the file is missing, damaged or not a model.
        """
        payload = (read_payload if Path(path).suffix.lower() == ".pt" else read_model)(path)
        try:
            kind = ARCHITECTURES[payload["config"]["architecture"]].Options
            require_stored(payload, kind)
            model = cls(**kind.earlier | payload["config"])
            model.history = History(**payload["history"])
            model.restore(payload["state"])
        except (RuntimeError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            sentence = f"{path} holds no weights that fit its configuration ({error})."
            raise InputError(path, "other weights", "its weights", REMEDY, sentence) from error
        return model.to(device)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Load a `state`; its noise spectrum can have other rows, and its networks fewer directions."""
        dims = state["moments.first"].shape[1], len(state.get("networks.basis", ()))
        if self.networks.makes_records and self.networks.resize(*dims):
            self.follow()
        self.imaging.noise = torch.empty_like(state["networks.imaging.noise"], device=self.device)
        self.load_state_dict(state)
