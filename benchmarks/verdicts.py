"""Verdicts of the first look: python benchmarks/verdicts.py PART ... [--seeds 3].

The parts, each stored in benchmarks/results/verdicts.json:

healthy   40 sets of `assembly` and `hinge` without a fault, with parameters drawn at random: number of images, box
          size, motion, contrast spread, signal-to-noise ratio, and number of optics groups; a note is right, no more
views     preferred orientation: 70 % of the views within 25 degrees of one axis; all within 50 degrees of it; all
          within 30 degrees of the plane perpendicular to it; even views; with the resolution in each direction
units     copies of `hinge`, arranged by a point group and moving independently; even views, confined to one asymmetric
          unit of the group, and expanded by it
poses     errors of the recorded poses
junk      random clouds instead of the particle
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from common import RESULTS, machine, write_results
from view_sets import KINDS, even, random_axis, views_of

import cryotwin_nb as ct
from cryotwin_nb.imaging.fourier import fft3, grid
from cryotwin_nb.preparation.directional import crossing
from cryotwin_nb.preparation.views import hemisphere, point_groups
from cryotwin_nb.simulate import images as simulation
from cryotwin_nb.truth import molecules
from cryotwin_nb.truth.truth import Truth

N_SETS, SEED = 40, 2026


def healthy(_: int) -> list[dict[str, Any]]:
    rng, rows = np.random.default_rng(SEED), []
    for number in range(N_SETS):
        moving = number % 2 == 0
        kind = "hinge" if moving else "assembly"
        size, n = int(rng.choice([32, 64])), int(rng.integers(2000, 12_001))
        chosen = {
            "snr": float(np.exp(rng.uniform(np.log(0.05), 0))),
            "contrast_std": float(rng.uniform(0, 0.25)),
            "motion": float(rng.uniform(5, 20)),
            "groups": int(rng.integers(1, 4)),
        }
        swing = float(np.degrees(chosen["motion"] / 70))  # the ends of the arms are 70 Å from their hinges
        less = tuple((*hinge[:3], swing) for hinge in molecules._HINGES)
        options = {"seed": number, "snr": chosen["snr"], "contrast_std": chosen["contrast_std"], "progress": False}
        with mock.patch.object(molecules, "_HINGES", less):
            particles = getattr(ct.simulate, kind)(n, size, **options)
        particles.optics_group = np.arange(n) % chosen["groups"]
        started = time.perf_counter()
        look = ct.first_look(particles, seed=number)
        row = {"kind": kind, "n": n, "box": size, **chosen, "seconds": round(time.perf_counter() - started, 1)}
        row["findings"] = [(finding.level, finding.name, finding.evidence) for finding in look.findings]
        row["rotation"] = look.errors and (look.errors.rotation, *look.errors.rotation_interval)
        row["spread found"] = look.contents and look.contents.contrast_spread
        rows.append(row)
        print(row, flush=True)
    return rows


def poses_along(views: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return rotations (n, 3, 3) float32 with the given views and random in-plane angles."""
    x = np.cross(rng.normal(size=views.shape), views)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.stack([x, np.cross(views, x), views], axis=2).astype(np.float32)


def made(kind: str, views: np.ndarray, rng: np.random.Generator, seed: int, **options: Any) -> ct.Particles:
    rotations = poses_along(views, rng)
    with mock.patch.object(simulation, "random_rotations", lambda n, _: rotations[:n]):
        return getattr(ct.simulate, kind)(len(views), seed=seed, progress=False, **options)


