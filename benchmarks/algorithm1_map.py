"""Where Algorithm 1 of the paper follows a planted route from C2 to E4: python benchmarks/algorithm1_map.py PART ... .

The latents of `assembly` are made without images (`algorithm1_latents.py`). The parts, stored in
benchmarks/results/algorithm1.json:

geometry    how close to the planted route a path of Algorithm 1 can pass if all components have equal covariances
candidates  how far the candidates lie from the latents, by width of the components, concentration and omega
grid        one training and one sampling seed for each setting; --components and --snr restrict it
fine        priors by EM, more choices of omega and concentration, with training and sampling seeds 0 to 4
confirm     the best settings of both, on new sets with training and sampling seeds 10 to 14, 25 paths for each

A path follows the route (K = 11, M = 1000) if all of these hold: start and end are C2 and E4; the blocks pass half
occupancy in a planted order, each at a step of its own, while the base stays and H68 stays away; at each point at least
20 latents lie within 1.5 times the median distance of a latent from its 20th neighbour; and the barrier is at most 3
nats above that of `max_flux` (in the grid, to save time, above that of the planted route, drawn as straight pieces).
Occupancies along a path are a linear regression of the true ones on the latents. All parts take about half an hour.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import torch
from algorithm1_latents import SNRS, Latents, simulated, trained, widened
from common import RESULTS, machine, write_results
from scipy.spatial import cKDTree

import cryotwin_nb as ct
from cryotwin_nb import evaluation, plotting
from cryotwin_nb.pathways.ridgeline import Pathway, _ridge_points, _shares, equidistant, pathway_from_knots
from cryotwin_nb.plotting.style import styled

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


_EM = Setting(0.1), Setting(0.1, floor=0.07)
CONFIRM = {
    Setting(0.1, training="rate"): [(1.2, 1.0), (2.0, 1.0)],
    _EM[0]: [(1.2, 1.0), (2.0, 1.0), (4.0, 1.0)],
    _EM[1]: [(1.2, 1.0), (2.0, 1.0)],
    Setting(0.05, floor=0.2): [(1.2, 1.0), (4.0, 1.0)],
    Setting(0.05, floor=0.4): [(1.2, 1.0), (4.0, 1.0)],
    Setting(0.05, training="rate", width=0.2): [(1.2, 1.0), (2.0, 1.0)],
    Setting(0.1, 30): [(1.2, 1.0), (2.0, 1.0)],
    Setting(0.1, 30, floor=0.2): [(1.2, 1.0), (2.0, 1.0)],
    Setting(0.1, 30, "rate", 0.2): [(1.2, 1.0), (2.0, 1.0)],
    Setting(0.05, 30): [(1.2, 1.0), (4.0, 1.0)],
    Setting(0.05, 30, "rate"): [(1.2, 1.0), (2.0, 1.0)],
    Setting(0.2, 30, "rate"): [(1.2, 0.01), (2.0, 0.01)],
    Setting(0.02): [(1.2, 1.0), (2.0, 1.0), (4.0, 1.0)],
    Setting(0.02, training="rate", width=0.2): [(1.2, 1.0), (2.0, 1.0), (4.0, 1.0)],
}  # taken from the grid


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
                made[key] = _fitted(latents, n_components=s.components, select=False, n_init=1, seed=seed)
            elif s.training == "rate, then EM":
                made[key] = _fitted(latents, n_components=s.components, start=first)
        prior = made[key]
        yield s, widened(prior, _width(latents, s.floor)) if s.floor else prior


def _fitted(latents: Latents, **options) -> ct.GaussianMixture:
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


def geometry(n_grid: int = 7, n_between: int = 4) -> dict:
    """Return bounds for paths of Algorithm 1 if all components have the same covariance.

    Each point is then an average of the means with the weights alpha: the occupancy of each block that C2 lacks and E4
    has lies between alpha_j and 1 - alpha_i. For each omega: the steps at which a block can pass one half, and the
    smallest possible value of the largest distance between path and planted route, in units of the spacing, with the
    blocks as equal and perpendicular edges (minimax over a grid of points in these cubes, by dynamic programming).
    """
    corners = [np.array(route, float) for route in ([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]],
                                                    [[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 1]])]  # fmt: skip
    between = np.linspace(0, 1, n_between + 1)[1:, None, None, None]
    axis = np.linspace(0, 1, n_grid)
    unit = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    found = {}
    for omega in (*OMEGAS, 1000.0):
        cosine = np.cos(np.pi * np.arange(1, K) / (2 * K))
        leaving, arriving = cosine, (1 - cosine) ** omega
        points, cost = [np.zeros((1, 3))], np.zeros(1)
        for low, high in [*zip(arriving, 1 - leaving, strict=True), (1, 1)]:
            points.append(low + (high - low) * (unit if high > low else unit[-1:]))
            here, there = points[-2][None, :, None], points[-1][None, None, :]
            path = here + between * (there - here)
            away = np.min([_distance(path.reshape(-1, 3), route) for route in corners], axis=0)
            away = away.reshape(path.shape[:3]).max(0)
            cost = np.maximum(cost[:, None], away).min(0)
        found[f"{omega:g}"] = {
            "first step at which a block can pass one half": int(np.flatnonzero(1 - leaving >= 0.5)[0]) + 1,
            "last such step": int(np.flatnonzero(np.append(arriving, 1) >= 0.5)[0]) + 1,
            "largest distance from the route, at best": round(float(cost.min()), 3),
        }
    line = np.linspace(0, 1, 201)[:, None] * np.ones(3)
    away = np.min([_distance(line, route) for route in corners], axis=0).max()
    return found | {"straight line": {"largest distance from the route": round(float(away), 3)}}


def _distance(points: np.ndarray, route: np.ndarray) -> np.ndarray:
    """Return the distance (m,) of points (m, 3) from a polyline (k, 3)."""
    away = []
    for start, stop in itertools.pairwise(route):
        share = ((points - start) @ (stop - start) / ((stop - start) @ (stop - start))).clip(0, 1)
        away.append(np.linalg.norm(points - start - share[:, None] * (stop - start), axis=1))
    return np.min(away, axis=0)


def candidates(snr: float = 1.0, components: int = 100) -> dict:
    """Return where the candidates lie, for the means of an EM fit with covariances of a chosen spread of widths.

    Component c gets the isotropic covariance w_c^2 with log w_c normal, of standard deviation `spread` and median equal
    to the noise; a common factor of all widths does not change any candidate. `own` keeps the covariances of the fit.
    Per case, over all steps: the share of start and end in the precision; the number of other components that share
    the rest (inverse participation ratio); the root-mean-square deviation of the candidates from their mean at the same
    step; their median distances from the nearest latent and from the planted routes (all in units of the spacing); and
    the share of candidates with at least 20 latents within the radius.
    """
    latents = simulated(8000, snr, 0)
    judge = Judge(latents)
    fit = _fitted(latents, n_components=components, select=False, n_init=1, seed=0)
    ends = [evaluation.component_of_state(fit, latents.z, latents.truth.labels, state) for state in ENDS]
    draw = torch.randn(components, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[: fit.n_components]
    rows = []
    for spread, omega, concentration in product(("own", 0.0, 0.5, 1.0, 2.0), (2.0, 16.0), (1.0, 0.01)):
        prior = fit
        if spread != "own":
            widths = latents.noise * (float(spread) * draw).exp()
            covariances = widths[:, None, None] ** 2 * torch.eye(fit.latent_dim).double()
            prior = ct.GaussianMixture(fit.weights, fit.means, covariances)
        shares = _shares(prior.n_components, *ends, K, omega, 200, 0, concentration)
        points = _ridge_points(prior, shares)
        pull = shares * torch.linalg.inv(prior.covariances).diagonal(dim1=-2, dim2=-1)[:, :5].sum(-1)
        held = pull[..., ends].sum(-1) / pull.sum(-1)
        pull[..., ends] = 0
        others = pull.sum(-1).square() / pull.square().sum(-1)
        flat = points.flatten(0, 1).numpy()
        near = judge.tree.query_ball_point(flat, judge.radius, return_length=True)
        dense = torch.cat([equidistant(route, 200) for route in judge.routes])
        away = torch.cdist(points.flatten(0, 1), dense).amin(1)
        rows.append({
            "spread of log widths": spread,
            "omega": omega,
            "concentration": concentration,
            "share of start and end in the precision": round(float(held.median()), 2),
            "others that share the rest": round(float(others.median()), 1),
            "cloud": round(float((points - points.mean(1, keepdim=True))[..., :5].square().sum(-1).mean().sqrt())
                           / latents.spacing, 3),
            "distance from latents": round(float(np.median(judge.tree.query(flat)[0])) / latents.spacing, 3),
            "distance from routes": round(float(away.median()) / latents.spacing, 3),
            "share with 20 latents": round(float((near >= LEAST).mean()), 3),
        })  # fmt: skip
        print(rows[-1], flush=True)
    scale = latents.spacing, latents.noise, judge.radius
    return {"snr": snr, "spacing, noise, radius": [round(x, 2) for x in scale], "cases": rows}


def _settings(snr: float, components: int, n: int) -> list[Setting]:
    few = components > 100 or snr >= 0.2 or n > 8000
    widths, kept = ((0.07,), (0.0, 0.2)) if few else ((0.07, 0.2), FLOORS)
    settings = [Setting(snr, components, floor=floor, n=n) for floor in kept]
    for width in widths:
        settings += [Setting(snr, components, "rate", width, floor, n) for floor in (0.0, width)]
    if not few:
        settings += [Setting(snr, components, "rate, then EM", 0.07, floor, n) for floor in (0.0, 0.2)]
    return settings


def grid(snrs: list[float], components: list[int], n: int, stored: list) -> Iterator[list]:
    """Yield the rows of the grid, with those already stored, after each prior."""
    new = {(snr, count, n) for snr, count in product(snrs, components)}
    rows = [row for row in stored if (row["snr"], row["components"], row["n"]) not in new]
    for count, snr in product(components, snrs):
        latents = simulated(n, snr, 0)
        judge, started = Judge(latents), time.perf_counter()
        choices = list(product(OMEGAS, CONCENTRATIONS))
        for setting, prior in priors(latents, _settings(snr, count, n), 0):
            row = vars(setting) | {"spacing / noise": round(latents.spacing / latents.noise, 2)}
            rows.append(row | examined(latents, judge, prior, choices, [0], False))
            passed = [(p["omega"], p["concentration"]) for p in rows[-1].get("paths", []) if p.get("follows")]
            best = min((p["barrier"] for p in rows[-1].get("paths", [])), default=None)
            straight = rows[-1].get("straight", {}).get("barrier")
            print(vars(setting), "barriers", best, rows[-1].get("route"), straight, "follow:", passed, flush=True)
            yield rows
        print(f"{time.perf_counter() - started:.0f} s", flush=True)


def repeated(
    choices: dict[Setting, list[tuple[float, float]]], seeds: range, stored: list, reference: bool
) -> Iterator[list]:
    """Yield the rows of settings on sets and trainings of several seeds, each with samples of all, or only its own."""
    rows = list(stored)
    done = {(json.dumps(_of(row)), row["training seed"]) for row in rows}
    groups: dict[tuple, list[Setting]] = {}
    for setting in choices:
        groups.setdefault((setting.n, setting.snr, setting.components), []).append(setting)
    for ((n, snr, _), members), seed in product(groups.items(), seeds):
        left = [s for s in members if (json.dumps(vars(s)), seed) not in done]
        if not left:
            continue
        latents = simulated(n, snr, seed)
        judge = Judge(latents)
        for setting, prior in priors(latents, left, seed):
            row = vars(setting) | {"spacing / noise": round(latents.spacing / latents.noise, 2)}
            samples = list(seeds) if reference else [seed]
            measured = examined(latents, judge, prior, choices[setting], samples, reference)
            rows.append(row | {"training seed": seed} | measured)
            follow = [(p["omega"], p["concentration"]) for p in measured.get("paths", []) if p["follows"]]
            print(vars(setting), seed, "straight", measured.get("straight"), "follow", follow, flush=True)
            yield rows


def _of(row: dict) -> dict:
    return {name: row[name] for name in Setting.__dataclass_fields__}


def _mean(rows: list, name: str) -> float | None:
    return round(float(np.mean([row[name] for row in rows])), 3) if rows else None


def confirmed(rows: list) -> list:
    """Return, for each setting and choice, how many trainings and paths follow the route, and the straight line's."""
    found = []
    keys = {json.dumps(_of(row)) for row in rows}
    for key in sorted(keys):
        own = [row for row in rows if json.dumps(_of(row)) == key]
        choices = sorted({(p["omega"], p["concentration"]) for row in own for p in row.get("paths", [])})
        for omega, concentration in choices:
            chosen = [
                [p for p in row.get("paths", []) if (p["omega"], p["concentration"]) == (omega, concentration)]
                for row in own
            ]
            follow = [sum(p["follows"] for p in paths) for paths in chosen]
            every = [p for paths in chosen for p in paths]
            lines = [row["straight"] for row in own if row["ends"]]
            found.append(json.loads(key) | {
                "omega": omega,
                "concentration": concentration,
                "spacing / noise": round(float(np.mean([row["spacing / noise"] for row in own])), 2),
                "trainings": len(own),
                "trainings with C2 and E4": len(lines),
                "paths that follow, by training": follow,
                "paths": sum(follow),
                "paths in order at steps of their own": sum(p["ordered"] for p in every),
                "paths with 20 latents at each point": sum(p["least"] >= LEAST for p in every),
                "straight lines that follow": sum(line["follows"] for line in lines),
                "mean barrier": _mean(every, "barrier"),
                "mean barrier, straight line": _mean(lines, "barrier"),
                "mean distance of the route, in units of the spacing": _mean(every, "from route"),
                "mean distance of the route from the straight line": _mean(lines, "from route"),
"trainings with most paths": (most := sum(2 * n > 5 for n in follow)),
                "regime": most >= 4 and sum(follow) >= 20 and sum(line["follows"] for line in lines) < most,
            })  # fmt: skip
    return found


