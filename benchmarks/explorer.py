"""Response of the explorer in a real browser: python benchmarks/explorer.py [ROW ...] [--repeats 5] [--movie].

JupyterLab and headless Chromium, WebGL in software, on this machine; rows without a notebook use a bare page, with the
explorer in this process. Medians are stored, with every value, in benchmarks/results/explorer.json:

    clicks    settings changed and Compute pressed at human pace, 50 times after "Run all": paths of other settings, and
              the longest time until the page answers or shows "queued"
    stars     labelled stars of every plane that a mouse hits at their centre, if over 6 px from a heavier one
    play      steps seen, and their rate, while a cell sleeps for 10 s
    64, 128   a step, a contour step, a star's first molecule; Compute to the first map beyond `max_flux` and a decoding
    points    100,000 points drawn, and a lasso's count
    256       memory of the page and first map with 13 states and 12 steps
    open      notebook 05 until its stars, beyond an empty notebook that imports torch; its size when saved
    again     kernel's memory after 20 runs of the explorer's cell at box 128, beyond that after the first
    export    export at box 32, without and with the movie

With --movie the README's animation is recorded instead: notebooks/figures/explorer.gif.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import torch
from common import machine, write_results
from PIL import Image

import cryotwin_nb as ct

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from bare_page import Bridge
from browser import APP, ExplorerPage, chromium, jupyter_lab

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "notebooks/models/assembly-small.safetensors"
LATENTS = ROOT / "notebooks/models/assembly-small-latents.npz"
CELL = f"""
import cryotwin_nb as ct, numpy as np
model = ct.CryoTwin.load({str(MODEL)!r})
stored = np.load({str(LATENTS)!r})
explorer = ct.PathwayExplorer(
    model.prior, stored["latents"], model.volumes, 10.0, embedding=stored["tsne"], labels=stored["labels"]
)
explorer.set(plane="PC 1, 2")
"""
BIG = """
import torch, resource, cryotwin_nb as ct
prior = ct.GaussianMixture([0.5, 0.5], torch.tensor([[0.0, 0], [4, 0]]), torch.eye(2).repeat(2, 1, 1))
ball = torch.randn(128, 128, 128)
explorer = ct.PathwayExplorer(prior, prior.sample(500), lambda z: torch.stack([ball + x for x in z[:, 0]]), 1.0)
explorer.compute()
print("MiB", int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20)
explorer
"""


def an_explorer(size: int = 32, n: int | None = None) -> ct.PathwayExplorer:
    """Return the explorer of notebook 05, its maps on a finer grid, with `n` latents."""
    model, stored = ct.CryoTwin.load(MODEL), np.load(LATENTS)
    average = model.volumes(torch.zeros(1, model.latent_dim))
    maps = torch.cat([average, model.volumes(torch.eye(model.latent_dim)) - average])
    if size != maps.shape[-1]:
        finer = torch.nn.functional.interpolate(maps[:, None], (size,) * 3, mode="trilinear", align_corners=True)
        maps = finer[:, 0]
    z, labels = (stored["latents"], stored["labels"]) if n is None else (model.prior.sample(n, seed=0), None)
    return ct.PathwayExplorer(
        model.prior, z, lambda x: maps[:1] + torch.tensordot(torch.as_tensor(x), maps[1:], 1), 320 / size, labels=labels
    )


@contextmanager
def bare(explorer: ct.PathwayExplorer) -> Iterator[Any]:
    """Yield a page with an explorer in it, and a function that times a script until a condition holds."""
    bridge = Bridge(explorer)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(300_000)
        page.goto(bridge.address)
        page.wait_for_function(f"() => {APP}?.maps.frames > 0 && {APP}.states.length")

        def timed(script: str, condition: str) -> float:
            return page.evaluate(
                f"""async () => {{ const app = {APP}, begun = performance.now(); {script};
                while (!({condition})) await new Promise((done) => setTimeout(done, 4));
                return (performance.now() - begun) / 1000; }}"""
            )

        yield page, timed
    bridge.close()


@contextmanager
def lab(code: list[str]) -> Iterator[tuple[str, Any, Path]]:
    """Yield a JupyterLab with a notebook of these cells, a browser to open it with, and its folder."""
    with tempfile.TemporaryDirectory() as name:
        folder, home = Path(name) / "work", Path(name) / "home"
        folder.mkdir()
        home.mkdir()
        cells = [nbformat.v4.new_code_cell(text.strip()) for text in code]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "explorer.ipynb")
        with jupyter_lab(folder, home) as address, chromium() as browser:
            yield address, browser, folder


def clicks() -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"stale": [], "answer": []}
    with lab([CELL, "explorer.set(method='Algorithm 1').compute().set(method='MaxFlux').compute().path"]) as (
        address,
        browser,
        _,
    ):
        page = ExplorerPage(browser, address, "explorer.ipynb")
        page.run_all()
        page.opened()
        pause = np.random.default_rng(0)
        for trial in range(50):
            page.field("Method").select_option(["Algorithm 1", "MaxFlux"][trial % 2])
            page.page.wait_for_timeout(float(pause.uniform(0, 700)))
            page.field("Swap start and end").click()
            page.page.wait_for_timeout(float(pause.uniform(0, 700)))
            asked = page.get("JSON.stringify(app.settings)")
            begun = time.perf_counter()
            page.press("Compute")
            page.wait("!app.link.waiting.size || app.link.kernel === 'queued'")
            found["answer"].append(time.perf_counter() - begun)
            page.wait("app.busy === null && app.result.profile")
            found["stale"].append(float(page.get("JSON.stringify(app.result.request)") != asked))
    return {"stale": [sum(found["stale"])], "answer": [max(found["answer"])]}


def stars() -> dict[str, list[float]]:
    explorer, hit, asked = an_explorer(), 0, 0
    with bare(explorer) as (page, timed):
        for plane in explorer.setup["planes"]:
            timed(f"app.plane.choose({plane!r})", f"app.plane.drawn.name === {plane!r}")
            places = page.evaluate(
                f"""() => {{ const app = {APP}, frame = app.p.plane.querySelector('.cryotwin-plane-frame');
                const box = frame.getBoundingClientRect(), at = ([x, y]) => [x + box.x + 1, y + box.y + 1];
                return app.plane.drawn.stars.map((s) => at(app.plane.plane.where(...s))); }}"""
            )
            mass = [star["mass"] for star in explorer.setup["components"]]
            for c in explorer.labelled:
                heavier = [o for o in explorer.labelled if mass[o] > mass[c]]
                if any(np.hypot(*np.subtract(places[c], places[o])) <= 6 for o in heavier):
                    continue
                page.mouse.move(3, 3)
                page.mouse.click(*places[c])
                asked += 1
                hit += c in page.evaluate(f"() => [{APP}.settings.start, {APP}.settings.end]")
    return {"hit": [hit], "of": [asked]}


def play() -> dict[str, list[float]]:
    with lab([CELL, "explorer.compute().path"]) as (address, browser, _):
        page = ExplorerPage(browser, address, "explorer.ipynb")
        page.run_all()
        page.opened()
        page.page.evaluate(
            f"() => {{ const app = {APP}, was = app.maps.scene.onPicture; window.seen = new Map();"
            "app.maps.scene.onPicture = (d) => { if (!seen.has(d.k)) seen.set(d.k, performance.now()); was(d); }; }"
        )
        kernel = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
        page.get("app.step(0)")
        page.page.wait_for_function("() => seen.has(0)")
        # Subshells report "idle" while the cell runs, so the kernel's status does not say whether it has ended.
        sleep = "requestExecute({ code: 'import time; time.sleep(10)' }).done.then(() => { window.done = true; })"
        page.page.evaluate(f"() => {{ {kernel}.{sleep}; }}")
        page.press("Play")
        page.drawn(11)
        seen = page.page.evaluate("() => [...seen].sort(([a], [b]) => a - b).map(([, at]) => at)")
        busy = page.page.evaluate("() => !window.done")
    return {"steps": [len(seen)], "per second": [1000 * (len(seen) - 2) / (seen[-1] - seen[1])], "busy": [float(busy)]}


def maps(size: int, repeats: int) -> dict[str, list[float]]:
    explorer = an_explorer(size)
    found: dict[str, list[float]] = {"step": [], "contour": [], "star": [], "compute": []}
    with bare(explorer) as (_, timed):
        others = [c for c in range(explorer.prior.n_components) if c not in explorer.labelled]
        for n in range(repeats):
            shown = f"app.maps.now?.data && app.maps.now.data === app.maps.stars.get({others[n]})?.data"
            found["star"].append(
                timed(f"app.maps.frames = 0; app.maps.hover({others[n]})", f"{shown} && app.maps.frames > 0")
            )
            timed(
                "app.maps.hover(null); app.step(0); app.compute({ do: 'compute', settings: app.settings })",
                "app.result?.profile",
            )
            begun = time.perf_counter()
            request = explorer.session.answer.request
            path = ct.max_flux(
                explorer.prior, request.start, request.end, landscape=explorer.session.model.search().landscape()
            )
            explorer.session.model.stars.decode(path.latents[:1])
            alone = time.perf_counter() - begun
            whole = timed(
                "app.result.version = -1; app.maps.frames = 0; app.compute({ do: 'compute', settings: app.settings })",
                "app.result.version > 0 && app.maps.drawn.version === app.result.version",
            )
            found["compute"].append(whole - alone)
            timed("", "app.result.data.filter(Boolean).length === 12 && app.result.profile")
            for k in (1, 2, 3):
                found["step"].append(timed(f"app.step({k})", f"app.maps.drawn.k === {k}"))
            for sigma in (2.6, 2.8, 3.0):
                level = "app.maps.drawn.level"
                script = f"const was = {level}; app.setLook('sigma', {sigma + n / 10})"
                found["contour"].append(timed(script, f"{level} !== was"))
    return found


def points(repeats: int) -> dict[str, list[float]]:
    explorer = an_explorer(32, 100_000)
    found: dict[str, list[float]] = {"drawn": [], "lasso": []}
    with bare(explorer) as (page, timed):
        for n in range(repeats):
            name = explorer.setup["planes"][(n + 1) % 2]  # the other one
            drawn = "await app.plane.plane.settled().then(() => true)"
            found["drawn"].append(timed(f"app.plane.choose({name!r})", f"app.plane.drawn.name === {name!r} && {drawn}"))
            page.get_by_text("lasso", exact=True).click()
            box = page.locator(".cryotwin-plane-frame").bounding_box()
            across = [
                (box["x"] + box["width"] * (0.5 + 0.3 * np.cos(a)), box["y"] + box["height"] * (0.5 + 0.3 * np.sin(a)))
                for a in np.linspace(0, 6.2, 40)
            ]
            page.mouse.move(*across[0])
            page.mouse.down()
            for place in across:
                page.mouse.move(*place)
            page.evaluate(
                f"""() => {{ const app = {APP}, was = app.selected.bind(app), now = () => performance.now();
                addEventListener('pointerup', () => {{ window.up = now(); }}, {{ once: true, capture: true }});
                app.selected = (rows) => {{ was(rows); window.counted = now(); }}; }}"""
            )
            page.mouse.up()
            found["lasso"].append(page.evaluate("() => (counted - up) / 1000"))
            page.get_by_text("stars", exact=True).click()
    return found


def large() -> dict[str, list[float]]:
    explorer = an_explorer(256)
    with bare(explorer) as (page, timed):
        first = timed("app.compute({ do: 'compute', settings: app.settings })", "app.maps.drawn.version !== null")
        timed("", "app.result.data.filter(Boolean).length === 12 && app.result.profile")
        page.wait_for_timeout(5000)  # surfaces of the other steps are made
        page.context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
        used = private_memory(page, "renderer"), private_memory(page, "GPU")
        held = page.evaluate(f"() => {APP}.maps.scene.bytes") / 2**20
    return {"first map": [first], "page MB": [used[0]], "GPU process MB": [used[1]], "scene MB": [held]}


def private_memory(page: Any, kind: str) -> float:
    """Memory of the browser's processes of a kind, MiB, without what they share."""
    found = page.context.browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    files = [Path(f"/proc/{process['id']}/smaps_rollup") for process in found if process["type"] == kind]
    lines = [line.split() for file in files for line in file.read_text().splitlines() if line.startswith("Private_")]
    return sum(int(line[1]) for line in lines) / 1024


