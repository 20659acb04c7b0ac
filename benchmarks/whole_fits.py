"""Coverage of 90 % intervals after whole fits: python benchmarks/whole_fits.py [--runs 20] [--first 0] [--n 4000].

For each run, images of `assembly` are simulated and fitted at the defaults. The routes from B to E5, and the barrier of
each, are measured from the likelihood of the images. For the same path and the same states they are then measured from
16,000 other particles: their true coefficients, which are linear in the true coordinates, with the noise that images
have. The intervals of the first that contain the second are counted; the noise of the second is half as large.

Writes benchmarks/results/whole_fits.json.
"""

from __future__ import annotations

import argparse
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from common import machine, write_results
from tqdm.auto import tqdm

import cryotwin_nb as ct
from cryotwin_nb.evaluation.truth_scores import component_of_state
from cryotwin_nb.models.likelihood import ImageLikelihood
from cryotwin_nb.models.records import Records, unpack
from cryotwin_nb.particles.streaming import batches
from cryotwin_nb.pathways.network import distance
from cryotwin_nb.truth.truth import Truth

MANY = 16_000
LEAST_MASS = 0.02  # of a state; the same routes are found with more images if small states are left out
SAME = 0.02  # distance of the curves of one route, relative to its length; other routes are at 4 % or more


def likelihood_of_truth(model: ct.CryoTwin, particles: ct.Particles, truth: Truth, seed: int) -> ImageLikelihood:
    """Return the likelihood of images of other particles, with errors like those of the images of `particles`."""
    rows = np.random.default_rng(0).choice(len(truth), 40, replace=False)
    maps = torch.stack([truth.volume_at(truth.coordinates[row]) for row in rows]).flatten(1).double()
    networks = model.networks
    flat, average = networks.basis.flatten(1).double(), networks.mean.flatten().double()
    with_one = np.column_stack([np.ones(len(rows)), truth.coordinates[rows]])
    linear = np.linalg.lstsq(with_one, ((maps - average) @ flat.T).numpy(), rcond=None)[0]
    true = torch.as_tensor(np.column_stack([np.ones(len(truth)), truth.coordinates]) @ linear)
    records = Records(
        *map(torch.cat, zip(*[networks.prepare(b) for b in batches(model.imaging, particles, 256, None)], strict=True))
    )
    generator = torch.Generator().manual_seed(seed)
    own = torch.randint(len(particles), (len(truth),), generator=generator)
    G = unpack(records.precision)[own].double()
    noise = torch.randn(*true.shape, 1, dtype=torch.float64, generator=generator)
    b = (G @ true[..., None] + torch.linalg.cholesky(G) @ noise)[..., 0]
    simulated = records.take(own)._replace(b=b.float(), expected=torch.linalg.solve(G, b).float())
    return ImageLikelihood.of(networks, [simulated], np.arange(len(truth)))


def run(seed: int, n: int, n_draws: int = 100) -> list[dict[str, Any]]:
    """Return the measured and the true share and barrier of each route."""
    particles = ct.simulate.assembly(n, 32, seed=seed, snr=1.0, progress=False)
    model = ct.CryoTwin(32, n_components=60)
    ct.fit(model, particles, ct.TrainingConfig(device="cpu", seed=seed), progress=False)
    z, likelihood = model.embed(particles), model.likelihood(particles)
    truth = particles.require_truth()
    ends = [component_of_state(model.prior, z, truth.labels, state) for state in ("B", "E5")]
    states = ct.find_states(model.prior, least_mass=LEAST_MASS, latents=z)
    options = {"states": states, "evidence": likelihood}
    routes = ct.find_routes(model.prior, *ends, n_draws=n_draws, **options)
    many = ct.simulate.assembly(MANY, 32, seed=seed + 10_000, images=False, progress=False).require_truth()
    exact = likelihood_of_truth(model, particles, many, seed)
    expected = ct.find_routes(model.prior, *ends, n_draws=0, **(options | {"evidence": exact}))
    rows = []
    for route in routes:
        row: dict[str, Any] = {"share": route.share, "share interval": route.share_interval}
        apart, same = min(((distance(route.curve, other.curve), other) for other in expected), key=itemgetter(0))
        length = float(route.curve.diff(dim=0).norm(dim=1).sum())
        row["true share"] = same.share if apart < SAME * length else 0.0
        measured = ct.measure_barrier(route, likelihood, n_draws=n_draws)
        known = ct.measure_barrier(route, exact, n_draws=1)
        row |= {"barrier": measured.value, "barrier interval": measured.interval, "true barrier": known.value}
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    parser.add_argument("--n", type=int, default=4000, help="images of each run")
    args = parser.parse_args()
    found: list[dict[str, Any]] = []
    for seed in tqdm(range(args.first, args.first + args.runs)):
        for row in run(seed, args.n):
            found.append(row | {"seed": seed})
            tqdm.write(str(found[-1]))
    results: dict[str, Any] = {"machine": machine(), "runs": args.runs, "first seed": args.first, "n": args.n}
    for name in ("share", "barrier"):
        rows = [row for row in found if np.isfinite(row[f"true {name}"]) and np.isfinite(row[name])]
        inside = [row[f"{name} interval"][0] <= row[f"true {name}"] <= row[f"{name} interval"][1] for row in rows]
        away = [row[name] - row[f"true {name}"] for row in rows]
        results[name] = {
            "intervals": len(rows),
            "contain the true value": float(np.mean(inside)),
            "mean error": float(np.mean(away)),
            "rms error": float(np.sqrt(np.mean(np.square(away)))),
        }
    print(results)
    write_results("whole_fits", results | {"routes": found})


if __name__ == "__main__":
    main()