@styled
def draw(results: dict) -> None:
    """Draw the map of the grid, the mechanism and the confirmation to results/algorithm1.svg and .png."""
    figure, ax = plt.subplots(2, 2, figsize=(10, 8))
    _draw_lines(ax[0], results)
    _draw_fine(ax[1, 0], results["fine"])
    _draw_confirmed(ax[1, 1], results.get("confirmed", []))
    for label, panel in zip("abcd", ax.flat, strict=True):
        title = f"{label}  {panel.get_title()}"
        panel.set_title("")
        panel.set_title(title, loc="left", fontweight="bold", fontsize=9, pad=18 if label == "c" else 6)
    for suffix in ("svg", "png"):
        figure.savefig(RESULTS / f"algorithm1.{suffix}", dpi=130)


def _draw_lines(ax: np.ndarray, results: dict) -> None:
    """Draw barrier and number of latents against spacing / noise, with omega and concentration as printed."""
    rows = [*results["fine"], *(row for row in results["grid"] if row["training"] == "rate")]
    rows = [row for row in rows if row["components"] == 100 and row["ends"] and row["n"] == 8000]
    kinds = {
        "EM, mean of five seeds": ("EM", 0.07, 0.0),
        "the same, floor 0.2": ("EM", 0.07, 0.2),
        "the paper's scheme, one seed": ("rate", 0.07, 0.0),
    }
    for number, (name, kind) in enumerate(kinds.items()):
        own = [row for row in rows if (row["training"], row["width"], row["floor"]) == kind]
        for panel, of in ((ax[0], "barrier"), (ax[1], "least")):
            points = []
            for snr in sorted({row["snr"] for row in own}):
                same = [row for row in own if row["snr"] == snr]
                paths = [next(p for p in row["paths"] if (p["omega"], p["concentration"]) == (2, 1)) for row in same]
                less = [row["route"] if of == "barrier" else 0 for row in same]
                values = [
                    [p[of] - zero, row["straight"][of] - zero] for p, row, zero in zip(paths, same, less, strict=True)
                ]
                points.append([np.mean([row["spacing / noise"] for row in same]), *np.mean(values, axis=0)])
            x, path, straight = np.array(points).T
            colour = plotting.COLOURS[number]
            panel.plot(x, path, "o-", color=colour, ms=4, label=name)
            panel.plot(x, straight, ":", color=colour, lw=1.5)
    x = np.linspace(1.5, 11.5, 100)
    best = results["geometry"]["2"]["largest distance from the route, at best"]
    ax[0].plot(x, (best * x) ** 2 / 2, "--", color="0.5", label="0.54 spacings off the route")
    ax[0].axhline(SLACK, color="0.5", lw=0.8)
    ax[0].set(title="Barrier above that of the planted route", xlabel="spacing of the states / noise",
              ylabel="nats", ylim=(-1, 36))  # fmt: skip
    ax[1].axhline(LEAST, color="0.5", lw=0.8)
    ax[1].set(title="Latents at the emptiest point of the path", ylabel="latents")
    ax[1].set_xlabel("spacing of the states / noise")
    ax[1].set_yscale("symlog", linthresh=1)
    ax[1].set_ylim(-0.2, 600)
    ax[0].legend(title="Algorithm 1 as printed (dotted: straight line)", title_fontsize=8, loc="upper left")