def opening(repeats: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"beyond torch": [], "saved MB": []}
    whole = nbformat.read(ROOT / "notebooks/05_pathway_explorer.ipynb", 4)
    code = [
        cell.source.replace('"models/', f'"{ROOT}/notebooks/models/')
        for cell in whole.cells
        if cell.cell_type == "code"
    ]
    for _ in range(repeats):
        spent = []
        for cells in (["import torch"], code[:4]):
            with lab(cells) as (address, browser, _):
                begun = time.perf_counter()
                page = ExplorerPage(browser, address, "explorer.ipynb")
                page.run_all()
                if len(cells) > 1:
                    page.wait("app.plane.drawn")
                spent.append(time.perf_counter() - begun)
        found["beyond torch"].append(spent[1] - spent[0])
    with lab(code[:5]) as (address, browser, folder):
        page = ExplorerPage(browser, address, "explorer.ipynb")
        page.run_all()
        page.page.wait_for_function("() => document.querySelector(\"img[alt*='last used']\")?.src.length > 20000")
        page.command("docmanager:save")
        page.page.wait_for_timeout(2000)
        found["saved MB"].append((folder / "explorer.ipynb").stat().st_size / 1e6)
    return found


def again() -> dict[str, list[float]]:
    with lab([BIG]) as (address, browser, _):
        page = ExplorerPage(browser, address, "explorer.ipynb")
        seen = []
        for _ in range(20):
            page.run_all()
            page.opened()
            text = page.page.locator(".jp-OutputArea-output pre").first.text_content()
            seen.append(float(text.split()[1]))
    return {"MiB": [seen[-1] - seen[0]], "first": [seen[0]]}


