"""Priors for `algorithm1_map.py`, and whether a path follows a planted route."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from algorithm1_latents import Latents, trained, widened
from scipy.spatial import cKDTree

import cryotwin_nb as ct
from cryotwin_nb import evaluation
from cryotwin_nb.pathways.ridgeline import Pathway, pathway_from_knots

K = 11
OMEGAS, CONCENTRATIONS = (1.2, 2.0, 4.0, 16.0), (1.0, 0.01)
FINE_OMEGAS, FINE_CONCENTRATIONS, FINE_FLOORS = (1.2, 2.0, 4.0, 8.0, 16.0), (1.0, 0.1, 0.01), (0.0, 0.2, 0.4)
FLOORS = (0.0, 0.07, 0.2, 0.4)  # T / sqrt(12) in units of the spacing; 0.07 is that of the stored model
PLANTED = (("CP", "L1", "stalk"), ("L1", "CP", "stalk"))
ENDS = ("C2", "E4")
SLACK = 3.0  # nats above the barrier of max_flux
LEAST = 20  # latents near each point of a path


@dataclass(frozen=True)
class Setting:
    """How a prior is made: signal-to-noise ratio, components, training, T of the training, floor added afterwards."""

    snr: float
    components: int = 100
    training: str = "EM"  # "EM", "rate" or "rate, then EM"
    width: float = 0.07  # T / sqrt(12) during training, in units of the spacing
    floor: float = 0.0  # the same for the floor added to the covariances before Algorithm 1
    n: int = 8000


class Judge:
    """Measures of a path against the latents and their truth."""

    def __init__(self, latents: Latents) -> None:
        z = latents.z.numpy()
        self.tree = cKDTree(z)
        self.radius = 1.5 * float(np.median(self.tree.query(z[:: len(z) // 1000], k=21)[0][:, -1]))
        design = np.column_stack([np.ones(len(z)), z])
        self.slope = np.linalg.lstsq(design, latents.truth.coordinates.astype(float), rcond=None)[0]
        self.spacing = latents.spacing
        steps = [latents.centre(state) for state in ("C2", "E1", "E2", "E4")]
        self.routes = [torch.stack(steps), torch.stack([steps[0], latents.centre("C3"), *steps[2:]])]

    def occupancies(self, points: torch.Tensor) -> np.ndarray:
        return np.column_stack([np.ones(len(points)), points]) @ self.slope

    def measures(self, path: Pathway) -> dict:
        occupancies = self.occupancies(path.latents)
        near = self.tree.query_ball_point(path.latents.double().numpy(), self.radius, return_length=True)
        steps = dict(zip(("CP", "L1", "stalk"), map(_crossing, occupancies[:, 1:4].T), strict=True))
        order = tuple(sorted(steps, key=steps.__getitem__))
        rest = bool((occupancies[:, 0] > 0.5).all() and (occupancies[:, 4] < 0.5).all())
        own = len(set(steps.values())) == 3 and min(steps.values()) > 0 and max(steps.values()) <= K
        away = min(evaluation.curve_distance(path.curve, route).mean for route in self.routes)
        return {
            "barrier": round(path.barrier, 2),
            "least": int(near.min()),
            "steps": list(steps.values()),
            "ordered": rest and own and order in PLANTED,
            "from route": round(away / self.spacing, 3),
        }


def _crossing(values: np.ndarray) -> int:
    """Return the first step after the last at which a block has less than half of its occupancy."""
    below = np.flatnonzero(values < 0.5)
    return int(below[-1]) + 1 if len(below) else 0


def priors(latents: Latents, settings: list[Setting], seed: int) -> Iterator[tuple[Setting, ct.GaussianMixture]]:
    """Yield the priors of several settings that differ in training, width or floor only."""
    made: dict = {}
    for s in settings:
        key = s.training, s.width * (s.training != "EM")
        if key not in made:
            if s.training != "EM":
                first = made.setdefault(
                    ("rate", s.width), trained(latents.z, s.components, _width(latents, s.width), seed)
                )
            if s.training == "EM":
                made[key] = fitted(latents, n_components=s.components, select=False, n_init=1, seed=seed)
            elif s.training == "rate, then EM":
                made[key] = fitted(latents, n_components=s.components, start=first)
        prior = made[key]
        yield s, widened(prior, _width(latents, s.floor)) if s.floor else prior


def fitted(latents: Latents, **options) -> ct.GaussianMixture:
    steps = 300 if len(latents.z) < 50_000 else 30  # to save time
    return ct.GaussianMixture.fit(latents.z, weights=torch.ones(len(latents.z)).double(), max_iter=steps, **options)


def _width(latents: Latents, share: float) -> float:
    return 12**0.5 * share * latents.spacing


def examined(
    latents: Latents, judge: Judge, prior: ct.GaussianMixture, choices: list[tuple[float, float]], seeds: list[int],
    reference: bool = True,
) -> dict:  # fmt: skip
    """Return the measures of Algorithm 1 for pairs of omega and concentration, of the straight line and of max_flux.

    Without `reference`, max_flux is not run and the planted route's own barrier takes its place.
    """
    ends = [evaluation.component_of_state(prior, latents.z, latents.truth.labels, state) for state in ENDS]
    true = np.array([ct.simulate.images.molecules.STATES[state] for state in ENDS])
    found: dict = {"ends": bool(((judge.occupancies(prior.means[ends]) > 0.5) == (true > 0.5)).all())}
    if not found["ends"] or ends[0] == ends[1]:
        return found | {"ends": False}
    straight = pathway_from_knots(prior, prior.means[ends], K, start=ends[0], end=ends[1])
    found["straight"] = judge.measures(straight)
    rows = found["paths"] = []
    for (omega, concentration), seed in product(choices, seeds):
        path = ct.ridgeline(prior, *ends, n_steps=K, omega=omega, concentration=concentration, seed=seed)
        rows.append({"omega": omega, "concentration": concentration, "seed": seed} | judge.measures(path))
    routes = [pathway_from_knots(prior, torch.cat([prior.means[ends[:1]], route[1:-1], prior.means[ends[1:]]]))
              for route in judge.routes]  # fmt: skip
    found["route"] = round(min(route.barrier for route in routes), 2)
    good = [row for row in [*rows, found["straight"]] if row["ordered"] and row["least"] >= LEAST]
    bound = found["route"] + SLACK
    if reference:  # the barrier of max_flux is at least 0, so that lower ones need no comparison
        needed = any(row["barrier"] > SLACK for row in good)
        found["max_flux"] = judge.measures(ct.max_flux(prior, *ends, n_steps=K)) if needed else None
        bound = (found["max_flux"]["barrier"] if needed else 0) + SLACK
    for row in [*rows, found["straight"]]:
        row["follows"] = bool(row in good and row["barrier"] <= bound)
    return found
