"""Half-map correlation of images listed several times: python benchmarks/copies.py.

300 images of pure noise (32 px of 4 Å, ten seeds) are written once, twice, and once for each element of C3; 300 images
of `simulate.assembly` are written once and twice. Half maps of noise must agree by chance only: the table counts the
shells, from shell 4 on, in which |FSC| exceeds 3 / sqrt(2 n) for n independent pairs of coefficients, and the curves
for which `reconstruct` or `first_look` quotes a resolution. Writes benchmarks/results/copies.json; takes two minutes.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
from common import machine, write_results
from scipy.spatial.transform import Rotation

import cryotwin_nb as ct
from cryotwin_nb.formats.mrc_writing import write_stack

N, SIZE, PIXEL, SEEDS, FIRST_SHELL = 300, 32, 4.0, range(10), 4
GROUPS = {"listed once": "C1", "listed twice": "C1", "C3-expanded": "C3"}


def written(folder: Path, images: np.ndarray, poses: np.ndarray, shown: np.ndarray) -> ct.Particles:
    """Return particles read from a STAR file in which row i lists image `shown[i]` with the pose `poses[i]`."""
    write_stack(folder / "images.mrcs", [images], len(images), SIZE, PIXEL)
    columns = (np.full(len(shown), value, np.float32) for value in (15_000, 15_000, 0, 300, 2.7, 0.1, 0))
    rows = ct.Particles(images[shown], poses, ctf=ct.CTF(*columns), pixel_size=PIXEL)
    rows.write(folder / "rows.star", progress=False)
    lines = iter(shown.tolist())
    text = [
        line.replace(line.split()[0], f"{next(lines) + 1}@images.mrcs", 1) if "@" in line else line
        for line in (folder / "rows.star").read_text().splitlines()
    ]
    (folder / "rows.star").write_text("\n".join(text) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the copies are what is measured
        return ct.Particles.read(folder / "rows.star", contrast="dark")


def of_noise(kind: str, seed: int, folder: Path) -> list[dict]:
    """Return the agreement of the half maps of `reconstruct` and of `first_look`."""
    images = np.random.default_rng(seed).normal(size=(N, SIZE, SIZE)).astype(np.float32)
    group = Rotation.create_group(GROUPS[kind])
    elements = Rotation.concatenate([group, group]) if kind == "listed twice" else group
    poses = Rotation.random(N, rng=seed)
    rotations = np.concatenate([(element * poses).as_matrix() for element in elements])
    particles = written(folder, images, rotations, np.tile(np.arange(N), len(elements)))
    made, look = ct.reconstruct(particles, seed=seed), ct.first_look(particles, seed=seed)
    reported = [finding.evidence for finding in look.findings if "rows list" in finding.evidence]
    return [
        {
            "by": by,
            "deviations": (result.fsc.correlation / result.fsc.noise)[FIRST_SHELL - 1 :],
            "resolution quoted": bool(np.isfinite(result.resolution)),
            "reported": reported,
        }
        for by, result in (("reconstruct", made), ("first_look", look))
    ]


def of_assembly(folder: Path) -> float:
    """Return the largest difference in FSC between a list and the same list given twice."""
    made = ct.simulate.assembly(N, SIZE, snr=2.0, progress=False)
    images, poses = made.images(slice(None)), made.rotations
    shown = np.arange(N)
    once, twice = (
        ct.reconstruct(written(folder, images, np.tile(poses, (k, 1, 1)), np.tile(shown, k))).fsc.correlation
        for k in (1, 2)
    )
    return float(np.abs(twice - once).max())


if __name__ == "__main__":
    results: dict = {"machine": machine(), "noise": {}}
    with tempfile.TemporaryDirectory() as name:
        for kind in GROUPS:
            found = [row for seed in SEEDS for row in of_noise(kind, seed, Path(name))]
            for by in ("reconstruct", "first_look"):
                rows = [row for row in found if row["by"] == by]
                deviations = np.concatenate([row["deviations"] for row in rows])
                summary = {
                    "shells": len(deviations),
                    "beyond 3 / sqrt(2 n)": int((np.abs(deviations) > 3).sum()),
                    "root mean square, in 1 / sqrt(2 n)": round(float(np.sqrt(np.mean(deviations**2))), 2),
                    "largest, in 1 / sqrt(2 n)": round(float(np.abs(deviations).max()), 2),
                    "resolutions quoted": sum(row["resolution quoted"] for row in rows),
                    "reported": sorted({text for row in rows for text in row["reported"]}),
                }
                results["noise"][f"{kind}, {by}"] = summary
                print(f"{kind}, {by}:", summary, flush=True)
        results["assembly, largest difference in FSC between twice and once"] = of_assembly(Path(name))
        print(results["assembly, largest difference in FSC between twice and once"])
    write_results("copies", results)
