"""What the best average and basis would give: python benchmarks/ceilings.py [NAME ...] [--directions 12].

For each data set, the true maps are averaged and decomposed into principal components. Latents and maps of all images
are then inferred with these instead of the maps that were found from the images: under a Gaussian density of the
coefficients, and under a mixture fitted to the true coefficients. No linear subspace of the same dimension can do
better than the latter. Beside them are the figures of a model that has seen only the images. The spread of contrasts
can be given as in --contrast 0.2; the true contrasts are not used.

Writes benchmarks/results/ceilings.json: per-image FSC with the truth, and R^2 of each true coordinate.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from common import machine, write_results
from torch import Tensor

import cryotwin_nb as ct
from cryotwin_nb.evaluation import coordinate_r2, fsc_of_images
from cryotwin_nb.particles.streaming import batches
from cryotwin_nb.reconstruction.eigenvolumes import Eigenvolumes

NAMES = ("assembly-small", "hinge-small", "assembly", "hinge")
_IMAGES = 2000  # images whose true maps give the average and the basis
_COMPONENTS = 60


def true_maps(particles: ct.Particles, rows: np.ndarray) -> Tensor:
    """Return the true maps (n, voxels) of images."""
    truth = particles.require_truth()
    return torch.stack([truth.volume_at(truth.coordinates[row]).flatten() for row in rows])


def best(found: Eigenvolumes, particles: ct.Particles, n_basis: int) -> tuple[Eigenvolumes, Tensor]:
    """Return the true average map and principal components, and the true coefficients of some images."""
    rows = np.linspace(0, len(particles) - 1, min(_IMAGES, len(particles))).astype(int)
    maps = true_maps(particles, rows)
    average = maps.mean(0)
    gram = (maps - average) @ (maps - average).T
    values, vectors = torch.linalg.eigh(gram.double())
    n_basis = min(n_basis, int((values > 1e-5 * values[-1]).sum()))  # the others are rounding errors
    basis = vectors.flip(1)[:, :n_basis].T.float() @ (maps - average)
    basis /= basis.norm(dim=1, keepdim=True)
    size = particles.box_size
    true = replace(
        found,
        mean=average.view(size, size, size),
        basis=basis.view(-1, size, size, size),
        variances=values.flip(0)[:n_basis] / len(rows),
        power=found.power[:, :1].expand(-1, n_basis + 1).clone(),
        uncertainty=found.uncertainty.new_zeros(len(found.uncertainty), n_basis + 1, n_basis + 1),
    )
    return true, ((maps - average) @ basis.T).double()


def figures(maps: Eigenvolumes, coefficients: Tensor, particles: ct.Particles) -> dict[str, Any]:
    """Return FSC and R^2 for inferred coefficients (n, K)."""

    def decode(c: Tensor) -> Tensor:
        return maps.mean + torch.tensordot(c.float(), maps.basis, 1)

    truth = particles.require_truth()
    r2 = coordinate_r2(coefficients.float(), truth)
    fsc = float(fsc_of_images(decode, coefficients, truth).mean())
    return {"FSC": round(fsc, 4), "R2": {name: round(float(value), 4) for name, value in r2.items()}}


def inferred(model: ct.CryoTwin, maps: Eigenvolumes, prior: ct.GaussianMixture, particles: ct.Particles) -> Tensor:
    """Return the posterior means (n, K) of the coefficients of all images."""
    imaging, found = model.imaging, []
    ball = maps.ball(imaging.plane.box_size / 2 + 2)
    lattice = maps.lattice(ball)
    for batch in batches(imaging, particles, 256, None):
        full = maps.statistics(maps.project(ball, lattice, batch, imaging), batch, imaging)
        found.append(maps.given(full, prior).expected)
    return torch.cat(found)


def row(particles: ct.Particles, directions: list[int]) -> dict[str, Any]:
    """Fit a model at the defaults, and return its figures beside those of the true maps."""
    model = ct.CryoTwin(particles.box_size, n_components=_COMPONENTS)
    ct.fit(model, particles, ct.TrainingConfig(device="cpu"), progress=False)
    own, z = model.networks.eigenvolumes, model.embed(particles)
    truth = particles.require_truth()
    r2 = {name: round(float(value), 4) for name, value in coordinate_r2(z, truth).items()}
    found = {"FSC": round(float(fsc_of_images(model.volumes, z, truth).mean()), 4), "R2": r2}
    result: dict[str, Any] = {"dimensions found": model.latent_dim, "found from the images": found}
    for n_basis in [len(own.basis), *directions]:
        maps, true = best(own, particles, n_basis)
        mixture = ct.GaussianMixture.fit(true, _COMPONENTS)
        for title, prior in {"one Gaussian": maps.prior, "mixture": mixture.detach()}.items():
            coefficients = inferred(model, maps, prior, particles)
            result[f"true maps, {len(maps.basis)} directions, {title}"] = figures(maps, coefficients, particles)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help="embedded data sets")
    parser.add_argument("--directions", type=int, nargs="*", default=[12], help="further numbers of true directions")
    parser.add_argument("--contrast", type=float, default=0.0, help="standard deviation of the contrasts")
    args = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "contrast": args.contrast}
    for name in args.names:
        entry = ct.data.datasets()[name]
        make = getattr(ct.simulate, str(entry.generator))
        particles = make(**(entry.arguments | {"contrast_std": args.contrast}), progress=False)
        results[name] = row(particles, args.directions)
        for title, found in results[name].items():
            print(name, "|", title, "|", found, flush=True)
    write_results("ceilings", results)


if __name__ == "__main__":
    main()
