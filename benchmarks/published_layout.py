"""Figures from simulated images in the layout of EMPIAR-10076: python benchmarks/published_layout.py [--n 2000].

Writes n images of 320 x 320 pixels as one stack listed in particles.320.txt, with poses.pkl, ctf.pkl, ind.pkl and
published labels, as in cryoDRGN's tutorial; plans the figures at 128 x 128 pixels (`--dry-run`); and draws them all,
with training, at `--box-size`. Stores what is printed, seconds, peak memory and captions in
results/published_layout.json.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from common import machine, peak_memory, write_results

import cryotwin_nb as ct
from cryotwin_nb.demo.paper import make_figures
from cryotwin_nb.formats import cryodrgn

BOX, PIXEL_SIZE, SNR = 320, 1.31, 0.05
KEPT = 2 / 3  # share of the particles in the selection, as in EMPIAR-10076


def write_layout(folder: Path, n: int) -> None:
    """Write n simulated particles, unless they are there."""
    if (folder / "published_labels.txt").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    particles = ct.simulate.assembly(n, BOX, pixel_size=PIXEL_SIZE, snr=SNR, seed=0)
    labels = particles.require_truth().labels
    particles.write(folder / f"particles.{BOX}.star")
    for file in folder.glob(f"particles.{BOX}.*"):
        if file.suffix != ".mrcs":
            file.unlink()
    (folder / f"particles.{BOX}.txt").write_text(f"particles.{BOX}.mrcs\n")
    cryodrgn.write_poses(folder / "poses.pkl", particles.rotations, particles.shifts, BOX, PIXEL_SIZE)
    cryodrgn.write_ctf(folder / "ctf.pkl", particles.ctf, BOX, PIXEL_SIZE)
    kept = np.sort(np.random.default_rng(0).permutation(n)[: round(n * KEPT)])
    cryodrgn.write_indices(folder / "ind.pkl", kept)
    (folder / "published_labels.txt").write_text("\n".join(labels))


def timed(**settings: object) -> tuple[str, float]:
    """Return what `make_figures` prints, and its duration, s."""
    printed, started = io.StringIO(), time.perf_counter()
    with redirect_stdout(printed):
        make_figures(**settings)
    return printed.getvalue(), round(time.perf_counter() - started, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--box-size", type=int, default=32)
    parser.add_argument("--only", nargs="+", default=[], help="numbers of the figures to draw; all by default")
    parser.add_argument("--folder", type=Path, default=Path("results/published_layout"))
    args = parser.parse_args()
    started, data = time.perf_counter(), args.folder / "data"
    write_layout(data, args.n)
    written = round(time.perf_counter() - started, 1)
    output = args.folder / "figures"
    plan, planning = timed(output=output, empiar_10076=data, dry_run=True)
    print(plan, flush=True)
    results = {
        "machine": machine(),
        "images": args.n,
        "pixels": BOX,
        "bytes of the stack": (data / f"particles.{BOX}.mrcs").stat().st_size,
        "seconds of simulation and writing": written,
        "plan at 128 pixels": plan.splitlines(),
        "seconds of the plan": planning,
    }
    write_results("published_layout", results)
    printed, drawing = timed(output=output, empiar_10076=data, box_size=args.box_size, only=args.only)
    drawn = json.loads((output / "figures.json").read_text())
    results |= {
        "box size of the figures": args.box_size,
        "seconds of preparing, training and drawing": drawing,
        "peak memory, GiB": peak_memory(),
        "printed": printed.splitlines(),
        "captions": {number: entry["caption"] for number, entry in drawn.items()},
    }
    write_results("published_layout", results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
