"""End-to-end demo: simulate, write, read, train, embed, find a path, decode, and compare with the ground truth.

Every stage runs as it would for a user: particles are written to and read from .mrcs and .star files, and training
writes a checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cryotwin_nb import data, evaluation
from cryotwin_nb.errors import MissingExtraError, extras_explained
from cryotwin_nb.exchange.export import write_pathway
from cryotwin_nb.exchange.latents_record import save_latents
from cryotwin_nb.formats.files import require_writable
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.models.storage import fingerprint
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.pathways import ridgeline_chain
from cryotwin_nb.pathways.ridgeline import Pathway, ridgeline
from cryotwin_nb.training import TrainingConfig, fit

NOTEBOOK = files("cryotwin_nb.demo") / "00_quickstart.ipynb"


class Stages:
    """Print the name of each stage and record its duration in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def run(
    output: str | Path,
    dataset: str = "assembly",
    architecture: str = "subspace",
    epochs: int | None = None,
    seed: int = 0,
) -> dict:
    """Run all stages, write their results to `output`, and return the evaluation; raise on any failure.

    Parameters
    ----------
    output : path
        Output folder: receives particles/, model.safetensors, checkpoint.pt, latents.npy, pathway/, figures/,
        quickstart.html and table.json.
    dataset : str
        Built-in data set of data_manifest.yaml with known ground truth.
    architecture : {"subspace", "coordinate"}
        Architecture of the model.
    epochs : int, optional
        Passes over the images. The default depends on the architecture.
    seed : int
        Random seed of the training and of the path.
    """
    output, stage = Path(output), Stages()
    require_writable(output / "particles")
    require_writable(output)
    star = output / "particles" / f"{dataset}.star"
    with stage("simulate"):
        simulated = data.fetch(dataset)
    with stage("write and read"):
        simulated.write(star)
        particles = Particles.read(star, contrast="dark")
    with stage("train"):
        model = CryoTwin(particles.box_size, architecture, n_components=60, seed=seed)
        fit(model, particles, TrainingConfig(epochs=epochs, seed=seed, checkpoint=output / "checkpoint.pt"))
        model.save(output / "model.safetensors")
    with stage("embed"):
        z = model.embed(particles, progress=True)
        weights = fingerprint(model.state_dict())
        save_latents(output / "latents.npy", z, particles, weights, output / "model.safetensors")
    with stage("pathway"):
        labels = particles.require_truth().labels
        start, end = (evaluation.component_of_state(model.prior, z, labels, state) for state in ("B", "E5"))
        direct = ridgeline(model.prior, start, end, seed=seed)
        path = ridgeline_chain(model.prior, start, end, seed=seed)
    with stage("decode"):
        maps = model.volumes(path.latents)
        write_pathway(output / "pathway", path, maps, particles.pixel_size)
    with stage("evaluate"):
        results = evaluate(model, particles, z, direct, path)
    try:
        with stage("figures and notebook"), extras_explained():
            _draw(output / "figures", particles, model, z, direct, path)
            _execute_notebook(output, star, dataset, architecture)
    except MissingExtraError as error:
        print(f"Skipping figures and notebook. {error}")
    results["seconds"] = {name: round(value, 1) for name, value in stage.seconds.items()}
    (output / "table.json").write_text(json.dumps(results, indent=1))
    print(table(results))
    return results


def evaluate(model: CryoTwin, particles: Particles, z: Tensor, direct: Pathway, chain: Pathway) -> dict:
    """Compute the demo's figures of merit against the known ground truth.

    Parameters
    ----------
    model : CryoTwin
        Trained model.
    particles : Particles
        Particles with `truth`.
    z : (n, d)
        Latents of the particles.
    direct, chain : Pathway
        Path from B to E5 computed by a single run of Algorithm 1, and path joined from sub-paths.
    """
    truth, prior = particles.require_truth(), model.prior
    results = {
        "isometry r, random directions": evaluation.isometry(model, z).correlation,
        "isometry r, active subspace (5)": evaluation.isometry(model, z, n_active=5).correlation,
        "KL(latents from prior), nats": evaluation.kl_divergence(z, prior),
        "components used": prior.n_components,
        "FSC area against truth": float(evaluation.fsc_to_truth(model.volumes, z, truth).mean()),
        "R2 of the true occupancies": evaluation.coordinate_r2(z, truth),
    }
    for name, path in {"Algorithm 1, B to E5 at once": direct, "sub-paths joined": chain}.items():
        occupancies = evaluation.block_occupancies(model.volumes(path.latents), truth)
        order = evaluation.block_order(occupancies, truth.coordinate_names)
        results[f"{name}: log J"] = path.log_cost
        results[f"{name}: barrier, nats"] = path.barrier
        results[f"{name}: blocks appear in the order"] = order
        results[f"{name}: a true order"] = tuple(order) in evaluation.true_block_orders()
    return results


def table(results: dict) -> str:
    """Format the results of `run` as aligned text.

    Parameters
    ----------
    results : dict
        Results by name.
    """
    rows = []
    for name, value in results.items():
        if name == "seconds":
            rows += [(f"seconds: {stage}", f"{s:.1f}") for stage, s in value.items()]
        elif isinstance(value, dict):
            rows += [(f"{name}: {key}", f"{v:.3f}") for key, v in value.items()]
        elif isinstance(value, list):
            rows.append((name, " -> ".join(value)))
        else:
            rows.append((name, f"{value:.3f}" if isinstance(value, float) else str(value)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _draw(folder: Path, particles: Particles, model: CryoTwin, z: Tensor, direct: Pathway, chain: Pathway) -> None:
    """Write the figures of the quick-start notebook to files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from cryotwin_nb import plotting

    folder.mkdir(exist_ok=True)
    truth, pixel = particles.require_truth(), particles.pixel_size
    maps = model.volumes(chain.latents)
    figures = {
        "particles": lambda: plotting.particle_gallery(
            particles.images(np.arange(12)), pixel, truth.labels[:12].tolist()
        ),
        "training": lambda: plotting.training_curves(model.history),
        "latents": lambda: plotting.latent_scatter(z, path=[chain, direct], labels=truth.labels.tolist()),
        "density": lambda: plotting.density_along_path(chain, model.prior),
        "pathway": lambda: plotting.map_montage(maps, pixel, reference="first"),
        "occupancies": lambda: plotting.occupancy_along_path(
            evaluation.block_occupancies(maps, truth), truth.coordinate_names
        ),
    }
    for name, draw in figures.items():
        drawn = draw()
        figure: Any = drawn if hasattr(drawn, "savefig") else drawn.figure
        figure.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")
        plt.close(figure)


def _execute_notebook(output: Path, star: Path, dataset: str, architecture: str) -> None:
    """Run the quick-start notebook on these particles and this model, and save it as HTML."""
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    notebook = nbformat.reads(NOTEBOOK.read_text(encoding="utf-8"), as_version=4)
    position = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    files = {"PARTICLES": str(star.resolve()), "MODEL": str((output / "model.safetensors").resolve())}
    values = {"DATASET": dataset, "ARCHITECTURE": architecture, **files}
    source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    notebook.cells.insert(position + 1, nbformat.v4.new_code_cell(f"# Files of this demo run\n{source}"))
    quiet = ["--IPKernelApp.log_level=ERROR"]  # it warns that it uses TCP
    client = NotebookClient(notebook, timeout=1200, store_widget_state=False, extra_arguments=quiet)
    client.execute(cwd=str(output))
    page, _ = HTMLExporter().from_notebook_node(notebook)
    (output / "quickstart.html").write_text(page, encoding="utf-8")
