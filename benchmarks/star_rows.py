"""Time and memory to read a STAR file of a million rows: python benchmarks/star_rows.py [CHECKOUT ...] [--rows N].

Writes a STAR file as of a RELION 3.1 refinement (2,000 stacks, three optics groups). Fresh processes of this checkout
and of the others, in turn, read its metadata (`Particles.read` with images=False, and `identity` where it exists).
Writes medians of wall time, CPU time and peak memory, and the ratios to each other checkout, to results/star_rows.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import machine, write_results

HERE = Path(__file__).resolve().parent.parent
ROUNDS = 3
STACKS = 2000
OPTICS = """# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMtfFileName #3
_rlnMicrographOriginalPixelSize #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
_rlnImagePixelSize #8
_rlnImageSize #9
_rlnImageDimensionality #10
"""
LABELS = (
    *("CoordinateX", "CoordinateY", "ImageName", "MicrographName", "OpticsGroup", "CtfMaxResolution"),
    *("CtfFigureOfMerit", "DefocusU", "DefocusV", "DefocusAngle", "CtfBfactor", "CtfScalefactor", "PhaseShift"),
    *("AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst", "GroupNumber", "ClassNumber"),
    *("NormCorrection", "LogLikeliContribution", "MaxValueProbDistribution", "NrOfSignificantSamples"),
    "RandomSubset",
)
READ = """
import json, resource, sys, time
import cryotwin_nb as ct
started = time.perf_counter()
particles = ct.Particles.read(sys.argv[1], images=False)
identity = getattr(particles, "identity", range(len(particles)))
assert len(identity) == len(particles) == int(sys.argv[2])
status = open("/proc/self/status").read().split("VmHWM:")[1]
print(json.dumps({
    "wall time, s": time.perf_counter() - started,
    "CPU time, s": time.process_time(),
    "peak memory, GiB": int(status.split()[0]) / 2**20,
}))
"""


def write_rows(path: Path, n: int) -> None:
    """Write a STAR file of `n` particles with the columns of a RELION 3.1 refinement."""
    rng = np.random.default_rng(0)
    head = "".join(f"_rln{label} #{i}\n" for i, label in enumerate(LABELS, 1))
    with open(path, "w", encoding="utf-8") as file:
        file.write(OPTICS)
        file.writelines(f"opticsGroup{i} {i} mtf.star 0.83 300.0 2.7 0.1 1.66 256 2\n" for i in (1, 2, 3))
        file.write(f"\n\n# version 30001\n\ndata_particles\n\nloop_\n{head}")
        per_stack = -(-n // STACKS)
        for stack in range(STACKS):
            m = min(per_stack, n - stack * per_stack)
            if m <= 0:
                break
            name = f"FoilHole_{25_000_000 + 37 * stack}_Data_{stack % 7}_20240{1 + stack % 9}15_fractions"
            xy, angles = rng.uniform(0, 4000, (m, 2)), rng.uniform(-180, 180, (m, 4))
            defocus, origins = rng.uniform(8000, 22000, m), rng.normal(0, 3, (m, 2))
            score, likelihood = rng.uniform(0.1, 1, (m, 2)), rng.normal(3e5, 2e4, m)
            for i in range(m):
                file.write(
                    f"{xy[i, 0]:12.6f} {xy[i, 1]:12.6f} {i + 1:06d}@Extract/job012/Movies/{name}.mrcs "
                    f"MotionCorr/job003/Movies/{name}.mrc {1 + stack % 3:12d}     3.412000     0.101567 "
                    f"{defocus[i]:12.6f} {defocus[i] - 250:12.6f} {angles[i, 3]:12.6f}     0.000000     1.000000     "
                    f"0.000000 {angles[i, 0]:12.6f} {abs(angles[i, 1]):12.6f} {angles[i, 2]:12.6f} "
                    f"{origins[i, 0]:12.6f} {origins[i, 1]:12.6f} {1 + stack % 150:12d} {1 + i % 6:12d} "
                    f"{score[i, 0]:12.6f} {likelihood[i]:12.6e} {score[i, 1]:12.6f} {1 + i % 40:12d} {1 + i % 2:12d}\n"
                )


def measure(checkout: Path, star: Path, n: int) -> dict[str, float]:
    """Read the file in a fresh process that imports the package from `checkout`."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, "-W", "ignore", "-c", READ, str(star), str(n)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout)
    return json.loads(output.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("others", nargs="*", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    checkouts = {"this checkout": HERE} | {commit(path): path.resolve() for path in options.others}
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        star = Path(folder) / "run_data.star"
        write_rows(star, options.rows)
        megabytes = round(star.stat().st_size / 1e6)
        for _ in range(ROUNDS):
            for name, path in checkouts.items():
                measured[name].append(measure(path, star, options.rows))
                print(name, measured[name][-1], flush=True)
    result: dict = {"rows": options.rows, "columns": len(LABELS), "file, MB": megabytes, "processes each": ROUNDS}
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in measured.items()
    }
    new = medians["this checkout"]
    result["medians"] = {name: {k: round(v, 2) for k, v in values.items()} for name, values in medians.items()}
    result["ratios"] = {
        f"to {name}": {key: round(new[key] / value, 2) for key, value in values.items()}
        for name, values in medians.items()
        if name != "this checkout"
    }
    write_results("star_rows", result | {"machine": machine()})
    print(json.dumps(result, indent=1))


def commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%h (%cs)"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
