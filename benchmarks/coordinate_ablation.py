"""Variations of the coordinate architecture, compared on assembly-small within a budget of CPU time.

    python benchmarks/coordinate_ablation.py [--only NAME ...] [--seconds 1500] [--epochs N] [--seeds 0 1] [--pairs 200]

The budget is process time, so that other jobs on the machine matter less: the seconds per step of each variation are
measured on a few steps at full resolution, and the number of epochs follows. Each result is stored with its budget in
benchmarks/results/coordinate_ablation.json as soon as it is there; earlier results are kept.
"""

from __future__ import annotations

import argparse
import json
import time

from common import RESULTS, machine, write_results

import cryotwin_nb as ct
from cryotwin_nb import evaluation

NAME, LATENT_DIM, N_COMPONENTS = "assembly-small", 8, 100
PAPER = {"batch_size": 16, "coefficients": 1.0}
VARIATIONS: dict[str, tuple[dict, dict]] = {  # options of the architecture, settings of the training
    "default": ({}, {}),
    "plain (the paper's networks)": ({"plain": True}, PAPER),
    "maps linear in the latents": ({"latent_width": 0}, {}),
    "no prior of the maps": ({}, {"map_prior": 0.0}),
    "prior of the maps 100": ({}, {"map_prior": 100.0}),
    "all coefficients, 16 images per step": ({}, PAPER),
    "128 wide, 128 features": ({"width": 128, "n_features": 128}, {}),
}


def cpu_seconds_of_epoch(particles: ct.Particles, options: dict, settings: dict, steps: int = 20) -> float:
    """Return the CPU time of an epoch at full resolution, s."""
    model = ct.CryoTwin(particles.box_size, "coordinate", LATENT_DIM, N_COMPONENTS, **options)
    size = settings.get("batch_size", model.networks.training_defaults["batch_size"])
    config = ct.TrainingConfig(epochs=2, warmup=0, start_radius=1, final_em=False, **settings)
    started, times = time.process_time(), []
    some = particles[: steps * size]
    ct.fit(model, some, config, callbacks=[lambda *_: times.append(time.process_time())], progress=False)
    print(f"{times[0] - started:.1f} s with setup, {times[1] - times[0]:.1f} s for {steps} steps", flush=True)
    return (times[1] - times[0]) / len(some) * len(particles)


def run(particles: ct.Particles, name: str, seconds: float, epochs: int | None, seed: int, pairs: int) -> dict:
    """Train a variation; return its figures of merit."""
    options, settings = VARIATIONS[name]
    if epochs is None:  # the first ones are faster, at low resolution
        epochs = max(2, round(1.15 * seconds / cpu_seconds_of_epoch(particles, options, settings)))
    config = ct.TrainingConfig(epochs=epochs, seed=seed, **settings)
    model = ct.CryoTwin(particles.box_size, "coordinate", LATENT_DIM, N_COMPONENTS, seed=seed, **options)
    cpu, wall = time.process_time(), time.perf_counter()
    history = ct.fit(model, particles, config, progress=False)
    used = {"CPU seconds": time.process_time() - cpu, "seconds": time.perf_counter() - wall, "epochs": history.epochs}
    z, truth = model.embed(particles), particles.require_truth()
    curves = evaluation.fsc_of_images(model.volumes, z, truth)
    everywhere, active = (
        evaluation.isometry(model, z, n_pairs=pairs, n_active=n).correlation
        for n in (None, len(truth.coordinate_names))
    )
    return used | {
        "FSC area": float(curves.mean()),
        "FSC": curves.mean(0).tolist(),
        "R2": evaluation.coordinate_r2(z, truth),
        "isometry r": everywhere,
        "isometry r, active subspace": active,
        "KL by KLIEP, nats": evaluation.kl_divergence(z, model.prior),
        "KL at least, nats": evaluation.kl_lower_bound(z, model.prior),
        "distortion": history.distortion[-1],
        "rate, nats": history.rate[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(VARIATIONS), choices=VARIATIONS)
    parser.add_argument("--seconds", type=float, default=1500, help="CPU time of each training run")
    parser.add_argument("--epochs", type=int, help="epochs of each training run, instead of its CPU time")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--pairs", type=int, default=200, help="pairs of directions of the isometry")
    args = parser.parse_args()
    particles, file = ct.data.fetch(NAME, progress=False), RESULTS / "coordinate_ablation.json"
    for name in args.only:
        for seed in args.seeds:
            found = run(particles, name, args.seconds, args.epochs, seed, args.pairs)
            results = json.loads(file.read_text()) if file.exists() else {}
            key = f"{name}; {f'{args.epochs} epochs' if args.epochs else f'{args.seconds:g} s'}; seed {seed}"
            write_results("coordinate_ablation", results | {"machine": machine(), key: found})
            print(key, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
