"""Sets of images with junk of known kinds, for `junk.py`: images of AdK or GluA3 from `outside.py`, or of `assembly`.

Junk has the poses, CTF and shifts of the images that it replaces, and their grey values and noise spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from outside_maps import VARIANCE

import cryotwin_nb as ct
from cryotwin_nb.simulate.images import _project, random_rotations
from cryotwin_nb.truth.truth import ATOM_WIDTH

SIZE = 32
MIXED = ("noise", "two particles", "random pose", "carbon edge")
_STEP = 0.6  # height of a carbon edge, in standard deviations of the noise of a pixel


@dataclass(frozen=True)
class JunkSet:
    """Particles, and what each image shows: "good", a kind of junk, or "rare" for a true state of a few images."""

    particles: ct.Particles
    kind: np.ndarray
    truth: np.ndarray  # (n,) int: structure of each good image

    @property
    def junk(self) -> np.ndarray:
        """Whether each image (n,) is junk."""
        return ~np.isin(self.kind, ("good", "rare"))


@dataclass(frozen=True)
class GoodSet:
    """Good images, and what is needed to simulate others like them.

    `structures` (S, J, 3) are positions, Å; `masses` (S, J) their weights; `frame` (n,) the structure of each image;
    `width` the standard deviation of an atom, Å; `domain` (J,) bool those atoms that a rare state lacks.
    """

    particles: ct.Particles
    structures: np.ndarray
    masses: np.ndarray
    frame: np.ndarray
    width: float
    domain: np.ndarray

    def take(self, rows: np.ndarray) -> GoodSet:
        return replace(self, particles=self.particles[rows], frame=self.frame[rows])

    def project(self, positions: np.ndarray, masses: np.ndarray, rows: np.ndarray, **other) -> np.ndarray:
        """Return projections (m, D, D) of structures (m or 1, J, 3), (m or 1, J) at the poses and CTFs of rows."""
        particles = self.particles
        poses = other.get("rotations", particles.rotations[rows])
        shifts = other.get("shifts", particles.shifts[rows])
        images = []
        for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 32)):
            xyz = positions[part] if len(positions) > 1 else np.repeat(positions, len(part), 0)
            weight = masses[part] if len(masses) > 1 else np.repeat(masses, len(part), 0)
            arguments = (torch.as_tensor(np.asarray(a, np.float32)) for a in (xyz, weight, poses[part]))
            ctf = particles.ctf[rows[part]]
            t = torch.as_tensor(shifts[part])
            images.append(_project(*arguments, ctf, t, particles.box_size, particles.pixel_size))
        return self._filtered(np.concatenate(images))

    def _filtered(self, images: np.ndarray) -> np.ndarray:
        """Replace the width of a simulated atom by that of the images."""
        size, pixel = images.shape[-1], self.particles.pixel_size
        k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
        change = np.exp(-2 * np.pi**2 * k**2 * ((self.width / pixel) ** 2 - ATOM_WIDTH**2))
        return np.fft.irfft2(np.fft.rfft2(images) * change, s=(size, size)).astype(np.float32)


def adk(folder: Path, name: str = "base") -> GoodSet:
    """Return the images of a set of `outside.py` in `folder`; the rare state lacks its domain 1."""
    particles = ct.Particles.read(folder / f"{name}-{SIZE}.star")
    atoms, truth = np.load(folder / "atoms.npz"), np.load(folder / "truth.npz")
    domain = atoms["domain"] == 1 if "domain" in atoms else _end(atoms["frames"][0])
    masses = np.repeat(atoms["number"].astype(np.float32)[None], len(atoms["frames"]), 0)
    return GoodSet(particles, atoms["frames"], masses, truth["frame"], VARIANCE**0.5, domain)


def _end(atoms: np.ndarray) -> np.ndarray:
    """Return the fifth of the atoms (J, 3) at one end of the longest axis."""
    along = (atoms - atoms.mean(0)) @ np.linalg.svd(atoms - atoms.mean(0), full_matrices=False)[2][0]
    return along > np.quantile(along, 0.8)


def assembly(n: int, seed: int, **options) -> GoodSet:
    """Return images of the assembling subunit; the rare state lacks the base and the end of the core."""
    particles = ct.simulate.assembly(n, SIZE, seed=seed, progress=False, **options)
    truth = particles.require_truth()
    occupancies, frame = np.unique(truth.coordinates, axis=0, return_inverse=True)
    positions, masses = (part.numpy() for part in truth.structure(torch.as_tensor(occupancies)))
    kept = ct.Particles(
        particles.images(slice(None)),
        particles.rotations,
        particles.shifts,
        particles.ctf,
        pixel_size=particles.pixel_size,
    )
    width = ATOM_WIDTH * particles.pixel_size
    return GoodSet(kept, np.repeat(positions, len(masses), 0), masses, frame.reshape(-1), width, _end(positions[0]))


def rare_conformation(good: GoodSet, seed: int) -> tuple[GoodSet, np.ndarray]:
    """Return a set in which one true conformation has 2 % of the images, and its images (n,) bool.

    AdK and GluA3: intermediates in the middle sixth of the motion, with no images in the third around them. `assembly`:
    the structure with the most images, of which most are left out.
    """
    rng = np.random.default_rng([seed, 78])
    if len(np.unique(good.masses, axis=0)) > 1:
        rare, near = good.frame == np.bincount(good.frame).argmax(), np.zeros(len(good.frame), bool)
    else:
        place = good.frame / (len(good.structures) - 1)
        rare, near = np.abs(place - 0.5) < 1 / 12, np.abs(place - 0.5) < 1 / 4
    others = np.flatnonzero(~rare & ~near)
    rows = np.append(others, rng.permutation(np.flatnonzero(rare))[: round(len(others) * 0.02 / 0.98)])
    rows = np.sort(rows)
    return good.take(rows), rare[rows]


def wrong_molecule(good: GoodSet, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return another molecule, positions (1, J, 3), masses (1, J): four random ellipsoids as heavy and as wide."""
    size = good.structures.shape[1]
    own = rng.integers(0, 4, size)
    centres, shape = 0.6 * rng.normal(size=(4, 3)), rng.uniform(0.4, 1.0, (4, 3))
    inside = rng.normal(size=(size, 3))
    inside *= (rng.random(size) ** (1 / 3) / np.linalg.norm(inside, axis=1))[:, None]
    positions = centres[own] + inside * shape[own]
    weights = good.masses[good.frame].mean(0)
    mean = good.structures[good.frame[0]] - np.average(good.structures[good.frame[0]], axis=0, weights=weights)
    positions -= np.average(positions, axis=0, weights=weights)
    wide = [np.average((x**2).sum(1), weights=weights) ** 0.5 for x in (mean, positions)]
    return (positions * wide[0] / wide[1])[None], weights[None]


