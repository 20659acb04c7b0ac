"""The paper's problem, 131,899 images of 128 x 128 pixels, C = 100, d = 8: python benchmarks/paper_size.py [--n 1000].

On a GPU all images are used; otherwise a part of them, from which the time of the whole is extrapolated and labelled as
such. The images are simulated once, written, and streamed from disk in every pass. Sets larger than `--distinct` repeat
images.

Writes benchmarks/results/paper_size.json: "measured" and "extrapolated" values separately.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from common import Stopwatch, machine, peak_memory, warm_up, write_results

import cryotwin_nb as ct

N_PAPER, BOX, PIXEL_SIZE, N_COMPONENTS, LATENT_DIM = 131_899, 128, 2.5, 100, 8
SAMPLE = 5000  # images used by the fits of deconvolved densities, regardless of the total


class Clock:
    """Seconds of each part of a fit, by name: closed-form passes, loops over the images, other functions."""

    def __init__(self, model: ct.CryoTwin) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.in_loops: list[float] = []  # seconds of each pass
        networks = model.networks
        self._passes, networks.passes = networks.passes, self.passes
        networks.deconvolve = self.timed(networks.deconvolve, "deconvolve")

    def timed(self, function: Callable, name: str) -> Callable:
        def called(*arguments):
            began = time.perf_counter()
            result = function(*arguments)
            self.seconds[name] += time.perf_counter() - began
            return result

        return called

    def passes(self, chunks: Callable[..., Iterable], *arguments) -> Iterator[tuple]:
        """Yield the passes, and record the time spent in loops over the images."""
        spent = 0.0

        def watched(*arguments) -> Iterator:
            nonlocal spent
            began = time.perf_counter()
            try:
                yield from chunks(*arguments)
            finally:
                spent += time.perf_counter() - began

        for done in self._passes(watched, *arguments):
            self.in_loops.append(spent)
            spent = 0.0
            yield done


def particles_on_disk(folder: Path, n: int, distinct: int) -> ct.Particles:
    """Return n particles read from disk on demand, simulated on the first call with the dose of `assembly`."""
    distinct = min(n, distinct)
    path = folder / f"paper-size-{distinct}.star"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        ct.simulate.assembly(distinct, BOX, PIXEL_SIZE).write(path)
    return ct.Particles.read(path, contrast="dark")[np.resize(np.arange(distinct), n)]


def run(particles: ct.Particles) -> tuple[ct.CryoTwin, dict]:
    """Run from images to a pathway; return the model and the seconds of each part."""
    model = ct.CryoTwin(BOX, "subspace", LATENT_DIM, min(N_COMPONENTS, len(particles)))
    clock, watch = Clock(model), Stopwatch()
    history = ct.fit(model, particles, ct.TrainingConfig(cache_gib=0))  # streamed, as required for the full set
    training = watch.seconds
    latents, embedding = timed(lambda: model.embed(particles))
    first, second = farthest(model.prior)
    path, pathway = timed(lambda: ct.ridgeline_chain(model.prior, first, second))
    _, maps = timed(lambda: model.volumes(path.latents))
    _, mixture = timed(lambda: ct.GaussianMixture.fit(latents, N_COMPONENTS))
    n_passes = len(history.pass_seconds)
    keys = ("radius", "seconds", "seconds in loops over the images")
    rows = zip(history.pass_radius, history.pass_seconds, clock.in_loops)
    rest = training - sum(history.pass_seconds) - sum(history.seconds) - sum(clock.seconds.values())
    return model, {
        "n": len(particles),
        "device": str(model.device),
        "passes": [dict(zip(keys, row)) for row in rows],
        "seconds of passes": sum(history.pass_seconds),
        "number of passes": n_passes,
        "seconds of epochs": sum(history.seconds),
        **{f"seconds of {name}": value for name, value in clock.seconds.items()},
        "seconds of a fit of the mixture to all latents": mixture,
        "seconds of the rest of the training": rest,
        "seconds of training": training,
        "seconds of embedding": embedding,
        "seconds of a pathway": pathway,
        "seconds of its maps": maps,
        "components used": model.prior.n_components,
        "seconds in all": training + embedding + pathway + maps,
        "peak memory, GiB": peak_memory(),
    }


def timed(function: Callable[[], object]) -> tuple:
    began = time.perf_counter()
    return function(), time.perf_counter() - began


def farthest(prior: ct.GaussianMixture) -> tuple[int, int]:
    """Return the two components whose means are farthest apart."""
    distances = torch.cdist(prior.means, prior.means)
    return divmod(int(distances.argmax()), prior.n_components)


def extrapolate(model: ct.CryoTwin, measured: dict) -> dict:
    """Extrapolate the time of the full problem on this machine from that of a part.

    The time of loops over the images scales with N/n; the rest of a pass, the solution of the normal equations, does
    not depend on n. Fits to a sample scale with the sample size. The mixture is fitted and timed at full size, to N
    latents drawn from the fitted prior.
    """
    ratio, sample_ratio = N_PAPER / measured["n"], min(SAMPLE, N_PAPER) / min(SAMPLE, measured["n"])
    passes = []
    for number, row in enumerate(measured["passes"]):
        loops, other = row["seconds in loops over the images"], row["seconds"] - row["seconds in loops over the images"]
        fits = number == len(measured["passes"]) - 2  # the density of the coefficients, to a sample
        passes.append(loops * ratio + other * (sample_ratio if fits else 1))
    _, mixture = timed(lambda: ct.GaussianMixture.fit(model.prior.sample(N_PAPER), N_COMPONENTS))
    small = measured["seconds of a fit of the mixture to all latents"]
    parts = {
        "passes": sum(passes),
        "epochs": measured["seconds of epochs"] * ratio,
        "deconvolved density": measured["seconds of deconvolve"] * sample_ratio,
        "fit of the mixture (measured on latents drawn from the prior)": mixture,
        "records and rest": max(0.0, measured["seconds of the rest of the training"] - small) * ratio,
        "embedding": measured["seconds of embedding"] * ratio,
        "pathway and its maps (measured)": measured["seconds of a pathway"] + measured["seconds of its maps"],
    }
    total = sum(parts.values())
    return {"n": N_PAPER, "seconds of each pass": passes, "seconds": parts, "hours in all": total / 3600}


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=N_PAPER if cuda else 1000)
    parser.add_argument("--distinct", type=int, default=N_PAPER)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--folder", type=Path, default=Path("results/paper_size"))
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    particles, simulation = timed(lambda: particles_on_disk(args.folder, args.n, args.distinct))
    warm_up("subspace")
    model, measured = run(particles)
    settings = {"box": BOX, "pixel size, Å": PIXEL_SIZE, "C": N_COMPONENTS, "d": LATENT_DIM, "n of the paper": N_PAPER}
    measured |= {"distinct images": min(args.n, args.distinct), "seconds of simulation or opening": simulation}
    results = {"machine": machine(), "settings": settings, "measured": measured}
    if cuda:
        results["machine"]["GPU"] = torch.cuda.get_device_name()
        measured["peak GPU memory, GiB"] = torch.cuda.max_memory_allocated() / 2**30
    if args.n < N_PAPER:
        results["extrapolated"] = extrapolate(model, measured)
    write_results("paper_size", results)
    print(table(results))


def table(results: dict) -> str:
    """Return the README's table, in Markdown."""
    measured, extrapolated = results["measured"], results.get("extrapolated")
    lines = ["| | images | seconds of passes | hours in all | peak memory, GiB |", "|---|---|---|---|---|"]
    row = (measured["seconds of passes"], measured["seconds in all"] / 3600, measured["peak memory, GiB"])
    lines.append("| measured | {:,} | {:.0f} | {:.2f} | {:.2f} |".format(measured["n"], *row))
    if extrapolated:
        row = (extrapolated["n"], extrapolated["seconds"]["passes"], extrapolated["hours in all"])
        lines.append("| extrapolated | {:,} | {:.0f} | {:.2f} | |".format(*row))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
