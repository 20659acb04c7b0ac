"""Contrasts and dimensions that the images choose: python benchmarks/contrasts.py [--sizes N ...] [--dimensions D ...].

Simulated sets with contrasts of several spreads are fitted at the defaults, and with other numbers of dimensions, such
as eight, so that there are more directions than motions. Printed: the spread found; linear and nearest-neighbour R^2 of
the true contrast from the latents; R^2 of the true coordinates; FSC with the truth; the number of dimensions; how many
true contrasts lie within the 68 % intervals; the error of the contrasts, and what it is for known structures (the
Cramer-Rao bound with the prior).

Writes benchmarks/results/contrasts.json.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from typing import Any
from unittest import mock

import numpy as np
import torch
from common import RESULTS, machine, write_results
from sklearn.neighbors import KNeighborsRegressor

import cryotwin_nb as ct
from cryotwin_nb.evaluation import coordinate_r2
from cryotwin_nb.evaluation.truth_scores import fsc_of_images
from cryotwin_nb.particles.streaming import batches
from cryotwin_nb.reconstruction.backprojection import MARGIN
from cryotwin_nb.simulate import images as simulation

SPREADS = (0.0, 0.1, 0.173, 0.2, 0.25)


def simulated(kind: str, n: int, size: int, spread: float, seed: int) -> tuple[ct.Particles, np.ndarray]:
    """Return particles and the true contrast of each image."""
    seen: list[np.ndarray] = []
    make = simulation._stack

    def stack(*arguments: Any) -> np.ndarray:
        seen.append(arguments[5].copy())
        return make(*arguments)

    with mock.patch.object(simulation, "_stack", stack):
        snr = 1.0 if size == 32 else 0.25
        particles = getattr(ct.simulate, kind)(n, size, seed=seed, snr=snr, contrast_std=spread, progress=False)
    return particles, seen[0]


def linear_r2(z: np.ndarray, target: np.ndarray) -> float:
    columns = np.column_stack([np.ones(len(z)), z])
    rest = target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
    return float(1 - rest.var() / target.var())


def near_r2(z: np.ndarray, target: np.ndarray) -> float:
    half = len(z) // 2
    found = KNeighborsRegressor(10).fit(z[:half], target[:half]).predict(z[half:])
    return float(1 - ((target[half:] - found) ** 2).mean() / target[half:].var())


def least_error(model: ct.CryoTwin, particles: ct.Particles, spread: float) -> float:
    """Return the rms error of the contrasts if the structures were known: of the latents' own maps."""
    networks, errors = model.networks, []
    ball = networks.eigenvolumes.ball(model.imaging.plane.box_size / 2 + MARGIN)
    lattice = networks.eigenvolumes.lattice(ball)
    for batch in batches(model.imaging, particles, 256, None):
        full = networks.eigenvolumes.project(ball, lattice, batch, model.imaging).statistics()
        c = networks.prepare(batch).expected
        tilde = torch.cat([torch.ones_like(c[:, :1]), c], dim=1)
        information = (tilde[:, None] @ full.G @ tilde[..., None])[:, 0, 0].double() + spread**-2
        errors.append(1 / information)
    return float(torch.cat(errors).mean().sqrt())


def row(
    kind: str, n: int, size: int, spread: float, seed: int, epochs: int | None = None, **options: Any
) -> dict[str, float]:
    particles, contrast = simulated(kind, n, size, spread, seed)
    model, started = ct.CryoTwin(size, n_components=60, **options), time.perf_counter()
    ct.fit(model, particles, ct.TrainingConfig(device="cpu", seed=seed, epochs=epochs), progress=False)
    seconds, latents = time.perf_counter() - started, model.embed(particles)
    z, found = latents.numpy(), model.contrasts(particles)
    r2 = coordinate_r2(latents, particles.truth)
    result = {
        "spread found": float(model.networks.contrast_spread),
        "dimensions": model.latent_dim,
        "live directions": model.spectrum.n_live,
        "components": model.prior.n_components,
        "least R2 of a coordinate": min(r2.values()),
        "mean R2 of the coordinates": float(np.mean(list(r2.values()))),
        "FSC": float(fsc_of_images(model.volumes, latents, particles.truth).mean()),
        "seconds": round(seconds, 1),
    }
    if spread:
        away, error = np.abs(found.contrast.numpy() - contrast), found.error.numpy()
        order = error.argsort()
        quarters = {"smallest errors": order[: n // 4], "largest errors": order[-(n // 4) :], "all": order}
        result |= {"linear R2 of the contrast": linear_r2(z, contrast), "near R2 of the contrast": near_r2(z, contrast)}
        result |= {f"within 68 %, {name}": float((away < error)[rows].mean()) for name, rows in quarters.items()}
        result |= {"rms error": float(np.sqrt((away**2).mean())), "least": least_error(model, particles, spread)}
    else:
        mass = particles.truth.coordinates.sum(1)
        varies = found.contrast.numpy().std() > 0
        result["correlation with the mass"] = float(np.corrcoef(found.contrast.numpy(), mass)[0, 1]) if varies else 0.0
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="seeds of images and training")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32], help="box sizes")
    parser.add_argument("--n", type=int, default=8000, help="images of each set")
    parser.add_argument("--dimensions", nargs="+", default=["auto", "8"], help="latent dimensions")
    parser.add_argument(
        "--epochs", type=int, help="the contrasts are found before training: 1 is enough for the spread"
    )
    parser.add_argument(
        "--spreads", type=float, nargs="+", default=SPREADS, help="standard deviations of the contrasts"
    )
    args = parser.parse_args()
    stored = RESULTS / "contrasts.json"
    found: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    found["machine"] = machine()
    for size, kind, dimension, spread in product(args.sizes, ("assembly", "hinge"), args.dimensions, args.spreads):
        options = {} if dimension == "auto" else {"latent_dim": int(dimension)}
        rows = [row(kind, args.n, size, spread, seed, args.epochs, **options) for seed in range(args.seeds)]
        name = f"{kind}, {size} px, d = {dimension}, spread {spread}" + f", {args.epochs} epochs" * bool(args.epochs)
        medians = {key: round(float(np.median([r[key] for r in rows])), 4) for key in rows[0]}
        found[name] = {"n": args.n, "seeds": args.seeds} | medians
        print(name, found[name], flush=True)
        write_results("contrasts", found)


if __name__ == "__main__":
    main()
