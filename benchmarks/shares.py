"""Coverage of the 90 % intervals of route shares: python benchmarks/shares.py [--runs N].

Two routes lead from one state to another, each through one other state. Latents are simulated with known populations of
the passages, in two live dimensions, with broad and narrow states, and dead directions in addition. The mixture, the
states and the routes are fitted to them. Printed are the coverage of the first route's interval, its mean share and the
true one. The result is stored in benchmarks/results/shares.json.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from common import machine, write_results
from tqdm.auto import tqdm

import cryotwin_nb as ct

CORNERS = np.array([[0.0, 0.0], [5.0, 3.0], [5.0, -3.0], [10.0, 0.0]])
PASSAGES = ((0, 1), (1, 3), (0, 2), (2, 3))


def simulated(seed: int, n: int = 4000, share: float = 0.69, dead: int = 2) -> torch.Tensor:
    """Return latents (n, 2 + dead): 60 % in the four states, the others evenly along the four passages."""
    rng = np.random.default_rng(seed)
    of_passages = 0.2 * np.array([share, share, 1 - share, 1 - share])
    place = rng.choice(8, n, p=np.concatenate([[0.2, 0.15, 0.1, 0.15], of_passages]))
    spread = np.array([0.5, 0.4, 0.35, 0.4])
    z = np.empty((n, 2 + dead))
    for state in range(4):
        rows = place == state
        z[rows, :2] = CORNERS[state] + spread[state] * rng.normal(size=(rows.sum(), 2))
    for number, (i, j) in enumerate(PASSAGES):
        rows = place == 4 + number
        along = rng.random((rows.sum(), 1))
        z[rows, :2] = CORNERS[i] + along * (CORNERS[j] - CORNERS[i]) + 0.4 * rng.normal(size=(rows.sum(), 2))
    z[:, 2:] = 0.02 * np.sin(z[:, :1] + np.arange(dead)) + 0.005 * rng.normal(size=(n, dead))
    return torch.from_numpy(z)


def coverage(n_runs: int, n_draws: int = 100, share: float = 0.69) -> dict:
    """Return how often the interval of the upper route's share contains the true share."""
    held, shares, widths = [], [], []
    for seed in tqdm(range(n_runs), desc="shares"):
        z = simulated(seed, share=share)
        prior = ct.GaussianMixture.fit(z, 20, seed=seed, n_init=4)
        states = ct.find_states(prior, latents=z, least_mass=0.02)
        ends = (torch.cdist(torch.stack([s.latent[:2] for s in states]), torch.from_numpy(CORNERS[[0, 3]]))).argmin(0)
        routes = ct.find_routes(
            prior, *(states[i] for i in ends), evidence=z, states=states, n_draws=n_draws, seed=seed
        )
        upper = next(r for r in routes if float(r.curve[:, 1].max()) > 1.5)
        low, high = upper.share_interval
        held.append(low <= share <= high)
        shares.append(upper.share)
        widths.append(high - low)
    return {
        "runs": n_runs,
        "true share": share,
        "coverage of the 90 % interval": float(np.mean(held)),
        "mean and standard deviation of the share": [float(np.mean(shares)), float(np.std(shares))],
        "mean width of the interval": float(np.mean(widths)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=60)
    measured = coverage(parser.parse_args().runs)
    print(json.dumps(measured, indent=1))
    write_results("shares", measured | {"machine": machine()})
