"""Train the small models that the notebooks load: python benchmarks/stored_models.py [assembly-small] [hinge-small].

Writes notebooks/models/<data set>.safetensors and <data set>-latents.npz, the model's latents of the images, for
notebooks that open in seconds; and benchmarks/results/<data set>.json, the figures of merit with the machine and the
versions. Takes about a minute each on two cores. The README's pictures are made from the model of
assembly-small.

With --keep the stored models are measured again without training. With --coordinate, models of the coordinate
architecture are trained from scratch, with the paper's numbers of dimensions and components (eight minutes each):
notebooks/models/<data set>-coordinate.safetensors and <data set>-coordinate.json; with --keep, the stored ones are
measured again. With --warm, such models are initialised from subspace models (six minutes each) and measured but not
stored: <data set>-warm.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import AFTER_WARM_START, machine

import cryotwin_nb as ct
from cryotwin_nb import evaluation
from cryotwin_nb.models.storage import write_model

HERE = Path(__file__).parent
MODELS = HERE.parent / "notebooks" / "models"
SETTINGS = {
    "assembly-small": {"n_components": 60},
    "hinge-small": {"latent_dim": 2, "n_components": 30},  # two curved dimensions, one for each hinge
}

PAPER = {"latent_dim": 8, "n_components": 100}
MANY = 50_000  # weights of a layer


def run(name: str, kind: str, keep: bool) -> None:
    """Train, unless the stored model is to be kept; store and measure; kinds are "subspace", "coordinate", "warm"."""
    particles, settings = ct.data.fetch(name), PAPER if kind != "subspace" else SETTINGS[name]
    suffix = "" if kind == "subspace" else f"-{kind}"
    stored, results = MODELS / f"{name}{suffix}.safetensors", HERE / "results" / f"{name}{suffix}.json"
    started, seconds = time.perf_counter(), None
    if keep:
        model = ct.CryoTwin.load(stored)
        seconds = json.loads(results.read_text())["seconds of training"]
    else:
        model = ct.CryoTwin(particles.box_size, "subspace" if kind == "subspace" else "coordinate", **settings)
        if kind == "warm":
            source = ct.CryoTwin(particles.box_size, **settings)
            ct.fit(source, particles)
            ct.warm_start(model, source, particles)
        ct.fit(model, particles, AFTER_WARM_START if kind == "warm" else None)
    seconds = seconds or round(time.perf_counter() - started)
    if kind != "warm" and not keep:
        write_model(smaller(model.payload()), stored)
    if kind == "subspace":
        keep_latents(name, model, particles)
    measured = measure(model, particles) | {"seconds of training": seconds, "machine": machine()}
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps(measured, indent=1) + "\n")
    print(json.dumps(measured, indent=1))


def smaller(payload: dict[str, Any]) -> dict[str, Any]:
    """Return a payload with large weights of a coordinate encoder in 16 bits: the latents change by 0.01 %."""
    state = {
        name: value.half() if name.startswith("networks.encoder.") and value.numel() > MANY else value
        for name, value in payload["state"].items()
    }
    return payload | {"state": state}


def keep_latents(name: str, model: ct.CryoTwin, particles: ct.Particles) -> None:
    """Store the latents of all images and the simulated states, and t-SNE coordinates if there are many dimensions."""
    z = model.embed(particles)
    arrays = {"latents": z.numpy(), "labels": particles.require_truth().labels}
    if z.shape[1] > 2:
        arrays["tsne"] = ct.embed_tsne(z, model.prior).latents.astype(np.float16)
    np.savez_compressed(MODELS / f"{name}-latents.npz", **arrays)


def measure(model: ct.CryoTwin, particles: ct.Particles) -> dict:
    truth, z = particles.require_truth(), model.embed(particles)
    active = 5 if truth.kind == "assembly" else 2
    prior_of_half = ct.GaussianMixture.fit(z[::2], model.config["n_components"])
    return {
        "isometry r, random directions": evaluation.isometry(model, z).correlation,
        f"isometry r, active subspace ({active})": evaluation.isometry(model, z, n_active=active).correlation,
        "KL by KLIEP, nats": evaluation.kl_divergence(z, model.prior),
        "KL by KLIEP of the other half's mixture, nats": evaluation.kl_divergence(z[1::2], prior_of_half),
        "components used": model.prior.n_components,
        "R2 of the true coordinates": evaluation.coordinate_r2(z, truth),
        "FSC area against truth": float(evaluation.fsc_to_truth(model.volumes, z, truth).mean()),
    }


def draw_pathways() -> None:
    """Draw the README's pictures: all routes from B to E5, and the maps along the joined sub-paths of Algorithm 1."""
    particles, model = ct.data.fetch("assembly-small"), ct.CryoTwin.load(MODELS / "assembly-small.safetensors")
    z, labels = model.embed(particles), particles.require_truth().labels
    ends = [evaluation.component_of_state(model.prior, z, labels, state) for state in ("B", "E5")]
    path = ct.ridgeline_chain(model.prior, *ends)
    titles = [f"step {k}" for k in range(len(path.latents))]
    figure = ct.plotting.map_montage(model.volumes(path.latents), particles.pixel_size, titles, reference="first")
    pictures = HERE.parent / "notebooks" / "figures"
    pictures.mkdir(exist_ok=True)
    figure.savefig(pictures / "pathway.png", dpi=130, bbox_inches="tight")
    states = ct.find_states(model.prior, least_mass=0.02, latents=z)
    routes = ct.find_routes(model.prior, *ends, evidence=model.likelihood(particles), states=states)
    names = evaluation.label_components(model.prior, z, labels)
    state_names = {s.name: names[s.components[0]] for route in routes for s in route.states}
    graph = ct.plotting.route_graph(routes, model.volumes, state_names).figure
    graph.savefig(pictures / "routes.png", dpi=100, bbox_inches="tight")


if __name__ == "__main__":
    names = [argument for argument in sys.argv[1:] if not argument.startswith("--")] or list(SETTINGS)
    kinds = [kind for kind in ("coordinate", "warm") if f"--{kind}" in sys.argv] or ["subspace"]
    if len(kinds) > 1:
        sys.exit("Give one of --coordinate and --warm.")
    for name in names:
        run(name, kinds[0], "--keep" in sys.argv)
    if "assembly-small" in names and kinds == ["subspace"]:
        draw_pathways()
