"""CryoTwin: encoder, decoder and trainable prior in one module."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cryotwin_nb.errors import InputError, choice, positive, whole
from cryotwin_nb.imaging.fourier import require_box_size
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.moments import MixtureMoments, StoredMixture
from cryotwin_nb.models.coordinate import CoordinateNetworks
from cryotwin_nb.models.history import History
from cryotwin_nb.models.payload import FORMAT, read_payload, require_stored
from cryotwin_nb.models.records import ImageLikelihood
from cryotwin_nb.models.storage import read_model, write_model
from cryotwin_nb.models.subspace import SubspaceNetworks
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.streaming import batches
from cryotwin_nb.runtime import distributed

_ARCHITECTURES: dict[str, Any] = {"subspace": SubspaceNetworks, "coordinate": CoordinateNetworks}


class CryoTwin(nn.Module):
    """An auto-encoder of particle images whose prior is a Gaussian mixture (Yamazaki et al. 2023).

    `history` is the record of its training, empty before.

    Parameters
    ----------
    box_size : int
        D of the images, pixels.
    architecture : {"subspace", "coordinate"}
        "subspace": maps in a linear subspace found in closed form, minutes on a CPU; "coordinate": the paper's
        residual MLPs.
    latent_dim : int
        d (paper: 8).
    n_components : int
        C, the upper bound of the number of Gaussians (paper: 100). Training keeps as many as held-out images support.
    noise_width : float
        T, width of the uniform noise on the latents (paper: 3). A pure gauge: it sets the unit of z.
    weighting : {"volume", "paper"}
        See `ImageFormation`.
    particle_radius : float
        Fraction of the box within which the particle lies.
    seed : int
        Seed of the initial weights and of all that is random in the closed-form passes.
    **options
        Options of the architecture: `n_basis`, `width`, `contrast`, `tight_mask` (`SubspaceOptions`), or `width`,
        `depth`, `n_features` (`CoordinateOptions`).
    """

    networks: Any  # one of the two; what they have in common is in `Networks`

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
        latent_dim = whole("latent_dim", latent_dim, "The paper uses d = 8.")
        n_components = whole("n_components", n_components, "The paper uses C = 100.")
        self.noise_width = positive("noise_width", noise_width, "The paper uses T = 3.")
        remedy = "Give a fraction of the box: 0.4 leaves a tenth of the box on each side."
        particle_radius = positive("particle_radius", particle_radius, remedy)
        if not particle_radius < 0.5:
            raise InputError("particle_radius", f"{particle_radius}", "a number between 0 and 0.5", remedy)
        chosen = kind.Options.of(options, latent_dim)
        self.config: dict[str, Any] = {
            "box_size": int(box_size),
            "architecture": architecture,
            "latent_dim": latent_dim,
            "n_components": n_components,
            "noise_width": self.noise_width,
            "weighting": weighting,
            "particle_radius": particle_radius,
            "seed": whole("seed", seed, "Any number from 0 on.", least=0),
            **asdict(chosen),
        }
        self.history = History()
        imaging = ImageFormation(box_size, weighting, particle_radius, **kind.imaging_options)
        with torch.random.fork_rng(devices=[]):
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
        """The density of the latents, on the CPU: fitted to all of them when training ends."""
        return self._prior.mixture.to("cpu")

    @prior.setter
    def prior(self, mixture: GaussianMixture) -> None:
        self._prior.set(mixture)

    @property
    def deconvolved_prior(self) -> GaussianMixture:
        """The density of the structures themselves, on the CPU: without the noise that each image adds to its latent.

        Raises
        ------
        InputError
            If the architecture does not tell the error of a latent, or the model is untrained.
        """
        if not self.networks.makes_records or not self.imaging.measured:
            found, needed = f"the architecture {self.config['architecture']!r}", "a trained subspace model"
            sentence = f"deconvolved_prior needs {needed}; this model is untrained or has {found}."
            raise InputError("deconvolved_prior", found, needed, "Use `prior`, or fit the model.", sentence)
        return self._deconvolved.mixture.to("cpu")

    @deconvolved_prior.setter
    def deconvolved_prior(self, mixture: GaussianMixture) -> None:
        self._deconvolved.set(mixture)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._prior.weights.device

    def encode(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Latents z (m, d) and component scores w (m, C) of what the architecture has prepared of images."""
        return self.networks.encode(batch)

    def predict(self, batch: ImageBatch, z: Tensor, n: int | None = None) -> Tensor:
        """Predicted coefficients (m, P) of images at z (m, d): slice times CTF; the first n, by |k|."""
        return self.networks.slices(batch.rotations, z, n) * batch.transfer[:, :n]

    @torch.no_grad()
    def embed(self, particles: Particles, batch_size: int = 256, progress: bool = False) -> Tensor:
        """Latents of particles, (n, d) float32 on the CPU.

        If several processes have joined (torchrun), each does its share: all must call this.

        Parameters
        ----------
        particles : Particles
        batch_size : int
            Images at once.
        progress : bool
            Show a bar.

        Raises
        ------
        InputError
            If the model is untrained, or the particles have another box or pixel size or lack poses or CTF.
        """
        mine = np.arange(len(particles))[distributed.share(len(particles))]
        images = batches(self.imaging, particles, batch_size, "embedding" if progress else None, mine)
        return distributed.assemble(((self.encode(batch)[0].cpu(),) for batch in images), len(particles))[0]

    @torch.no_grad()
    def likelihood(self, particles: Particles, batch_size: int = 256, progress: bool = False) -> ImageLikelihood:
        """What the images of particles say about their structures, as a function of latents.

        Raises
        ------
        InputError
            As `embed`; also for the coordinate architecture, where each point would cost a projection of each image.
        """
        networks = self.networks
        if not networks.makes_records:
            found = f"the architecture {self.config['architecture']!r}"
            raise InputError("likelihood", found, "'subspace'", "Use the latents: model.embed(particles).")
        images = batches(self.imaging, particles, batch_size, "likelihood" if progress else None)
        records = [networks.prepare(batch) for batch in images]
        b, precision = (torch.cat([getattr(r, name) for r in records]) for name in ("b", "precision"))
        return ImageLikelihood(networks.coefficients, networks.variances, b, precision)

    @torch.no_grad()
    def volumes(self, z: Tensor | np.ndarray) -> Tensor:
        """Density maps at latents (m, d): (m, D, D, D) float32 on the CPU, zyx, image grey value per Å.

        Images say nothing about the mean density (the ramp weight is 0 there), so it is set such that the density
        outside the particle and a soft edge of D/16 is 0 on average.
        """
        z = torch.as_tensor(z, dtype=torch.float32)
        expected = f"finite latents (m, {self.config['latent_dim']}) with m at least 1"
        if z.ndim != 2 or z.shape[1] != self.config["latent_dim"] or len(z) == 0:
            raise InputError("volumes", f"latents of shape {tuple(z.shape)}", expected, "For one map give z[None].")
        if not bool(torch.isfinite(z).all()):
            raise InputError("volumes", "latents that are not finite", expected, "Remove NaN and infinity.")
        maps = self.networks.volumes(z.to(self.device)).cpu()
        return maps - maps[:, self.imaging.solvent].mean(1)[:, None, None, None]

    def payload(self) -> dict:
        """Everything needed to make this model again: plain containers and tensors."""
        state = {name: value.clone() for name, value in self.state_dict().items()}  # views: without the rest
        return {"format": FORMAT, "config": self.config, "history": asdict(self.history), "state": state}

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to a .safetensors file, complete or not at all (else `InputError`); folders are made."""
        write_model(self.payload(), path)

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device = "cpu") -> CryoTwin:
        """Read a model written by `save`, or the one in a checkpoint (.pt) of `fit`. Executes no code from the file.

        In a checkpoint the prior is that of the mini-batches; training ends with a better one.

        Raises
        ------
        InputError
            If the file is missing, damaged or not a model.
        """
        read = read_payload if Path(path).suffix.lower() == ".pt" else read_model
        return cls.from_payload(read(path), path).to(device)

    @classmethod
    def from_payload(cls, payload: dict, where: object) -> CryoTwin:
        """The model in a payload read from `where`."""
        try:
            require_stored(payload, _ARCHITECTURES[payload["config"]["architecture"]].Options)
            model = cls(**payload["config"])
            model.history = History(**payload["history"])
            model.restore(payload["state"])
        except (RuntimeError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            remedy = "Give a file written by CryoTwin.save, or train the model again."
            expected, sentence = "its weights", f"{where} holds no weights that fit its configuration ({error})."
            raise InputError(where, "other weights", expected, remedy, sentence) from error
        return model

    def restore(self, state: dict[str, Tensor]) -> None:
        """Load a state whose noise spectrum may have more rows than the present one."""
        self.imaging.noise = torch.empty_like(state["networks.imaging.noise"], device=self.device)
        self.load_state_dict(state)
