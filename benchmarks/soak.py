"""Images on disk to maps along paths, under a memory limit: python benchmarks/soak.py [--n 200000] [--limit-gib 4].

A stack of n images of 64 x 64 pixels (simulated ones, repeated) is written and streamed. Training, embedding, states,
both kinds of path and their maps run in a process whose allocated memory is limited (RLIMIT_DATA; on systems without
it, only the peak is recorded). Several values of --n, each in a separate process, show how time and memory grow.

Writes benchmarks/results/soak.json: seconds and peak memory of each phase.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from common import in_own_process, machine, peak_memory, warm_up, write_results

import cryotwin_nb as ct
from cryotwin_nb.runtime.memory import available

BOX, LATENT_DIM, N_COMPONENTS, DISTINCT = 64, 8, 100, 10_000


def particles_on_disk(folder: Path, n: int) -> Path:
    """Return the path of a STAR file with a stack of n images, written on the first call."""
    distinct = min(n, DISTINCT)
    few, path = folder / f"assembly-{distinct}.star", folder / f"assembly-{n}.star"
    folder.mkdir(parents=True, exist_ok=True)
    if not few.exists():
        ct.simulate.assembly(distinct, BOX).write(few)
    if not path.exists():
        ct.Particles.read(few, contrast="dark")[np.resize(np.arange(distinct), n)].write(path)
    return path


class Phases:
    """Record seconds and peak memory of each part of a run."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        with suppress(OSError):  # if this is not possible, the peak covers all phases so far
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        began = time.perf_counter()
        yield
        self.rows[name] = {"seconds": time.perf_counter() - began, "peak memory, GiB": peak_memory()}
        print(f"{name}: {self.rows[name]}", flush=True)


def run(path: Path, output: Path, limit_gib: float, cache_gib: float) -> dict:
    """Run everything on one data set, within the limit."""
    warm_up("subspace")
    limit = int(limit_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    phases = Phases()
    with phases.measured("reading metadata"):
        particles = ct.Particles.read(path, contrast="dark")
    model = ct.CryoTwin(BOX, "subspace", LATENT_DIM, min(N_COMPONENTS, len(particles)))
    config = ct.TrainingConfig(cache_gib=cache_gib, checkpoint=output / "checkpoint.pt")
    with phases.measured("training"):
        history = ct.fit(model, particles, config)
    with phases.measured("embedding"):
        z = model.embed(particles)
    with phases.measured("states"):
        states = ct.find_states(model.prior)
    distances = torch.cdist(model.prior.means, model.prior.means)
    start, end = divmod(int(distances.argmax()), model.prior.n_components)  # the two that are farthest apart
    with phases.measured("Algorithm 1"):
        first = ct.ridgeline(model.prior, start, end)
    with phases.measured("path of maximum flux"):
        second = ct.max_flux(model.prior, start, end)
    for path, name in ((first, "ridgeline"), (second, "max_flux")):
        with phases.measured(f"maps along {name}"):
            ct.write_pathway(output / name, path, model.volumes(path.latents), particles.pixel_size)
    return {
        "n": len(particles),
        "stack, GiB": len(particles) * BOX**2 * 4 / 2**30,
        "phases": phases.rows,
        "seconds of passes": history.pass_seconds,
        "seconds of epochs": history.seconds,
        "components used": model.prior.n_components,
        "states": len(states),
        "latents finite": bool(torch.isfinite(z).all()),
        "seconds in all": sum(row["seconds"] for row in phases.rows.values()),
        "peak memory, GiB": max(row["peak memory, GiB"] for row in phases.rows.values()),
        "left of the limit at the end, GiB": available() / 2**30,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[200_000])
    parser.add_argument("--limit-gib", type=float, default=4.0)
    parser.add_argument("--cache-gib", type=float, default=0.0, help="by default images are read again in every pass")
    parser.add_argument("--folder", type=Path, default=Path("results/soak"))
    parser.add_argument("--one", type=Path, help="run only the particles of this file, and print the result")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run(args.one, args.folder / args.one.stem, args.limit_gib, args.cache_gib)))
        return
    runs = []
    for n in args.n:
        path = particles_on_disk(args.folder, n)
        options = ("--folder", args.folder, "--limit-gib", args.limit_gib, "--cache-gib", args.cache_gib)
        runs.append(in_own_process(__file__, "--one", path, *options))
    settings = {"box": BOX, "d": LATENT_DIM, "C": N_COMPONENTS, "limit, GiB": args.limit_gib, "distinct": DISTINCT}
    write_results("soak", {"machine": machine(), "settings": settings, "runs": runs})
    print(table(runs))


def table(runs: list[dict]) -> str:
    """Return the README's table, in Markdown."""
    lines = ["| images | stack, GiB | phase | seconds | peak memory, GiB |", "|---|---|---|---|---|"]
    for r in runs:
        for name, row in r["phases"].items():
            start = f"| {r['n']:,} | {r['stack, GiB']:.2f} | {name} "
            lines.append(f"{start}| {row['seconds']:.1f} | {row['peak memory, GiB']:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
