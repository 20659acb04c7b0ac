"""Time and memory of one pass of expectation-maximisation: python benchmarks/scaling.py [--folder results/scaling].

Measured against the number of images and against the box size, with images streamed from disk and a separate process
for each size. Also compares the rates of reading and inserting slices with the memory bandwidth. Set OMP_NUM_THREADS.

Writes benchmarks/results/scaling.json and .png, and prints the README's table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from common import RESULTS, in_own_process, machine, peak_memory, prepared, untrained, warm_up, write_results

import cryotwin_nb as ct
from cryotwin_nb.imaging.lattice import half_ball
from cryotwin_nb.plotting import style
from cryotwin_nb.reconstruction import eigenvolumes as subspace

NUMBERS = (1_000, 3_000, 10_000, 30_000, 100_000)  # numbers of images of 32 x 32 pixels, K = 8
BOXES = ((32, 8, 2000), (64, 8, 2000), (128, 8, 1000), (128, 16, 1000))  # box, K, images
DISTINCT = 10_000  # maximum number of simulated images; larger sets repeat them
MEMORY_LIMIT = 8.0  # GiB


def particles_on_disk(folder: Path, box: int, n: int) -> ct.Particles:
    """Return n particles read from disk on demand, simulated on the first call."""
    distinct = min(n, DISTINCT)
    path = folder / f"assembly-{box}-{distinct}.star"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        ct.simulate.assembly(distinct, box, progress=False).write(path, progress=False)
    return ct.Particles.read(path, contrast="dark")[np.resize(np.arange(distinct), n)]


def one_pass(folder: Path, box: int, n_basis: int, n: int) -> dict:
    """Return seconds (including preparation of the images) and peak memory of one pass at full resolution."""
    warm_up("subspace")
    particles, reading = particles_on_disk(folder, box, n), 0.0
    model = untrained(particles, n_basis)

    def chunks():
        nonlocal reading
        stream = prepared(model.imaging, particles)
        while True:
            began = time.perf_counter()
            batch = next(stream, None)
            reading += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    began = time.perf_counter()
    subspace.iterate(model.networks.eigenvolumes, model.imaging, chunks(), model.imaging.plane.radius)
    seconds = time.perf_counter() - began
    return {
        "box": box,
        "K": n_basis,
        "n": n,
        "seconds": seconds,
        "seconds of reading and preparing": reading,
        "peak memory, GiB": peak_memory(),
    }


def rates(box: int, n_basis: int = 8, n_images: int = 256) -> dict:
    """Return GB/s of reading and inserting slices, counting 8 neighbours of each sample; best of three."""
    n_maps = n_basis + 1
    ball = half_ball(box, box / 2 + subspace.MARGIN, 1.5)
    frequencies = ct.CryoTwin(box, n_components=1).imaging.frequencies.contiguous()
    rotations = torch.as_tensor(ct.simulate.random_rotations(n_images, np.random.default_rng(0)))
    lattice = torch.randn(len(ball), 2 * n_maps)
    columns = 2 * n_maps + n_maps * (n_maps + 1) // 2
    sums = torch.zeros(len(ball), columns)
    powers, second = torch.rand(n_images, len(frequencies)), torch.rand(n_images, columns - 2 * n_maps)
    values = torch.randn(n_images, len(frequencies), 2 * n_maps)
    samples = 8 * 4 * n_images * len(frequencies)
    read = best(lambda: ball.slices(lattice, frequencies, rotations))
    insert = best(lambda: ball.insert(sums, frequencies, rotations, values, powers, second))
    return {
        "box": box,
        "lattice, MB": (lattice.nbytes + sums.nbytes) / 1e6,
        "slices, GB/s": samples * 2 * n_maps / read / 1e9,
        "insert, GB/s": 2 * samples * columns / insert / 1e9,  # read and written
    }


def bandwidth() -> float:
    """Return GB/s of copying 1 GB in memory, counting reads and writes."""
    source, target = torch.ones(250_000_000), torch.zeros(250_000_000)
    return 2 * source.nbytes / best(lambda: target.copy_(source)) / 1e9


def best(function: Callable[[], object]) -> float:
    """Return the seconds of the fastest of three calls, after one call that compiles."""
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def measure(folder: Path, numbers: list[int], boxes: list[tuple[int, int, int]]) -> dict:
    """Run all measurements, each size in a separate process."""
    sizes = [(32, 8, n) for n in numbers] + boxes
    for box, _, n in sizes:
        particles_on_disk(folder, box, n)  # written here, so that no measured peak includes the simulation
    passes = [in_own_process(__file__, "--folder", folder, "--one", json.dumps(size)) for size in sizes]
    by_number, by_box = passes[: len(numbers)], passes[len(numbers) :]
    n, seconds = (np.array([p[key] for p in by_number]) for key in ("n", "seconds"))
    per_image, fixed = np.polyfit(n, seconds, 1, w=1 / seconds)
    largest = max(p["peak memory, GiB"] for p in passes)
    return {
        "machine": machine(),
        "against n": by_number,
        "slope of log seconds against log n": np.polyfit(np.log(n), np.log(seconds), 1)[0],
        "seconds per image and fixed": [per_image, fixed],
        "against the box": by_box,
        "largest peak memory, GiB": largest,
        f"below {MEMORY_LIMIT:g} GiB": bool(largest < MEMORY_LIMIT),
        "memory bandwidth, GB/s": bandwidth(),
        "rates": [rates(box) for box in sorted({size[0] for size in sizes})],
    }


def table(results: dict) -> str:
    """Return the README's tables, in Markdown."""
    lines = ["| box | K | images | seconds | peak memory, GiB |", "|---|---|---|---|---|"]
    for p in results["against n"] + results["against the box"]:
        lines.append(f"| {p['box']} | {p['K']} | {p['n']:,} | {p['seconds']:.1f} | {p['peak memory, GiB']:.2f} |")
    lines += ["", "| box | slices, GB/s | insert, GB/s | memory, GB/s |", "|---|---|---|---|"]
    for r in results["rates"]:
        values = (r["slices, GB/s"], r["insert, GB/s"], results["memory bandwidth, GB/s"])
        lines.append(f"| {r['box']} | {' | '.join(f'{v:.1f}' for v in values)} |")
    return "\n".join(lines)


