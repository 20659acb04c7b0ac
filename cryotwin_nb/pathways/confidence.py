"""How sure a path is: the Bayesian bootstrap of the density it was found on, and the particles that lie along it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.maxflux import relax
from cryotwin_nb.pathways.network import typical_width
from cryotwin_nb.pathways.ridgeline import Pathway, densify, equidistant, log_resistance, pathway_from_knots

_STEPS = 10  # of expectation-maximisation, from the mixture to that of a draw
_KNOTS, _ROUNDS = 400, 2  # of a path that is relaxed anew
_REACH = 2.5  # how far from the path a draw may look for a better one, in typical widths of components
_EXCESS = 20.0  # nats by which the resistance of an edge may exceed that of the whole path to be looked at in draws


@dataclass(frozen=True, eq=False)
class PathConfidence:
    """A path on draws of its density.

    Attributes
    ----------
    latents : (B, K+1, d) float32
        The path of each draw, at equal distances.
    log_cost, barrier : (B,) float64
        Of each draw; see `Pathway`.
    line_barrier : (B,) float64
        Of the population for each unit of length; see `PathProfile.line_energy`.
    radius : (K+1,) float64
        Of the tube that holds 90 % of the draws' points.
    """

    latents: Tensor
    log_cost: np.ndarray
    barrier: np.ndarray
    line_barrier: np.ndarray
    radius: np.ndarray

    def interval(self, name: str = "barrier", level: float = 0.9) -> tuple[float, float]:
        """Interval of "barrier", "line_barrier" or "log_cost" that holds the share `level` of the draws."""
        known = ("barrier", "line_barrier", "log_cost")
        if name not in known or not 0 < level < 1:
            expected = f"one of {', '.join(known)}, and 0 to 1"
            raise InputError("interval", f"{name!r}, {level}", expected, "Choose one of them.")
        low, high = np.quantile(getattr(self, name), [(1 - level) / 2, (1 + level) / 2]).tolist()
        return low, high


def bootstrap_path(
    prior: GaussianMixture,
    latents: Tensor,
    path: Pathway,
    n_draws: int = 100,
    seed: int = 0,
    noise_covariances: Tensor | None = None,
    progress: bool = False,
    landscape: Landscape | None = None,
) -> PathConfidence:
    """The path again on mixtures of particles that count Exp(1) times each (Bayesian bootstrap, Rubin 1981).

    Parameters
    ----------
    prior : GaussianMixture
    latents : (n, d) float
        The particles that `prior` was fitted to.
    path : Pathway
        Of `max_flux` or `find_routes`; each draw finds it anew in its neighbourhood. Ends that are components move
        with their means.
    n_draws : int
        100 to 200 are enough for intervals of 90 %.
    noise_covariances : (n, d, d) float, optional
        Errors of the latents, where `prior` is the density without them.
    progress : bool
        Show a progress bar.
    landscape : Landscape, optional
        That of `prior`, when it is there already.

    Notes
    -----
    Each draw takes ten steps of expectation-maximisation from `prior`. The same steps with equal weights tell how far
    they would move by themselves, for want of convergence or by another prior on the covariances; that much is taken
    off the draws of barrier and cost.
    """
    if n_draws < 1:
        raise InputError("n_draws", f"{n_draws}", "at least 1", "100 are enough for intervals of 90 %.")
    prior, generator = prior.detach(), torch.Generator().manual_seed(seed)
    latents, curve = torch.as_tensor(latents).double(), path.curve.to(prior.means)
    n, places = len(latents), len(path.latents)
    width = typical_width(prior)
    around = (landscape or Landscape.of(prior)).near(curve, _REACH * width, path.log_cost + _EXCESS)

    def again(counts: Tensor) -> tuple[Pathway, float]:
        mixture = GaussianMixture.fit(
            latents, noise_covariances=noise_covariances, weights=counts, start=prior, max_iter=_STEPS, tol=0.0
        )
        ends = curve[[0, -1]]
        for side, component in enumerate((path.start, path.end)):
            if component is not None:
                ends[side] = mixture.means[component]
        candidates = [torch.cat([ends[:1], equidistant(curve, _KNOTS)[1:-1], ends[1:]])]
        way = around.on(mixture).shortest(*torch.cdist(curve[[0, -1]], around.points).argmin(1).tolist())
        if way is not None:
            candidates.append(torch.cat([ends[:1], around.points[way[1:-1]], ends[1:]]))
        knots = min(candidates, key=lambda k: log_resistance(mixture, densify(mixture, k)))
        found = pathway_from_knots(mixture, relax(mixture, knots, rounds=_ROUNDS), places - 1)
        return found, _line_barrier(mixture, found.curve, width)

    moved, moved_line = again(torch.ones(n, dtype=torch.float64))
    draws, lines = [], []
    for _ in tqdm(range(n_draws), desc="bootstrap", unit="draw", disable=not progress):
        draw, line = again(torch.empty(n, dtype=torch.float64).exponential_(generator=generator))
        draws.append(draw)
        lines.append(line)
    points = torch.stack([d.latents for d in draws])
    apart = torch.cdist(points.transpose(0, 1).double(), moved.curve.expand(places, -1, -1)).amin(-1)
    return PathConfidence(
        points,
        np.array([d.log_cost for d in draws]) - moved.log_cost + path.log_cost,
        np.array([d.barrier for d in draws]) - moved.barrier + path.barrier,
        np.array(lines) - moved_line + _line_barrier(prior, curve, width),
        apart.quantile(0.9, dim=1).numpy(),
    )


@dataclass(frozen=True, eq=False)
class PathProfile:
    """What a path passes.

    Attributes
    ----------
    position : (N,) float64
        Length travelled at each point of the path's curve, latent units.
    energy : (N,) float64
        -log P there, less that at the start: nats. As many kT, if the particles were frozen in equilibrium; where they
        were not, as in assembly, it tells populations only.
    line_energy : (N,) float64
        The same for the population per unit of length in a tube about the path, one typical width of components wide.
        It compares numbers of particles; `energy` compares densities, which also change with the tube's cross section,
        by a power of d - 1.
    step_position : (K+1,) float64
        Length travelled at the path's points.
    particles : tuple of (m,) int64 arrays
        Of each of the K+1 points, the particles that it is the nearest point to and that are within `radius`.
    radius : float
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
    """Density along a path and the particles near each of its points.

    Parameters
    ----------
    latents : (n, d) float
        Of all particles.
    radius : float, optional
        Farthest distance from the curve, latent units; by default three standard deviations of a typical component.
    """
    prior, latents = prior.detach(), torch.as_tensor(latents).double()
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
    """log of the mass per unit of length (N,) along a curve (N, d), in a tube with a Gaussian edge.

    Points at a distance r from the curve count exp(-r^2 / (2 width^2)). With t the unit tangent, that integral over the
    plane across it is sum_c pi_c N(z; mu_c, S_c - width^2 t t^T) times (2 pi width^2)^((d - 1) / 2), where
    S_c = Sigma_c + width^2: a change of rank one, so that only S_c need be factorised.
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


def _line_barrier(mixture: GaussianMixture, curve: Tensor, width: float) -> float:
    energy = -log_line_density(mixture, densify(mixture, curve, 400, 800), width)
    return float(energy.max() - energy[0])


def _around(n: int, step: int) -> Tensor:
    """Indices of the neighbours of n points on one side, the last being its own."""
    return (torch.arange(n) + step).clamp(0, n - 1)
