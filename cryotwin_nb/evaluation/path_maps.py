"""Maps along a path, decoded or given as arrays: their distances, and their mean over the images near a point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation.information import as_seen, information
from cryotwin_nb.evaluation.metric import Decode, as_decode
from cryotwin_nb.particles.formation import ImageFormation, evenly
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.quality import bad_rows
from cryotwin_nb.reconstruction.backprojection import NormalEquations
from cryotwin_nb.reconstruction.halves import PADDING, particle_mask


@dataclass(frozen=True, eq=False)
class PathMaps:
    """Maps of the points of a path, and the metric of the latent space at each point.

    Attributes
    ----------
    points : (m, d) float32
        Latents of the points.
    maps : (m, D, D, D) float32
        Maps of the points.
    decode : callable
        Function from latents (k, d) to maps (k, D, D, D).
    metric : (m, d, d) float64
        Fisher information of one image about its latent.
    products : (m, m) float64
        Inner products of the maps as an average image shows them, in units of its noise.
    """

    points: Tensor
    maps: Tensor
    decode: Decode
    metric: Tensor
    products: np.ndarray

    @classmethod
    def of(
        cls, model: Any, maps: Any, points: Tensor, z: Tensor, particles: Particles, imaging: ImageFormation
    ) -> PathMaps:
        """Decode the points of a path with a model, unless their maps are given.

        Without a model, maps are interpolated along the path, and distances follow from the differences of the maps.
        """
        if maps is not None:
            maps = _require_maps(maps, len(points), particles.box_size)
        if model is None:
            if maps is None:
                raise InputError("model", "None", "a model, a decode function or maps", "Pass one, or maps=.")
            decode = _interpolated(points, maps)
            metric = _spacing_metric(points, maps, imaging)
        else:
            decode = as_decode(model)
            metric = information(decode, points, 0.01 * float(z.std(0).norm()), imaging)
            if maps is None:
                maps = torch.cat([torch.as_tensor(decode(point[None])).float().cpu() for point in points])
        square = _grey_value(decode, particles, z, imaging) ** 2
        seen = as_seen(maps, imaging).flatten(1)
        products = square * (seen @ seen.mH).real.double().numpy()
        return cls(points, maps, decode, square * metric, products)

    def near(self, point: int, z: Tensor, weights: np.ndarray) -> Tensor:
        """Return the map (D, D, D) shown for images with latents z (n, d) and weights (n,) near a point.

        It is the map of the point, changed by as much as the mean of the maps decoded for these images differs.
        """
        if not weights.any():
            return self.maps[point]
        decoded = torch.as_tensor(self.decode(self.points[point : point + 1])).float().cpu()[0]
        return self.maps[point] + _mean_map(self.decode, z, weights).cpu() - decoded


def _require_maps(maps: object, n_points: int, box_size: int) -> Tensor:
    """Validate and return the maps (m, D, D, D) float32 of the points of a path."""
    values = torch.as_tensor(maps).detach().float().cpu()
    if tuple(values.shape) != (n_points, *(box_size,) * 3) or not bool(torch.isfinite(values).all()):
        found, expected = f"an array of shape {tuple(values.shape)}", f"{n_points} finite maps of {box_size}^3 voxels"
        raise InputError("maps", found, expected, "Pass one map for each point of the path, on the grid of the images.")
    return values


def _interpolated(points: Tensor, maps: Tensor) -> Decode:
    """Return a decode function that interpolates the maps (m, D, D, D) of points (m, d) linearly along their path.

    A latent is given the map of the nearest place on the path.

    Parameters
    ----------
    points : (m, d)
        Latents of the points of the path.
    maps : (m, D, D, D)
        Map of each point.
    """
    steps = points.diff(dim=0)
    squares = steps.square().sum(1).clamp_min(1e-30)

    def decode(z: Tensor) -> Tensor:
        decoded = []
        for one in torch.as_tensor(z).float():
            share = (((one - points[:-1]) * steps).sum(1) / squares).clamp(0, 1)
            away = (points[:-1] + share[:, None] * steps - one).square().sum(1)
            k = int(away.argmin())
            decoded.append(torch.lerp(maps[k], maps[k + 1], share[k]))
        return torch.stack(decoded)

    return decode


def _spacing_metric(points: Tensor, maps: Tensor, imaging: ImageFormation) -> Tensor:
    """Return isotropic metrics (m, d, d) float64 in which the steps of a path are as long as its maps are different.

    Lengths are in standard errors of one image, as in `information`; the metric of a point is the mean of those of the
    steps beside it.

    Raises
    ------
    InputError
        If the path has no step of positive length.
    """
    seen = as_seen(maps, imaging).flatten(1)
    lengths = points.diff(dim=0).double().square().sum(1)
    if not bool((lengths > 0).any()):
        remedy = "Pass the maps of several points, or a decode function, from which distances can be computed."
        raise InputError("maps", "points at a single latent", "a path of two or more latents", remedy)
    rates = seen.diff(dim=0).abs().square().sum(1).double() / lengths.clamp_min(1e-30)
    rates[lengths == 0] = torch.nan
    beside = torch.stack([torch.cat([rates[:1], rates]), torch.cat([rates, rates[-1:]])])
    rate = torch.nan_to_num(beside.nanmean(0), nan=float(rates.nanmean()))
    return rate[:, None, None] * torch.eye(points.shape[1], dtype=torch.float64)


def _mean_map(decode: Decode, z: Tensor, weights: np.ndarray) -> Tensor:
    """Return the mean (D, D, D) of the maps decoded at latents z (n, d) with weights (n,).

    The mean is taken over 2 d latents with the same mean and covariance (cubature), which is exact for decoders that
    are quadratic over the extent of these latents.
    """
    rows = np.flatnonzero(weights)
    weight = torch.as_tensor(weights[rows])
    weight = weight / weight.sum()
    near = z[rows].double()
    centre = weight @ near
    away = (near - centre) * weight.sqrt()[:, None]
    variances, axes = torch.linalg.eigh(away.T @ away)
    steps = (variances.clamp_min(0) * len(centre)).sqrt()[:, None] * axes.T
    return torch.as_tensor(decode(torch.cat([centre + steps, centre - steps]).float())).float().mean(0)


def _grey_value(decode: Decode, particles: Particles, z: Tensor, imaging: ImageFormation, n: int = 256) -> float:
    """Return the factor that scales decoded maps to the grey value per Å of the images.

    It is estimated from up to `n` images and the mean of a few of their decoded maps.
    """
    rows = np.setdiff1d(rows := evenly(np.arange(len(particles)), n), bad_rows(particles, rows))
    equations = NormalEquations(imaging, float(imaging.plane.radius or 0), 1, PADDING)
    batch = imaging.batch(particles, rows)
    equations.add_images(batch, torch.ones(len(rows)).to(batch.transfer))
    mean = torch.as_tensor(decode(z[evenly(rows, 16)])).float().mean(0).to(equations.sums)
    agreement = equations.agreement(mean * particle_mask(imaging))
    return float(agreement.cross[1:].sum() / agreement.power[1:].sum())