def spoiled(good: GoodSet, shares: dict[str, float], seed: int) -> JunkSet:
    """Return a set in which a share of the images is replaced by each kind of junk, or by a rare state."""
    rng, particles = np.random.default_rng([seed, 77]), good.particles
    n, size, pixel = len(particles), particles.box_size, particles.pixel_size
    images = particles.unwhitened(slice(None)).numpy().copy()
    sample = np.linspace(0, n - 1, min(n, 1500)).astype(int)
    seen = good.project(good.structures[good.frame[sample]], good.masses[good.frame[sample]], sample)
    scale = float((seen * images[sample]).sum() / np.square(seen).sum())
    amplitude = np.sqrt(np.square(np.abs(np.fft.rfft2(images[sample] - scale * seen))).mean(0)) / size

    def noise(m: int) -> np.ndarray:
        return np.fft.irfft2(np.fft.rfft2(rng.standard_normal((m, size, size))) * amplitude, s=(size, size))

    rotations, shifts = particles.rotations.copy(), particles.shifts
    kind = np.full(n, "good", dtype="U13")
    order, start = rng.permutation(n), 0
    other = wrong_molecule(good, rng)
    width = np.average((other[0][0] ** 2).sum(1), weights=other[1][0]) ** 0.5
    for name, share in shares.items():
        rows = order[start : start + round(share * n)]
        start += len(rows)
        kind[rows] = name
        own = good.structures[good.frame[rows]], good.masses[good.frame[rows]]
        if name == "random pose":
            rotations[rows] = random_rotations(len(rows), rng)
        elif name == "noise":
            images[rows] = noise(len(rows))
        elif name == "recurring":
            images[rows] = scale * good.project(*other, rows) + noise(len(rows))
        elif name == "rare":
            images[rows] = scale * good.project(own[0], own[1] * ~good.domain, rows) + noise(len(rows))
        elif name == "two particles":
            angle = rng.uniform(0, 2 * np.pi, len(rows))
            away = 1.5 * width * np.stack([np.cos(angle), np.sin(angle)], 1)
            there = {"rotations": random_rotations(len(rows), rng), "shifts": (shifts[rows] + away).astype(np.float32)}
            images[rows] += scale * good.project(*own, rows, **there)
        elif name == "carbon edge":
            y, x = np.mgrid[:size, :size] - size / 2
            angle, at = rng.uniform(0, 2 * np.pi, len(rows)), rng.uniform(-0.25, 0.25, len(rows)) * size
            along = x * np.cos(angle)[:, None, None] + y * np.sin(angle)[:, None, None] - at[:, None, None]
            step = 0.5 + 0.5 * np.tanh(along / 2)
            images[rows] = _STEP * np.abs(amplitude).mean() * (step - step.mean((1, 2), keepdims=True)) + noise(
                len(rows)
            )
    found = ct.Particles(
        images.astype(np.float32),
        rotations,
        shifts,
        particles.ctf,
        pixel_size=pixel,
        optics_group=particles.optics_group,
    )
    return JunkSet(found, kind, good.frame)
