"""Paths and routes compared with the truth and with other methods: python benchmarks/pathways.py PART ... .

The parts, each stored in benchmarks/results/pathways.json:

routes    all routes from B to E5 on five seeds of `assembly` and `assembly-small`, from samples of the prior and from
          the latents, for the latter also from the images; the L of `hinge-small`
pairs     max_flux, Algorithm 1 with five seeds, the straight line and a graph of nearest latents (as in cryoDRGN's
          graph traversal) between the 20 heaviest means of `assembly-small`
speed     one path, all routes and 100 draws of the bootstrap with C = 100 and d = 8
coverage  how often the bootstrap interval of the barrier contains the true one for a known density; and the effect of
          image noise on the barrier, with and without deconvolution

The models are those of `seeds.py`, in the folder given by --folder; missing ones are trained.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, machine, write_results
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from seeds import trained
from torch import Tensor
from tqdm.auto import tqdm

import cryotwin_nb as ct
from cryotwin_nb import evaluation, pathways
from cryotwin_nb.pathways.ridgeline import Pathway, pathway_from_knots
from cryotwin_nb.truth.molecules import ROUTES, STATES

SEEDS = range(5)


def routes(folder: Path) -> dict:
    """Return scores of the routes from B to E5 and of the path along the L of the hinge."""
    found: dict = {}
    for name in ("assembly-small", "assembly"):
        for seed in SEEDS:
            of_images = name == "assembly-small"
            model, particles = trained(name, seed, folder, of_images)
            z, truth = latents(model, particles, folder / f"{name}-{seed}-latents.pt"), particles.require_truth()
            ends = [evaluation.component_of_state(model.prior, z, truth.labels, state) for state in ("B", "E5")]
            evidence = {"samples": None, "latents": z} | ({"images": model.likelihood(particles)} if of_images else {})
            for kind, particle in evidence.items():
                paths = ct.find_routes(model.prior, *ends, evidence=particle)
                scores = evaluation.route_scores(paths, model.volumes, truth)
                row = scores._asdict() | {
                    "shares": [p.share for p in paths],
                    "orders": [evaluation.path_block_order(model.volumes, p.latents, truth) for p in paths],
                }
                found.setdefault(name, {}).setdefault(kind, {})[str(seed)] = row
                print(name, seed, kind, json.dumps(row), flush=True)
    found["hinge-small"] = {str(seed): _hinge(folder, seed) for seed in SEEDS}
    return found


def _hinge(folder: Path, seed: int) -> dict:
    """Return mean distances to the true L of MaxFlux, the straight line between its ends, and Algorithm 1."""
    model, particles = trained("hinge-small", seed, folder, images=False)
    z, truth = latents(model, particles, folder / f"hinge-small-{seed}-latents.pt"), particles.require_truth()
    along = np.linspace(0, 2, 81)
    true = evaluation.latents_at(z, truth, np.stack([along.clip(0, 1), (along - 1).clip(0, 1)], axis=1))
    ends = [evaluation.component_of_state(model.prior, z, truth.labels, state) for state in ("start", "end")]
    paths = {
        "MaxFlux": ct.max_flux(model.prior, true[0], true[-1]),
        "MaxFlux, deconvolved": ct.max_flux(model.deconvolved_prior, true[0], true[-1]),
        "straight line": pathway_from_knots(model.prior, true[[0, -1]]),
        "Algorithm 1": ct.ridgeline(model.prior, *ends),
    }
    distances = {name: evaluation.curve_distance(path.curve, true).mean for name, path in paths.items()}
    print("hinge-small", seed, distances, flush=True)
    return distances


def latents(model: ct.CryoTwin, particles: ct.Particles, stored: Path) -> Tensor:
    return torch.load(stored) if stored.exists() else model.embed(particles)


def pairs(folder: Path, every: int = 1) -> dict:
    """Return J, barrier and seconds of four methods for all pairs of the 20 heaviest means; for B to E5, distances."""
    model, particles = trained("assembly-small", 0, folder, images=False)
    z, truth = latents(model, particles, folder / "assembly-small-0-latents.pt"), particles.require_truth()
    prior = model.prior
    started = time.perf_counter()
    landscape = pathways.Landscape.of(prior)
    preparing = time.perf_counter() - started
    graph = _nearest_latents(z)
    methods: dict[str, Callable[[int, int], Pathway]] = {
        "MaxFlux": lambda i, j: ct.max_flux(prior, i, j, landscape=landscape),
        **{f"Algorithm 1, seed {s}": lambda i, j, s=s: ct.ridgeline(prior, i, j, seed=s) for s in SEEDS},
        "straight line": lambda i, j: pathway_from_knots(prior, prior.means[[i, j]]),
        "graph of latents": lambda i, j: _through(prior, z, graph, i, j),
    }
    heaviest = prior.weights.argsort(descending=True)[:20].tolist()
    values: dict[str, list] = {name: [] for name in methods}
    for i, j in tqdm(list(combinations(heaviest, 2))[::every], desc="pairs"):
        for name, method in methods.items():
            started = time.perf_counter()
            path = method(i, j)
            values[name].append((path.log_cost, path.barrier, time.perf_counter() - started))
    table = {name: np.array(v) for name, v in values.items()}
    best = np.min([v[:, 0] for name, v in table.items() if name != "MaxFlux"], axis=0)
    ends = [evaluation.component_of_state(prior, z, truth.labels, state) for state in ("B", "E5")]
    true = [evaluation.latents_at(z, truth, np.array([STATES[s] for s in route])) for route in ROUTES]
    return {
        "pairs": len(best),
        "pairs where MaxFlux has the least J": int((table["MaxFlux"][:, 0] <= best + 1e-9).sum()),
        "median of log J, of the barrier (nats), of the seconds": {
            name: np.median(v, axis=0).round(3).tolist() for name, v in table.items()
        },
        "seconds of the landscape, once for all pairs": preparing,
        "B to E5: mean distance to the nearest planted route, latent units": {
            name: min(evaluation.curve_distance(method(*ends).curve, curve).mean for curve in true)
            for name, method in methods.items()
        },
    }


def _nearest_latents(z: Tensor, most: int = 10, on_average: int = 5) -> csr_matrix:
    """Return the graph of nearest latents: at most `most` neighbours each and `on_average` in the mean."""
    distance, index = cKDTree(z.numpy()).query(z.numpy(), k=most + 1)
    rows, columns, lengths = np.repeat(np.arange(len(z)), most), index[:, 1:].ravel(), distance[:, 1:].ravel()
    kept = lengths <= np.sort(lengths)[min(on_average * len(z), len(lengths)) - 1]
    return csr_matrix((lengths[kept].clip(1e-9), (rows[kept], columns[kept])), shape=(len(z),) * 2)


def _through(prior: ct.GaussianMixture, z: Tensor, graph: csr_matrix, i: int, j: int) -> Pathway:
    """Return the shortest path in the graph between the latents nearest to two means; a straight line if none."""
    first, last = torch.cdist(prior.means[[i, j]].float(), z).argmin(1).tolist()
    before = dijkstra(graph, directed=False, indices=first, return_predecessors=True)[1]
    way = [last]
    while way[-1] != first and before[way[-1]] >= 0:
        way.append(int(before[way[-1]]))
    inner = z[way[::-1]].double() if way[-1] == first else z[:0].double()
    knots = torch.cat([prior.means[[i]], inner, prior.means[[j]]])
    return pathway_from_knots(prior, knots[torch.cat([torch.tensor([1.0]), knots.diff(dim=0).norm(dim=1)]) > 0])


def speed(folder: Path) -> dict:
    """Return run times in seconds with C = 100 and d = 8."""
    model, particles = trained("assembly", 0, folder, images=False)
    z, truth = latents(model, particles, folder / "assembly-0-latents.pt"), particles.require_truth()
    prior = ct.GaussianMixture.fit(z, 100, select=False, n_init=2)
    ends = [evaluation.component_of_state(prior, z, truth.labels, state) for state in ("B", "E5")]
    made: dict = {}
    work: dict[str, Callable[[], object]] = {
        "one path": lambda: ct.max_flux(prior, *ends),
        "all routes, samples of the prior": lambda: ct.find_routes(prior, *ends),
        "all routes with 100 draws, latents": lambda: ct.find_routes(prior, *ends, evidence=z, n_draws=100),
        "100 draws of the path": lambda: ct.bootstrap_path(prior, z, made["one path"], 100),
    }
    seconds = {}
    for name, make in work.items():
        clock = []
        for _ in range(5 if name == "one path" else 1):
            started = time.perf_counter()
            made[name] = make()
            clock.append(time.perf_counter() - started)
        seconds[name] = float(np.median(clock))
        print(name, round(seconds[name], 1), flush=True)
    return {"components": prior.n_components, "latents": len(z), "seconds": seconds}


def coverage(folder: Path, n_runs: int = 200) -> dict:
    """Return the coverage of the 90 % interval of the barrier for a known mixture, and the bias due to image noise."""
    known = ct.GaussianMixture(
        [0.3, 0.15, 0.25, 0.3],
        torch.tensor([[0.0, 0.0, 0.0], [3.7, 0.4, 0.0], [6.0, 3.4, 0.3], [6.2, 7.3, 0.0]]),
        torch.diag_embed(torch.tensor([[0.8, 0.6, 0.5], [1.0, 0.5, 0.5], [0.6, 0.9, 0.5], [0.7, 0.7, 0.5]])),
    )
    ends = known.means[[0, 3]]
    true = ct.max_flux(known, *ends)
    held, estimates = {"barrier": 0, "log_cost": 0}, []
    for run in tqdm(range(n_runs), desc="coverage"):
        z = known.sample(4000, seed=run)
        prior = ct.GaussianMixture.fit(z, 4, select=False, strength=0.1, seed=run, n_init=2)
        landscape = pathways.Landscape.of(prior)
        path = ct.max_flux(prior, *ends, landscape=landscape)
        confidence = ct.bootstrap_path(prior, z, path, 100, seed=run, landscape=landscape)
        estimates.append(path.barrier)
        for name in held:
            low, high = confidence.interval(name)
            held[name] += low <= getattr(true, name) <= high
    return {
        "runs": n_runs,
        "true barrier": true.barrier,
        "mean and standard deviation of the estimates": [float(np.mean(estimates)), float(np.std(estimates))],
        "share of the runs whose 90 % interval holds the truth": {name: n / n_runs for name, n in held.items()},
        "barrier along the L of hinge-small, nats": [_noise(folder, seed) for seed in SEEDS],
    }


def _noise(folder: Path, seed: int) -> dict:
    """Return barriers between the ends of the hinge's L for the noise-free, latent and deconvolved densities."""
    model, particles = trained("hinge-small", seed, folder)
    z, truth = latents(model, particles, folder / f"hinge-small-{seed}-latents.pt"), particles.require_truth()
    exact = evaluation.latents_at(z, truth, truth.coordinates)
    ends = evaluation.latents_at(z, truth, np.array([[0.0, 0.0], [1.0, 1.0]]))
    densities = {
        "structures": ct.GaussianMixture.fit(exact, 30),
        "latents": model.prior,
        "deconvolved": model.deconvolved_prior,
    }
    return {name: ct.max_flux(density, *ends).barrier for name, density in densities.items()}


PARTS = {part.__name__: part for part in (routes, pairs, speed, coverage)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--folder", type=Path, default=Path("results/seeds"))
    parser.add_argument("--every", type=int, default=1, help="use only every n-th pair")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.parts or PARTS:
        options = {"every": arguments.every} if name == "pairs" else {}
        measured = PARTS[name](arguments.folder, **options)
        stored = RESULTS / "pathways.json"
        results = json.loads(stored.read_text()) if stored.exists() else {}
        write_results("pathways", results | {name: measured | {"machine": machine()}})
        print(name, json.dumps(measured, indent=1))
