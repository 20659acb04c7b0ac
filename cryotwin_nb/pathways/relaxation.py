"""Relaxation of a path to lower resistance, and its deviation from a path of least resistance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor

from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.ridgeline import Pathway, densify, equidistant, log_resistance, pathway_from_knots

_ROUNDS, _ITERATIONS, _EVALUATIONS = 12, 40, 50  # rounds of relaxation; L-BFGS iterations and evaluations per round
_KNOTS = (48, 300)  # minimum and maximum number of knots


def path_of_knots(
    prior: GaussianMixture, knots: Tensor, n_steps: int, exponent: float, spacing: str, start: object, end: object
) -> Pathway:
    """Return the `Pathway` along the knots (m, d) of a relaxed path."""
    path = pathway_from_knots(prior, knots, n_steps, method="MaxFlux")
    latents = path.latents if spacing == "length" else equal_flux(prior, path.curve, n_steps + 1, exponent).float()
    return replace(
        path,
        latents=latents,
        log_prob=prior.log_prob(latents.to(prior.means)),
        log_cost=log_resistance(prior, path.curve, exponent),
        start=int(start) if isinstance(start, (int, np.integer)) else None,
        end=int(end) if isinstance(end, (int, np.integer)) else None,
        residual=residual(prior, knots, exponent),
    )


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


def equal_flux(prior: GaussianMixture, curve: Tensor, n: int, exponent: float) -> Tensor:
    """Return n points of a dense curve (N, d), ends included, that divide its resistance into equal parts."""
    pieces = _log_pieces(prior, curve, exponent)
    share = torch.cat([pieces.new_zeros(1), (pieces - pieces.max()).exp().cumsum(0)])
    place = np.interp(np.linspace(0, float(share[-1]), n), share.numpy(), np.arange(len(curve)))
    lower = torch.as_tensor(place).long().clamp_max(len(curve) - 2)
    points = torch.lerp(curve[lower], curve[lower + 1], (torch.as_tensor(place) - lower)[:, None])
    points[0], points[-1] = curve[0], curve[-1]
    return points
