"""Support of decoded maps by the images, compared with the truth: python benchmarks/support.py [--adk F] [--glua3 F].

Uses the stored model of assembly-small, at the states and at the midpoints of simulated edges and of edges without a
route; adds false detail to its maps; and measures the run time of 12 points with 10,000 images of 64^2.

Density that is missing or added, and cross-fades: on simulated hinges, on which no threshold was chosen, and with --adk
on adenylate kinase imaged by cryojax (`outside_cryojax.py`), simulated into FOLDER for ten seeds unless it is there;
--python names the Python of an environment with cryojax. --glua3 is the folder of a GluA3 dimer imaged by RELION, with
its models, written by `outside.py`; no threshold was chosen on it. Writes benchmarks/results/support.json and
support.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, machine, peak_memory, write_results
from support_differences import (
    AdK,
    cross_fades_adk,
    cross_fades_fitted,
    cross_fades_hinge,
    glua3,
    missing_and_added_adk,
    missing_and_added_hinge,
    own_paths,
)
from torch import Tensor

import cryotwin_nb as ct
from cryotwin_nb.imaging.fourier import fft3, grid, ifft3
from cryotwin_nb.pathways.ridgeline import equidistant
from cryotwin_nb.truth.molecules import ROUTES, STATES

PLANTED = sorted({edge for route in ROUTES for edge in pairwise(route)})
UNBRIDGED = [("D1", "E1"), ("D2", "E2"), ("D3", "D4"), ("E1", "E3")]
STRENGTHS = (0.2, 0.5, 1.0)


def blobbed(decode: Callable[[Tensor], Tensor], strength: float) -> Callable[[Tensor], Tensor]:
    """Add a ball next to the particle, with the given share of the map's maximum and as wide as the stalk."""

    def function(z: Tensor) -> Tensor:
        maps = decode(z)
        size = maps.shape[-1]
        place = grid(size, 3) - torch.tensor([0.0, 0.0, -0.28 * size])
        return maps + strength * maps.max() * torch.exp(-place.square().sum(-1) / (2 * (size / 16) ** 2))

    return function


def rippled(decode: Callable[[Tensor], Tensor], strength: float) -> Callable[[Tensor], Tensor]:
    """Add noise in the band from D/4 to 3D/8, with the given share of the map's amplitude there."""

    def function(z: Tensor) -> Tensor:
        maps = decode(z)
        radius = grid(maps.shape[-1], 3).float().norm(dim=-1)
        band = (radius > maps.shape[-1] / 4) & (radius < 3 * maps.shape[-1] / 8)
        noise = fft3(torch.randn(maps.shape[1:], generator=torch.Generator().manual_seed(0))) * band
        power = torch.stack([fft3(volume)[band].abs().square().sum() for volume in maps])
        share = strength * (power / noise.abs().square().sum()).sqrt()
        return maps + share[:, None, None, None] * ifft3(noise).real

    return function


def with_model() -> dict:
    """Return where the stored model is supported, and which points are flagged."""
    particles = ct.data.fetch("assembly-small")
    model = ct.CryoTwin.load(Path(__file__).parents[1] / "notebooks" / "models" / "assembly-small.safetensors")
    z, truth = model.embed(particles), particles.require_truth()
    centres = {s: z[(truth.labels == s) & ~truth.between].mean(0) for s in STATES}

    def supported(points: list[Tensor], decode: object = model) -> ct.PathwaySupport:
        return ct.pathway_support(decode, particles, torch.stack(points), latents=z, imaging=model.imaging)

    def rows(names: list[str], found: ct.PathwaySupport) -> dict:
        columns = zip(found.n_effective.round(1), found.resolution.round(1), found.bandwidth, strict=True)
        return {
            name: {"images": n, "resolution": r if np.isfinite(r) else None, "bandwidth": h, "why": found.reasons(k)}
            for k, (name, (n, r, h)) in enumerate(zip(names, columns, strict=True))
        }

    middles = [[(centres[a] + centres[b]) / 2 for a, b in edges] for edges in (PLANTED, UNBRIDGED)]
    honest = supported(list(centres.values()))
    results = {
        "states": rows(list(STATES), honest),
        "middles of planted edges": rows(["-".join(e) for e in PLANTED], supported(middles[0])),
        "middles of other edges": rows(["-".join(e) for e in UNBRIDGED], supported(middles[1])),
        "states flagged, of 13": {
            name: {s: len(supported(list(centres.values()), false(model.volumes, s)).flagged) for s in STRENGTHS}
            for name, false in (("ball", blobbed), ("noise from 40 to 27 Å", rippled))
        },
        "FSC of the images' maps with the truth, foretold less measured": foretold(honest, truth),
    }
    path = equidistant(torch.stack([centres[s] for s in ("B", "C2", "E1", "D1", "B")]), 13)
    figure = ct.plotting.path_support(supported(list(path), rippled(model.volumes, 1.0)))
    figure.savefig(RESULTS / "support.png", dpi=150)
    return results