def _draw_fine(ax: plt.Axes, rows: list) -> None:
    """Draw how many of five trainings follow the route, for each choice, floor and signal-to-noise ratio."""
    rows = [row for row in rows if row["components"] == 100]
    choices = [(0.0, 0.0), *product(FINE_CONCENTRATIONS, FINE_OMEGAS)]  # the first is the straight line
    columns = sorted({(-row["snr"], row["floor"]) for row in rows})
    counts = np.zeros((len(choices), len(columns)))
    for row in rows:
        column = columns.index((-row["snr"], row["floor"]))
        counts[0, column] += row.get("straight", {}).get("follows", False)
        for p in row.get("paths", []):
            counts[choices.index((p["concentration"], p["omega"])), column] += p["follows"]
    ax.imshow(counts, cmap="Blues", vmin=0, vmax=6, aspect="auto")
    for (y, x), count in np.ndenumerate(counts):
        ax.text(x, y, f"{count:.0f}", ha="center", va="center", fontsize=7, color="w" if count > 3 else "0.2")
    width = len(FINE_FLOORS)
    for place, snr in enumerate(dict(columns)):
        ratio = np.mean([row["spacing / noise"] for row in rows if row["snr"] == -snr])
        ax.text(width * (place + 0.5) - 0.5, -0.8, f"ratio {ratio:.1f}", ha="center", va="bottom", fontsize=7)
        ax.axvline(width * place - 0.5, color="0.7", lw=0.8)
    for place in range(len(FINE_CONCENTRATIONS)):
        ax.axhline(place * len(FINE_OMEGAS) + 0.5, color="0.7", lw=0.8)
    ax.set_xticks(range(len(columns)), [f"{floor:g}" for _, floor in columns], fontsize=7)
    names = ["straight line", *(f"Dirichlet({c:g}), ω = {omega:g}" for c, omega in choices[1:])]
    ax.set_yticks(range(len(choices)), names, fontsize=7)
    ax.set_xlabel("floor added to the covariances (spacings)")
    ax.set(title="Trainings, of five, that follow (EM, C = 100)")