@style.styled
def draw(results: dict) -> plt.Figure:
    """Plot seconds and peak memory against n, and seconds per 1000 images and peak memory against box size."""
    figure, (left, below, middle, right) = plt.subplots(1, 4, figsize=(13, 3.2))
    keys = ("n", "seconds", "peak memory, GiB")
    n, seconds, peak = (np.array([p[key] for p in results["against n"]]) for key in keys)
    slope = results["slope of log seconds against log n"]
    left.loglog(n, seconds, "o-", label=f"box 32, K = 8: slope {slope:.2f}")
    left.set(xlabel="images", ylabel="one pass (s)")
    left.legend()
    below.semilogx(n, peak, "o-", label="box 32, K = 8")
    below.set(xlabel="images", ylabel="peak memory (GiB)", ylim=(0, 1.5 * peak.max()))
    below.legend()
    for k, marker in ((8, "o-"), (16, "s")):
        rows = [p for p in results["against the box"] if p["K"] == k]
        box = [p["box"] for p in rows]
        middle.loglog(box, [1000 * p["seconds"] / p["n"] for p in rows], marker, label=f"K = {k}")
        right.loglog(box, [p["peak memory, GiB"] for p in rows], marker, label=f"K = {k}")
    right.axhline(MEMORY_LIMIT, color=style.GREY, lw=0.8, ls="--")
    for panel, label in ((middle, "one pass per 1000 images (s)"), (right, "peak memory (GiB)")):
        panel.set(xlabel="box (pixels)", ylabel=label)
        panel.set_xticks(box := sorted({p["box"] for p in results["against the box"]}), box)
        panel.minorticks_off()
        panel.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("results/scaling"))
    parser.add_argument("--one", type=json.loads, help="[box, K, images]: measure this size only and print the result")
    parser.add_argument("--quick", action="store_true", help="use few images, to test the script")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one_pass(args.folder, *args.one)))
        return
    numbers, boxes = list(NUMBERS), list(BOXES)
    if args.quick:
        numbers, boxes = [300, 600, 1200], [(box, k, 64) for box, k, _ in BOXES]
    results = measure(args.folder, numbers, boxes)
    write_results("scaling", results)
    draw(results).savefig(RESULTS / "scaling.png", dpi=130)
    print(table(results))


if __name__ == "__main__":
    main()
