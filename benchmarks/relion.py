"""Maps of RELION compared with `reconstruct`: python benchmarks/relion.py.

2,000 simulated images (box 64 at 5 Å, SNR 0.25) are written as light particles (`Particles.write`), selected from that
file (`write_selection`), and prepared for RELION (`prepare`). `relion_reconstruct --ctf` reconstructs each, and the map
is compared with that of `reconstruct` from the original images: both are low-passed, within the particle radius.
Needs RELION on the path (Debian: relion). Writes benchmarks/results/relion.json; takes half a minute.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from pathlib import Path

import mrcfile
import numpy as np
from common import machine, write_results

import cryotwin_nb as ct
from cryotwin_nb.imaging.masks import spherical_mask

N, BOX, PIXEL = 2000, 64, 5.0
RESOLUTIONS = (10, 15, 20, 30)


def files(folder: Path) -> dict[str, Path]:
    """Write the images in three ways for RELION."""
    dark = ct.simulate.assembly(N, BOX, pixel_size=PIXEL, seed=0, progress=False)
    parts = (dark.rotations, dark.shifts, dark.ctf)
    light = ct.Particles(-dark.images(slice(None)), *parts, pixel_size=PIXEL, contrast="light")
    light.write(folder / "written.star", progress=False)
    read = ct.Particles.read(folder / "written.star", contrast="light")
    selected = ct.write_selection(folder / "selected.star", read, np.arange(N)[::-1])
    prepared = ct.prepare(dark, folder / "prepared.star", for_relion=True, progress=False).path
    return {"write": folder / "written.star", "write_selection": selected, "prepare for RELION": prepared}


def reconstructed(path: Path) -> np.ndarray:
    """Return RELION's map (D, D, D)."""
    command = ["relion_reconstruct", "--i", path.name, "--o", path.stem + ".mrc", "--ctf"]
    subprocess.run(command, cwd=path.parent, check=True, capture_output=True)
    with mrcfile.open(path.with_suffix(".mrc")) as file:
        return file.data.astype(np.float64)


def correlations(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Return the correlation of two maps within the particle radius, low-passed to each resolution."""
    inside = spherical_mask(BOX, 0.4 * BOX, 0).numpy() > 0.5
    axis = np.fft.fftfreq(BOX, PIXEL)
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(axis, axis, axis)))
    found = {}
    for resolution in RESOLUTIONS:
        low = [np.fft.ifftn(np.fft.fftn(v) * (frequency < 1 / resolution)).real[inside] for v in (a, b)]
        found[f"{resolution} Å"] = round(float(np.corrcoef(*low)[0, 1]), 5)
    return found


if __name__ == "__main__":
    version = subprocess.run(["relion_reconstruct", "--version"], capture_output=True, text=True).stdout
    results: dict = {"images": N, "RELION": (re.findall(r"\d+\.\d+\.\d+", version) or ["unknown"])[0]}
    with tempfile.TemporaryDirectory() as name:
        written = files(Path(name))
        started = time.perf_counter()
        ours = ct.reconstruct(ct.Particles.read(written["write"], contrast="light")).map.double().numpy()
        results["seconds, reconstruct"] = round(time.perf_counter() - started, 2)
        for way, path in written.items():
            started = time.perf_counter()
            theirs = reconstructed(path)
            seconds = round(time.perf_counter() - started, 2)
            results[way] = {"correlation": correlations(theirs, ours), "seconds, relion_reconstruct": seconds}
            print(way, results[way], flush=True)
    write_results("relion", results | {"machine": machine()})
