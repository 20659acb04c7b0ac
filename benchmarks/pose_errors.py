"""Effect of errors of the given poses and shifts: python benchmarks/pose_errors.py [NAME].

A subspace model is trained on an embedded data set with random errors of the recorded rotations or shifts, and scored
against the truth. The findings of the first look at the same particles are recorded. Writes
benchmarks/results/pose_errors.json. Takes about a minute for each of the seven data sets.
"""

from __future__ import annotations

import sys
import time

from common import machine, write_results
from stored_models import SETTINGS

import cryotwin_nb as ct
from cryotwin_nb import evaluation

DEGREES = (0, 2, 5, 10)  # root mean square errors of the rotations
PIXELS = (0.5, 1, 2)  # standard deviations of the shift errors along each axis


def levels(pixel_size: float) -> dict[str, dict[str, float]]:
    """Return the arguments of `simulate` for each data set."""
    rotations = {f"{degrees} degrees": {"pose_error": float(degrees)} for degrees in DEGREES}
    return rotations | {f"{pixels} px": {"shift_error": pixels * pixel_size} for pixels in PIXELS}


def measure(particles: ct.Particles, settings: dict) -> dict:
    """Return figures of merit of a model trained on the particles, and the findings of the first look."""
    started = time.perf_counter()
    look = ct.first_look(particles)
    looked = round(time.perf_counter() - started, 1)
    model = ct.CryoTwin(particles.box_size, "subspace", **settings)
    ct.fit(model, particles, progress=False)
    z, truth = model.embed(particles), particles.require_truth()
    return {
        "FSC area against truth": float(evaluation.fsc_to_truth(model.volumes, z, truth).mean()),
        "R2 of the true coordinates": evaluation.coordinate_r2(z, truth),
        "first look": {
            "pose error, degrees": look.pose_error,
            "shift error, Å": look.shift_error,
            "findings": [finding.name for finding in look.findings],
            "seconds": looked,
        },
    }


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "assembly-small"
    entry = ct.data.datasets()[name]
    results = {}
    for level, errors in levels(entry.arguments["pixel_size"]).items():
        particles = getattr(ct.simulate, str(entry.generator))(**entry.arguments, **errors, progress=False)
        results[level] = measure(particles, SETTINGS[name])
        print(level, results[level], flush=True)
        write_results("pose_errors", {name: results, "machine": machine()})
