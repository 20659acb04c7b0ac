"""Adenylate kinase imaged by cryojax: python benchmarks/outside_cryojax.py FOLDER [--n 12000] [--seed 0] [--base].

Runs in an environment of its own, which `outside.py` creates; it does not import this package.

The structures are the 98 frames of the transition from closed to open that MDAnalysisTests contains (dynamic
importance sampling), superposed on the core domain. 45 % of the images are near the closed end, 30 % near the open end,
the others evenly between. They have 64² pixels of 1.8 Å, SNR 0.1, three optics groups, astigmatic defocus of 0.8 to
2.5 µm, and shifts of 3.6 Å. Three STAR files have the same noise: `base`; `contrast`, with contrasts uniform in 0.7 to
1.3; `poses`, the images of `base` with rotations wrong by 2.5° and shifts by 0.9 Å an axis (root mean square).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cryojax.simulator as cxs
import cryospax as spx
import jax
import jax.numpy as jnp
import MDAnalysis
import numpy as np
import starfile
from MDAnalysis.analysis.align import rotation_matrix
from MDAnalysisTests.datafiles import DCD, PSF
from outside_maps import VARIANCE
from scipy.spatial.transform import Rotation
from view_sets import KINDS, random_axis, views_of

BOX, PIXEL, SNR = 64, 1.8, 0.1
OPTICS = ((300.0, 2.7, 0.10), (200.0, 2.7, 0.07), (300.0, 0.01, 0.10))
"""Voltage, kV; spherical aberration, mm; amplitude contrast."""
CORE = "name CA and (resid 1:29 or resid 60:121 or resid 160:214)"
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]


def coordinates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the positions (98, m, 3) of the heavy atoms, Å, their atomic numbers (m,) and their residues (m,)."""
    universe = MDAnalysis.Universe(PSF, DCD)
    heavy, core = universe.select_atoms("not name H*"), universe.select_atoms(CORE)
    frames, first = [], None
    for _ in universe.trajectory:
        centre = core.positions.mean(0)
        first = core.positions - centre if first is None else first
        rotation, _ = rotation_matrix(core.positions - centre, first)
        frames.append((heavy.positions - centre) @ rotation.T)
    found = np.array(frames, np.float32)
    number = {12: 6, 14: 7, 16: 8, 32: 16}  # of the rounded mass
    numbers = np.array([number[m] for m in np.round(heavy.masses).astype(int)])
    return found - found.mean((0, 1)), numbers, heavy.resids


