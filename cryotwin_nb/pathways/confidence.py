"""Confidence in a path: Bayesian bootstrap of the density in which the path was found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError, guarded
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.groups import bootstrap_weights, number_groups
from cryotwin_nb.mixture.isolated import set_aside
from cryotwin_nb.mixture.points import require_points
from cryotwin_nb.pathways.dead import without_dead
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.populations import typical_width
from cryotwin_nb.pathways.profile import line_barrier
from cryotwin_nb.pathways.relaxation import relax
from cryotwin_nb.pathways.ridgeline import Pathway, densify, equidistant, log_resistance, pathway_from_knots

_STEPS = 10  # EM iterations per draw, starting from the fitted mixture
_KNOTS, _ROUNDS = 400, 2  # knots and relaxation rounds for the path of each draw
_REACH = 2.5  # radius of the search around the given path in each draw, in typical component widths
_EXCESS = 20.0  # nats; draws ignore edges whose log resistance exceeds the path's log cost by more than this


@dataclass(frozen=True, eq=False)
class PathConfidence:
    """Bootstrap draws of a path.

    Attributes
    ----------
    latents : (B, K+1, d) float32
        Path of each draw, as equally spaced points.
    log_cost, barrier : (B,) float64
        Log cost and barrier (nats) of each draw; see `Pathway`.
    line_barrier : (B,) float64
        Barrier in the population per unit length for each draw, nats; see `PathProfile.line_energy`.
    radius : (K+1,) float64
        Radius of the tube that contains 90 % of the draws at each point, latent units.
    """

    latents: Tensor
    log_cost: np.ndarray
    barrier: np.ndarray
    line_barrier: np.ndarray
    radius: np.ndarray

    def interval(self, name: str = "barrier", level: float = 0.9) -> tuple[float, float]:
        """Return the central interval that contains the given fraction of the draws.

        Parameters
        ----------
        name : {"barrier", "line_barrier", "log_cost"}
            Quantity whose interval is returned.
        level : float
            Fraction of the draws, between 0 and 1.

        Raises
        ------
        InputError
            If the name is unknown or the level is out of range.
        """
        known = ("barrier", "line_barrier", "log_cost")
        if name not in known or not 0 < level < 1:
            found, expected = f"{name!r} with level {level}", f"one of {', '.join(known)} with a level between 0 and 1"
            raise InputError("interval", found, expected, "Correct the name or the level.")
        low, high = np.quantile(getattr(self, name), [(1 - level) / 2, (1 + level) / 2]).tolist()
        return low, high


@guarded()
def bootstrap_path(
    prior: GaussianMixture,
    latents: Tensor,
    path: Pathway,
    n_draws: int = 100,
    seed: int = 0,
    noise_covariances: Tensor | None = None,
    progress: bool = False,
    landscape: Landscape | None = None,
    groups: Tensor | np.ndarray | None = None,
) -> PathConfidence:
    """Recompute a path in mixtures fitted to particles with Exp(1) weights (Bayesian bootstrap, Rubin 1981).

    Parameters
    ----------
    prior : GaussianMixture
        Density in which the path was found.
    latents : (n, d) float
        Latents of the particles to which `prior` was fitted.
    path : Pathway
        Path from `max_flux` or `find_routes`. Each draw searches the neighbourhood of this path. If an end of the path
        is a component mean, it moves with this mean in each draw.
    n_draws : int
        Number of draws; 100 to 200 are enough for 90 % intervals.
    seed : int
        Seed of the particle weights.
    noise_covariances : (n, d, d) float, optional
        Error covariances of the latents; required if `prior` is a deconvolved density, that is, without these errors.
    progress : bool
        Show a progress bar.
    landscape : Landscape, optional
        Landscape of `prior`, if already computed.
    groups : (n,) int, optional
        Group of each latent, such as `particles.identity`; the latents of one group get the same weight in each draw.

    Returns
    -------
    PathConfidence

    Raises
    ------
    InputError
        If `n_draws` is below 1, or `groups` does not hold one integer per latent.

    Notes
    -----
    Each draw runs ten EM iterations from `prior`. Ten iterations with equal weights measure the change that is not due
    to the weights; such a change occurs if the fit of `prior` had not converged or used a different prior on the
    covariances. This change is subtracted from the barriers and costs of the draws.

    Examples
    --------
    >>> path = ct.max_flux(model.prior, start=0, end=1)
    >>> low, high = ct.bootstrap_path(model.prior, z, path, n_draws=5).interval("barrier")
    """
    if n_draws < 1:
        raise InputError("n_draws", f"{n_draws}", "at least 1", "Use 100, which is enough for 90 % intervals.")
    prior, generator = prior.detach(), torch.Generator().manual_seed(seed)
    latents, curve = require_points(latents, prior.latent_dim).double(), path.curve.to(prior.means)
    n, places = len(latents), len(path.latents)
    number, width = number_groups(groups, n), typical_width(prior)
    kept = set_aside(latents, prior.n_components, seed)  # once, not in every draw
    around = (landscape or Landscape.of(prior)).near(curve, _REACH * width, path.log_cost + _EXCESS)

    def again(counts: Tensor) -> tuple[Pathway, float]:
        fitted = GaussianMixture.fit(
            latents, noise_covariances=noise_covariances, weights=kept * counts, start=prior, max_iter=_STEPS, tol=0.0
        )
        mixture = without_dead(fitted)
        ends = curve[[0, -1]]
        for side, component in enumerate((path.start, path.end)):
            if component is not None:
                ends[side] = fitted.means[component]
        candidates = [torch.cat([ends[:1], equidistant(curve, _KNOTS)[1:-1], ends[1:]])]
        way = around.on(mixture).shortest(*torch.cdist(curve[[0, -1]], around.points).argmin(1).tolist())
        if way is not None:
            candidates.append(torch.cat([ends[:1], around.points[way[1:-1]], ends[1:]]))
        knots = min(candidates, key=lambda k: log_resistance(mixture, densify(mixture, k)))
        found = pathway_from_knots(mixture, relax(mixture, knots, rounds=_ROUNDS), places - 1)
        line = line_barrier(mixture, found.curve, width)
        if not np.isfinite([found.log_cost, found.barrier, line, float(found.latents.sum())]).all():
            text, expected = "latents whose density has no finite path", "the latents to which the mixture was fitted"
            raise InputError("latents", text, expected, "Pass the latents of `prior`, which must not be equal.")
        return found, line

    moved, moved_line = again(torch.ones(n, dtype=torch.float64))
    draws, lines = [], []
    for _ in tqdm(range(n_draws), desc="bootstrap", unit="draw", disable=not progress):
        draw, line = again(bootstrap_weights(number, generator))
        draws.append(draw)
        lines.append(line)
    points = torch.stack([d.latents for d in draws])
    apart = torch.cdist(points.transpose(0, 1).double(), moved.curve.expand(places, -1, -1)).amin(-1)
    return PathConfidence(
        points,
        np.array([d.log_cost for d in draws]) - moved.log_cost + path.log_cost,
        np.array([d.barrier for d in draws]) - moved.barrier + path.barrier,
        np.array(lines) - moved_line + line_barrier(without_dead(prior), curve, width),
        apart.quantile(0.9, dim=1).numpy(),
    )
