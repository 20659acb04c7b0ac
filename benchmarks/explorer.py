"""Response times of the explorer in a real browser: python benchmarks/explorer.py [--repeats 5] [--movie].

JupyterLab and headless Chromium, WebGL in software, on this machine. For maps of 64 and 128 voxels (the stored model of
assembly-small, its average and directions on finer grids): seconds from opening the notebook to the stars, including
JupyterLab and kernel; from Compute to the first map of a path of 12; and from a key on the slider to the next map.
Medians are stored, with every value, in benchmarks/results/explorer.json.

With --movie the README's animation is recorded instead: notebooks/figures/explorer.gif.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
from common import machine, write_results
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import ExplorerPage, chromium, jupyter_lab

ROOT = Path(__file__).parents[1]
CODE = f"""
import numpy as np
import torch
import cryotwin_nb as ct

model = ct.CryoTwin.load({str(ROOT / "notebooks/models/assembly-small.safetensors")!r})
stored = np.load({str(ROOT / "notebooks/models/assembly-small-latents.npz")!r})

def finer(maps):
    edges = (SIZE, SIZE, SIZE)
    return torch.nn.functional.interpolate(maps[:, None], edges, mode="trilinear", align_corners=True)[:, 0]

if SIZE == 32:
    decode = model.volumes
else:
    average = model.volumes(torch.zeros(1, model.latent_dim))
    fine_average, fine_basis = finer(average), finer(model.volumes(torch.eye(model.latent_dim)) - average)
    decode = lambda z: fine_average + torch.tensordot(torch.as_tensor(z), fine_basis, 1)

explorer = ct.PathwayExplorer(
    model.prior, stored["latents"], decode, voxel_size=320 / SIZE, embedding=stored["tsne"], labels=stored["labels"]
)
names = {{name: c for c, name in sorted(explorer.names.items(), reverse=True)}}
explorer.choose(names["B"], names["E5"])
FIRST
"""


@contextmanager
def notebook(size: int, first: str) -> Iterator[tuple[str, object, Path]]:
    """Yield a notebook in JupyterLab and a browser to open it with."""
    with tempfile.TemporaryDirectory() as name:
        folder, home = Path(name) / "work", Path(name) / "home"
        folder.mkdir()
        home.mkdir()
        code = CODE.replace("SIZE", str(size)).replace("FIRST", first)
        cell = nbformat.v4.new_code_cell(code.strip())
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), folder / "explorer.ipynb")
        with jupyter_lab(folder, home) as address, chromium() as browser:
            yield address, browser, folder


def clocked(size: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of every action for maps of one size."""
    clock: dict[str, list[float]] = {"open": [], "compute": [], "step": []}
    with notebook(size, "explorer") as (address, browser, _):
        for _ in range(repeats):
            started = time.perf_counter()
            page = ExplorerPage(browser, address, "explorer.ipynb")
            page.command("notebook:run-all-cells")
            page.page.wait_for_selector(".cryotwin-stars .star")
            clock["open"].append(time.perf_counter() - started)
            page.run_all()
            page.press("Compute")  # once, to compute the landscape of the density
            page.all_loaded()
            page.page.wait_for_timeout(2500)  # wait for the static picture for readers without a kernel
            version = page.version()
            started = time.perf_counter()
            page.press("Compute")
            page.drawn(0, newer_than=version)
            clock["compute"].append(time.perf_counter() - started)
            slider = page.slider("Step")
            for step in range(1, 12):
                started = time.perf_counter()
                slider.press("ArrowRight")
                page.drawn(step)
                clock["step"].append(time.perf_counter() - started)
            page.close()
    return clock


def movie(file: Path) -> None:
    """Record an animation of the explorer in use."""
    frames, durations = [], []
    with notebook(32, "explorer.controls.plane.value = 'PC 1, 2'\nexplorer") as (address, browser, _):
        page = ExplorerPage(browser, address, "explorer.ipynb", 1300, 900)
        page.page.add_style_tag(content=".jp-Cell-inputWrapper { display: none !important }")
        page.run_all()
        page.page.wait_for_selector(".cryotwin-stars .star")

        def shoot(milliseconds: int) -> None:
            page.page.wait_for_timeout(300)
            box = page.page.locator(".jp-OutputArea").first.bounding_box()
            frames.append(Image.open(io.BytesIO(page.page.screenshot(clip=box))).convert("RGB"))
            durations.append(milliseconds)

        page.press("Compute")
        page.says("MaxFlux: log J")
        page.drawn(0)
        shoot(900)
        for step in range(1, 12):
            page.slider("Step").press("ArrowRight")
            page.drawn(step)
            shoot(450)
        page.press("Gain/loss")
        page.page.wait_for_timeout(3000)
        shoot(2500)
    size = (min(f.width for f in frames), min(f.height for f in frames))
    palette = frames[5].quantize(255, method=Image.Quantize.MAXCOVERAGE)
    small = [f.crop((0, 0, *size)).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    small[0].save(file, save_all=True, append_images=small[1:], duration=durations, loop=0, optimize=True)
    print(file, f"{file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--movie", action="store_true")
    arguments = parser.parse_args()
    if arguments.movie:
        movie(ROOT / "notebooks" / "figures" / "explorer.gif")
        sys.exit()
    results: dict = {"machine": machine(), "repeats": arguments.repeats}
    for size in (64, 128):
        clock = clocked(size, arguments.repeats)
        results[f"{size}^3"] = {name: {"median": float(np.median(all_)), "all": all_} for name, all_ in clock.items()}
        print(size, {name: round(float(np.median(all_)), 2) for name, all_ in clock.items()}, flush=True)
    write_results("explorer", results)
