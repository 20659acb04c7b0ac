"""What the two architectures have in common, and what the model and its training ask of either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from torch import Tensor, nn

from cryotwin_nb.models.options import NetworkOptions
from cryotwin_nb.particles.formation import Chunks, ImageFormation


class Networks(nn.Module):
    """Encoder and decoder of an architecture.

    Parameters
    ----------
    imaging : ImageFormation
        Of the data set.
    latent_dim : int
        d.
    noise_width : float
        T. Latents are made and read in units of it: T is a pure gauge.

    Attributes
    ----------
    Options : type
        What can be chosen about the architecture.
    imaging_options : dict
        Of the `ImageFormation` that it needs.
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

    def passes(self, chunks: Chunks, beta: float, done: int = 0) -> Iterator[tuple[float, float, float]]:
        """The passes that are left after `done`; of each the radius, the mean log-evidence and seconds."""
        raise NotImplementedError

    def encode(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Latents z (m, d) and component scores w (m, C) of images, or of their records."""
        raise NotImplementedError

    def score_head(self) -> tuple[Tensor, Tensor]:
        """The rows of the last layer that give w: weight (C, width) and bias (C,), to be changed in place."""
        raise NotImplementedError

    def distortion(self, batch: Any, z: Tensor, n: int | None = None) -> Tensor:
        """|| W (X - prediction) ||^2 (m,) of images, or records, decoded at z (m, d), over the first n coefficients."""
        raise NotImplementedError

    def anisometry(self, z: Tensor) -> Tensor:
        """How far the decoder departs from an isometry at latents z (m, d); 0 where that is not penalised."""
        return z.new_zeros(())

    def slices(self, rotations: Tensor, z: Tensor, n: int | None = None) -> Tensor:
        """Central slices (m, P) of the densities at z (m, d), seen from `rotations`; the first n coefficients."""
        raise NotImplementedError

    def volumes(self, z: Tensor) -> Tensor:
        """Densities (m, D, D, D) at z (m, d)."""
        raise NotImplementedError

    def in_bfloat16(self, wanted: bool) -> AbstractContextManager[None]:
        """A context in which products may be computed in bfloat16; latents and maps stay float32 outside it."""
        return nullcontext()
