"""The path of least resistance between two points of a density: a shortest path in a graph, then relaxed.

J[γ] = ∫ |dγ| / P(γ) is the resistance of a path (MaxFlux: Huo and Straub 1997). Its minimiser obeys
kappa n = -(grad log P)_perp everywhere: where the path bends, density pushes it outward.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.ridgeline import Pathway, densify, equidistant, log_resistance, pathway_from_knots, ridgeline
from cryotwin_nb.pathways.states import State

_ROUNDS, _ITERATIONS, _EVALUATIONS = 12, 40, 50  # of the relaxation; between rounds knots are spread evenly anew
_KNOTS = (48, 300)  # fewest and most

End = int | State | Tensor | np.ndarray


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
    """The path of least resistance ∫ |dγ| / P(γ)^exponent between two points of latent space.

    Parameters
    ----------
    prior : GaussianMixture
    start, end : int, State or (d,) float
        A component, for its mean, a state of `find_states`, or any latent vector: a mode, the latent of a particle.
    n_steps : int
        K: `latents` has K + 1 points.
    exponent : float
        Lambda: 1 is MaxFlux; less gives shorter paths that mind the density less, 1/d a smooth compromise.
    spacing : {"length", "flux"}
        The points are at equal distances along the path, or at equal shares of its resistance: then they stand
        where the passages are.
    seed : int
        Seed of the samples of Algorithm 1, which competes.
    landscape : Landscape, optional
        That of `prior` and `exponent`, when many paths are computed.

    Returns
    -------
    Pathway
        With `residual`, how far it is from stationary. Swapping start and end reverses it.

    Raises
    ------
    InputError
        If an end is no component and no latent, both are the same, or a setting is out of range.

    Notes
    -----
    The straight line, Algorithm 1 in both directions and the shortest path in a graph (`Landscape`) compete on J of
    their dense curves; the best is relaxed, and a step of the relaxation is kept only if J falls. So J is never above
    theirs.
    """
    _require(n_steps, exponent, spacing)
    prior = prior.detach()
    ends = torch.stack([end_point(prior, "start", start), end_point(prior, "end", end)])
    if torch.equal(*ends):
        sentence = "Start and end are the same point."
        raise InputError("end", "the start", "another point", "Choose two different ends.", sentence)
    reverse = tuple(ends[0].tolist()) > tuple(ends[1].tolist())  # one solution for both directions
    ordered = ends.flip(0) if reverse else ends
    landscape = landscape or Landscape.of(prior, exponent)
    candidates = [ordered, *_algorithm_1(prior, start, end, reverse, seed)]
    candidates.append(through_landscape(landscape, ordered))
    knots = min(candidates, key=lambda k: log_resistance(prior, densify(prior, k), exponent))
    knots = relax(prior, knots, exponent)
    return path_of_knots(prior, knots.flip(0) if reverse else knots, n_steps, exponent, spacing, start, end)


def path_of_knots(
    prior: GaussianMixture, knots: Tensor, n_steps: int, exponent: float, spacing: str, start: object, end: object
) -> Pathway:
    """The `Pathway` along knots (m, d) of a relaxed path."""
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
    """Corners (m, d) of the shortest path in the graph between two points (2, d)."""
    n = len(landscape.points)
    joined = landscape.joined_to(ends)
    way = joined.shortest(n, n + 1)
    return joined.points[way] if way else ends


def relax(prior: GaussianMixture, knots: Tensor, exponent: float = 1.0, rounds: int = _ROUNDS) -> Tensor:
    """Lower the resistance of a path through knots (m, d) with its ends held: knots (n, d), never worse.

    In each round the knots are spread evenly, then moved perpendicular to the path by L-BFGS on log J. Their steps are
    scaled by the root of their share of J, so that also those move whose share is too small to matter to J itself.
    """
    best = log_resistance(prior, densify(prior, knots), exponent)
    n, kept, idle = _number_of_knots(prior, knots), knots, 0
    current = knots
    with threadpool_limits(1):  # steps are small: the threads of SciPy and PyTorch would wait for one another
        for _ in range(rounds):
            current = _moved(prior, equidistant(current, n), exponent)
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
    """Knots (n, d) moved perpendicular to the path towards less resistance."""
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
    """log of the resistance of each piece of a polyline (n - 1,), from its ends and its middle (Simpson's rule)."""
    points = torch.cat([knots, (knots[1:] + knots[:-1]) / 2])
    value, score = prior.log_prob_and_score(points)
    energy = -exponent * (value + (score * (points - points.detach())).sum(1))  # its gradient without a graph
    ends, between = energy[: len(knots)], energy[len(knots) :]
    mean = torch.stack([ends[:-1], between + np.log(4), ends[1:]]).logsumexp(0) - np.log(6)
    return mean + knots.diff(dim=0).norm(dim=1).log()


def residual(prior: GaussianMixture, knots: Tensor, exponent: float = 1.0) -> float:
    """How far a path through knots (n, d) is from stationary: 0 for a minimiser.

    ||kappa n + lambda (grad log P)_perp|| relative to lambda ||grad log P||, root mean squares along the path with its
    resistance as weight.
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
    """Enough for a knot in each half of a typical standard deviation."""
    width = torch.linalg.eigvalsh(prior.covariances)[:, -1].sqrt().median()
    return int((2 * knots.diff(dim=0).norm(dim=1).sum() / width).clamp(*_KNOTS))


def _equal_flux(prior: GaussianMixture, curve: Tensor, n: int, exponent: float) -> Tensor:
    """n points of a dense curve (N, d) that cut its resistance into equal parts, its ends included."""
    pieces = _log_pieces(prior, curve, exponent)
    share = torch.cat([pieces.new_zeros(1), (pieces - pieces.max()).exp().cumsum(0)])
    place = np.interp(np.linspace(0, float(share[-1]), n), share.numpy(), np.arange(len(curve)))
    lower = torch.as_tensor(place).long().clamp_max(len(curve) - 2)
    points = torch.lerp(curve[lower], curve[lower + 1], (torch.as_tensor(place) - lower)[:, None])
    points[0], points[-1] = curve[0], curve[-1]
    return points


def _algorithm_1(prior: GaussianMixture, start: End, end: End, reverse: bool, seed: int) -> list[Tensor]:
    """Knots of Algorithm 1 between two components from either side, in the order that `reverse` asks for."""
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
    """The point (d,) that an end stands for."""
    if isinstance(value, (int, np.integer)):
        if not 0 <= value < prior.n_components:
            expected = f"an integer from 0 to {prior.n_components - 1}, or a latent"
            raise InputError(name, f"component {value}", expected, "Choose one by its weight in prior.weights.")
        return prior.means[int(value)]
    point = torch.as_tensor(value.latent if isinstance(value, State) else value, dtype=prior.means.dtype)
    if point.shape != (prior.latent_dim,) or not bool(torch.isfinite(point).all()):
        found, expected = f"shape {tuple(point.shape)}", f"{prior.latent_dim} finite numbers, or a component"
        raise InputError(name, found, expected, "Give one latent vector.")
    return point.to(prior.means)


def _require(n_steps: int, exponent: float, spacing: str) -> None:
    if n_steps != int(n_steps) or n_steps < 2:
        raise InputError("n_steps", f"{n_steps}", "an integer of at least 2", "Use 11 for a path of 12 points.")
    if not 0 < exponent < np.inf:
        raise InputError("exponent", f"{exponent}", "a positive number", "Use 1 for MaxFlux.")
    if spacing not in ("length", "flux"):
        raise InputError("spacing", repr(spacing), "'length' or 'flux'", "Choose one of them.")
