"""Profile of a path: the density along it and the particles near it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.dead import without_dead
from cryotwin_nb.pathways.populations import typical_width
from cryotwin_nb.pathways.ridgeline import Pathway, densify


@dataclass(frozen=True, eq=False)
class PathProfile:
    """Density along a path and the particles near it.

    Attributes
    ----------
    position : (N,) float64
        Arc length at each point of the path's curve, latent units.
    energy : (N,) float64
        -log P relative to the start, nats. If the particles were vitrified in equilibrium, one nat is one k_BT;
        otherwise, as during assembly, the energy describes populations only.
    line_energy : (N,) float64
        -log of the population per unit length in a tube around the path as wide as a typical component, relative to
        the start, nats. `line_energy` compares numbers of particles. `energy` compares densities, which also depend on
        the width of the passage, raised to the power d - 1.
    step_position : (K+1,) float64
        Arc length at the path's K+1 points, latent units.
    particles : tuple of (m,) int64 arrays
        For each of the K+1 points, the indices of particles that are nearest to it and within `radius` of the curve.
    radius : float
        Maximum distance of these particles from the curve, latent units.
    """

    position: np.ndarray
    energy: np.ndarray
    line_energy: np.ndarray
    step_position: np.ndarray
    particles: tuple[np.ndarray, ...]
    radius: float

    @property
    def counts(self) -> np.ndarray:
        """Number of particles near each point (K+1,)."""
        return np.array([len(rows) for rows in self.particles])


def profile(path: Pathway, prior: GaussianMixture, latents: Tensor, radius: float | None = None) -> PathProfile:
    """Return the density along a path and the particles near each of its points.

    Parameters
    ----------
    path : Pathway
        Path with K+1 points.
    prior : GaussianMixture
        Density P.
    latents : (n, d) float
        Latents of all particles.
    radius : float, optional
        Maximum distance from the curve, latent units; by default three standard deviations of a typical component.

    Returns
    -------
    PathProfile
    """
    prior, latents = without_dead(prior.detach()), torch.as_tensor(latents).double()
    curve = densify(prior, path.curve.to(prior.means), 400, 2000)
    width = typical_width(prior)
    radius = 3 * width if radius is None else float(radius)
    position = torch.cat([torch.zeros(1).double(), curve.diff(dim=0).norm(dim=1).cumsum(0)])
    energy, line = -prior.log_prob(curve), -log_line_density(prior, curve, width)
    points = path.latents.to(curve)
    near = np.flatnonzero(cKDTree(curve.numpy()).query(latents.numpy(), distance_upper_bound=radius)[0] <= radius)
    nearest = torch.cdist(latents[near], points).argmin(1).numpy()
    particles = tuple(near[nearest == k] for k in range(len(points)))
    at = position[torch.cdist(points, curve).argmin(1)]
    energies = (energy - energy[0]).numpy(), (line - line[0]).numpy()
    return PathProfile(position.numpy(), *energies, at.numpy(), particles, radius)


def log_line_density(mixture: GaussianMixture, curve: Tensor, width: float) -> Tensor:
    """Return the log of the mass per unit length (N,) along a curve (N, d), in a tube with a Gaussian edge.

    Points at a distance r from the curve have weight exp(-r^2 / (2 width^2)). With t the unit tangent, the integral
    over the plane perpendicular to it is sum_c pi_c N(z; mu_c, S_c - width^2 t t^T) times
    (2 pi width^2)^((d - 1) / 2), where S_c = Sigma_c + width^2 I. The covariance is a rank-one update of S_c, so
    only S_c is factorised.
    """
    curve = curve.to(mixture.means)
    dim, identity = mixture.latent_dim, torch.eye(mixture.latent_dim).to(mixture.means)
    tangent = torch.nn.functional.normalize(curve[_around(len(curve), 1)] - curve[_around(len(curve), -1)], dim=1)
    factor = torch.linalg.cholesky(mixture.covariances + width**2 * identity)
    precision = torch.cholesky_inverse(factor)
    along = torch.einsum("cde,ne->ncd", precision, tangent)
    narrowed = 1 - width**2 * (along * tangent[:, None]).sum(-1)
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + narrowed.log()
    away = curve[:, None] - mixture.means
    pulled = torch.einsum("cde,nce->ncd", precision, away)
    square = (pulled * away).sum(-1) + width**2 * (pulled * tangent[:, None]).sum(-1).square() / narrowed
    log_joint = mixture.weights.log() - 0.5 * (square + log_det + math.log(2 * math.pi))
    return log_joint.logsumexp(-1) + (dim - 1) * math.log(width)


def line_barrier(mixture: GaussianMixture, curve: Tensor, width: float) -> float:
    """Return the barrier, in nats, in the population per unit length along a curve (N, d)."""
    energy = -log_line_density(mixture, densify(mixture, curve, 400, 800), width)
    return float(energy.max() - energy[0])


def _around(n: int, step: int) -> Tensor:
    """Return the index of the point `step` positions after each of n points, clamped to the ends."""
    return (torch.arange(n) + step).clamp(0, n - 1)
