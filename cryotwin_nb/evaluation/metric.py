"""Isometry of the decoder: the paper's correlation of inner products, and the full metric tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.errors import POSITIVE, InputError, guarded
from cryotwin_nb.evaluation.intervals import Interval, interval
from cryotwin_nb.mixture.points import require_points

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Isometry:
    """Inner products of pairs of small steps, in latent space and in map space.

    Attributes
    ----------
    latent_products, volume_products : (n,) float64
        Inner products dz1.dz2 of the steps, and dV1.dV2 of the resulting changes in the maps.
    """

    latent_products: np.ndarray
    volume_products: np.ndarray

    @property
    def correlation(self) -> float:
        """Pearson's r of the two sets of products: 1 for an isometry up to scale (measure in Fig. 4 of the paper)."""
        return _correlation(self.latent_products, self.volume_products)

    @property
    def scale(self) -> float:
        """Least-squares slope, through the origin, of the volume products against the latent products."""
        return _scale(self.latent_products, self.volume_products)

    @property
    def correlation_interval(self) -> Interval:
        """95 % bootstrap interval of r, from resampling the pairs."""
        return interval(_correlation, self.latent_products, self.volume_products)

    @property
    def scale_interval(self) -> Interval:
        """95 % bootstrap interval of the scale, from resampling the pairs."""
        return interval(_scale, self.latent_products, self.volume_products)


def _correlation(latent: np.ndarray, volume: np.ndarray) -> float:
    return float(np.corrcoef(latent, volume)[0, 1])


def _scale(latent: np.ndarray, volume: np.ndarray) -> float:
    return float(latent @ volume / (latent @ latent))


@guarded(n_pairs=(1, 2**62), n_active=(1, 2**62), step=POSITIVE)
def isometry(
    decode: Decode | object,
    z: Tensor,
    seed: int = 0,
    n_pairs: int = 200,
    n_active: int | None = None,
    step: float = 0.01,
    progress: bool = False,
) -> Isometry:
    """Compare inner products of small latent steps and of the map changes that result (Eq. 2 of the paper).

    Parameters
    ----------
    decode : callable or model
        Function from latents (m, d) to maps (m, D, D, D), or an object whose method `volumes` is such a function.
    z : (n, d)
        Latents of particles; pairs of steps start at `n_pairs` of them.
    seed : int
        Seed of the starting points and directions.
    n_pairs : int
        Number of pairs of random directions.
    n_active : int, optional
        Number of leading principal components of `z` whose span contains the directions ("active subspace").
        By default, directions are drawn from the whole latent space, as in the paper.
    step : float
        Step length of the central differences, relative to the standard deviation of the leading component.
    progress : bool
        Show a progress bar.

    Examples
    --------
    >>> result = ct.isometry(model, z, n_pairs=50)
    >>> round(result.correlation, 2)
    1.0
    """
    volumes = as_decode(decode)
    generator = torch.Generator().manual_seed(seed)
    z = require_points(z, least=2).float()
    spread, axes = principal_axes(z)
    _require_spread(spread)
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


@guarded(n_points=(1, 2**62), step=POSITIVE)
def metric_tensors(decode: Decode | object, z: Tensor, n_points: int = 40, seed: int = 0, step: float = 0.01) -> Tensor:
    """Return the metric tensors J^T J (m, d, d) float64 of the decoder, where J is its Jacobian.

    Parameters
    ----------
    decode : callable or model
        As in `isometry`.
    z : (n, d)
        Latents of particles.
    n_points : int
        Number of latents, drawn at random, at which the tensors are computed.
    seed : int
        Seed of the draw.
    step : float
        Length of the central differences relative to the standard deviation of the leading principal component.
    """
    volumes = as_decode(decode)
    z = require_points(z, least=2).float()
    spread = principal_axes(z)[0]
    _require_spread(spread)
    steps = step * spread[0] * torch.eye(z.shape[1])
    tensors = []
    for index in torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))[:n_points].tolist():
        ahead, behind = volumes(torch.cat([z[index] + steps, z[index] - steps])).flatten(1).double().chunk(2)
        jacobian = (ahead - behind) / (2 * steps[0, 0])
        tensors.append(jacobian @ jacobian.T)
    return torch.stack(tensors)


def relaxed_distortion(metric: Tensor, axes: Tensor | None = None) -> float:
    """Return the deviation of metric tensors from a common multiple of the identity: 0 for an isometry up to scale.

    For metric tensors H, the deviation is d <tr H^2> / <tr H>^2 - 1 (the measure of Lee, Yoon, Kim and Park, ICLR 2022,
    up to a factor and an offset). It is 1 for a decoder that ignores half of the dimensions.

    Parameters
    ----------
    metric : (m, d, d)
        Metric tensors from `metric_tensors`.
    axes : (k, d), optional
        Unit axes whose span the tensors are restricted to.
    """
    if axes is not None:
        metric = axes.to(metric) @ metric @ axes.to(metric).T
    trace = metric.diagonal(dim1=-2, dim2=-1).sum(-1).mean()
    squares = metric.square().sum((-2, -1)).mean()
    return float(metric.shape[-1] * squares / trace**2 - 1)


def principal_axes(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the standard deviations (d,) and principal axes (d, d), in rows, of latents, largest first.

    Parameters
    ----------
    z : (n, d)
        Latents.
    """
    z = require_points(z)
    z = z if z.dtype == torch.float64 else z.float()
    _, values, axes = torch.linalg.svd(z - z.mean(0), full_matrices=False)
    return values / max(1, len(z) - 1) ** 0.5, axes


def _require_spread(spread: Tensor) -> None:
    """Raise `InputError` unless latents of these standard deviations (d,) differ, within the range of float32."""
    if not 1e-15 < float(spread[0]) < 1e15:
        found = f"a standard deviation of {float(spread[0]):.3g}"
        raise InputError("latents", found, "latents that differ", "Pass the latents of particles that vary.")


def as_decode(decode: Decode | object) -> Decode:
    """Return the method `volumes` of a model; return a decode function unchanged."""
    return decode.volumes if hasattr(decode, "volumes") else decode  # type: ignore[return-value]