def _draw_confirmed(ax: plt.Axes, rows: list) -> None:
    """Draw how many of 25 paths follow the route on new sets, against the number of straight lines that do."""
    ratios = sorted({round(row["spacing / noise"], 1) for row in rows})
    for number, ratio in enumerate(ratios):
        own = [row for row in rows if round(row["spacing / noise"], 1) == ratio]
        lines = np.array([row["straight lines that follow"] for row in own]) + 0.07 * (number - len(ratios) / 2)
        colour = plotting.COLOURS[number]
        ax.plot(lines, [row["paths"] for row in own], "o", color=colour, ms=5, label=f"ratio {ratio:g}")
    ax.axhline(20, color="0.5", ls="--", lw=0.8)
    ax.set(title="New sets (seeds 10 to 14), one point for each setting", xlim=(-0.5, 5.5), ylim=(-1, 26))
    ax.set(xlabel="straight lines that follow, of 5", ylabel="paths of Algorithm 1 that follow, of 25")
    ax.legend(loc="upper left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=("geometry", "candidates", "grid", "fine", "confirm", "draw"))
    parser.add_argument("--snr", type=float, nargs="+", default=list(SNRS))
    parser.add_argument("--components", type=int, nargs="+", default=[30, 100, 300])
    parser.add_argument("--n", type=int, default=8000)
    arguments = parser.parse_args()
    file = RESULTS / "algorithm1.json"

    def store(**new: object) -> None:
        old = json.loads(file.read_text()) if file.exists() else {}
        write_results("algorithm1", old | new | {"machine": machine()})

    stored = json.loads(file.read_text()) if file.exists() else {}
    for part in arguments.parts:
        if part in ("geometry", "candidates"):
            store(**{part: {"geometry": geometry, "candidates": candidates}[part]()})
        elif part == "grid":
            for rows in grid(arguments.snr, arguments.components, arguments.n, stored.get("grid", [])):
                store(grid=rows)
        elif part == "fine":
            settings = [
                Setting(*of) for of in product(arguments.snr, arguments.components, ["EM"], [0.07], FINE_FLOORS)
            ]
            chosen = {key: list(product(FINE_OMEGAS, FINE_CONCENTRATIONS)) for key in settings}
            for rows in repeated(chosen, range(5), stored.get("fine", []), reference=False):
                store(fine=rows)
        elif part == "confirm":
            chosen = {s: c for s, c in CONFIRM.items() if s.snr in arguments.snr}
            for rows in repeated(chosen, range(10, 15), stored.get("confirm", []), reference=True):
                store(confirm=rows, confirmed=confirmed(rows))
        else:
            draw(json.loads(file.read_text()))


if __name__ == "__main__":
    main()
