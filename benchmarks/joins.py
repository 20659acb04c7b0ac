"""Join of cryoSPARC and RELION files of a million particles: python benchmarks/joins.py [--n 1000000]

Writes a particle file, its passthrough file and refined poses in cryoSPARC's fields, with rows in different orders, and
a STAR file without poses. Each way of reading them runs in its own process, without images. Writes seconds, CPU time
and peak memory to results/joins.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import in_own_process, machine, peak_memory, write_results

import cryotwin_nb as ct

PER_STACK = 200
IMAGES = [
    ("blob/path", "S96"),
    ("blob/idx", "<u4"),
    ("blob/shape", "<u4", (2,)),
    ("blob/psize_A", "<f4"),
    ("blob/sign", "<f4"),
    ("blob/import_sig", "<u8"),
]
POSES = [
    *(("alignments3D/" + name, "<f4") for name in ("psize_A", "error", "error_min", "resid_pow", "slice_pow")),
    *(("alignments3D/" + name, "<f4") for name in ("image_pow", "cross_cor", "alpha", "alpha_min", "weight")),
    *(("alignments3D/" + name, "<f4") for name in ("pose_ess", "shift_ess", "class_posterior", "class_ess")),
    *(("alignments3D/" + name, "<u4") for name in ("split", "class")),
    ("alignments3D/pose", "<f4", (3,)),
    ("alignments3D/shift", "<f4", (2,)),
]
CTF = [
    *(("ctf/" + name, "<f4") for name in ("accel_kv", "cs_mm", "amp_contrast", "df1_A", "df2_A", "df_angle_rad")),
    *(("ctf/" + name, "<f4") for name in ("phase_shift_rad", "scale", "scale_const", "bfactor")),
    *(("ctf/" + name, "<f4", (2,)) for name in ("shift_A", "tilt_A", "trefoil_A")),
    ("ctf/tetra_A", "<f4", (4,)),
    ("ctf/anisomag", "<f4", (4,)),
    ("ctf/exp_group_id", "<u4"),
    ("ctf/type", "S9"),
]
ORIGIN = [
    ("location/micrograph_path", "S120"),
    ("location/micrograph_uid", "<u8"),
    ("location/micrograph_shape", "<u4", (2,)),
    ("location/center_x_frac", "<f4"),
    ("location/center_y_frac", "<f4"),
    ("pick_stats/ncc_score", "<f4"),
    ("pick_stats/power", "<f4"),
]


def write_files(folder: Path, n: int) -> None:
    """Write particles.cs (images, poses) and, in another order of rows, passthrough.cs, refined.cs and images.star."""
    rng = np.random.default_rng(0)
    particles = np.zeros(n, [("uid", "<u8"), *IMAGES, *POSES])
    particles["uid"] = np.unique(rng.integers(1, 2**63, 2 * n, np.uint64))[rng.permutation(n)]
    stack = np.arange(n) // PER_STACK
    names = np.array([f"J12/extract/{i:021d}_FoilHole_{i:07d}_particles.mrc" for i in range(stack[-1] + 1)], "S96")
    particles["blob/path"], particles["blob/idx"] = names[stack], np.arange(n) % PER_STACK
    particles["blob/shape"], particles["blob/psize_A"], particles["blob/sign"] = 256, 1.1, -1
    particles["alignments3D/pose"] = rng.uniform(-1, 1, (n, 3))
    particles["alignments3D/shift"], particles["alignments3D/psize_A"] = rng.normal(size=(n, 2)), 2.2
    order = rng.permutation(n)
    through = np.zeros(n, [("uid", "<u8"), *CTF, *ORIGIN])
    through["uid"] = particles["uid"][order]
    through["ctf/df1_A"], through["ctf/df2_A"] = rng.uniform(8000, 25000, (2, n))
    through["ctf/accel_kv"], through["ctf/cs_mm"], through["ctf/amp_contrast"] = 300, 2.7, 0.1
    refined = np.zeros(n, [("uid", "<u8"), *POSES])
    for name in refined.dtype.names:
        refined[name] = particles[name][order]
    for name, table in {"particles.cs": particles, "passthrough.cs": through, "refined.cs": refined}.items():
        with open(folder / name, "wb") as file:
            np.save(file, table)
    lines = (f"{i % PER_STACK + 1:06d}@Extract/job7/FoilHole_{i // PER_STACK:07d}_particles.mrcs 1" for i in order)
    with open(folder / "images.star", "w") as file:
        file.write("data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n_rlnImageSize #3\n1 1.1 256\n\n")
        file.write("data_particles\n\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n")
        file.writelines(f"{line}\n" for line in lines)


WAYS: dict[str, Callable[[Path], ct.Particles]] = {
    "two .cs files": lambda folder: ct.Particles.read(
        [folder / "particles.cs", folder / "passthrough.cs"], images=False, contrast="dark"
    ),
    "a .cs file, ctf= another": lambda folder: ct.Particles.read(
        folder / "particles.cs", ctf=folder / "passthrough.cs", images=False, contrast="dark"
    ),
    "a .cs file, poses= another": lambda folder: ct.Particles.read(
        folder / "particles.cs", poses=folder / "refined.cs", images=False, contrast="dark"
    ),
    "a .star file, poses= a .cs file": lambda folder: ct.Particles.read(
        folder / "images.star", poses=folder / "particles.cs", images=False, contrast="dark"
    ),
}


def measure(folder: Path, way: str) -> dict:
    """Read the files in one way."""
    before = peak_memory()
    began, began_computing = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        particles = WAYS[way](folder)
    seconds, computing = time.perf_counter() - began, time.process_time() - began_computing
    return {
        "particles": len(particles),
        "seconds": round(seconds, 1),
        "seconds of CPU time": round(computing, 1),
        "peak memory, GiB": round(peak_memory(), 2),
        "of which before reading, GiB": round(before, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000, help="number of particles")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # folder and way, in the process of its own
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(Path(args.measure[0]), args.measure[1])))
        return
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name), args.n)
        sizes = {file.name: round(file.stat().st_size / 2**20) for file in sorted(Path(name).iterdir())}
        found = {way: in_own_process(__file__, "--measure", name, way) for way in WAYS}
    results = {"machine": machine(), "n": args.n, "file sizes, MiB": sizes, "measured": found}
    write_results("joins", results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
