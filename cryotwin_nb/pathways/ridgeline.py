"""Algorithm 1 of the cryoTWIN paper, a ridgeline between two components, and `Pathway`, the result of every method.

Paths are compared by their resistance J = ∫ |dγ| / P(γ), which the most probable path minimises (MaxFlux, Huo and
Straub 1997). Computations are in the log domain, because densities along a path differ by many orders of magnitude.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import POSITIVE, InputError, guarded
from cryotwin_nb.mixture.gaussian import GaussianMixture


@dataclass(frozen=True, eq=False)
class Pathway:
    """Path through the latent space of a mixture.

    Attributes
    ----------
    latents : (K+1, d) float32
        Points to decode, ends included.
    curve : (N, d) float64
        The whole path, as the vertices of a fine polyline.
    log_prob : (K+1,) float64
        Log density at `latents`.
    log_cost : float
        Log of the resistance J of `curve`, J = ∫ |dγ| / P(γ).
    barrier : float
        Barrier from the start, nats: the largest -log P along `curve` minus -log P at its first point, at least 0.
    start, end : int or None
        Components at the ends, if the ends are component means.
    method : str
        Method that computed the path.
    residual : float
        Deviation from a path of least resistance, 0 to 1; NaN if not computed.
    """

    latents: Tensor
    curve: Tensor
    log_prob: Tensor
    log_cost: float
    barrier: float
    start: int | None = None
    end: int | None = None
    method: str = ""
    residual: float = math.nan


@guarded(
    start=None,
    end=None,
    n_steps=(2, 100_000),
    omega=(math.nextafter(1, 2), 1e300),
    n_samples=(1, 10**9),
    concentration=POSITIVE,
)
def ridgeline(
    prior: GaussianMixture,
    start: int,
    end: int,
    n_steps: int = 11,
    omega: float = 2.0,
    n_samples: int = 1000,
    seed: int = 0,
    concentration: float = 1.0,
) -> Pathway:
    """Return the conformational pathway between the means of two components by Algorithm 1 of the cryoTWIN paper.

    Parameters
    ----------
    prior : GaussianMixture
        Density in which to find the path.
    start, end : int
        Indices i and j of the components at the ends.
    n_steps : int
        Number of steps K, at least 2; the path has K + 1 points.
    omega : float
        Exponent ω > 1; larger values make the path less continuous.
    n_samples : int
        Number of candidates M for each point.
    seed : int
        Seed of the candidates.
    concentration : float
        Concentration of the Dirichlet distribution of the other components' weights. 1 means uniform on the simplex;
        smaller values let single components attract the path.

    Returns
    -------
    Pathway
        `latents` are the points z(0), ..., z(K); `curve` joins them by straight lines.

    Raises
    ------
    InputError
        If the mixture has one component, start = end, a component does not exist, K < 2, ω <= 1, M < 1 or the
        concentration is not positive.

    Notes
    -----
    As printed in the paper, the point for each k is the candidate with the lowest cost from the previous point, and no
    cost includes the step to z(K). With two components, the remaining weight 1 - α_i - α_j is not assigned. This is
    equivalent to renormalising α_i and α_j, because the point does not depend on their sum.

    Examples
    --------
    >>> path = ct.ridgeline(model.prior, start=0, end=1)
    >>> model.volumes(path.latents).shape
    torch.Size([12, 32, 32, 32])
    """
    _require(prior, start, end)
    prior, start, end = prior.detach(), int(start), int(end)
    shares = _shares(prior.n_components, start, end, n_steps, omega, n_samples, seed, concentration)
    candidates = _ridge_points(prior, shares.to(prior.means))
    first = prior.means[start]
    log_ratio = prior.log_prob(first[None]) - prior.log_prob(candidates.flatten(0, 1)).view(candidates.shape[:2])
    knots = [first]
    for points, log_weight in zip(candidates, log_ratio, strict=True):
        cost = log_weight + (points - knots[-1]).norm(dim=-1).log()
        knots.append(points[cost.argmin()])
    knots.append(prior.means[end])
    return pathway_from_knots(prior, torch.stack(knots), start=start, end=end, method="ridgeline")


def pathway_from_knots(
    mixture: GaussianMixture,
    knots: Tensor,
    n_steps: int | None = None,
    *,
    start: int | None = None,
    end: int | None = None,
    method: str = "",
) -> Pathway:
    """Return the `Pathway` along the straight lines between `knots` (m, d).

    Its K + 1 `latents` are the knots themselves, or `n_steps` + 1 equally spaced points along the lines if
    `n_steps` is given.
    """
    mixture, knots = mixture.detach(), knots.to(mixture.means)
    latents = knots if n_steps is None else equidistant(knots, n_steps + 1)
    curve = densify(mixture, knots)
    energy = -mixture.log_prob(curve)
    barrier = float(energy.max() - energy[0])
    log_cost = _log_integral(curve, energy)
    return Pathway(latents.float(), curve, mixture.log_prob(latents), log_cost, barrier, start, end, method)


def log_resistance(mixture: GaussianMixture, curve: Tensor, exponent: float = 1.0) -> float:
    """Return log J = log ∫ |dγ| / P(γ)^exponent along the polyline `curve` (N, d), without densifying it."""
    curve = curve.to(mixture.means)
    return _log_integral(curve, -exponent * mixture.log_prob(curve))


def densify(mixture: GaussianMixture, knots: Tensor, n_points: int = 1000, n_max: int = 5000) -> Tensor:
    """Return the polyline through `knots` (m, d), cut into pieces short enough to resolve every barrier: (N, d).

    Pieces are at most 1/50 of the smallest standard deviation of any component and at most 1 / `n_points` of the
    total length. They can be longer if there would otherwise be many more than `n_max` pieces.
    """
    steps = knots.diff(dim=0)
    lengths = steps.norm(dim=-1)
    finest = torch.linalg.eigvalsh(mixture.covariances)[:, 0].min().clamp_min(0).sqrt() / 50
    piece = torch.minimum(finest, lengths.sum() / n_points).clamp_min(lengths.sum() / n_max)
    cuts = (lengths / piece.clamp_min(1e-300)).ceil().clamp_min(1).long()
    segment = torch.repeat_interleave(torch.arange(len(cuts), device=cuts.device), cuts)
    position = (torch.arange(len(segment), device=cuts.device) - (cuts.cumsum(0) - cuts)[segment]).to(knots)
    inner = knots[segment] + (position / cuts[segment])[:, None] * steps[segment]
    return torch.cat([inner, knots[-1:]])


def equidistant(curve: Tensor, n: int) -> Tensor:
    """Return `n` equally spaced points along the polyline `curve` (m, d), ends included: (n, d)."""
    steps = curve.diff(dim=0)
    arc = torch.cat([steps.new_zeros(1), steps.norm(dim=-1).cumsum(0)])
    target = torch.linspace(0, 1, n, dtype=arc.dtype, device=arc.device) * arc[-1]
    segment = (torch.searchsorted(arc, target, right=True) - 1).clamp(0, len(steps) - 1)
    share = (target - arc[segment]) / (arc[segment + 1] - arc[segment]).clamp_min(1e-300)
    points = curve[segment] + share.clamp(0, 1)[:, None] * steps[segment]
    points[-1] = curve[-1]
    return points


def _log_integral(curve: Tensor, energy: Tensor) -> float:
    """Return log ∫ exp(energy) |dγ| along a polyline, exact for an energy that is linear within each piece."""
    log_length = curve.diff(dim=0).norm(dim=-1).log()
    rise = energy.diff().abs().clamp_min(1e-12)
    log_mean = torch.maximum(energy[1:], energy[:-1]) + (-torch.expm1(-rise) / rise).log()
    return float((log_length + log_mean).logsumexp(0))


def _shares(
    count: int, start: int, end: int, n_steps: int, omega: float, n_samples: int, seed: int, concentration: float
) -> Tensor:
    """Return the samples α of Algorithm 1, line 3: (K - 1, M, C) float64, each summing to 1 if C > 2."""
    cosine = np.cos(np.pi * np.arange(1, n_steps) / (2 * n_steps))[:, None]
    leaving, arriving = cosine, (1 - cosine) ** omega
    shares = np.empty((n_steps - 1, n_samples if count > 2 else 1, count))
    shares[:, :, start], shares[:, :, end] = leaving, arriving
    others = np.delete(np.arange(count), [start, end])
    if len(others):
        simplex = np.random.default_rng(seed).dirichlet(np.full(len(others), concentration), shares.shape[:2])
        shares[:, :, others] = (1 - leaving - arriving)[..., None] * simplex
    return torch.from_numpy(shares)


def _ridge_points(mixture: GaussianMixture, shares: Tensor) -> Tensor:
    """Return (Σ_c α_c Σ_c⁻¹)⁻¹ Σ_c α_c Σ_c⁻¹ μ_c for shares α (..., C): (..., d)."""
    precision = torch.cholesky_inverse(torch.linalg.cholesky(mixture.covariances))
    pull = shares @ (precision @ mixture.means[..., None])[..., 0]
    weighted = (shares @ precision.flatten(1)).unflatten(-1, precision.shape[1:])
    return torch.cholesky_solve(pull[..., None], torch.linalg.cholesky(weighted))[..., 0]


def _require(prior: GaussianMixture, start: int, end: int) -> None:
    """Raise `InputError` unless the mixture has the two components."""
    count = prior.n_components
    if count < 2:
        raise InputError("mixture", "a single component", "at least 2", "Fit a mixture with more components.")
    for name, component in (("start", start), ("end", end)):
        try:
            valid = not isinstance(component, bool) and 0 <= operator.index(component) < count
        except (TypeError, ValueError):
            valid = False
        if not valid:
            remedy = "Pass the index of a component; prior.responsibilities(z) shows the component of a latent."
            raise InputError(name, f"component {component}", f"an integer from 0 to {count - 1}", remedy)
    if start == end:
        sentence = f"Start and end are the same component, {end}."
        raise InputError("end", f"{end}", "another component", "Choose two different components.", sentence)
    if torch.equal(prior.means[int(start)], prior.means[int(end)]):
        sentence = f"Components {start} and {end} have the same mean."
        raise InputError("end", f"{end}", "a component with another mean", "Choose two different components.", sentence)
