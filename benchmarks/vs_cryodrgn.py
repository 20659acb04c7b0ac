"""Quality against time, compared with cryoDRGN on the same files: python benchmarks/vs_cryodrgn.py [--cryodrgn PATH].

cryoDRGN (GPL) runs as an external program in a separate environment. The legs run one after the other on one machine,
each in a separate process; time spent on evaluation is not counted. `--legs` repeats some legs and keeps the results of
the others in the folder. cryoDRGN's epochs are kept in the folder, so that an interrupted benchmark can be resumed. Set
OMP_NUM_THREADS, which applies to all legs.

Writes benchmarks/results/vs_cryodrgn.json and .png, and prints the README's tables.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from common import (
    AFTER_WARM_START,
    Stopwatch,
    in_own_process,
    machine,
    peak_memory,
    prepared,
    untrained,
    warm_up,
    write_results,
)
from cryodrgn_program import WIDTH_256, Run, in_one_call, write_inputs
from torch import Tensor
from vs_cryodrgn_report import report

import cryotwin_nb as ct
from cryotwin_nb import evaluation
from cryotwin_nb.reconstruction import eigenvolumes as subspace
from cryotwin_nb.truth.truth import Truth

EPOCHS_EVALUATED = (1, 2, 4, 8, 16, 24)
LARGE = "assembly"  # 64 x 64 pixels; only throughput is measured
N_COMPONENTS = {"assembly-small": 60, "hinge-small": 30}
LATENT_DIM = 8


# Figures of merit of each method --------------------------------------------------------------------------------------


def figures_of_maps(decode: evaluation.Decode, z: Tensor, truth: Truth) -> dict:
    """Return figures of merit of a decoder and the latents z (n, d) of all images, with 95 % intervals."""
    of_images, n_active = evaluation.fsc_of_images(decode, z, truth), len(truth.coordinate_names)
    everywhere, active = (evaluation.isometry(decode, z, n_active=n) for n in (None, n_active))
    metric, axes = evaluation.metric_tensors(decode, z), evaluation.principal_axes(z)[1][:n_active]
    return {
        "FSC": of_images.mean(0).tolist(),
        "FSC area": float(of_images.mean()),
        "FSC area, interval": evaluation.interval(lambda curves: float(curves.mean()), of_images),
        "isometry r": everywhere.correlation,
        "isometry r, interval": everywhere.correlation_interval,
        "isometry r, active subspace": active.correlation,
        "isometry r, active subspace, interval": active.correlation_interval,
        "relaxed distortion": evaluation.relaxed_distortion(metric),
        "relaxed distortion, active subspace": evaluation.relaxed_distortion(metric, axes),
        "products": [everywhere.latent_products.tolist(), everywhere.volume_products.tolist()],
    }


def figures_of_latents(z: Tensor, prior: ct.GaussianMixture, truth: Truth) -> dict:
    """Return figures of merit of the latents z (n, d) of all images and their prior, with 95 % intervals."""
    kl = [evaluation.kl_divergence(z, prior, seed=seed) for seed in range(5)]
    held_out = evaluation.held_out_log_likelihood(z)
    return {
        "R2": evaluation.coordinate_r2(z, truth),
        "R2, intervals": evaluation.r2_interval(z, truth),
        "KL, nats": statistics.median(kl),
        "KL, range of five seeds": [min(kl), max(kl)],
        "KL by neighbours, nats": evaluation.kl_neighbours(z, prior),
        "KL at least, nats": evaluation.kl_lower_bound(z, prior),
        "held-out log-likelihood, nats": held_out,
    }


def evenly_spread(n: int) -> np.ndarray:
    """Return the indices of the 100 images that `evaluation.fsc_to_truth` uses."""
    return np.linspace(0, n - 1, min(100, n)).astype(int)


def fsc_of_maps(maps: Tensor, truth: Truth) -> np.ndarray:
    """Return the mean FSC (D/2,) of maps (m, D, D, D) with the true maps of m images."""
    return evaluation.fsc_to_truth(lambda rows: maps[rows[:, 0]], torch.arange(len(maps))[:, None], truth)


# The legs -------------------------------------------------------------------------------------------------------------


def leg_cryodrgn(args: argparse.Namespace) -> dict:
    """Train 256 wide until the FSC area gains less than 0.002 in 10 epochs."""
    particles = read(args, args.dataset)
    truth, pixel = particles.require_truth(), particles.pixel_size
    run = Run(args.cryodrgn, stem(args, args.dataset), args.folder / "cryodrgn", WIDTH_256)
    areas: dict[int, float] = {}

    def evaluate(epoch: int) -> None:
        def area(decode):
            return float(evaluation.fsc_to_truth(decode, run.latents(epoch), truth).mean())

        areas[epoch] = in_one_call(area, lambda z: run.volumes(epoch, z, pixel), truth.box_size)

    for until in range(min(10, args.epochs), args.epochs + 1, 10):
        run.train(until)
        for epoch in (1, 2, 5, 10) if until == 10 else (until,):
            evaluate(epoch)
        if until >= 20 and areas[until] - areas[until - 10] < 0.002:
            break
    normal = ct.GaussianMixture(torch.ones(1), torch.zeros(1, LATENT_DIM), torch.eye(LATENT_DIM)[None])
    z = run.latents(until)
    measured = figures_of_latents(z, normal, truth) | in_one_call(
        lambda decode: figures_of_maps(decode, z, truth),
        lambda z: run.volumes(until, z, pixel),
        truth.box_size,
    )
    epoch_seconds = float(np.quantile(run.seconds[:until], 0.1))  # that of fast epochs: the machine is shared
    return measured | {
        "epochs": until,
        "seconds": until * epoch_seconds,
        "curve": [[epoch * epoch_seconds, area] for epoch, area in sorted(areas.items())],
        "images per second": {"32 px, float32": len(particles) / epoch_seconds},
        "peak memory, GiB": run.peak_memory,
    }


def leg_cryodrgn_defaults(args: argparse.Namespace) -> dict:
    """Measure the throughput of cryoDRGN's defaults, 1024 wide, on larger images."""
    read(args, LARGE)
    run = Run(args.cryodrgn, stem(args, LARGE), args.folder / "cryodrgn-defaults")
    rate, peak = run.throughput(args.throughput_images)
    return {"images per second": {"64 px, 1024 wide": rate}, "peak memory, GiB": peak}


