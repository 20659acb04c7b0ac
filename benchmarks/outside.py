"""Images of real motions, simulated by other programs: python benchmarks/outside.py [SET ...] [--folder F].

`adk`: adenylate kinase, closed to open, by cryojax (`outside_cryojax.py`), as `base`, `contrast` and `poses`. `glua3`:
a dimer of the GluA3 N-terminal domain, between two crystal structures, by RELION (`outside_relion.py`), with contrasts
that vary by 0.2. All are prepared at 32 px and trained with the defaults, and some also with a given number of latent
dimensions. No setting of this package was chosen on these sets.

Sets that are in the folder are not simulated again. The first needs an environment with cryojax, which is installed
into the folder unless `--python` names one; the second needs RELION on the path. Models are stored in the folder.
Writes benchmarks/results/outside.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import outside_relion
import torch
from common import RESULTS, machine, write_results
from outside_maps import density
from scipy.stats import kendalltau, spearmanr
from sklearn.neighbors import KNeighborsRegressor

import cryotwin_nb as ct
from cryotwin_nb.pathways.states import assign

SETS: dict[str, tuple[str | int, ...]] = {
    "adk/base": ("auto", 2, 4, 8),
    "adk/contrast": ("auto", 2, 4, 8),
    "adk/poses": ("auto",),
    "glua3/particles": ("auto", 2, 4, 8),
}
"""Latent dimensions of the models of each set."""
PACKAGES = ("MDAnalysis==2.11.0", "MDAnalysisTests==2.11.0", "cryojax==0.6.0", "cryospax==0.2.1", "starfile==0.5.13")
SIZE, N = 32, 12_000
LEAST_MASS = 0.02  # of a state
NEAR, BRIGHTER = 0.1, 0.1  # states whose mean coordinates are nearer, but whose mean contrasts differ by more, repeat


@dataclass
class OutsideSet:
    """Particles of a set, with the truth: structures, and structure, coordinate and contrast of each image."""

    particles: ct.Particles
    atoms: np.ndarray
    number: np.ndarray
    frame: np.ndarray
    coordinate: np.ndarray
    contrast: np.ndarray

    @classmethod
    def read(cls, folder: Path, name: str) -> OutsideSet:
        """Read a set; the stack of 32 px is prepared once."""
        prepared, light = folder / f"{name}-{SIZE}.star", {"contrast": "light"} if name == "particles" else {}
        if not prepared.exists():
            ct.prepare(folder / f"{name}.star", prepared, SIZE, progress=False, **light)
        atoms, truth = np.load(folder / "atoms.npz"), np.load(folder / "truth.npz")
        contrast = np.ones(len(truth["frame"])) if name in ("base", "poses") else truth["contrast"]
        structures = (atoms["frames"], atoms["number"].astype(np.float32))
        return cls(ct.Particles.read(prepared), *structures, truth["frame"], truth["coordinate"], contrast)

    @cached_property
    def maps(self) -> np.ndarray:
        """True map (D, D, D) of each structure."""
        pixel_size = self.particles.pixel_size
        return np.stack([density(xyz, self.number, SIZE, pixel_size) for xyz in self.atoms])

    @cached_property
    def arc_length(self) -> np.ndarray:
        """Arc length along the true maps at which each image lies, as a fraction of the whole."""
        steps = np.linalg.norm(np.diff(self.maps.reshape(len(self.maps), -1), axis=0), axis=1)
        return np.append(0, steps.cumsum() / steps.sum())[self.frame]

    def counted_barrier(self, place: np.ndarray | None = None) -> float:
        """Barrier by counting images in 20 bins of a place (n,), nats: first state to narrowest bin.

        By default, the place is the arc length along the true maps.
        """
        count = np.histogram(self.arc_length if place is None else place, 20, (0, 1))[0]
        narrowest = int(count.argmin())
        return float(np.log(count[:narrowest].max() / max(count[narrowest], 1)))


def simulate(folder: Path, python: str | None, n: int) -> None:
    """Simulate a set in `folder`, in its own environment if it is that of cryojax."""
    if folder.name == "glua3":
        outside_relion.simulate(folder, n)
        return
    if python is None:
        subprocess.run([sys.executable, "-m", "venv", str(folder / "environment")], check=True)
        python = str(folder / "environment" / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES, "scipy"], check=True)
    script = Path(__file__).with_name("outside_cryojax.py")
    subprocess.run([python, str(script), str(folder), "--n", str(n)], check=True)


def near_r2(z: np.ndarray, target: np.ndarray) -> float:
    """Return the held-out R² of a target (n,), predicted from the nearest latents of the other half."""
    order = np.random.default_rng(0).permutation(len(z))
    known, other = np.array_split(order, 2)
    found = KNeighborsRegressor(10, weights="distance").fit(z[known], target[known]).predict(z[other])
    return float(1 - ((target[other] - found) ** 2).mean() / target[other].var())


def states_of(model: ct.CryoTwin, z: torch.Tensor, truth: OutsideSet) -> list[dict[str, Any]]:
    """Return the states, with the mean true coordinate and contrast of the images in each, by coordinate."""
    states = ct.find_states(model.prior, least_mass=LEAST_MASS)
    own = assign(model.prior, states, z)
    rows = []
    for i, state in enumerate(states):
        means = {"coordinate": truth.coordinate[own == i].mean(), "contrast": truth.contrast[own == i].mean()}
        rows.append({"state": state, "name": state.name, "mass": state.mass, **{k: float(v) for k, v in means.items()}})
    return sorted(rows, key=lambda row: row["coordinate"])


def repeated(states: list[dict[str, Any]]) -> int:
    """Return the number of states that repeat another one at a different contrast."""
    pairs = [(a, b) for i, b in enumerate(states) for a in states[:i]]
    again = [
        b["name"]
        for a, b in pairs
        if abs(a["coordinate"] - b["coordinate"]) < NEAR and abs(a["contrast"] - b["contrast"]) > BRIGHTER
    ]
    return len(set(again))


def map_scores(model: ct.CryoTwin, z: torch.Tensor, truth: OutsideSet, n: int = 60) -> dict[str, float]:
    """Return the mean FSC with the true maps: of the map of each image, and of the map of the mean latent."""
    rows, pixel_size = np.linspace(0, len(z) - 1, n).astype(int), truth.particles.pixel_size
    decoded, average = model.volumes(z[rows]), model.volumes(z.mean(0)[None])[0]
    pairs = list(zip(decoded, truth.maps[truth.frame[rows]], strict=True))
    each = np.mean([ct.fsc(own, true, pixel_size).area for own, true in pairs])
    consensus = np.mean([ct.fsc(average, true, pixel_size).area for _, true in pairs])
    return {"FSC": float(each), "consensus": float(consensus)}


def order_along(path: Any, model: ct.CryoTwin, z: np.ndarray, truth: OutsideSet, n_near: int = 50) -> dict[str, Any]:
    """Return the mean coordinate of the images near each point, and Kendall's tau by images and by maps."""
    points = np.asarray(path.latents)
    nearest = [np.argsort(((z - point) ** 2).sum(1))[:n_near] for point in points]
    images = [truth.coordinate[rows].mean() for rows in nearest]
    flat = [maps.reshape(len(maps), -1) for maps in (np.asarray(model.volumes(path.latents)), truth.maps)]
    best = np.corrcoef(*flat)[: len(points), len(points) :].argmax(1)
    tau = {name: float(kendalltau(v, range(len(points)))[0]) for name, v in {"images": images, "maps": best}.items()}
    return {"coordinates": np.round(images, 2).tolist(), "frames": best.tolist(), "tau": tau}


