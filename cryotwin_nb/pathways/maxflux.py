"""Path of least resistance between two points of a density, found as a shortest path in a graph and then relaxed.

J[γ] = ∫ |dγ| / P(γ) is the resistance of a path (MaxFlux: Huo and Straub 1997). Its minimiser satisfies
kappa n = -(grad log P)_perp at every point, where kappa n is the curvature vector of the path.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor

from cryotwin_nb.errors import POSITIVE, InputError, choice, guarded
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.points import as_numbers
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.ridgeline import Pathway, densify, equidistant, log_resistance, pathway_from_knots, ridgeline
from cryotwin_nb.pathways.states import State

_ROUNDS, _ITERATIONS, _EVALUATIONS = 12, 40, 50  # rounds of relaxation; L-BFGS iterations and evaluations per round
_KNOTS = (48, 300)  # minimum and maximum number of knots

End = int | State | Tensor | np.ndarray


@guarded(n_steps=(2, 100_000), exponent=POSITIVE)
def max_flux(
    prior: GaussianMixture,
    start: End,
    end: End,
    n_steps: int = 11,
    exponent: float = 1.0,
    spacing: str = "length",
    seed: int = 0,
    landscape: Landscape | None = None,
) -> Pathway:
    """Return the path of least resistance ∫ |dγ| / P(γ)^exponent between two points of latent space.

    Parameters
    ----------
    prior : GaussianMixture
        Density in which to find the path.
    start, end : int, State or (d,) float
        A component (its mean), a state from `find_states`, or any latent vector, such as a mode or a particle's latent.
    n_steps : int
        Number of steps K; the path has K + 1 points.
    exponent : float
        Power lambda of the density. 1 is MaxFlux; smaller values give shorter paths that follow the density less
        closely; 1/d is a compromise between density and length.
    spacing : {"length", "flux"}
        "length" places the points at equal distances along the path; "flux" places them at equal shares of its
        resistance and thus concentrates them where the density is low.
    seed : int
        Seed of the samples of Algorithm 1.
    landscape : Landscape, optional
        Landscape of `prior` with this `exponent`, which can be reused for many paths.

    Returns
    -------
    Pathway
        Path whose deviation from stationarity is given as `residual`. Swapping start and end reverses the path.

    Raises
    ------
    InputError
        If an end is neither a component nor a latent, both ends are the same, or a setting is out of range.

    Notes
    -----
    The candidates are the straight line, the paths of Algorithm 1 in both directions and the shortest path in a graph
    (`Landscape`). The candidate with the lowest J along its dense curve is relaxed, and a relaxation step is kept only
    if J decreases. The J of the result is therefore never higher than that of any candidate.

    Examples
    --------
    >>> path = ct.max_flux(model.prior, start=0, end=1, n_steps=5)
    >>> path.latents.shape
    torch.Size([6, 4])
    """
    choice("spacing", spacing, ("length", "flux"))
    prior = prior.detach()
    ends = torch.stack([end_point(prior, "start", start), end_point(prior, "end", end)])
    if torch.equal(*ends):
        sentence = "Start and end are the same point."
        raise InputError("end", "the start", "another point", "Choose two different ends.", sentence)
    reverse = tuple(ends[0].tolist()) > tuple(ends[1].tolist())  # always solve in the same direction
    ordered = ends.flip(0) if reverse else ends
    shortest = through_landscape(landscape or Landscape.of(prior, exponent), ordered)
    candidates = [ordered, *_algorithm_1(prior, start, end, reverse, seed), shortest]
    best = min(candidates, key=lambda k: log_resistance(prior, densify(prior, k), exponent))
    knots = relax(prior, best, exponent)
    return path_of_knots(prior, knots.flip(0) if reverse else knots, n_steps, exponent, spacing, start, end)


def path_of_knots(
    prior: GaussianMixture, knots: Tensor, n_steps: int, exponent: float, spacing: str, start: object, end: object
) -> Pathway:
    """Return the `Pathway` along the knots (m, d) of a relaxed path."""
    path = pathway_from_knots(prior, knots, n_steps, method="MaxFlux")
    latents = path.latents if spacing == "length" else _equal_flux(prior, path.curve, n_steps + 1, exponent).float()
    return replace(
        path,
        latents=latents,
        log_prob=prior.log_prob(latents.to(prior.means)),
        log_cost=log_resistance(prior, path.curve, exponent),
        start=int(start) if isinstance(start, (int, np.integer)) else None,
        end=int(end) if isinstance(end, (int, np.integer)) else None,
        residual=residual(prior, knots, exponent),
    )


def through_landscape(landscape: Landscape, ends: Tensor) -> Tensor:
    """Return the vertices (m, d) of the shortest path in the graph between two points (2, d)."""
    n = len(landscape.points)
    joined = landscape.joined_to(ends)
    way = joined.shortest(n, n + 1)
    return joined.points[way] if way else ends


def relax(prior: GaussianMixture, knots: Tensor, exponent: float = 1.0, rounds: int = _ROUNDS) -> Tensor:
    """Lower the resistance of a path through knots (m, d) with fixed ends; return the new knots (n, d).

    Each round spaces the knots evenly, then moves them perpendicular to the path by L-BFGS on log J. Steps are scaled
    by the inverse square root of a knot's share of J, so that knots with a negligible share also move. J never rises.
    """
    best = log_resistance(prior, densify(prior, knots), exponent)
    n, current, kept, idle = _number_of_knots(prior, knots), knots, knots, 0
    with threadpool_limits(1):  # steps are small: SciPy and PyTorch threads would wait for one another
        for _ in range(rounds):
            current = _moved(prior, equidistant(current, n), exponent)
            if not bool(torch.isfinite(current).all()):  # components so narrow that steps overflow
                break
            cost = log_resistance(prior, densify(prior, current), exponent)
            if cost <= best:
                idle = idle + 1 if best - cost < 1e-3 else 0
                best, kept = cost, current
            else:
                idle += 1
            if idle >= 2:
                break
    return kept


def _moved(prior: GaussianMixture, knots: Tensor, exponent: float) -> Tensor:
    """Return the knots (n, d), moved perpendicular to the path to lower its resistance."""
    tangent = torch.nn.functional.normalize(knots[2:] - knots[:-2], dim=1)
    with torch.no_grad():
        shape = torch.linalg.cholesky(torch.tensordot(prior.weights, prior.covariances, 1))
        shape = shape / shape.diagonal().max()
        share = _log_pieces(prior, knots, exponent)
        share = torch.logaddexp(share[1:], share[:-1])
        scale = (share - share.max()).clamp_min(-32).mul(-0.5).exp()[:, None]

    def placed(y: np.ndarray) -> tuple[Tensor, Tensor]:
        free = torch.as_tensor(y).view_as(tangent).requires_grad_()
        move = scale * free @ shape.T
        move = move - (move * tangent).sum(1, keepdim=True) * tangent
        return free, torch.cat([knots[:1], knots[1:-1] + move, knots[-1:]])

    def cost(y: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            free, moved = placed(y)
            value = _log_pieces(prior, moved, exponent).logsumexp(0)
            value.backward()
        assert free.grad is not None
        return float(value.detach()), free.grad.flatten().numpy()

    limits = {"maxiter": _ITERATIONS, "maxfun": _EVALUATIONS}
    found = minimize(cost, np.zeros(tangent.numel()), jac=True, method="L-BFGS-B", options=limits)
    return placed(found.x)[1].detach()


def _log_pieces(prior: GaussianMixture, knots: Tensor, exponent: float) -> Tensor:
    """Return the log resistance of each piece of a polyline (n - 1,), by Simpson's rule."""
    points = torch.cat([knots, (knots[1:] + knots[:-1]) / 2])
    value, score = prior.log_prob_and_score(points)
    energy = -exponent * (value + (score * (points - points.detach())).sum(1))  # the score is the gradient of log P
    ends, between = energy[: len(knots)], energy[len(knots) :]
    mean = torch.stack([ends[:-1], between + np.log(4), ends[1:]]).logsumexp(0) - np.log(6)
    return mean + knots.diff(dim=0).norm(dim=1).log()


