"""What the two architectures have in common, what can be chosen about each, and what the model asks of either."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from cryotwin_nb.errors import InputError, flag, known_options, whole
from cryotwin_nb.particles.formation import Chunks, ImageFormation

_Self = TypeVar("_Self", bound="NetworkOptions")


@dataclass(frozen=True)
class NetworkOptions(ABC):
    """Options of an architecture."""

    architecture: ClassVar[str]

    @classmethod
    def of(cls: type[_Self], given: dict[str, Any], latent_dim: int) -> _Self:
        """The options given, checked, and the defaults of the others.

        Raises
        ------
        InputError
            If the architecture has no option of that name, or a value is impossible.
        """
        known_options(f"The {cls.architecture} architecture", given, [field.name for field in fields(cls)])
        return cls(**given).checked(latent_dim)

    @abstractmethod
    def checked(self: _Self, latent_dim: int) -> _Self:
        """The same as plain numbers, or `InputError`."""

    @classmethod
    @abstractmethod
    def least_numbers(cls, config: dict[str, Any]) -> dict[str, float]:
        """How many numbers at least each setting of a stored model must have brought with it."""


@dataclass(frozen=True)
class SubspaceOptions(NetworkOptions):
    """Options of the subspace architecture.

    Attributes
    ----------
    n_basis : int, optional
        K, directions of variation, at least d. By default d, or 12 where d is below 5: few motions need more
        directions than they have parameters, because they are curved.
    width : int
        Units of the small networks.
    contrast : bool
        Fit a contrast to each image.
    tight_mask : bool
        Replace the spherical mask, half way through the passes, by one around the density found so far.
    """

    architecture: ClassVar[str] = "subspace"

    n_basis: int | None = None
    width: int = 64
    contrast: bool = False
    tight_mask: bool = False

    def checked(self, latent_dim: int) -> SubspaceOptions:
        """The same as plain numbers, `n_basis` chosen, or `InputError`."""
        remedy = "Leave n_basis out, or give at least latent_dim."
        n_basis = (latent_dim if latent_dim >= 5 else 12) if self.n_basis is None else self.n_basis
        n_basis = whole("n_basis", n_basis, remedy)
        if n_basis < latent_dim:
            raise InputError("n_basis", f"{n_basis} directions for d = {latent_dim}", f"{latent_dim} or more", remedy)
        width = whole("width", self.width, "The default is 64.")
        return SubspaceOptions(n_basis, width, flag("contrast", self.contrast), flag("tight_mask", self.tight_mask))

    @classmethod
    def least_numbers(cls, config: dict[str, Any]) -> dict[str, float]:
        """How many numbers at least each setting of a stored model must have brought with it."""
        dim, width, basis = config["latent_dim"], config["width"], config["n_basis"]
        curve = width**2 if basis > dim else 0
        head = width * (dim + config["n_components"])
        return {"width": head, "n_basis": basis * config["box_size"] ** 3 + basis * width + curve}


@dataclass(frozen=True)
class CoordinateOptions(NetworkOptions):
    """Options of the coordinate architecture.

    Attributes
    ----------
    width, depth : int
        Units and residual layers of both MLPs.
    n_features : int
        Positional features of the decoder.
    """

    architecture: ClassVar[str] = "coordinate"

    width: int = 256
    depth: int = 3
    n_features: int = 192

    def checked(self, latent_dim: int) -> CoordinateOptions:
        """The same as plain numbers, or `InputError`."""
        width = whole("width", self.width, "The default is 256.")
        depth = whole("depth", self.depth, "The default is 3.", least=0)
        return CoordinateOptions(width, depth, whole("n_features", self.n_features, "The default is 192."))

    @classmethod
    def least_numbers(cls, config: dict[str, Any]) -> dict[str, float]:
        """How many numbers at least each setting of a stored model must have brought with it."""
        width, depth = config["width"], config["depth"]
        return {
            "width": width * (config["latent_dim"] + config["n_components"]),
            "width and depth": depth * max(width, 1) ** 2,
            "n_features": config["n_features"] * width,
        }


class Networks(nn.Module, ABC):
    """Encoder and decoder of an architecture.

    Parameters
    ----------
    imaging : ImageFormation
        Image formation of the data set.
    latent_dim : int
        d.
    noise_width : float
        T. Latents are made and read in units of it: T is a pure gauge.

    Attributes
    ----------
    Options : type
        What can be chosen about the architecture.
    imaging_options : dict
        Options of the `ImageFormation` that it needs.
    training_defaults : dict
        Epochs and batch size.
    coarse_to_fine : bool
        Whether training begins at a low resolution.
    makes_records : bool
        Whether images can be reduced to `Records`: training then runs on those, and images have a likelihood.
    n_passes : int
        Passes without gradient before the training.
    """

    Options: ClassVar[type[NetworkOptions]]
    imaging_options: ClassVar[dict[str, Any]] = {}
    training_defaults: ClassVar[dict[str, int]]
    coarse_to_fine: ClassVar[bool]
    makes_records: ClassVar[bool]
    n_passes: ClassVar[int] = 0

    def __init__(self, imaging: ImageFormation, latent_dim: int, noise_width: float) -> None:
        super().__init__()
        self.imaging = imaging
        self.latent_dim, self.noise_width = latent_dim, noise_width

    @abstractmethod
    def passes(self, chunks: Chunks, beta: float, done: int = 0) -> Iterator[tuple[float, float, float]]:
        """The passes that are left after `done`; of each the radius, the mean log-evidence and seconds."""

    @abstractmethod
    def encode(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Latents z (m, d) and component scores w (m, C) of images, or of their records."""

    @abstractmethod
    def score_head(self) -> tuple[Tensor, Tensor]:
        """The rows of the last layer that give w: weight (C, width) and bias (C,), to be changed in place."""

    @abstractmethod
    def distortion(self, batch: Any, z: Tensor, n: int | None = None) -> Tensor:
        """|| W (X - prediction) ||^2 (m,) of images, or records, decoded at z (m, d), over the first n coefficients."""

    def anisometry(self, z: Tensor) -> Tensor:
        """How far the decoder departs from an isometry at latents z (m, d); 0 where that is not penalised."""
        return z.new_zeros(())

    @abstractmethod
    def slices(self, rotations: Tensor, z: Tensor, n: int | None = None) -> Tensor:
        """Central slices (m, P) of the densities at z (m, d), seen from `rotations`; the first n coefficients."""

    @abstractmethod
    def volumes(self, z: Tensor) -> Tensor:
        """Densities (m, D, D, D) at z (m, d)."""

    def in_bfloat16(self, wanted: bool) -> AbstractContextManager[None]:
        """A context in which products may be computed in bfloat16; latents and maps stay float32 outside it."""
        return nullcontext()


class Curve(nn.Module):
    """A small network R^d -> R^K that starts at zero, and its Jacobian."""

    def __init__(self, n_in: int, width: int, n_out: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(n_in, width), nn.Linear(width, width)
        self.last = nn.Linear(width, n_out, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (m, K) and Jacobians (m, K, d) at x (m, d)."""
        h = self.first(x).tanh()
        jacobian = (1 - h.square())[..., None] * self.first.weight
        h = self.second(h).tanh()
        jacobian = (1 - h.square())[..., None] * (self.second.weight @ jacobian)
        return self.last(h), self.last.weight @ jacobian