def leg_subspace(args: argparse.Namespace) -> dict:
    particles = read(args, args.dataset)
    truth, rows = particles.require_truth(), evenly_spread(len(particles))
    model = ct.CryoTwin(particles.box_size, "subspace", LATENT_DIM, args.n_components)
    networks, passes = model.networks, model.networks.passes
    curve, curves = [], []

    def watched(*arguments) -> Iterator[tuple]:
        for done in passes(*arguments):
            with watch.paused() as elapsed:
                c = networks.prepare(model.imaging.batch(particles, rows)).expected
                c = c if curves else torch.zeros_like(c)  # the first pass estimates the average only
                maps = networks.mean + torch.tensordot(c, networks.basis, 1)
                curves.append(fsc_of_maps(maps, truth[rows]))
                curve.append([elapsed, float(curves[-1].mean())])
            yield done

    networks.passes = watched
    warm_up("subspace")
    watch = Stopwatch()
    history = ct.fit(model, particles, progress=False)
    seconds, peak, z = watch.seconds, peak_memory(), model.embed(particles)
    measured = figures_of_maps(model.volumes, z, truth) | figures_of_latents(z, model.prior, truth)
    rates = {"32 px, a pass": pass_rate(particles), "64 px, a pass": pass_rate(read(args, LARGE))}
    return measured | {
        "seconds": seconds,
        "seconds of passes": history.pass_seconds,
        "radii of passes": history.pass_radius,
        "seconds of epochs": history.seconds,
        "curve": [*curve, [seconds, measured["FSC area"]]],
        "FSC of the average": curves[0].tolist(),
        "images per second": rates,
        "peak memory, GiB": peak,
    }


def pass_rate(particles: ct.Particles) -> float:
    """Return images per second of an EM pass at full resolution, on prepared images."""
    model = untrained(particles, LATENT_DIM)
    batches = list(prepared(model.imaging, particles))
    began = time.perf_counter()
    subspace.iterate(model.networks.eigenvolumes, model.imaging, batches, model.imaging.plane.radius)
    return len(particles) / (time.perf_counter() - began)


def leg_coordinate(args: argparse.Namespace) -> dict:
    particles = read(args, args.dataset)
    truth, rows = particles.require_truth(), evenly_spread(len(particles))
    model = ct.CryoTwin(particles.box_size, "coordinate", LATENT_DIM, args.n_components)
    curve = []
    warm_up("coordinate")

    def evaluate(history: ct.History, model: ct.CryoTwin) -> None:
        if history.epochs in EPOCHS_EVALUATED:
            with watch.paused() as elapsed:
                fsc = evaluation.fsc_to_truth(model.volumes, model.embed(particles[rows]), truth[rows])
                curve.append([elapsed, float(fsc.mean())])

    watch = Stopwatch()
    config = ct.TrainingConfig()
    history = ct.fit(model, particles, config, callbacks=[evaluate], progress=False)
    seconds, peak = watch.seconds, peak_memory()
    z = model.embed(particles)
    measured = figures_of_maps(model.volumes, z, truth) | figures_of_latents(z, model.prior, truth)
    rates = {f"32 px, {p}": training_rate(particles[: min(1024, len(particles))], p) for p in ("float32", "bfloat16")}
    return measured | {
        "seconds": seconds,
        "seconds of epochs": history.seconds,
        "curve": curve,
        "images per second": rates,
        "peak memory, GiB": peak,
    }


