"""Is the map from latents to densities an isometry? The paper's correlation, and the whole metric tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.evaluation.intervals import Interval, interval

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Isometry:
    """Inner products of pairs of small steps, in latent space and in the space of maps.

    Attributes
    ----------
    latent_products, volume_products : (n,) float64
        dz1.dz2 and dV1.dV2.
    """

    latent_products: np.ndarray
    volume_products: np.ndarray

    @property
    def correlation(self) -> float:
        """Pearson's r of the two: 1 for an isometry up to scale (the paper's measure, its Fig. 4)."""
        return _correlation(self.latent_products, self.volume_products)

    @property
    def scale(self) -> float:
        """Least-squares factor from latent to volume products, through the origin."""
        return _scale(self.latent_products, self.volume_products)

    @property
    def correlation_interval(self) -> Interval:
        """95 % bootstrap interval of r, over the pairs."""
        return interval(_correlation, self.latent_products, self.volume_products)

    @property
    def scale_interval(self) -> Interval:
        """95 % bootstrap interval of the scale, over the pairs."""
        return interval(_scale, self.latent_products, self.volume_products)


def _correlation(latent: np.ndarray, volume: np.ndarray) -> float:
    return float(np.corrcoef(latent, volume)[0, 1])


def _scale(latent: np.ndarray, volume: np.ndarray) -> float:
    return float(latent @ volume / (latent @ latent))


def isometry(
    decode: Decode | object,
    z: Tensor,
    seed: int = 0,
    n_pairs: int = 200,
    n_active: int | None = None,
    step: float = 0.01,
    progress: bool = False,
) -> Isometry:
    """Compare inner products of infinitesimal steps in latent space with those of the decoded maps (paper, Eq. 2).

    Parameters
    ----------
    decode : callable or model
        (m, d) latents to (m, D, D, D) maps, or anything with a method `volumes` that does.
    z : (n, d)
        Latents of real particles; pairs of steps start at `n_pairs` of them.
    n_pairs : int
        Pairs of random directions.
    n_active : int, optional
        Take the directions in the span of the leading principal components of `z` only ("active subspace").
        By default all directions, as in the paper.
    step : float
        Length of the steps relative to the standard deviation of the leading component; differences are central.
    progress : bool
        Show a bar.
    """
    volumes = as_decode(decode)
    generator = torch.Generator().manual_seed(seed)
    z = torch.as_tensor(z, dtype=torch.float32)
    spread, axes = principal_axes(z)
    axes = axes[: n_active or z.shape[1]]
    latent, maps = [], []
    starts = torch.randperm(len(z), generator=generator)[:n_pairs].tolist()
    for index in tqdm(starts, desc="isometry", unit="pair", disable=not progress):
        directions = torch.randn(2, len(axes), generator=generator) @ axes
        directions *= step * spread[0] / len(axes) ** 0.5
        both = volumes(torch.cat([z[index] + directions, z[index] - directions]))
        change = ((both[:2] - both[2:]) / 2).flatten(1).double()
        latent.append(float(directions[0] @ directions[1]))
        maps.append(float(change[0] @ change[1]))
    return Isometry(np.array(latent), np.array(maps))


def metric_tensors(decode: Decode | object, z: Tensor, n_points: int = 40, seed: int = 0, step: float = 0.01) -> Tensor:
    """J^T J of the decoder (m, d, d) float64 at `n_points` of the latents z (n, d): all inner products at once.

    The Jacobian's columns are central differences, of `step` standard deviations of the leading component.
    """
    volumes = as_decode(decode)
    z = torch.as_tensor(z, dtype=torch.float32)
    steps = step * principal_axes(z)[0][0] * torch.eye(z.shape[1])
    tensors = []
    for index in torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))[:n_points].tolist():
        ahead, behind = volumes(torch.cat([z[index] + steps, z[index] - steps])).flatten(1).double().chunk(2)
        jacobian = (ahead - behind) / (2 * steps[0, 0])
        tensors.append(jacobian @ jacobian.T)
    return torch.stack(tensors)


def relaxed_distortion(metric: Tensor, axes: Tensor | None = None) -> float:
    """How far metric tensors (m, d, d) are from one multiple of the identity: 0 for an isometry up to scale.

    d <tr H^2> / <tr H>^2 - 1, in the span of `axes` (k, d) where given (Lee, Yoon, Kim and Park, ICLR 2022,
    whose measure it is up to the factor and the offset). A decoder that ignores half of the dimensions has 1.
    """
    if axes is not None:
        metric = axes.to(metric) @ metric @ axes.to(metric).T
    trace = metric.diagonal(dim1=-2, dim2=-1).sum(-1).mean()
    squares = metric.square().sum((-2, -1)).mean()
    return float(metric.shape[-1] * squares / trace**2 - 1)


def principal_axes(z: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviations (d,) and unit axes (d, d) in rows of latents (n, d), largest first."""
    _, values, axes = torch.linalg.svd(z - z.mean(0), full_matrices=False)
    return values / max(1, len(z) - 1) ** 0.5, axes


def as_decode(decode: Decode | object) -> Decode:
    """A model's method `volumes`, or the decode function given."""
    return decode.volumes if hasattr(decode, "volumes") else decode  # type: ignore[return-value]
