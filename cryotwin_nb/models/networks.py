"""Common interface of the two architectures, and the options of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import numpy as np
from torch import Tensor, nn

from cryotwin_nb.errors import InputError, flag, known_options, whole
from cryotwin_nb.particles.formation import Chunks, ImageFormation

AUTO = "auto"
_Self = TypeVar("_Self", bound="NetworkOptions")


@dataclass(frozen=True)
class NetworkOptions(ABC):
    """Options of an architecture."""

    architecture: ClassVar[str]
    earlier: ClassVar[dict[str, Any]] = {}  # values of options that models of earlier builds do not store

    @classmethod
    def of(cls: type[_Self], given: dict[str, Any], latent_dim: int | None) -> _Self:
        """Return the given options after checking them, with defaults for the others.

        Raises
        ------
        InputError
            If the architecture has no option of that name, or a value is invalid.
        """
        known_options(f"The {cls.architecture} architecture", given, [field.name for field in fields(cls)])
        return cls(**given).checked(latent_dim)

    @abstractmethod
    def checked(self: _Self, latent_dim: int | None) -> _Self:
        """Return the options as plain numbers, or raise `InputError` if they do not suit `latent_dim`."""

    @classmethod
    @abstractmethod
    def least_numbers(cls, config: dict[str, Any]) -> dict[str, float]:
        """Return the minimum number of stored values that each setting in the `config` of a model implies."""


@dataclass(frozen=True)
class SubspaceOptions(NetworkOptions):
    """Options of the subspace architecture.

    Attributes
    ----------
    n_basis : int, optional
        K, number of directions of variation, at least d. By default d; if d is below 5 or "auto", as many as the images
        support: motions trace curves in map space, so even a few of them span more directions than they have
        parameters.
    width : int
        Units per layer of the networks. By default 64 (subspace), 256 (coordinate).
    contrast : bool or "auto"
        Fit a contrast to each image. By default ("auto"), it is fitted if contrasts are found to vary by 3 % or more.
    tight_mask : bool
        Replace the spherical mask, halfway through the passes, by one around the density found so far.
    """

    architecture: ClassVar[str] = "subspace"

    n_basis: int | None = None
    width: int = 64
    contrast: bool | str = AUTO
    tight_mask: bool = False

    def checked(self, latent_dim: int | None) -> SubspaceOptions:
        """Return the options as plain values, or raise `InputError` if they do not suit `latent_dim`."""
        remedy = "Omit n_basis, or pass at least latent_dim."
        n_basis = self.n_basis if self.n_basis is None else whole("n_basis", self.n_basis, remedy)
        if n_basis is not None and n_basis < (latent_dim or 1):
            raise InputError("n_basis", f"{n_basis} directions for d = {latent_dim}", f"{latent_dim} or more", remedy)
        width = whole("width", self.width, "Pass a positive integer; the default is 64.")
        automatic = isinstance(self.contrast, str) and self.contrast == AUTO
        contrast = AUTO if automatic else flag("contrast", self.contrast, "Pass True, False or 'auto'.")
        return SubspaceOptions(n_basis, width, contrast, flag("tight_mask", self.tight_mask))

    @classmethod
    def least_numbers(cls, config: dict[str, Any]) -> dict[str, float]:
        """Return the minimum number of stored values that each setting in the `config` of a model implies."""
        width, basis = config["width"], config["n_basis"]
        dim = basis if config["latent_dim"] == AUTO else config["latent_dim"]
        curve = width**2 if basis > dim else 0
        head = width * (dim + config["n_components"])
        return {"width": head, "n_basis": basis * config["box_size"] ** 3 + basis * width + curve}


@dataclass(frozen=True)
class CoordinateOptions(NetworkOptions):
    """Options of the coordinate architecture.

    Attributes
    ----------
    width : int
        Units per layer of both MLPs. By default 256.
    depth : int
        Number of residual layers of both MLPs. By default 3.
    n_features : int
        Number of positional features of the decoder. By default 192.
    plain : bool
        The networks of the paper: without the average map, from which the others decode deviations; the encoder
        receives images rotated in their plane, not back-projected; the decoder is one MLP of frequency and latents.
    latent_width : int
        Units per layer of the MLP through which maps vary non-linearly with the latents, unless the networks are
        `plain`. By default 32; 0: maps are linear in the latents.
    view_width : int
        Units per layer of the MLPs of the view, which multiply the encoder's layers unless the networks are `plain`.
        By default 64.
    """

    architecture: ClassVar[str] = "coordinate"
    earlier: ClassVar[dict[str, Any]] = {"plain": True, "latent_width": 0, "view_width": 0}

    width: int = 256
    depth: int = 3
    n_features: int = 192
    plain: bool = False
    latent_width: int = 32
    view_width: int = 64

    def checked(self, latent_dim: int | None) -> CoordinateOptions:
        """Return the options as plain numbers, or raise `InputError`; they do not depend on `latent_dim`."""
        width = whole("width", self.width, "Pass a positive integer; the default is 256.")
        depth = whole("depth", self.depth, "Pass 0 or a positive integer; the default is 3.", least=0)
        n_features = whole("n_features", self.n_features, "Pass a positive integer; the default is 192.")
        latent_width = whole("latent_width", self.latent_width, "Pass 0 or a positive integer.", least=0)
        plain, remedy = flag("plain", self.plain), "Pass a positive integer; the default is 64."
        view_width = whole("view_width", self.view_width, remedy, least=0 if plain else 1)
        return CoordinateOptions(width, depth, n_features, plain, latent_width, view_width)

    @classmethod
    def least_numbers(cls, config: dict[str, Any]) -> dict[str, float]:
        """Return the minimum number of stored values that each setting in the `config` of a model implies."""
        width, depth = config["width"], config["depth"]
        if not config.get("plain", True) and "view_width" not in config:
            last = "b40a488" if "latent_width" in config else "5fd7360"
            raise ValueError(f"coordinate networks of an earlier build; the last that can read them is commit {last}")
        return {
            "width": width * (config["latent_dim"] + config["n_components"]),
            "width and depth": depth * max(width, 1) ** 2,
            "n_features": config["n_features"] * width,
            "latent_width": 0 if config.get("plain", True) else config["latent_width"] * width,
        }


def require_records(name: str, networks: Networks, remedy: str) -> None:
    """Raise `InputError` unless `networks` are trained and reduce images to `Records`, which quantity `name` needs."""
    if not networks.makes_records:
        found = "an architecture that does not estimate latent uncertainties"
        raise InputError(name, found, "a subspace model", remedy)
    if not networks.imaging.measured:
        raise InputError(name, "an untrained model", "a trained subspace model", remedy)


class Networks(nn.Module, ABC):
    """Encoder and decoder of an architecture.

    Parameters
    ----------
    imaging : ImageFormation
        Image formation of the data set.
    latent_dim : int
        Dimension d of the latent space.
    noise_width : float
        Width T of the noise on the latents. It only sets the unit of z: latents are encoded and decoded in units of T.

    Attributes
    ----------
    Options : type
        Options of the architecture.
    training_defaults : dict
        Default number of epochs and batch size.
    betas : (float, float)
        Decay rates of RAdam's averages of gradients and of their squares.
    coarse_to_fine : bool
        Whether training begins at low resolution.
    makes_records : bool
        Whether images can be reduced to `Records`. If so, training runs on the records, and images have a likelihood.
    n_passes : int
        Number of gradient-free passes before training.
    simulates : bool
        Whether the encoder also learns from images simulated with the decoder.
    """

    Options: ClassVar[type[NetworkOptions]]
    training_defaults: dict[str, int]
    betas: tuple[float, float] = (0.9, 0.999)
    coarse_to_fine: ClassVar[bool]
    makes_records: ClassVar[bool]
    n_passes: ClassVar[int] = 0
    simulates: bool = False

    def __init__(self, imaging: ImageFormation, latent_dim: int, noise_width: float) -> None:
        super().__init__()
        self.imaging = imaging
        self.latent_dim, self.noise_width = latent_dim, noise_width

    @staticmethod
    def imaging_options(options: Any) -> dict[str, Any]:
        """Return the options of the `ImageFormation` that the architecture needs with its own `options`."""
        return {}

    @abstractmethod
    def passes(
        self, chunks: Chunks, beta: float, done: int = 0, groups: np.ndarray | None = None
    ) -> Iterator[tuple[float, float, float]]:
        """Run the passes after the first `done`; yield radius (grid units), mean log-evidence (nats) and time (s).

        `groups` (n,) int numbers the images; copies have the same number (see `GaussianMixture.fit`).
        """

    @abstractmethod
    def encode(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return latents z (m, d) and component scores w (m, C) of images or their records."""

    @abstractmethod
    def score_head(self) -> tuple[Tensor, Tensor]:
        """Return the rows of the last layer that give w: weight (C, width) and bias (C,), modifiable in place."""

    @abstractmethod
    def distortion(self, batch: Any, z: Tensor, n: int | None = None) -> Tensor:
        """Return || W (X - prediction) ||^2 (m,) of images or records decoded at z (m, d), over n coefficients."""

    def terms(self, batch: Any, z: Tensor, n: int | None, some: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the distortion (m,), estimated from `some` of n coefficients, and -2 log prior of the maps, if any."""
        return self.distortion(batch, z, n), z.new_zeros(len(z))

    def anisometry(self, z: Tensor) -> Tensor:
        """Return the deviation of the decoder from an isometry at latents z (m, d); 0 if not penalised."""
        return z.new_zeros(())

    @abstractmethod
    def slices(self, rotations: Tensor, z: Tensor, n: int | None = None) -> Tensor:
        """Return the first n coefficients of central slices (m, P) of the densities at z (m, d) for `rotations`."""

    @abstractmethod
    def volumes(self, z: Tensor) -> Tensor:
        """Return densities (m, D, D, D) at z (m, d)."""

    def in_bfloat16(self, wanted: bool) -> AbstractContextManager[None]:
        """Return a context in which matrix products can use bfloat16; outside it, latents and maps stay float32."""
        return nullcontext()