def foretold(support: ct.PathwaySupport, truth: object) -> dict:
    """Return the mean and largest error of sqrt(2 FSC / (1 + FSC)) over the states' maps and shells above 0.5."""
    curves = [
        ct.fsc(volume, truth.volume_at(np.array(occupancies)), support.voxel_size).correlation
        for volume, occupancies in zip(support.maps, STATES.values(), strict=True)
    ]
    error = (support.expected_fsc - np.array(curves))[support.expected_fsc > 0.5]
    return {"mean": round(float(error.mean()), 3), "largest": round(float(np.abs(error).max()), 3)}


def seconds(n: int = 10_000, box_size: int = 64, n_points: int = 12) -> dict:
    """Time `pathway_support` and `reconstruct` with the true decoder; 500 distinct images, 20 times each."""
    particles = ct.simulate.assembly(n // 20, box_size)[np.tile(np.arange(n // 20), 20)]
    truth = particles.require_truth()
    core = truth.volume_at(np.zeros(5))
    blocks = torch.stack([truth.volume_at(row) - core for row in np.eye(5, dtype=np.float32)])
    z = 10 * torch.as_tensor(truth.coordinates) + 0.4 * torch.randn(n, 5, generator=torch.Generator().manual_seed(0))
    path = equidistant(10 * torch.tensor([STATES[s] for s in ROUTES[0]]).double(), n_points).float()

    def decode(z: Tensor) -> Tensor:
        return core + torch.tensordot(z / 10, blocks, 1)

    ct.reconstruct(particles[:300])  # compiles or loads the loops
    began = (time.perf_counter(), time.process_time())
    ct.reconstruct(particles)
    middle = (time.perf_counter(), time.process_time())
    found = ct.pathway_support(decode, particles, path, latents=z)
    end = (time.perf_counter(), time.process_time())
    return {
        "images": n,
        "box": box_size,
        "points": n_points,
        "images near, sum over points": round(float(found.n_effective.sum())),
        "reconstruct, wall and processor": [round(b - a, 1) for a, b in zip(began, middle, strict=True)],
        "pathway_support, wall and processor": [round(b - a, 1) for a, b in zip(middle, end, strict=True)],
        "peak memory, GiB": round(peak_memory(), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adk", type=Path, help="folder of the sets of adenylate kinase, one folder per seed")
    parser.add_argument("--glua3", type=Path, help="folder of the set glua3 of outside.py")
    parser.add_argument("--python", default="python", help="Python of an environment with cryojax")
    args = parser.parse_args()
    sets = [AdK(args.adk / str(seed), args.python, seed) for seed in range(1, 11)] if args.adk else []
    results: dict[str, Any] = {"machine": machine(), "seconds": seconds()}
    print(results, flush=True)
    results["assembly-small"] = with_model()
    results["missing and added"] = {"adk": missing_and_added_adk(sets[:3]), "hinge": missing_and_added_hinge()}
    results["maps of cross-fades"] = {
        "adk": cross_fades_adk(sets),
        "adk, latents of a model": cross_fades_fitted(sets[:3]),
        "hinge": cross_fades_hinge(range(10)),
    }
    results["own paths"] = own_paths(sets[:3])
    results["glua3"] = glua3(args.glua3) if args.glua3 else {}
    write_results("support", results)
    print(results)


if __name__ == "__main__":
    main()
