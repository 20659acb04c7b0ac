"""Verdicts of the first look on adenylate kinase: python benchmarks/verdicts_adk.py FOLDER --python P [--seeds 3].

12,000 images by cryojax (`outside_cryojax.py`), from closed to open or all closed, with exact poses, with errors of the
recorded rotations or shifts, and with uneven views (`view_sets.py`). Sets that are not in the folder are simulated by
the Python of an environment with cryojax (`outside.py` creates one). They are prepared at 32 px of 3.6 Å; those with
uneven views are used at 64 px. Writes benchmarks/results/verdicts_adk.json.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, write_results
from outside_maps import density
from scipy.spatial.transform import Rotation
from verdicts import judged
from view_sets import KINDS

import cryotwin_nb as ct

ERRORS = {
    "base": ((0, 0), (2.5, 0), (2.5, 0.9), (0, 1.8), (0, 5)),
    "closed": ((0, 0), (2.5, 0)),
}
"""Rotations, degrees (root mean square), and shifts, Å an axis, by which the recorded poses of a set are wrong."""


def simulated(folder: Path, python: str, seed: int, *options: str) -> Path:
    """Return the STAR file of a set, simulated unless it is there."""
    if not (folder / "truth.npz").exists():
        script = str(Path(__file__).with_name("outside_cryojax.py"))
        subprocess.run([python, script, str(folder), "--seed", str(seed), "--base", *options], check=True)
    return folder / "base.star"


def prepared(star: Path) -> ct.Particles:
    output = star.with_name("base-32.star")
    if not output.exists():
        ct.prepare(star, output, 32, progress=False)
    return ct.Particles.read(output)


def with_errors(particles: ct.Particles, degrees: float, shift: float, seed: int) -> ct.Particles:
    rng, wrong = np.random.default_rng(seed), particles[np.arange(len(particles))]
    errors = Rotation.from_rotvec(rng.normal(0, np.radians(degrees) / 3**0.5, (len(wrong), 3))).as_matrix()
    wrong.rotations = (errors @ wrong.rotations).astype(np.float32)
    wrong.shifts = (wrong.shifts + rng.normal(0, shift, wrong.shifts.shape)).astype(np.float32)
    return wrong


def poses(name: str, particles: ct.Particles, seed: int) -> list[dict[str, Any]]:
    rows = []
    for degrees, shift in ERRORS[name]:
        wrong, started = with_errors(particles, degrees, shift, seed), time.perf_counter()
        look = ct.first_look(wrong, seed=seed)
        row = {"set": name, "degrees": degrees, "shift": shift, "seed": seed}
        row |= {"found": look.pose_error, "interval": look.errors and look.errors.rotation_interval}
        row |= {"shift found": look.shift_error, "shift interval": look.errors and look.errors.shift_interval}
        row["findings"] = [(finding.level, finding.name) for finding in look.findings]
        rows.append(row | {"seconds": round(time.perf_counter() - started, 1)})
        print(rows[-1], flush=True)
    return rows


def views(name: str, folder: Path, seed: int) -> dict[str, Any]:
    particles = ct.Particles.read(folder / "base.star")
    atoms, frame = np.load(folder / "atoms.npz"), np.load(folder / "truth.npz")["frame"]
    number, share = atoms["number"].astype(np.float32), np.bincount(frame, minlength=len(atoms["frames"])) / len(frame)
    maps = (torch.as_tensor(density(xyz, number, 64, particles.pixel_size)) for xyz in atoms["frames"])
    truth = sum(weight * volume for weight, volume in zip(share, maps, strict=True))
    assert isinstance(truth, torch.Tensor)
    second = np.einsum("ni,nj->ij", particles.rotations[:, :, 2], particles.rotations[:, :, 2])
    axis = np.linalg.eigh(second)[1][:, 0 if name == "belt of 30" else -1]
    row = {"set": "adk", "views": name, "seed": seed}
    row |= judged(ct.first_look(particles, seed=seed), particles, truth, axis)
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", required=True, help="Python of an environment with cryojax")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "poses": [], "views": []}
    for seed in range(arguments.seeds):
        for name, options in (("base", ()), ("closed", ("--closed",))):
            star = simulated(arguments.folder / f"{name} {seed}", arguments.python, seed, *options)
            results["poses"] += poses(name, prepared(star), seed)
            write_results("verdicts_adk", results)
        for name in KINDS:
            folder = arguments.folder / f"{name} {seed}"
            simulated(folder, arguments.python, seed, "--views", name)
            results["views"].append(views(name, folder, seed))
            write_results("verdicts_adk", results)


if __name__ == "__main__":
    main()