def residual(prior: GaussianMixture, knots: Tensor, exponent: float = 1.0) -> float:
    """Return the deviation from stationarity of a path through knots (n, d): 0 for a minimiser.

    It is the ratio of the RMS of kappa n + lambda (grad log P)_perp to the RMS of lambda grad log P, both along
    the path and weighted by resistance.
    """
    knots = equidistant(knots, max(len(knots), _KNOTS[0]))
    step = float(knots.diff(dim=0).norm(dim=1).mean())
    tangent = torch.nn.functional.normalize(knots[2:] - knots[:-2], dim=1)
    bend = (knots[2:] - 2 * knots[1:-1] + knots[:-2]) / step**2
    gradient = prior.log_prob_and_score(knots[1:-1])[1]
    force = bend + exponent * gradient
    force = force - (force * tangent).sum(1, keepdim=True) * tangent
    weight = (-exponent * prior.log_prob(knots[1:-1])).softmax(0)[:, None]
    return float(((weight * force.square()).sum() / (weight * (exponent * gradient).square()).sum()).sqrt())


def _number_of_knots(prior: GaussianMixture, knots: Tensor) -> int:
    """Return the number of knots that gives a spacing of half a typical standard deviation."""
    width = torch.linalg.eigvalsh(prior.covariances)[:, -1].sqrt().median()
    return int((2 * knots.diff(dim=0).norm(dim=1).sum() / width).clamp(*_KNOTS))