class Imaging:
    """Random structures, poses and CTF of n images, and their simulation by cryojax."""

    def __init__(self, frames: np.ndarray, number: np.ndarray, n: int, seed: int = 0, views: str = "") -> None:
        generator, self.seed = np.random.default_rng(1 + seed), seed
        last, kind = len(frames) - 1, generator.choice(3, n, p=(0.45, 0.30, 0.25))
        near = np.abs(generator.normal(0, 7, n))
        places = np.choose(kind, (near, last - near, generator.uniform(0, last, n)))
        self.frame = places.round().clip(0, last).astype(int)
        self.angles = Rotation.random(n, generator).as_euler("ZYZ", degrees=True)
        self.shifts = generator.normal(0, 3.6, (n, 2))
        defocus, astigmatism = generator.uniform(8000, 25000, n), generator.normal(0, 500, n)
        self.defocus = np.column_stack([defocus, astigmatism, generator.uniform(0, 180, n)])
        self.contrast = generator.uniform(0.7, 1.3, n)
        if views:
            x, y, z = views_of(views, n, random_axis(generator), generator).T
            self.angles[:, :2] = np.degrees([np.arctan2(y, x), np.arccos(z)]).T
        self.group = np.arange(n) * len(OPTICS) // n
        self.atoms, self.number = jnp.asarray(frames), jnp.asarray(number, jnp.float32)

    def parameters(self, rows: np.ndarray, group: int) -> dict:
        """Return the imaging parameters of images of one optics group, as cryospax expects them."""
        voltage, aberration, amplitude = OPTICS[group]
        ctf = cxs.AstigmaticCTF(*self.defocus[rows].T, np.full(len(rows), aberration))
        fixed = {"amplitude_contrast_ratio": np.full(len(rows), amplitude), "phase_shift": np.zeros(len(rows))}
        return {
            "image_config": cxs.BasicImageConfig((BOX, BOX), PIXEL, voltage),
            "pose": cxs.EulerAnglePose(*self.shifts[rows].T, *self.angles[rows].T),
            "transfer_theory": cxs.ContrastTransferTheory(ctf, **fixed),
        }

    def image(self, parameters: dict, constant: jnp.ndarray, own: tuple) -> jnp.ndarray:
        """Return one image; `constant` is the deviation of the noise."""
        frame, contrast, key = own
        volume = cxs.GaussianMixtureVolume(self.atoms[frame], self.number, VARIANCE)
        names = ("image_config", "pose", "transfer_theory")
        clean = cxs.make_image_model(volume, *(parameters[name] for name in names)).simulate()
        return contrast * clean + constant * jax.random.normal(key, (BOX, BOX))

    def write(self, folder: Path, name: str, contrast: np.ndarray, noise: float) -> None:
        """Write the images with these contrasts (n,) and a deviation of the noise."""
        star = spx.RelionParticleParameterFile.empty(folder / f"{name}.star", 0, max_optics_groups=3, exist_ok=True)
        for group in range(len(OPTICS)):
            star.append(self.parameters(np.flatnonzero(self.group == group), group))
        options = {"prefix": name, "output_folder": "stacks", "overwrite": True}
        data_set = spx.RelionParticleDataset(star, folder, mode="w", mrcfile_options=options)
        own = (jnp.asarray(self.frame), jnp.asarray(contrast, jnp.float32))
        keys = jax.random.split(jax.random.key(5 + self.seed), len(contrast))
        spx.simulate_particle_stack(
            data_set,
            self.image,
            jnp.float32(noise),
            (*own, keys),
            batch_size=50,
            images_per_file=len(contrast) // len(OPTICS),  # a file contains images of one voltage
            overwrite=True,
        )

    def signal(self, n: int = 60) -> float:
        """Return the standard deviation of clean images in a disc of radius 0.4."""
        y, x = np.mgrid[:BOX, :BOX] - BOX // 2
        inside, powers = np.hypot(x, y) < 0.4 * BOX, []
        for row in np.linspace(0, len(self.frame) - 1, n).astype(int):
            pose = cxs.EulerAnglePose(*self.shifts[row], *self.angles[row])
            ctf = cxs.AstigmaticCTF(*self.defocus[row], 2.7)
            theory = cxs.ContrastTransferTheory(ctf, amplitude_contrast_ratio=0.1)
            own = {
                "pose": pose,
                "transfer_theory": theory,
                "image_config": cxs.BasicImageConfig((BOX, BOX), PIXEL, 300.0),
            }
            clean = self.image(own, jnp.float32(0), (self.frame[row], 1.0, jax.random.key(0)))
            powers.append(np.asarray(clean)[inside].var())
        return float(np.sqrt(np.mean(powers)))


def spoil_poses(folder: Path) -> None:
    """Write poses.star: the images of base.star, with errors in rotations and shifts."""
    generator, star = np.random.default_rng(2), starfile.read(folder / "base.star")
    table = star["particles"]
    right = Rotation.from_euler("ZYZ", table[ANGLES].to_numpy(float), degrees=True)
    error = Rotation.from_rotvec(generator.normal(0, np.deg2rad(2.5) / 3**0.5, (len(table), 3)))
    table[ANGLES] = (right * error).as_euler("ZYZ", degrees=True)
    for column in ("rlnOriginXAngst", "rlnOriginYAngst"):
        table[column] = table[column].astype(float) + generator.normal(0, 0.9, len(table))
    starfile.write(star, folder / "poses.star", overwrite=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=12_000, help="number of images, a multiple of 3")
    parser.add_argument("--seed", type=int, default=0, help="seed of structures, poses, CTF and noise")
    parser.add_argument("--base", action="store_true", help="write base.star only")
    parser.add_argument("--closed", action="store_true", help="all images are of the closed structure")
    parser.add_argument("--views", choices=KINDS, default="", help="distribution of the views; even by default")
    args = parser.parse_args()
    (args.folder / "stacks").mkdir(parents=True, exist_ok=True)  # cryospax does not create it
    frames, number, residue = coordinates()
    if args.closed:
        frames = frames[:1]
    imaging = Imaging(frames, number, args.n, args.seed, args.views)
    noise = imaging.signal() / SNR**0.5
    imaging.write(args.folder, "base", np.ones(args.n), noise)
    if not args.base:
        imaging.write(args.folder, "contrast", imaging.contrast, noise)
        spoil_poses(args.folder)
    moved = np.sqrt(((frames - frames[0]) ** 2).sum(-1).mean(-1))
    truth = {
        "coordinate": (moved / max(moved[-1], 1e-9))[imaging.frame],
        "frame": imaging.frame,
        "contrast": imaging.contrast,
    }
    np.savez_compressed(args.folder / "atoms.npz", frames=frames, number=number, residue=residue)
    np.savez_compressed(args.folder / "truth.npz", **truth)


if __name__ == "__main__":
    main()
