"""Images of several pixel and box sizes, brought to one grid by `prepare`: python benchmarks/grids.py.

One molecule of Gaussian atoms is projected exactly; the images are cut from fields three times as wide, so that, as in
micrographs, the CTF moves signal across their edges. The map of images of several sizes is compared with the truth and
with the map of the same particles imaged at one size. Writes benchmarks/results/grids.json. Takes about five minutes.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import starfile
import torch
from common import machine, write_results
from torch import Tensor

import cryotwin_nb as ct
from cryotwin_nb.formats.mrc_writing import write_stack
from cryotwin_nb.formats.poses import euler_from_rotations
from cryotwin_nb.imaging.fourier import grid
from cryotwin_nb.imaging.optics import CTF, shift_phases
from cryotwin_nb.simulate.images import random_rotations
from cryotwin_nb.truth.molecules import assembly_molecule
from cryotwin_nb.truth.truth import atom_transform, waves

Sizes = list[tuple[float, int]]
"""Pixel size (Å) and box size (pixels) of each optics group."""

SIZE = 0.13  # of the molecule, relative to the subunit of 240 Å; its diameter is then 30 Å
ATOM = 0.47  # standard deviation of an atom, Å
NEAR, FAR = (1000.0, 3000.0, 0.01), (10_000.0, 30_000.0, 2.7)  # smallest and largest defocus, Å; Cs, mm


def particles(n: int, scale: float, optics: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, CTF]:
    """Return random rotations, shifts (Å) and CTFs."""
    rng = np.random.default_rng(0)
    rotations, shifts = random_rotations(n, rng), rng.normal(0, scale, (n, 2)).astype(np.float32)
    low, high, aberration = optics
    defocus = rng.uniform(low, high, n)
    columns = (defocus * 1.02, defocus * 0.98, rng.uniform(0, 180, n))
    columns += tuple(np.full(n, value) for value in (300.0, aberration, 0.1, 0.0))
    return rotations, shifts, CTF(*(values.astype(np.float32) for values in columns))


def density(pixel: float, box: int, scale: float) -> Tensor:
    """Return the true density (D, D, D)."""
    positions, masses = assembly_molecule()["positions"] * SIZE * scale, assembly_molecule()["masses"]
    x, y, z = (wave[0] for wave in waves(positions[None], box, pixel))
    fall = atom_transform(box, ATOM * scale / pixel)
    spectrum = torch.einsum("j,jz,jy,jx->zyx", masses.to(x.dtype), z, y, x) * fall[:, None, None] * fall[:, None] * fall
    return torch.fft.ifftn(spectrum).real / pixel**3


def images(
    parts: tuple[np.ndarray, np.ndarray, CTF], rows: np.ndarray, pixel: float, box: int, scale: float, width: int
) -> np.ndarray:
    """Return images (m, D, D) without noise, cut from fields `width` times as wide."""
    rotations, shifts, ctf = parts
    positions, masses = assembly_molecule()["positions"] * SIZE * scale, assembly_molecule()["masses"]
    field, edge = width * box, (width - 1) * box // 2
    half = slice(0, field // 2 + 1)
    fall = atom_transform(field, ATOM * scale / pixel)
    frequencies = torch.fft.ifftshift(grid(field, 2), dim=(0, 1))[:, half].reshape(-1, 2) / (field * pixel)
    frequencies[:, 0].abs_()
    found = []
    for some in np.array_split(rows, -(-len(rows) // 20)):
        x, y = waves((positions @ torch.as_tensor(rotations[some]))[..., :2], field, pixel)
        spectrum = (y * masses[:, None]).transpose(1, 2) @ x[..., half] * (fall[:, None] * fall[half])
        filters = ctf[some](frequencies) * shift_phases(frequencies, torch.as_tensor(shifts[some]))
        image = torch.fft.irfft2(spectrum * filters.view_as(spectrum), s=(field, field)) / pixel**2
        found.append(image[:, edge : edge + box, edge : edge + box].numpy())
    return np.concatenate(found)


def write(folder: Path, parts: tuple, sizes: Sizes, scale: float, width: int, snr: float | None) -> Path:
    """Write a STAR file whose particles have the given sizes in turn, with a stack for each size."""
    rotations, shifts, ctf = parts
    n, first = len(rotations), sizes[0]
    group, names = np.arange(n) % len(sizes), np.empty(n, dtype=object)
    inside = grid(first[1], 2).float().norm(dim=-1).numpy() < 0.4 * first[1]
    signal = images(parts, np.arange(min(n, 200)), *first, scale, width)[:, inside].var(axis=1).mean()
    for number, (pixel, box) in enumerate(sizes):
        rows = np.flatnonzero(group == number)
        stack = images(parts, rows, pixel, box, scale, width)
        if snr is not None:  # of the first size; the same dose per area
            noise = np.random.default_rng(number + 1).standard_normal(stack.shape, dtype=np.float32)
            stack += noise * float(np.sqrt(signal / snr)) * first[0] / pixel
        write_stack(folder / f"{number}.mrcs", [stack], len(rows), box, pixel)
        names[rows] = [f"{i + 1}@{number}.mrcs" for i in range(len(rows))]
    columns = {"rlnImageName": names, "rlnOpticsGroup": group + 1}
    columns |= dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), euler_from_rotations(rotations), strict=True))
    columns |= {"rlnOriginXAngst": shifts[:, 0], "rlnOriginYAngst": shifts[:, 1]}
    columns |= {"rlnDefocusU": ctf.defocus_u, "rlnDefocusV": ctf.defocus_v, "rlnDefocusAngle": ctf.defocus_angle}
    optics = {"rlnOpticsGroup": np.arange(len(sizes)) + 1, "rlnImagePixelSize": [pixel for pixel, _ in sizes]}
    optics |= {"rlnVoltage": 300.0, "rlnSphericalAberration": ctf.spherical_aberration[0], "rlnAmplitudeContrast": 0.1}
    optics |= {"rlnImageSize": [box for _, box in sizes]}
    tables = {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(columns)}
    starfile.write(tables, folder / "particles.star", float_format="%.9g")
    return folder / "particles.star"


def compare(
    sizes: Sizes,
    n: int = 2000,
    scale: float = 1.0,
    optics: tuple[float, float, float] = NEAR,
    width: int = 3,
    snr: float | None = None,
) -> dict:
    """Return the FSC with the truth of the map of several sizes, and of the first size only."""
    parts = particles(n, scale, optics)
    curves = []
    for own in (sizes, sizes[:1]):
        with tempfile.TemporaryDirectory() as name:
            star = write(Path(name), parts, own, scale, width, snr)
            how = {"whiten": False, "dtype": "float32"} if snr is None else {}
            report = ct.prepare(star, Path(name) / "prepared.star", contrast="dark", progress=False, **how)
            found = ct.reconstruct(ct.Particles.read(report.path, contrast="dark"))
            truth = density(report.pixel_size, report.box_size, scale)
            curves.append((report, ct.fsc(found.map, truth, report.pixel_size)))
    (report, several), (_, one) = curves
    expected = np.interp(several.frequency, one.frequency, one.correlation)  # the boxes can differ
    below = slice(0, int(0.9 * report.box_size / 2))
    ratio = several.correlation / expected
    return {
        "grid": f"{report.box_size} px at {report.pixel_size:.6g} Å",
        "mean FSC": round(float(several.correlation[below].mean()), 5),
        "mean FSC of one size": round(float(expected[below].mean()), 5),
        "smallest ratio in a shell": round(float(ratio[below].min()), 5),
        "FSC": several.correlation.round(4).tolist(),
        "FSC of one size": expected.round(4).tolist(),
    }


def main() -> None:
    warnings.simplefilter("ignore", UserWarning)
    two: Sizes = [(0.784, 64), (0.764, 66)]
    ordinary: Sizes = [(3.92, 64), (3.82, 66)]
    cases = {
        "two pixel sizes, clean": {"sizes": two},
        "two pixel sizes, SNR 1": {"sizes": two, "snr": 1.0},
        "two boxes, clean": {"sizes": [(0.784, 64), (0.784, 80)]},
        "three sizes, clean": {"sizes": [*two, (0.6, 90)]},
        "five times as large, 1 to 3 µm, clean": {"sizes": ordinary, "scale": 5.0, "optics": FAR},
        "five times as large, 1 to 3 µm, SNR 1": {"sizes": ordinary, "scale": 5.0, "optics": FAR, "snr": 1.0},
        "periodic images, 0.1 to 0.3 µm, clean": {"sizes": two, "width": 1},
        "periodic images, 1 to 3 µm, clean": {"sizes": two, "width": 1, "optics": FAR},
    }
    results: dict = {"machine": machine()}
    for name, case in cases.items():
        results[name] = compare(**case)
        print(name, {key: value for key, value in results[name].items() if not key.startswith("FSC")}, flush=True)
        write_results("grids", results)


if __name__ == "__main__":
    main()
