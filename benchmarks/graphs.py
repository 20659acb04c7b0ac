"""Does `max_flux` take the planted way through random graphs of states? python benchmarks/graphs.py [--graphs N].

A graph has four states, two of them ends, in two or three live dimensions, and up to five dead directions whose
standard deviation is at most .01 to .07 (a state: 0.5). In the first case, at least 500 images lie on the direct edge
between the ends, and its resistance (length^2 / population) is at most half of that of the detour through the other two
states; in the second case, the detour is planted like this. The prior is fitted to the latents. Printed are how often
`max_flux` with these latents as evidence takes the planted way, how often it agrees with the first route of
`find_routes`, and how often `max_flux` without evidence takes the planted way. The result is stored in
benchmarks/results/graphs.json.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from common import machine, write_results
from tqdm.auto import tqdm

import cryotwin_nb as ct
from cryotwin_nb.pathways.network import distance

SPREAD = 0.5


def graph(seed: int, reverse: bool) -> tuple[torch.Tensor, np.ndarray]:
    """Return latents (n, d) and the states (4, d), of which the first and the last are the ends."""
    rng = np.random.default_rng(seed)
    live, dead = int(rng.integers(2, 4)), int(rng.integers(0, 6))
    states = np.zeros((4, live + dead))
    length, height = rng.uniform(7, 10), rng.uniform(3, 5)
    states[1:, 0] = length * np.array([rng.uniform(0.2, 0.35), rng.uniform(0.65, 0.8), 1.0])
    states[1:3, 1] = height + rng.uniform(-0.5, 0.5, 2)
    states[1:3, 2:live] = rng.uniform(-2, 2, (2, live - 2))
    detour = [(0, 1), (1, 2), (2, 3)]
    squares = np.array([np.sum((states[j] - states[i]) ** 2) for i, j in detour])
    direct, weak = int(rng.integers(500, 900)), float(rng.uniform(0.3, 0.5))
    if reverse:  # the populations of the detour that make its resistance `weak` times that of the direct edge
        direct = int(rng.integers(100, 200))
        counts = 3 * squares / (weak * length**2 / direct)
    else:
        counts = 3 * squares / (length**2 / direct / weak)
    edges = [((0, 3), direct), *zip(detour, np.ceil(counts).astype(int).tolist(), strict=True)]
    parts = [states[i] + SPREAD * rng.normal(size=(rng.integers(1500, 2500), live + dead)) for i in range(4)]
    for (i, j), count in edges:
        along = rng.random((count, 1))
        parts.append(states[i] + along * (states[j] - states[i]) + SPREAD * rng.normal(size=(count, live + dead)))
    z = np.concatenate(parts)
    for axis in range(live, live + dead):  # smooth functions of the live axes, sharper in the states than between them
        size = rng.uniform(0.01, 0.07)
        z[:, axis] = size * (np.sin(z[:, axis % live] / 2 + axis) + 0.1 * rng.normal(size=len(z)))
    turn = np.linalg.qr(rng.normal(size=(live + dead, live + dead)))[0]
    return torch.from_numpy(z @ turn), states @ turn


def takes(path: ct.Pathway, states: torch.Tensor, reverse: bool) -> bool:
    """Return whether a path is nearer to the planted way than to the other one."""
    direct, detour = distance(path.curve, states[[0, 3]]), distance(path.curve, states)
    return (detour < direct) == reverse


def measured(n_graphs: int) -> dict:
    """Return the numbers of graphs in which the planted way is taken."""
    found: dict = {}
    for reverse in (False, True):
        counts = {"max_flux with evidence": 0, "same as the first route": 0, "max_flux without evidence": 0}
        for seed in tqdm(range(n_graphs), desc="detour" if reverse else "direct"):
            z, true = graph(seed, reverse)
            prior, states = ct.GaussianMixture.fit(z, 40, seed=seed, n_init=4), torch.from_numpy(true)
            path = ct.max_flux(prior, states[0], states[3], evidence=z)
            first = ct.find_routes(prior, states[0], states[3], evidence=z)[0]
            counts["max_flux with evidence"] += takes(path, states, reverse)
            counts["same as the first route"] += distance(path.curve, first.curve) < 1e-3
            alone = ct.max_flux(prior, states[0], states[3])
            counts["max_flux without evidence"] += takes(alone, states, reverse)
        found["detour planted" if reverse else "direct edge planted"] = counts
    return found | {"graphs of each kind": n_graphs}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=20)
    result = measured(parser.parse_args().graphs)
    print(json.dumps(result, indent=1))
    write_results("graphs", result | {"machine": machine()})
