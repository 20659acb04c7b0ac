"""What can be chosen about each architecture; the keywords that `CryoTwin` passes on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from cryotwin_nb.errors import InputError, flag, known_options, whole

_Self = TypeVar("_Self", bound="NetworkOptions")


@dataclass(frozen=True)
class NetworkOptions:
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

    def checked(self: _Self, latent_dim: int) -> _Self:
        """The same as plain numbers, or `InputError`."""
        raise NotImplementedError

    @classmethod
    def least_numbers(cls, config: dict[str, Any]) -> dict[str, float]:
        """How many numbers at least each setting of a stored model must have brought with it."""
        raise NotImplementedError


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
