"""Density that is missing or added, and cross-fades, in three molecules; `support.py` runs and stores them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from outside_maps import density
from torch import Tensor

import cryotwin_nb as ct
from cryotwin_nb.pathways.ridgeline import equidistant
from cryotwin_nb.pathways.states import assign
from cryotwin_nb.truth.molecules import ROUTES


class AdK:
    """Images of adenylate kinase at 32 px, closed to open, by cryojax, with the true structure of each."""

    def __init__(self, folder: Path, python: str, seed: int) -> None:
        if not (folder / "truth.npz").exists():
            script = Path(__file__).with_name("outside_cryojax.py")
            subprocess.run([python, str(script), str(folder), "--seed", str(seed), "--base"], check=True)
        if not (folder / "base-32.star").exists():
            ct.prepare(folder / "base.star", folder / "base-32.star", 32, progress=False)
        atoms, truth = np.load(folder / "atoms.npz"), np.load(folder / "truth.npz")
        self.folder, self.seed = folder, seed
        self.particles = ct.Particles.read(folder / "base-32.star")
        self.frames, self.number, self.coordinate = atoms["frames"], atoms["number"], truth["coordinate"]
        self.places = np.sqrt(np.square(self.frames - self.frames[0]).sum(-1).mean(-1))
        self.places /= self.places[-1]
        residue = atoms["residue"]
        lid, nmp = (residue >= 122) & (residue <= 159), (residue >= 30) & (residue <= 59)
        self.domains = {"core": ~lid & ~nmp, "LID": lid, "NMP": nmp}

    def map(self, frame: int, atoms: np.ndarray | slice = slice(None), shift: Any = 0.0) -> Tensor:
        """Return the map of some atoms of a frame, shifted by xyz, Å."""
        positions = self.frames[frame][atoms] + np.asarray(shift)
        found = density(positions.astype(np.float32), self.number[atoms].astype(np.float32), 32, 3.6)
        return torch.as_tensor(found)

    def closed_to_open(self, weight: float, frame: int, blended: bool) -> tuple[np.ndarray, Tensor]:
        """Return latents and maps of closed, an intermediate or a blend, and open; latents are coordinates."""
        ends = self.map(0), self.map(len(self.frames) - 1)
        middle = (1 - weight) * ends[0] + weight * ends[1] if blended else self.map(frame)
        return self.places[[0, frame, -1], None], torch.stack([ends[0], middle, ends[1]])

    @cached_property
    def model(self) -> ct.CryoTwin:
        """Model trained with the defaults, stored in the folder."""
        file = self.folder / "model.safetensors"
        if not file.exists():
            model = ct.CryoTwin(32)
            ct.fit(model, self.particles, ct.TrainingConfig(device="cpu", seed=self.seed), progress=False)
            model.save(file)
        return ct.CryoTwin.load(file)

    @cached_property
    def latents(self) -> Tensor:
        return self.model.embed(self.particles)

    @cached_property
    def path(self) -> Tensor:
        """Path of the model from the state with the lowest to the one with the highest mean coordinate."""
        states = ct.find_states(self.model.prior, least_mass=0.02)
        own = assign(self.model.prior, states, self.latents)
        mean = [self.coordinate[own == k].mean() for k in range(len(states))]
        first, last = states[int(np.argmin(mean))], states[int(np.argmax(mean))]
        return ct.max_flux(self.model.prior, first, last).latents


def changed(
    supported: Callable[[Any], ct.PathwaySupport], decode: Callable[[Tensor], Tensor], part: Tensor, sign: int, at: Any
) -> dict[str, Any]:
    """Add (sign 1) or erase (sign -1) a part of a map at xyz, and return whether, and how near to it, it is named."""
    found = supported(lambda z: decode(z) + sign * part)
    named = [d for d in found.differences if d.shown == (sign > 0)]
    near = min((float(np.linalg.norm(d.centre - at)) for d in named), default=None)
    return {"flagged": bool(found.flagged), "Å from its centre": near, "differences": len(found.differences)}


def missing_and_added_adk(sets: list[AdK]) -> list[dict[str, Any]]:
    """Erase a third of LID from decoded maps, and add it beside the particle and onto its core."""
    rows = []
    for own in sets:
        third = np.array_split(np.flatnonzero(own.domains["LID"]), 3)[own.seed % 3]
        near = [np.argsort(((own.latents - point) ** 2).sum(1))[:50] for point in own.path]
        place = np.array([own.coordinate[r].mean() for r in near])
        for k in (0, int(np.abs(place - 0.5).argmin()), len(place) - 1):
            frame = int(np.abs(own.places - place[k]).argmin())
            centre = own.frames[frame][third].mean(0)
            beside = 36 * centre / np.linalg.norm(centre) - centre  # outside the particle

            def supported(decode: Any, own: AdK = own, k: int = k) -> ct.PathwaySupport:
                return ct.pathway_support(decode, own.particles, own.path[k : k + 1], latents=own.latents)

            decode = own.model.volumes
            row = {"seed": own.seed, "coordinate": float(place[k]), "itself": supported(decode).reasons(0)}
            row["erased"] = changed(supported, decode, own.map(frame, third), -1, centre)
            for name, shift in (("added beside", beside), ("added onto the core", -2 * centre)):
                row[name] = changed(supported, decode, own.map(frame, third, shift), 1, centre + shift)
            rows.append(row)
    return rows


def missing_and_added_hinge() -> list[dict[str, Any]]:
    """Erase a third of an arm from maps decoded by the stored model of hinge-small, and add it on the other side."""
    particles = ct.data.fetch("hinge-small", progress=False)
    model = ct.CryoTwin.load(Path(__file__).parents[1] / "notebooks" / "models" / "hinge-small.safetensors")
    z, truth = model.embed(particles), particles.require_truth()
    rows = []
    for place in ((0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (1.0, 1.0)):
        near = np.argsort(((truth.coordinates - np.array(place)) ** 2).sum(1))[:60]
        arm = truth.blocks(np.array(place, dtype=np.float32))["left arm"].numpy()
        third = arm[np.argsort(np.linalg.norm(arm, axis=1))[len(arm) // 3 : 2 * len(arm) // 3]]

        def part(atoms: np.ndarray) -> Tensor:
            # as wide as the atoms of the simulation: 0.6 pixels; `density` has atoms of 1.2 Å
            found = density(atoms.astype(np.float32), np.ones(len(atoms), np.float32), 32, particles.pixel_size)
            frequency = np.fft.fftfreq(32) ** 2
            square = frequency[:, None, None] + frequency[:, None] + frequency
            fall = np.exp(-2 * np.pi**2 * square * (0.6**2 - 1.44 / particles.pixel_size**2))
            return torch.as_tensor(np.fft.ifftn(np.fft.fftn(found) * fall).real.astype(np.float32))

        def supported(decode: Any, near: np.ndarray = near) -> ct.PathwaySupport:
            point = z[near].mean(0, keepdim=True)
            return ct.pathway_support(decode, particles, point, latents=z, blocks=truth.blocks())

        decode, mirrored = model.volumes, third * [1, -1, 1] + [0, -20, 0]
        row: dict[str, Any] = {"coordinates": place, "itself": supported(decode).reasons(0)}
        row["erased"] = changed(supported, decode, part(third), -1, third.mean(0))
        row["added beside"] = changed(supported, decode, part(mirrored), 1, mirrored.mean(0))
        rows.append(row)
    return rows


def judged(found: ct.PathwaySupport) -> str:
    """Return what the support of a path of three maps calls the middle one."""
    if any("hardly any images" in reason for reason in found.reasons(1)):
        return "hardly any images"
    return "cross-fade" if 1 in found.cross_fades else "undecided" if 1 in found.undecided else "passed"


def tally(cases: dict[str, list[str]]) -> dict[str, dict[str, int]]:
    return {name: {kind: said.count(kind) for kind in sorted(set(said))} for name, said in cases.items()}


COUNTS = (10, 20, 40, 130, 1500)


def cross_fades_adk(sets: list[AdK]) -> dict[str, dict[str, int]]:
    """Count what is called a cross-fade: blends of closed and open, and true intermediates of the same images.

    The middle structure is that at a quarter of the coordinate or of the trajectory (frames 12 and 24).
    """
    cases: dict[str, list[str]] = {}
    for own in sets:
        for frame in (12, 24):
            for n in COUNTS:
                nearest = [
                    np.argsort(np.abs(own.coordinate - own.places[f]), kind="stable")[:n] for f in (0, frame, -1)
                ]
                rows = np.unique(np.concatenate(nearest))
                for blended in (True, False):
                    z, maps = own.closed_to_open(0.25, frame, blended)
                    given = {"maps": maps, "latents": own.coordinate[rows, None], "seed": own.seed}
                    found = ct.pathway_support(None, own.particles[rows], z, **given)
                    name = f"frame {frame}, {n} images, {'blend' if blended else 'true'}"
                    cases.setdefault(name, []).append(judged(found))
    return tally(cases)


def cross_fades_fitted(sets: list[AdK]) -> dict[str, dict[str, int]]:
    """Count the same with the latents of a trained model, and all images."""
    cases: dict[str, list[str]] = {}
    for own in sets:
        for frame in (12, 24):
            mean = [
                own.latents[np.argsort(np.abs(own.coordinate - own.places[f]))[:130]].mean(0) for f in (0, frame, -1)
            ]
            for blended in (True, False):
                maps = own.closed_to_open(0.25, frame, blended)[1]
                for name, model in (("no model", None), ("model", own.model)):
                    given = {"maps": maps, "latents": own.latents, "seed": own.seed}
                    found = ct.pathway_support(model, own.particles, torch.stack(mean), **given)
                    case = f"frame {frame}, {name}, {'blend' if blended else 'true'}"
                    cases.setdefault(case, []).append(judged(found))
    return tally(cases)


def cross_fades_hinge(seeds: range) -> dict[str, dict[str, int]]:
    """Count the same for one arm of the hinge, which swings by 40 degrees."""
    cases: dict[str, list[str]] = {}
    for seed in seeds:
        particles = ct.simulate.hinge(5000, 32, seed=100 + seed, progress=False)
        truth = particles.require_truth()
        for weight in (0.25, 0.5):
            points = np.array([(0, 0), (weight, 0), (1, 0)], dtype=np.float32)
            true = torch.stack([truth.volume_at(point) for point in points])
            blend = torch.stack([true[0], torch.lerp(true[0], true[2], weight), true[2]])
            for n in (10, 20, 40, 130, 500):
                nearest = [np.argsort(((truth.coordinates - point) ** 2).sum(1))[:n] for point in points]
                rows = np.unique(np.concatenate(nearest))
                for name, maps in (("blend", blend), ("true", true)):
                    given = {"maps": maps, "latents": truth.coordinates[rows], "seed": seed}
                    found = ct.pathway_support(None, particles[rows], points, **given)
                    cases.setdefault(f"{weight:.2f}, {n} images, {name}", []).append(judged(found))
    return tally(cases)


def own_paths(sets: list[AdK]) -> dict[str, Any]:
    """Return what is found on the decoded paths of trained models, where nothing was changed."""
    results: dict[str, Any] = {}
    models = Path(__file__).parents[1] / "notebooks" / "models"
    for name in ("assembly-small", "hinge-small"):
        particles, model = ct.data.fetch(name, progress=False), ct.CryoTwin.load(models / f"{name}.safetensors")
        z, truth = model.embed(particles), particles.require_truth()
        at = truth.states
        ways = ROUTES if name == "assembly-small" else [tuple(at)]
        for way in ways:
            nearest = [np.argsort(((truth.coordinates - at[s]) ** 2).sum(1))[:100] for s in way]
            path = equidistant(torch.stack([z[rows].mean(0) for rows in nearest]).double(), 12).float()
            found = ct.pathway_support(model, particles, path, latents=z, blocks=truth.blocks())
            results[f"{name} {'-'.join(way)}"] = found_on(found)
    for own in sets:
        found = ct.pathway_support(own.model, own.particles, own.path, latents=own.latents)
        results[f"adk, seed {own.seed}"] = found_on(found)
    return results


def glua3(folder: Path) -> dict[str, Any]:
    """Return the same on a dimer of GluA3: cross-fades in maps given as arrays, and the paths of trained models."""
    from outside import OutsideSet, states_of

    own = OutsideSet.read(folder, "particles")
    last, maps, cases, results = len(own.maps) - 1, torch.as_tensor(own.maps), {}, {}
    for frame in (last // 4, last // 2):
        blend = torch.lerp(maps[0], maps[last], frame / last)
        points = np.array([[0.0], [frame], [last]]) / last
        for n in (10, 20, 40, 130, 1500):
            order = [np.argsort(np.abs(own.frame - f), kind="stable")[:n] for f in (0, frame, last)]
            rows = np.unique(np.concatenate(order))
            for name, middle in (("blend", blend), ("true", maps[frame])):
                given = {"maps": torch.stack([maps[0], middle, maps[last]]), "latents": own.frame[rows, None] / last}
                found = ct.pathway_support(None, own.particles[rows], points, **given)
                cases[f"frame {frame}, {n} images, {name}"] = judged(found)
    for dimension in ("auto", 2, 4, 8):
        model = ct.CryoTwin.load(folder / f"particles-32-d-{dimension}.safetensors")
        z = model.embed(own.particles)
        states = states_of(model, z, own)
        path = ct.max_flux(model.prior, states[0]["state"], states[-1]["state"])
        found = ct.pathway_support(model, own.particles, path, latents=z)
        # of both with the mean of the true maps of the nearest images
        nearest = [own.frame[np.argsort(((z - point) ** 2).sum(1))[:50]] for point in path.latents]
        true = [maps[frames].mean(0) for frames in nearest]
        fsc = [
            [round(ct.fsc(volume, t, found.voxel_size).area, 3) for volume, t in zip(volumes, true, strict=True)]
            for volumes in (found.maps, model.volumes(path.latents))
        ]
        results[f"d = {dimension}"] = found_on(found) | {
            "FSC of the images' maps": fsc[0],
            "FSC of decoded maps": fsc[1],
        }
    return {"given as arrays": cases, "paths": results}


def found_on(found: ct.PathwaySupport) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "differences": [str(d) for d in found.differences],
        "blends: point, of, and, squared difference in se of an image": [
            [b.point, b.first, b.last, round(b.difference * b.motion, 1)] for b in found.blends if b.error < np.inf
        ],
        "flagged": {k: found.reasons(k) for k in found.flagged},
    }