def scores(truth: OutsideSet, dimension: str | int, file: Path) -> dict[str, Any]:
    """Train, store and score a model."""
    model, started = ct.CryoTwin(SIZE, latent_dim=dimension), time.perf_counter()
    ct.fit(model, truth.particles, ct.TrainingConfig(device="cpu"), progress=False)
    seconds = time.perf_counter() - started
    model.save(file)
    z = model.embed(truth.particles)
    states = states_of(model, z, truth)
    path = ct.max_flux(model.prior, states[0]["state"], states[-1]["state"])
    barrier = ct.measure_barrier(path, model.likelihood(truth.particles))
    latents = z.double().numpy()
    axes = np.linalg.svd(latents - latents.mean(0), full_matrices=False)[0].T
    varies = truth.contrast.std() > 0
    return {
        "dimensions": model.latent_dim,
        "components": model.prior.n_components,
        "states": [{k: v for k, v in row.items() if k != "state"} for row in states],
        "states repeated at another contrast": repeated(states),
        "spread of contrasts": float(model.networks.contrast_spread),
        "R2 of the coordinate": near_r2(latents, truth.coordinate),
        "R2 of the contrast": near_r2(latents, truth.contrast) if varies else None,
        "Spearman of each axis with the contrast": (
            [float(abs(spearmanr(axis, truth.contrast)[0])) for axis in axes] if varies else None
        ),
        **map_scores(model, z, truth),
        "path": order_along(path, model, latents, truth),
        "barrier": barrier.summary() | {"printed": str(barrier)},
        "training, s": seconds,
    }