def exported(repeats: int) -> dict[str, list[float]]:
    explorer = an_explorer().compute()
    found: dict[str, list[float]] = {"without movie": [], "with movie": []}
    for _ in range(repeats):
        for name, movie in (("without movie", False), ("with movie", True)):
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                explorer.export(Path(folder) / "out", movie=movie)
                found[name].append(time.perf_counter() - begun)
    return found


def animation(file: Path) -> None:
    """Record an animation of the explorer in use."""
    frames, durations = [], []
    with bare(an_explorer().set(plane="PC 1, 2").choose("B", "E5")) as (page, timed):

        def shoot(milliseconds: int) -> None:
            page.wait_for_timeout(300)
            box = page.locator(".cryotwin-explorer").bounding_box()
            frames.append(Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB"))
            durations.append(milliseconds)

        shoot(900)
        page.get_by_role("button", name="Compute", exact=True).click()
        timed("", "app.result?.profile")
        for step in range(12):
            timed(f"app.step({step})", f"app.maps.drawn.k === {step}")
            shoot(450)
        page.get_by_label("Gain/loss").check()
        page.wait_for_timeout(1000)
        shoot(2500)
    size = (max(f.width for f in frames), max(f.height for f in frames))
    frames = [f if f.size == size else Image.new("RGB", size, "white").paste(f) or f for f in frames]
    palette = frames[5].quantize(255, method=Image.Quantize.MAXCOVERAGE)
    small = [f.crop((0, 0, *size)).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    small[0].save(file, save_all=True, append_images=small[1:], duration=durations, loop=0, optimize=True)
    print(file, f"{file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help="rows to measure; by default all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--movie", action="store_true")
    arguments = parser.parse_args()
    if arguments.movie:
        animation(ROOT / "notebooks" / "figures" / "explorer.gif")
        sys.exit()
    n = arguments.repeats
    rows = {
        "clicks": clicks, "stars": stars, "play": play, "64": lambda: maps(64, n), "128": lambda: maps(128, n),
        "points": lambda: points(n), "256": large, "open": lambda: opening(n), "again": again,
        "export": lambda: exported(n),
    }  # fmt: skip
    file = ROOT / "benchmarks/results/explorer.json"
    former = json.loads(file.read_text()) if file.is_file() else {}
    results: dict = {"machine": machine(), "repeats": n, "rows": former.get("rows", {})}
    for row in arguments.rows or rows:
        values = rows[row]()
        results["rows"][row] = {name: {"median": float(np.median(all_)), "all": all_} for name, all_ in values.items()}
        print(row, {name: round(float(np.median(all_)), 3) for name, all_ in values.items()}, flush=True)
        write_results("explorer", results)
