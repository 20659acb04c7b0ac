"""Components and states without a particle: python benchmarks/empty_states.py [--fits 100] [--refits 4].

Mixtures of up to 100 components are fitted to latents in 1 to 12 dimensions, drawn from 1 to 20 clusters, of which some
are flat in several directions. Models of `assembly` (n = 3,000, 13 true states) are then trained with 30, 60 and 100
components. Counted are components and states to which no particle belongs; of the latter models also all states.

Writes benchmarks/results/empty_states.json.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from common import machine, write_results
from torch import Tensor
from tqdm.auto import tqdm

import cryotwin_nb as ct
from cryotwin_nb.pathways.states import assign

COMPONENTS = (30, 60, 100)


def drawn(seed: int) -> tuple[Tensor, int]:
    """Return latents (n, d), and a number of components to fit to them."""
    rng = np.random.default_rng(seed)
    d, n, clusters = 1 + seed % 12, int(rng.integers(500, 8001)), int(rng.integers(1, 21))
    spread = rng.uniform(0.2, 1.0, (clusters, d)) * np.where(np.arange(d) < rng.integers(1, d + 1), 1, 0.02)
    centres = rng.normal(0, 4, (clusters, d)) * (spread > 0.1)
    own = rng.choice(clusters, n, p=rng.dirichlet(np.ones(clusters)))
    return torch.as_tensor(centres[own] + spread[own] * rng.normal(size=(n, d))), int(rng.integers(1, 101))


def empty(prior: ct.GaussianMixture, latents: Tensor) -> dict[str, int]:
    """Return the numbers of components, of states, and of those to which no latent (n, d) belongs."""
    states = ct.find_states(prior, latents=latents)
    of_components = np.bincount(prior.responsibilities(latents).argmax(1), minlength=prior.n_components)
    expected = prior.responsibilities(latents).sum(0)
    of_states = np.bincount(assign(prior, states, latents), minlength=len(states))
    return {
        "components": prior.n_components,
        "components without a particle": int((expected < 0.5).sum()),
        "components that no particle prefers": int((of_components == 0).sum()),
        "states": len(states),
        "states without a particle": int((of_states == 0).sum()),
    }


def fitted(seed: int) -> dict[str, int]:
    latents, n_components = drawn(seed)
    found = empty(ct.GaussianMixture.fit(latents, n_components, seed=seed), latents)
    return {"d": latents.shape[1], "n": len(latents), "asked for": n_components} | found


def refitted(seed: int, n_components: int) -> dict[str, int]:
    particles = ct.simulate.assembly(3000, 32, seed=seed, snr=1.0, progress=False)
    model = ct.CryoTwin(32, n_components=n_components)
    ct.fit(model, particles, ct.TrainingConfig(device="cpu", seed=seed), progress=False)
    return {"seed": seed, "asked for": n_components} | empty(model.prior, model.embed(particles))


def totals(rows: list[dict[str, int]]) -> dict[str, Any]:
    sums = {key: sum(row[key] for row in rows) for key in rows[0] if "without" in key or "no particle" in key}
    return {"fits": len(rows)} | sums | {"states, range": [f([row["states"] for row in rows]) for f in (min, max)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=100, help="mixtures fitted to latents")
    parser.add_argument("--refits", type=int, default=4, help="sets of images; each is fitted with 30, 60 and 100")
    arguments = parser.parse_args()
    mixtures = [fitted(seed) for seed in tqdm(range(arguments.fits))]
    models = [refitted(seed, n) for seed in tqdm(range(arguments.refits)) for n in COMPONENTS]
    found = {name: totals(rows) | {"rows": rows} for name, rows in (("mixtures", mixtures), ("models", models)) if rows}
    for name, row in found.items():
        print(name, {key: value for key, value in row.items() if key != "rows"})
    write_results("empty_states", {"machine": machine()} | found)


if __name__ == "__main__":
    main()
