"""The explorer in a real JupyterLab after "Run all": mouse, keyboard, a busy kernel, reload, saving, a dead kernel."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import numpy as np
import pytest
from browser import CHROMIUM, ExplorerPage, LabPage, chromium, jupyter_lab

import cryotwin_nb as ct

REQUIRED = os.environ.get("CRYOTWIN_REQUIRE_BROWSER") == "1"
REMEDY = "no Chromium: on Debian and Ubuntu `apt-get install chromium` brings it"

pytestmark = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason=REMEDY)

MODEL = Path(__file__).parent.parent / "notebooks" / "models" / "assembly-small.safetensors"
CELLS = [
    f"""
import cryotwin_nb as ct
model = ct.CryoTwin.load({str(MODEL)!r})
z = model.prior.sample(3000)
explorer = ct.PathwayExplorer(model.prior, z, model.volumes, voxel_size=10.0, labels={{0: "B", 1: "C2", 5: "E5"}})
explorer""",
    "explorer.set(method='Algorithm 1').compute().set(method='MaxFlux').compute().path.method",  # as notebook 05 does
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab, its folder, and a browser."""
    assert CHROMIUM is not None, REMEDY
    folder, home = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("home")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(code.strip()) for code in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "explorer.ipynb")
    with jupyter_lab(folder, home) as address, chromium() as browser:
        yield address, folder, browser


def coloured(picture: np.ndarray) -> np.ndarray:
    return np.abs(picture - picture[2, 2]).max(axis=-1) > 20


def test_pick_compute_step_while_the_kernel_is_busy_export_save_reload_and_lose_the_kernel(lab):
    address, folder, browser = lab
    page = ExplorerPage(browser, address, "explorer.ipynb")
    page.run_all()
    page.opened()
    pick_and_compute(page)
    clicks_bring_their_settings(page)
    everything_goes_on_while_the_kernel_is_busy(page)
    export(page, folder / "exported")
    save_and_reload(page, folder / "explorer.ipynb")
    assert page.errors == []
    lose_the_kernel(page)  # Jupyter itself reports errors from here on
    assert page.outside == []
    page.page.close()


def pick_and_compute(page: ExplorerPage) -> None:
    page.star(0)
    page.star(5)
    assert page.get("[app.settings.start, app.settings.end]") == [0, 5]
    page.press("Compute")
    page.computed()
    page.drawn(0)
    picture = page.look()
    assert 0.02 < coloured(picture).mean() < 0.6, "the molecule is there and does not fill the picture"
    assert len(np.unique(picture[coloured(picture)].sum(-1))) > 50, "lit: shades, not one grey"
    page.screenshot("lab-1-computed")


def clicks_bring_their_settings(page: ExplorerPage) -> None:
    """Settings and Compute in quick succession, right after "Run all" has computed from code: none is lost."""
    for number, method in enumerate(["Algorithm 1", "MaxFlux", "Algorithm 1", "MaxFlux"]):
        page.field("Method").select_option(method)
        page.field("Swap start and end").click()
        page.press("Compute")
        page.computed()
        found = page.get("[app.result.request.method, app.result.request.start, app.result.titles[0]]")
        assert found[:2] == [method, 5 if number % 2 == 0 else 0] and found[2].startswith(method)


def everything_goes_on_while_the_kernel_is_busy(page: ExplorerPage) -> None:
    kernel = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
    page.page.evaluate(
        f"() => {{ {kernel}.requestExecute({{ code: 'import time; time.sleep(15)', store_history: false }}).done"
        ".then(() => { window.done = true; }); }"
    )
    page.page.evaluate("() => { window.seen = new Set(); }")
    page.page.evaluate(
        "() => { const app = document.querySelector('.cryotwin-explorer').cryotwin, was = app.maps.scene.onPicture;"
        "app.maps.scene.onPicture = (drawn) => { window.seen.add(drawn.k); was(drawn); }; }"
    )
    page.press("Play")
    page.drawn(11)
    assert len(page.page.evaluate("() => [...window.seen]")) >= 11, "every step was seen"
    page.field("Step").press("ArrowLeft")
    page.drawn(10)
    assert not page.page.evaluate("() => window.done"), "the kernel is still busy"
    page.star(1)
    page.wait("app.stale && app.p.root.classList.contains('stale')")
    page.press("Compute")  # served by a subshell while the cell runs, or queued and said so
    page.wait("app.link.kernel === 'queued' || app.result.request.end === 1 || app.result.request.start === 1")
    page.computed()


def export(page: ExplorerPage, folder: Path) -> None:
    page.field("Folder").fill(folder.name)
    page.press("Export")
    page.page.get_by_text(f"files written to {folder.name}").wait_for(timeout=120_000)
    shown = page.get("[app.result.request.method, app.result.request.start, app.result.request.end]")
    request = json.loads((folder / "explorer.json").read_text())["request"]
    assert [request["method"], request["start"], request["end"]] == shown
    assert len(list(folder.glob("map_*.mrc"))) == 12 and not (folder / "pathway.gif").exists()
    page.press("Snapshot")
    page.page.get_by_text("Snapshot written").wait_for()
    assert not page.page.locator("img[alt*='last used']").is_visible(), "the picture is for readers without a kernel"


def save_and_reload(page: ExplorerPage, notebook: Path) -> None:
    picture = "document.querySelector(\"img[alt*='last used']\")?.src.length"
    page.page.wait_for_function(f"() => {picture} > 20000")  # sent by the browser after a rest
    page.command("docmanager:save")
    page.page.wait_for_timeout(1000)
    saved = json.loads(notebook.read_text())["cells"][0]["outputs"][-1]["data"]
    assert notebook.stat().st_size < 1_000_000 and len(saved["image/png"]) > 20_000
    model = ct.CryoTwin.load(MODEL)
    again = ct.PathwayExplorer.restore(notebook, model.prior, model.prior.sample(50), model.volumes)
    assert list(again.session.answer.request.as_dict().values())[:3] == page.get(
        "[app.result.request.start, app.result.request.end, app.result.request.method]"
    )
    before = page.get("[app.look.step, app.result.request.end]")
    page.page.reload()
    page.wait_for_kernel()
    page.computed()
    assert page.get("[app.look.step, app.result.request.end]") == before
    page.drawn(before[0])


def lose_the_kernel(page: ExplorerPage) -> None:
    page.page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
    page.press("Compute")
    page.wait("app.link.kernel === 'gone'")
    page.page.get_by_text("The kernel is not connected").wait_for()
    page.field("Step").press("Home")
    page.drawn(0)


def test_the_saved_notebook_shows_the_last_picture_without_a_kernel(lab):
    address, folder, browser = lab
    saved = folder / "explorer.ipynb"
    (folder / "later.ipynb").write_bytes(saved.read_bytes())
    page = LabPage(browser, address, "later.ipynb")  # a new kernel without the widget
    picture = page.page.locator(".jp-OutputArea img").last
    picture.wait_for()
    page.screenshot("lab-2-without-a-kernel")
    size = picture.bounding_box()
    assert min(size["width"], size["height"]) > 200
    assert not page.page.get_by_text("Error displaying widget").first.is_visible()
    page.close()
