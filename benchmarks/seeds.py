"""Figures of merit over simulation seeds: python benchmarks/seeds.py [NAME ...] [--seeds 5] [--folder F].

The names are those of the embedded data sets; append "+mask" for a model with a tight mask. For each seed the data set
is simulated and a subspace model is trained and measured; benchmarks/results/seeds.json stores every value and the
medians. The models remain in the folder, where `pathways.py` finds them. Nothing is timed, so the data sets can be
distributed over processes. Takes a minute per seed for a small data set, four minutes for the others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, machine, write_results
from stored_models import SETTINGS, measure

import cryotwin_nb as ct

NAMES = ("assembly-small", "hinge-small", "assembly", "hinge", "assembly+mask")


def simulated(name: str, seed: int, images: bool = True) -> ct.Particles:
    """Return an embedded data set, simulated with another seed."""
    entry = ct.data.datasets()[name]
    make = getattr(ct.simulate, str(entry.generator))
    return make(**(entry.arguments | {"seed": seed}), images=images, progress=False)


def trained(name: str, seed: int, folder: Path, images: bool = True) -> tuple[ct.CryoTwin, ct.Particles]:
    """Return the model for a data set and seed, from the folder if stored there, and its particles."""
    data_set, _, masked = name.partition("+")
    stored = folder / f"{name}-{seed}.safetensors"
    if stored.exists():
        return ct.CryoTwin.load(stored), simulated(data_set, seed, images)
    particles = simulated(data_set, seed)
    settings = SETTINGS[f"{data_set.removesuffix('-small')}-small"]
    model = ct.CryoTwin(particles.box_size, "subspace", **settings, **({"tight_mask": True} if masked else {}))
    ct.fit(model, particles, progress=False)
    model.save(stored)
    torch.save(model.embed(particles), folder / f"{name}-{seed}-latents.pt")
    return model, particles


def medians(measured: dict[str, dict]) -> dict:
    """Return the median of every figure of merit over the seeds."""
    first = next(iter(measured.values()))
    return {
        name: medians({seed: m[name] for seed, m in measured.items()})
        if isinstance(value, dict)
        else float(np.median([m[name] for m in measured.values()]))
        for name, value in first.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("results/seeds"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        measured = {}
        for seed in range(arguments.seeds):
            model, particles = trained(name, seed, arguments.folder)
            measured[str(seed)] = measure(model, particles)
            print(name, seed, json.dumps(measured[str(seed)]), flush=True)
        stored = RESULTS / "seeds.json"
        results = json.loads(stored.read_text()) if stored.exists() else {}
        results[name] = {"median": medians(measured), "seeds": measured, "machine": machine()}
        write_results("seeds", results)
