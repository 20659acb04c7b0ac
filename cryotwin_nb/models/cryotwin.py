"""CryoTwin: encoder, decoder and trainable prior in one module."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import grid, require_box_size
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.moments import MixtureMoments, MixtureState
from cryotwin_nb.models.coordinate import CoordinateNetworks
from cryotwin_nb.models.history import History
from cryotwin_nb.models.payload import FORMAT, read_payload, require_stored, write_payload
from cryotwin_nb.models.records import ImageLikelihood
from cryotwin_nb.models.subspace import SubspaceNetworks
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.streaming import prefetched
from cryotwin_nb.runtime import distributed

__all__ = ["CryoTwin", "read_payload", "write_payload"]

_ARCHITECTURES = {"subspace": SubspaceNetworks, "coordinate": CoordinateNetworks}


class CryoTwin(nn.Module):
    """An auto-encoder of particle images whose prior is a Gaussian mixture (Yamazaki et al. 2023).

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
        Of the initial weights.
    **networks
        Passed to the architecture: `n_basis`, `width`, `contrast`, `tight_mask` of `SubspaceNetworks`; `width`,
        `depth`, `n_features` of `CoordinateNetworks`.

    Attributes
    ----------
    prior : GaussianMixture
        The density of the latents.
    imaging : ImageFormation
        Noise spectrum, CTF power and weights measured by `fit`.
    history : History
        Of the training; empty before.
    """

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
        **networks,
    ) -> None:
        super().__init__()
        require_box_size(box_size)
        if architecture not in _ARCHITECTURES:
            known = " or ".join(map(repr, _ARCHITECTURES))
            raise InputError("architecture", repr(architecture), known, "Choose one of these.")
        for name, value in {"latent_dim": latent_dim, "n_components": n_components}.items():
            if value != int(value) or value < 1:
                raise InputError(name, f"{value}", "a positive integer", "The paper uses d = 8, C = 100.")
        if not noise_width > 0:
            raise InputError("noise_width", f"{noise_width}", "a positive number", "The paper uses T = 3.")
        if not 0 < particle_radius < 0.5:
            remedy = "It is a fraction of the box: 0.4 leaves a tenth of the box on each side."
            raise InputError("particle_radius", f"{particle_radius}", "a number between 0 and 0.5", remedy)
        self.config: dict[str, Any] = {
            "box_size": int(box_size),
            "architecture": architecture,
            "latent_dim": int(latent_dim),
            "n_components": int(n_components),
            "noise_width": float(noise_width),
            "weighting": weighting,
            "particle_radius": float(particle_radius),
            "seed": int(seed),
            **{name: int(value) for name, value in networks.items()},
        }  # plain numbers: others could be saved but not read back
        self.noise_width = float(noise_width)
        self.history = History()
        kind: Any = _ARCHITECTURES[architecture]
        self.imaging = ImageFormation(box_size, weighting, particle_radius, **kind.imaging_options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.networks = kind(self.imaging, latent_dim, n_components, noise_width, seed=seed, **networks)
        self.moments = MixtureMoments(n_components, latent_dim)
        self._prior = MixtureState(latent_dim)
        self._deconvolved = MixtureState(latent_dim)

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
        if self.config["architecture"] != "subspace" or not self.imaging.measured:
            found = f"a model of the architecture {self.config['architecture']!r}, or an untrained one"
            raise InputError("deconvolved_prior", found, "a trained subspace model", "Use `prior`, or fit the model.")
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

    def distortion(self, batch: Any, z: Tensor, n: int | None = None) -> Tensor:
        """|| W (X - prediction) ||^2 (m,) of what the architecture has prepared of images, decoded at z (m, d)."""
        return self.networks.distortion(batch, z, n)

    def predict(self, batch: ImageBatch, z: Tensor, n: int | None = None) -> Tensor:
        """Predicted coefficients (m, P) of images at z (m, d): slice times CTF; the first n, by |k|."""
        return self.networks.slices(batch.rotations, z, n) * batch.transfer[:, :n]

    @torch.no_grad()
    def embed(self, particles: Particles, batch_size: int = 256, progress: bool = False) -> Tensor:
        """Latents of particles, (n, d) float32 on the CPU.

        Of several processes that have joined (torchrun), each does its share: all have to call this.

        Raises
        ------
        InputError
            If the model is untrained, or the particles have another box or pixel size or lack poses or CTF.
        """
        mine = distributed.share(len(particles))
        batches = self.batches(particles, batch_size, "embedding", progress, mine)
        return distributed.assemble(((self.encode(batch)[0].cpu(),) for batch in batches), len(particles))[0]

    @torch.no_grad()
    def likelihood(self, particles: Particles, batch_size: int = 256, progress: bool = False) -> ImageLikelihood:
        """What the images of particles say about their structures, as a function of latents.

        Raises
        ------
        InputError
            As `embed`; also for the coordinate architecture, where each point would cost a projection of each image.
        """
        if not isinstance(self.networks, SubspaceNetworks):
            found = f"the architecture {self.config['architecture']!r}"
            raise InputError("likelihood", found, "'subspace'", "Use the latents: model.embed(particles).")
        batches = self.batches(particles, batch_size, "likelihood", progress)
        records = [self.networks.prepare(batch) for batch in batches]
        b, precision = (torch.cat([getattr(r, name) for r in records]) for name in ("b", "precision"))
        return ImageLikelihood(self.networks.coefficients, self.networks.variances, b, precision)

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
            raise InputError("volumes", "latents that are not finite", expected, "Look for NaN in the latents.")
        maps = self.networks.volumes(z.to(self.device)).cpu()
        return maps - maps[:, self._solvent].mean(1)[:, None, None, None]

    def batches(
        self, particles: Particles, size: int, doing: str, progress: bool, which: slice = slice(None)
    ) -> Iterator[ImageBatch]:
        """The images of particles, or of some of them, prepared one step before they are asked for."""
        self.check(particles)
        if not self.imaging.measured:
            raise InputError("model", "one that has seen no images", "a trained model", "Run fit, or load a model.")
        if not self.imaging.knows_groups(particles):
            warnings.warn(
                "The optics groups are not those of the training; all images are whitened by its pooled noise.",
                stacklevel=4,  # whoever called `embed` or `likelihood`
            )
        rows = np.arange(len(particles))[which]
        chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
        batches = prefetched(lambda chunk: self.imaging.batch(particles, chunk), chunks)
        return iter(tqdm(batches, desc=doing, total=len(chunks), disable=not progress or distributed.rank() > 0))

    def check(self, particles: Particles) -> None:
        """Raise `InputError` unless this model can be used on these particles."""
        where, size = "particles", self.config["box_size"]
        if len(particles) == 0:
            raise InputError(where, "no particles", "at least one", "Check the selection.")
        if particles.box_size != size:
            remedy = f"Resample the images, or make the model with CryoTwin({particles.box_size})."
            raise InputError(where, f"a box of {particles.box_size} pixels", f"{size} pixels", remedy)
        known = float(self.imaging.pixel_size)
        if self.imaging.measured and abs(particles.pixel_size / known - 1) > 1e-3:
            found, expected = f"a pixel size of {particles.pixel_size:.4g} Å", f"{known:.4g} Å"
            raise InputError(where, found, expected, "Use images on the grid the model was trained on.")
        particles.require_views()

    @property
    def _solvent(self) -> Tensor:
        """Mask (D, D, D) of the voxels outside the particle and the soft edge that windows and masks give it."""
        size = self.config["box_size"]
        return grid(size, 3).float().norm(dim=-1) >= self.imaging.particle_radius + size / 16

    def payload(self) -> dict:
        """Everything needed to make this model again: plain containers and tensors."""
        return {
            "format": FORMAT,
            "config": self.config,
            "history": asdict(self.history),
            "state": {name: value.clone() for name, value in self.state_dict().items()},  # views: without the rest
        }

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to a .pt file, complete or not at all; folders are made."""
        write_payload(self.payload(), path)

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device = "cpu") -> CryoTwin:
        """Read a model written by `save`, or the model in a checkpoint of `fit`. Executes no code from the file.

        In a checkpoint the prior is that of the mini-batches; training ends with a better one.

        Raises
        ------
        InputError
            If the file is missing, damaged or not a model.
        """
        return cls.from_payload(read_payload(path), path).to(device)

    @classmethod
    def from_payload(cls, payload: dict, where: object) -> CryoTwin:
        """The model in a payload read from `where`."""
        try:
            require_stored(payload)
            model = cls(**payload["config"])
            model.history = History(**payload["history"])
            model.restore(payload["state"])
        except (RuntimeError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            found, expected = "no weights, or those of another network", "those of its configuration"
            raise InputError(where, found, expected, str(error)) from error
        return model

    def restore(self, state: dict[str, Tensor]) -> None:
        """Load a state whose noise spectrum may have more rows than the present one."""
        self.imaging.noise = torch.empty_like(state["imaging.noise"], device=self.device)
        self.load_state_dict(state)