def measured(volume: torch.Tensor, truth: torch.Tensor, pixel: float, directions: np.ndarray) -> np.ndarray:
    """Return the resolution in each direction (x, y, z), Å: where a map correlates by 0.5 with the truth."""
    size = len(truth)
    k = grid(size, 3).reshape(-1, 3).double()
    shell, along = k.norm(dim=1).round().long(), (k / k.norm(dim=1, keepdim=True).clamp_min(1e-9)).numpy()
    a, b = fft3(volume.double()).flatten(), fft3(truth.double()).flatten()
    terms = [(a.conj() * b).real.numpy(), a.abs().square().numpy(), b.abs().square().numpy()]
    found, frequency = [], np.arange(1, size // 2 + 1) / (size * pixel)
    for direction in directions:
        near = np.abs(along @ direction) > np.cos(np.radians(20))
        cross, left, right = (np.bincount(shell[near], t[near], size)[1 : size // 2 + 1] for t in terms)
        curve = cross / np.sqrt(np.maximum(left * right, 1e-300))
        curve[:3] = np.where(left[:3] > 0, curve[:3], 1)  # a cone has few voxels there
        found.append(crossing(frequency, curve))
    return np.array(found)


def judged(look: ct.FirstLook, particles: ct.Particles, truth: torch.Tensor, axis: np.ndarray) -> dict[str, Any]:
    """Return what the first look finds in the views, and the errors of its resolutions in single directions."""
    directions = hemisphere(60)
    nearest = np.abs(directions @ look.sampling.directions.T).argmax(1)
    true = measured(ct.reconstruct(particles).map, truth, particles.pixel_size, directions)
    expected = look.direction_resolution[nearest]
    both = np.isfinite(true) & np.isfinite(expected)
    errors = np.abs(expected / true - 1)[both]
    return {
        "evenness": look.sampling.evenness,
        "unmeasured": look.sampling.unmeasured,
        "cone": look.sampling.cone,
        "axis off by": float(np.degrees(np.arccos(min(1.0, abs(look.sampling.axis @ axis))))),
        "findings": [(finding.level, finding.name) for finding in look.findings],
        "relative errors of the resolution": np.quantile(errors, [0.5, 0.9]).tolist(),
        "best, worst": [(float(v[both].min()), float(v[both].max())) for v in (true, expected)],
    }


def views(seed: int) -> list[dict[str, Any]]:
    rows, rng = [], np.random.default_rng([SEED, seed])
    axis = random_axis(rng)
    for kind, options in (("hinge", {"box_size": 64, "snr": 0.02}), ("assembly", {"box_size": 64, "snr": 0.02})):
        for name in KINDS:
            particles = made(kind, views_of(name, 6000, axis, rng), rng, seed, **options)
            look = ct.first_look(particles, seed=seed)
            truth = torch.stack([particles.truth.volume(i) for i in range(0, len(particles), 20)]).mean(0)
            row = {"kind": kind, "views": name, "seed": seed} | judged(look, particles, truth, axis)
            rows.append(row)
            print(row, flush=True)
    return rows


def arranged(operators: np.ndarray, rng: np.random.Generator) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Return a structure of copies of a smaller one, arranged by the operators (g, 3, 3); each moves on its own."""
    g, single = torch.as_tensor(operators, dtype=torch.float32), Truth.structure
    place = torch.as_tensor(70 * random_axis(rng), dtype=torch.float32)
    scale, thinned = 1 / len(g) ** (1 / 3), slice(None, None, len(g))

    def structure(truth: Truth, coordinates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        own = coordinates[torch.as_tensor(rng.integers(len(coordinates), size=(len(g), len(coordinates))))]
        copies = [single(truth, rows) for rows in own]
        positions = [(scale * x[:, thinned] + place) @ turn.T for (x, _), turn in zip(copies, g, strict=True)]
        return torch.cat(positions, dim=1), torch.cat([masses[:, thinned] for _, masses in copies], dim=1)

    return structure


def units(seed: int) -> list[dict[str, Any]]:
    rows, rng = [], np.random.default_rng([SEED, seed])
    for name, operators in point_groups().items():
        if name not in ("C3", "C5", "D2", "D7", "T", "O", "I1"):
            continue
        directions = even(3000, rng)
        copies = np.einsum("gij,nj->ngi", operators, directions)
        inside = copies[np.arange(3000), (copies @ rng.normal(size=3)).argmax(1)]  # nearest to a random direction
        with mock.patch.object(Truth, "structure", arranged(operators, rng)):
            particles = made("hinge", inside, rng, seed, box_size=32)
        whole = np.einsum("gij,njk->gnik", operators, particles.rotations).reshape(-1, 3, 3).astype(np.float32)
        expanded = np.tile(np.arange(3000), len(operators))
        copied = replace_poses(particles, expanded, whole)
        for case, shown in (("unit", particles), ("expanded", copied)):
            look = ct.first_look(shown, seed=seed)
            row = {"group": name, "case": case, "seed": seed}
            rows.append(row | {"findings": [(finding.level, finding.name) for finding in look.findings]})
            print(rows[-1], flush=True)
    return rows


def replace_poses(particles: ct.Particles, rows: np.ndarray, rotations: np.ndarray) -> ct.Particles:
    copied = particles[rows]
    copied.rotations = rotations
    return copied


def poses(seed: int) -> list[dict[str, Any]]:
    rows = []
    for degrees, shift in ((0, 0), (2.5, 0), (3, 5), (0, 1.8), (0, 5)):
        options = {"pose_error": degrees, "shift_error": shift, "seed": seed, "progress": False}
        for kind in ("hinge", "assembly"):
            look = ct.first_look(getattr(ct.simulate, kind)(4000, 32, **options), seed=seed)
            row = {"kind": kind, "degrees": degrees, "shift": shift, "seed": seed}
            row |= {"found": look.pose_error, "interval": look.errors and look.errors.rotation_interval}
            row |= {"shift found": look.shift_error, "shift interval": look.errors and look.errors.shift_interval}
            rows.append(row | {"findings": [(finding.level, finding.name) for finding in look.findings]})
            print(rows[-1], flush=True)
    return rows


def junk(seed: int) -> list[dict[str, Any]]:
    rows = []
    for share in (0.0, 0.05, 0.15):
        for kind in ("hinge", "assembly"):
            particles = getattr(ct.simulate, kind)(4000, 32, junk=share, seed=seed, progress=False)
            look = ct.first_look(particles, seed=seed)
            row = {"kind": kind, "share": share, "seed": seed, "found": look.contents and look.contents.junk}
            rows.append(row | {"findings": [(finding.level, finding.name) for finding in look.findings]})
            print(rows[-1], flush=True)
    return rows


PARTS: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "healthy": healthy,
    "views": views,
    "units": units,
    "poses": poses,
    "junk": junk,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    path = RESULTS / "verdicts.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part in arguments.parts:
        seeds = range(1 if part == "healthy" else arguments.seeds)
        results |= {"machine": machine(), part: [row for seed in seeds for row in PARTS[part](seed)]}
        write_results("verdicts", results)


if __name__ == "__main__":
    main()