def rounded(value: Any) -> Any:
    """Return nested results with floats of four decimals."""
    if isinstance(value, dict):
        return {key: rounded(own) for key, own in value.items()}
    if isinstance(value, list):
        return [rounded(own) for own in value]
    return round(value, 4) if isinstance(value, float) else value


def line(name: str, dimension: str, row: dict[str, Any], counted: float) -> str:
    """Return one line of the table."""
    contrast = row["Spearman of each axis with the contrast"]
    cells = [
        name,
        f"{dimension} ({row['dimensions']})" if dimension == "auto" else dimension,
        row["components"],
        f"{len(row['states'])} ({row['states repeated at another contrast']})",
        f"{row['spread of contrasts']:.3f}",
        f"{row['R2 of the coordinate']:.3f}",
        "" if contrast is None else f"{row['R2 of the contrast']:.2f}",
        "" if contrast is None else f"{max(contrast):.3f}",
        f"{row['FSC']:.3f} ({row['consensus']:.3f})",
        f"{row['path']['tau']['images']:.2f} / {row['path']['tau']['maps']:.2f}",
        f"{row['barrier']['printed']} (counted {counted:.1f})",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


COLUMNS = (
    *("set", "d", "components", "states (repeated)", "spread of contrasts", "R² of the coordinate"),
    *("R² of the contrast", "largest Spearman of the contrast", "FSC (consensus)", "tau by images / maps", "barrier"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(SETS), metavar="SET", help=f"of {', '.join(SETS)}")
    parser.add_argument("--folder", type=Path, default=Path("results/outside"), help="simulated data, new or existing")
    parser.add_argument("--python", help="Python of an environment with cryojax")
    parser.add_argument("--n", type=int, default=N, help="number of images of a new set")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    stored = RESULTS / "outside.json"
    found: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    found["machine"] = machine()
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for name in args.sets:
        folder = args.folder / Path(name).parent
        if not (folder / "truth.npz").exists():
            simulate(folder, args.python, args.n)
        truth = OutsideSet.read(folder, Path(name).name)
        own = {"images": len(truth.coordinate), "planted spread of contrasts": float(truth.contrast.std())}
        own |= {"barrier, counted along the true maps": truth.counted_barrier()}
        found[name] = own | {"barrier, counted along the coordinate": truth.counted_barrier(truth.coordinate)}
        for dimension in SETS[name]:
            row = scores(truth, dimension, args.folder / f"{name}-{SIZE}-d-{dimension}.safetensors")
            print(line(name, str(dimension), row, truth.counted_barrier()), flush=True)
            found[name][f"d = {dimension}"] = row
            write_results("outside", rounded(found))


if __name__ == "__main__":
    main()