def _equal_flux(prior: GaussianMixture, curve: Tensor, n: int, exponent: float) -> Tensor:
    """Return n points of a dense curve (N, d), ends included, that divide its resistance into equal parts."""
    pieces = _log_pieces(prior, curve, exponent)
    share = torch.cat([pieces.new_zeros(1), (pieces - pieces.max()).exp().cumsum(0)])
    place = np.interp(np.linspace(0, float(share[-1]), n), share.numpy(), np.arange(len(curve)))
    lower = torch.as_tensor(place).long().clamp_max(len(curve) - 2)
    points = torch.lerp(curve[lower], curve[lower + 1], (torch.as_tensor(place) - lower)[:, None])
    points[0], points[-1] = curve[0], curve[-1]
    return points


def _algorithm_1(prior: GaussianMixture, start: End, end: End, reverse: bool, seed: int) -> list[Tensor]:
    """Return both paths of Algorithm 1, from end to start if `reverse`; none unless both ends are components."""
    if not isinstance(start, (int, np.integer)) or not isinstance(end, (int, np.integer)):
        return []
    pairs = ((int(start), int(end)), (int(end), int(start)))
    there, back = (ridgeline(prior, *pair, seed=seed).latents.to(prior.means) for pair in pairs)
    knots = [there, back.flip(0)]
    exact = prior.means[[int(start), int(end)]]
    for k in knots:
        k[0], k[-1] = exact
    return [k.flip(0) for k in knots] if reverse else knots


def end_point(prior: GaussianMixture, name: str, value: End) -> Tensor:
    """Return the latent (d,) of an end."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        if not 0 <= value < prior.n_components:
            expected = f"an integer from 0 to {prior.n_components - 1}, or a latent vector"
            raise InputError(name, f"component {value}", expected, "Choose a component by its weight in prior.weights.")
        return prior.means[int(value)]
    remedy = "Pass one latent vector or the index of a component."
    point = as_numbers(value.latent if isinstance(value, State) else value, name, remedy)
    if point.shape != (prior.latent_dim,) or not bool(torch.isfinite(point).all()):
        found, expected = f"shape {tuple(point.shape)}", f"{prior.latent_dim} finite numbers, or a component"
        raise InputError(name, found, expected, remedy)
    return point.to(prior.means)
