"""Routes through images whose contrast varies: python benchmarks/contrast_routes.py [--seeds 3] [--spreads .1 .3].

Images of `assembly` (n = 8,000, 32 px) with contrasts of several spreads are fitted at the defaults. Printed: the
routes from B to E5 with their shares, how many of the four planted routes are found, and how many are false; and the
mean density of the core, which never changes, at each step of each route, relative to that of the model without
variation at the same structure.

Writes benchmarks/results/contrast_routes.json.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from common import machine, write_results
from contrasts import simulated
from scipy.spatial import cKDTree

import cryotwin_nb as ct
from cryotwin_nb import evaluation
from cryotwin_nb.truth.molecules import assembly_molecule

N, SIZE = 8000, 32
APART = 14.0  # Å from the nearest pseudo-atom that comes and goes


def core(truth: ct.Truth) -> np.ndarray:
    """Return the voxels (D, D, D) of the core that no other block reaches."""
    molecule = assembly_molecule()
    positions, blocks = molecule["positions"].numpy(), molecule["blocks"].numpy()
    grid = (np.indices((SIZE,) * 3) - SIZE // 2).reshape(3, -1)[::-1].T * truth.pixel_size
    near = cKDTree(positions[blocks == 0]).query(grid)[0] < truth.pixel_size
    away = cKDTree(positions[blocks != 0]).query(grid)[0] > APART
    return (near & away).reshape((SIZE,) * 3)


def fitted(spread: float, seed: int) -> tuple[ct.CryoTwin, ct.Particles, list[ct.Route]]:
    particles, _ = simulated("assembly", N, SIZE, spread, seed)
    model = ct.CryoTwin(SIZE)
    ct.fit(model, particles, ct.TrainingConfig(device="cpu", seed=seed), progress=False)
    z, truth = model.embed(particles), particles.require_truth()
    ends = [evaluation.component_of_state(model.prior, z, truth.labels, state) for state in ("B", "E5")]
    states = ct.find_states(model.prior, latents=z)
    return model, particles, ct.find_routes(model.prior, *ends, states=states, evidence=model.likelihood(particles))


def density_of_core(model: ct.CryoTwin, latents: torch.Tensor, mask: np.ndarray) -> np.ndarray:
    return np.array([v[mask].mean() for v in model.volumes(latents).numpy()])


def run(seed: int, spreads: list[float]) -> list[dict[str, Any]]:
    even, particles, _ = fitted(0.0, seed)
    truth = particles.require_truth()
    mask = core(truth)
    typical = density_of_core(even, even.embed(particles)[:300], mask).mean()
    rows = []
    for spread in spreads:
        model, particles, routes = fitted(spread, seed)
        scores = evaluation.route_scores(routes, model.volumes, particles.require_truth())
        values = density_of_core(model, torch.cat([route.latents for route in routes]), mask) / typical
        row = {
            "spread": spread,
            "seed": seed,
            "spread found": float(model.networks.contrast_spread),
            "shares": [route.share for route in routes],
            "core": [float(values.min()), float(values.max())],
        } | scores._asdict()
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--spreads", type=float, nargs="+", default=[0.1, 0.3])
    arguments = parser.parse_args()
    rows = [row for seed in range(arguments.seeds) for row in run(seed, arguments.spreads)]
    write_results("contrast_routes", {"machine": machine(), "n": N, "box_size": SIZE, "rows": rows})


if __name__ == "__main__":
    main()
