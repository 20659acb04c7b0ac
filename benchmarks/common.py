"""Code shared by the benchmarks: machine description, clocks, peak memory, and runs in separate processes."""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

import cryotwin_nb as ct
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.eigenvolumes import begin

RESULTS = Path(__file__).parent / "results"
AFTER_WARM_START = ct.TrainingConfig(epochs=3, warmup=0, start_radius=1, learning_rate=2e-4, map_prior=3.0)
"""Training settings of coordinate models after `warm_start`."""


def machine() -> dict:
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "bfloat16": ct.training.has_bfloat16("cpu"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_results(name: str, results: dict) -> None:
    """Write results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")


def in_own_process(script: str, *arguments: object) -> dict:
    """Run a script that prints JSON as its last line in a separate process, so that its peak memory is separate."""
    command = [sys.executable, script, *map(str, arguments)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def peak_memory(process: int | str = "self") -> float:
    """Peak resident memory of a process, GiB; 0 if it has ended.

    Read from /proc where it exists, because `getrusage` of a child includes the parent that it was forked from.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        if Path("/proc").exists():
            return 0.0
        who = resource.RUSAGE_SELF if process == "self" else resource.RUSAGE_CHILDREN
        return resource.getrusage(who).ru_maxrss / 2**30  # bytes on macOS
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM")), 0.0)


class Stopwatch:
    """Seconds since creation, excluding time spent inside `with stopwatch.paused() as seconds:`."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @contextmanager
    def paused(self) -> Iterator[float]:
        """Pause the clock; yield the seconds so far."""
        began = time.perf_counter()
        yield began - self._started
        self._started += time.perf_counter() - began


def prepared(imaging: ImageFormation, particles: ct.Particles, size: int = 256) -> Iterator[ImageBatch]:
    """Yield the images in order, prepared on request."""
    for start in range(0, len(particles), size):
        yield imaging.batch(particles, np.arange(start, min(start + size, len(particles))))


def untrained(particles: ct.Particles, n_basis: int) -> ct.CryoTwin:
    """Return a subspace model with measured noise and random initial directions."""
    model = ct.CryoTwin(particles.box_size, "subspace", latent_dim=n_basis, n_components=1, n_basis=n_basis)
    model.imaging.measure(particles)
    first = prepared(model.imaging, particles[: min(256, len(particles))])
    model.networks.eigenvolumes = begin(model.imaging, first, model.networks.mask, n_basis)
    return model


def warm_up(architecture: str) -> None:
    """Compile or load the loops and trigger lazy imports by a fit to a few tiny images."""
    particles = ct.simulate.assembly(256, 16, progress=False)
    model = ct.CryoTwin(16, architecture, latent_dim=2, n_components=2)
    ct.fit(model, particles, ct.TrainingConfig(epochs=1), progress=False)
