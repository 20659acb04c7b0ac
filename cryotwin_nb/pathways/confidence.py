"""How sure a path is: the Bayesian bootstrap of the density it was found on, and the particles that lie along it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.maxflux import relax
from cryotwin_nb.pathways.network import typical_width
from cryotwin_nb.pathways.profile import line_barrier
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
        Cost and barrier of each draw; see `Pathway`.
    line_barrier : (B,) float64
        Barrier of the population per unit of length; see `PathProfile.line_energy`.
    radius : (K+1,) float64
        Radius of the tube that holds 90 % of the draws' points.
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
            found, expected = f"{name!r} and the level {level}", f"one of {', '.join(known)} and a level from 0 to 1"
            raise InputError("interval", found, expected, "Correct the name or the level.")
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
        From `max_flux` or `find_routes`; each draw finds it again in its neighbourhood. Ends that are components move
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
    they would move anyway, because EM had not converged or by another prior on the covariances; that much is taken
    off the draws of barrier and cost.
    """
    if n_draws < 1:
        raise InputError("n_draws", f"{n_draws}", "at least 1", "Use 100, which are enough for 90 % intervals.")
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
        return found, line_barrier(mixture, found.curve, width)

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
        np.array(lines) - moved_line + line_barrier(prior, curve, width),
        apart.quantile(0.9, dim=1).numpy(),
    )