def leg_warm(args: argparse.Namespace) -> dict:
    """Train the coordinate networks from a subspace solution, whose time is counted."""
    particles = read(args, args.dataset)
    truth, rows = particles.require_truth(), evenly_spread(len(particles))
    options = {"latent_dim": LATENT_DIM, "n_components": args.n_components}
    source, model = (ct.CryoTwin(particles.box_size, kind, **options) for kind in ("subspace", "coordinate"))
    curve = []
    for kind in ("subspace", "coordinate"):
        warm_up(kind)

    def evaluate(*_) -> None:
        with watch.paused() as elapsed:
            fsc = evaluation.fsc_to_truth(model.volumes, model.embed(particles[rows]), truth[rows])
            curve.append([elapsed, float(fsc.mean())])

    watch = Stopwatch()
    ct.fit(source, particles, progress=False)
    started = watch.seconds
    ct.warm_start(model, source, particles, progress=False)
    evaluate()
    history = ct.fit(model, particles, AFTER_WARM_START, callbacks=[evaluate], progress=False)
    seconds, peak, z = watch.seconds, peak_memory(), model.embed(particles)
    measured = figures_of_maps(model.volumes, z, truth) | figures_of_latents(z, model.prior, truth)
    return measured | {
        "seconds": seconds,
        "seconds of the subspace": started,
        "seconds of epochs": history.seconds,
        "curve": curve,
        "peak memory, GiB": peak,
    }


def training_rate(particles: ct.Particles, precision: str) -> float:
    """Return images per second of an epoch at full resolution."""
    model = ct.CryoTwin(particles.box_size, "coordinate", LATENT_DIM, n_components=60)
    config = ct.TrainingConfig(epochs=2, warmup=0, start_radius=1, precision=precision, final_em=False)
    return len(particles) / ct.fit(model, particles, config, progress=False).seconds[-1]


LEGS = {
    "cryodrgn": leg_cryodrgn,
    "cryodrgn-defaults": leg_cryodrgn_defaults,
    "subspace": leg_subspace,
    "coordinate": leg_coordinate,
    "coordinate, warm start": leg_warm,
}


# Files ----------------------------------------------------------------------------------------------------------------


def stem(args: argparse.Namespace, dataset: str) -> Path:
    return args.folder / (f"{dataset}-{args.images}" if args.images else dataset)


def read(args: argparse.Namespace, dataset: str) -> ct.Particles:
    """Return the particles, from the files that cryoDRGN reads."""
    path = stem(args, dataset).with_suffix(".star")
    if not path.exists():
        write_inputs(ct.data.fetch(dataset, progress=False)[: args.images], path.with_suffix(""))
    return ct.Particles.read(path, contrast="dark")


# Main program --------------------------------------------------------------------------------------------------------


def merge(args: argparse.Namespace) -> dict:
    """Return all results in the folder, in the order of `LEGS`."""
    particles = read(args, args.dataset)
    settings = {"dataset": args.dataset, "n_particles": len(particles), "box_size": particles.box_size}
    settings |= {"pixel_size": particles.pixel_size, "latent_dim": LATENT_DIM, "n_components": args.n_components}
    versions = {"cryotwin_nb": ct.__version__}
    if args.cryodrgn:
        printed = subprocess.run([args.cryodrgn, "--version"], capture_output=True, text=True, check=True).stdout
        versions["cryoDRGN"] = printed.split()[-1]
    files = {leg: args.folder / f"{leg}.json" for leg in LEGS}
    legs = {leg: json.loads(file.read_text()) for leg, file in files.items() if file.exists()}
    return {"machine": machine(), "versions": versions, "settings": settings, **legs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="assembly-small", choices=N_COMPONENTS)
    parser.add_argument("--folder", type=Path, default=Path("results/vs_cryodrgn"))
    parser.add_argument(
        "--cryodrgn", default=shutil.which("cryodrgn"), help="the executable; without it, its legs are skipped"
    )
    parser.add_argument("--epochs", type=int, default=200, help="maximum number of cryoDRGN epochs")
    parser.add_argument("--skip-defaults", action="store_true", help="skip the throughput of cryoDRGN's defaults")
    parser.add_argument("--legs", nargs="*", default=list(LEGS), choices=LEGS)
    parser.add_argument("--leg", choices=LEGS, help="run this leg in this process and print its results")
    parser.add_argument("--images", type=int, help="number of images to use, to test the script")
    parser.add_argument("--throughput-images", type=int, default=320)
    args = parser.parse_args()
    args.n_components = N_COMPONENTS[args.dataset]
    if args.leg:
        print(json.dumps(LEGS[args.leg](args)))
        return
    for leg in args.legs:
        if leg.startswith("cryodrgn") and (not args.cryodrgn or (args.skip_defaults and leg != "cryodrgn")):
            continue
        results = in_own_process(__file__, *sys.argv[1:], "--leg", leg)
        (args.folder / f"{leg}.json").write_text(json.dumps(results, indent=1))
    write_results("vs_cryodrgn", merge(args))
    report()


if __name__ == "__main__":
    main()
