"""Store the results of cryoDRGN's run that the notebooks need: python benchmarks/cryodrgn_baseline.py --cryodrgn PATH.

Reads the folder of `vs_cryodrgn.py` (run its leg "cryodrgn" first) and writes
notebooks/models/cryodrgn-assembly-small.npz:

latents (n, 8)               posterior means of all images, float16
state_names (s,)             the states of the ground truth
state_latents (s, 8)         for each, the latent nearest to the median of its images
state_maps (s, D, D, D)      decoded there, float16, in units of their largest value
prior_maps (9, D, D, D)      decoded at samples of its prior, the standard normal density; likewise
isometry_products (2, n)     dz1.dz2 and dV1.dV2, by `evaluation.isometry` with its defaults
fsc (m, D/2)                 FSC of the maps of m single images with their true maps
recipe                       JSON: versions, the command, epochs, hashes of inputs and weights
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
from common import machine
from cryodrgn_program import WIDTH_256, Run, in_one_call
from torch import Tensor

import cryotwin_nb as ct
from cryotwin_nb import evaluation
from cryotwin_nb.formats.files import atomic
from cryotwin_nb.truth.truth import Truth

OUTPUT = Path(__file__).parents[1] / "notebooks" / "models" / "cryodrgn-assembly-small.npz"


def state_latents(z: Tensor, truth: Truth) -> tuple[list[str], Tensor]:
    """Return the state names and, for each state, the latent nearest to the median of its images."""
    chosen = []
    for name in truth.states:
        members = np.flatnonzero((truth.labels == name) & ~truth.between)
        distance = (z[members] - z[members].median(0).values).norm(dim=1)
        chosen.append(int(members[int(distance.argmin())]))
    return list(truth.states), z[chosen]


def small(maps: Tensor) -> np.ndarray:
    """Return maps as float16, in units of the largest value."""
    return (maps / maps.max()).numpy().astype(np.float16)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("results/vs_cryodrgn"))
    parser.add_argument("--cryodrgn", default=shutil.which("cryodrgn"), help="the executable")
    args = parser.parse_args()
    stem = args.folder / "assembly-small"
    truth = ct.Particles.read(stem.with_suffix(".star"), contrast="dark").require_truth()
    run = Run(args.cryodrgn, stem, args.folder / "cryodrgn", WIDTH_256)
    epoch, z = run.epochs, run.latents(run.epochs)
    names, points = state_latents(z, truth)
    samples = torch.randn(9, z.shape[1], generator=torch.Generator().manual_seed(0))

    def decode(z: Tensor) -> Tensor:
        return run.volumes(epoch, z, truth.pixel_size)

    measured = in_one_call(
        lambda d: (evaluation.isometry(d, z), evaluation.fsc_of_images(d, z, truth)), decode, truth.box_size
    )
    isometry, curves = measured
    printed = subprocess.run([args.cryodrgn, "--version"], capture_output=True, text=True, check=True).stdout
    recipe = {
        "program": printed.strip(),
        "command": " ".join(["cryodrgn", *map(str, run.command(epoch)[1:])]).replace(f"{args.folder}/", ""),
        "epochs": epoch,
        "machine": machine(),
        "sha256": {f.name: sha256(f) for f in (stem.with_suffix(".mrcs"), run.folder / f"weights.{epoch}.pkl")},
    }
    with atomic(OUTPUT) as partial, open(partial, "wb") as file:
        np.savez_compressed(
            file,
            latents=z.numpy().astype(np.float16),
            state_names=names,
            state_latents=points.numpy(),
            state_maps=small(decode(points)),
            prior_maps=small(decode(samples)),
            isometry_products=[isometry.latent_products, isometry.volume_products],
            fsc=curves.astype(np.float32),
            recipe=json.dumps(recipe, indent=1),
        )
    print(f"{OUTPUT}: {OUTPUT.stat().st_size / 1e6:.1f} MB\n{json.dumps(recipe, indent=1)}")


if __name__ == "__main__":
    main()
