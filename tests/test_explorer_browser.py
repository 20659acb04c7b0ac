"""The explorer in a real JupyterLab and browser: clicking, reloading, saving; screenshots in results/browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from browser import CHROMIUM, MAPS, ExplorerPage, LabPage, chromium, jupyter_lab
from PIL import Image

REQUIRED = os.environ.get("CRYOTWIN_REQUIRE_BROWSER") == "1"
REMEDY = "no Chromium: on Debian and Ubuntu `apt-get install chromium` brings it"

pytestmark = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason=REMEDY)

CODE = """
import cryotwin_nb as ct
model = ct.CryoTwin.load({model!r})
explorer = ct.PathwayExplorer(
    model.prior, model.prior.sample(3000), decode=model.volumes, voxel_size=10.0, labels={{0: "B", 1: "C2", 5: "E5"}}
)
explorer
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab, its folder, and a browser."""
    assert CHROMIUM is not None, REMEDY
    folder = tmp_path_factory.mktemp("lab")
    model = Path(__file__).parent.parent / "notebooks" / "models" / "assembly-small.safetensors"
    cell = nbformat.v4.new_code_cell(CODE.format(model=str(model)).strip())
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for name in ("explorer", "fresh"):
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), folder / f"{name}.ipynb")
    home = tmp_path_factory.mktemp("home")
    with jupyter_lab(folder, home) as address, chromium() as browser:
        yield address, folder, browser


def coloured(picture: np.ndarray) -> np.ndarray:
    return picture.min(axis=-1) < 235


def test_pick_two_stars_compute_slide_play_contour_export_and_reload(lab):
    address, folder, browser = lab
    page = ExplorerPage(browser, address, "explorer.ipynb")
    page.run_all()
    page.page.wait_for_selector(".cryotwin-stars .star")
    page.screenshot("1-opened")
    pick_and_compute(page)
    share = coloured(page.look()).mean()
    slide_to_the_sixth_step(page, share)
    change_the_contour(page)
    show_what_was_gained(page)
    play_to_the_end(page)
    export_and_take_a_snapshot(page, folder / "exported")
    save_and_reload(page, share)
    assert page.errors == []
    assert page.outside == []
    page.close()


def pick_and_compute(page: ExplorerPage) -> None:
    page.star(0)
    page.star(5)
    assert page.page.locator(".star.start").get_attribute("data-i") == "0"
    assert page.page.locator(".star.end").get_attribute("data-i") == "5"
    page.press("Compute")
    page.says("MaxFlux: log J")
    page.drawn(0)
    picture = page.look()
    assert 0.05 < coloured(picture).mean() < 0.6, "the molecule is there and does not fill the picture"
    rows, columns = (np.flatnonzero(coloured(picture).any(axis)) for axis in (1, 0))
    for where, size in ((rows, picture.shape[0]), (columns, picture.shape[1])):
        assert where[0] > 3, "not cut"
        assert where[-1] < size - 4, "not cut"
        assert abs((where[0] + where[-1]) / 2 / size - 0.5) < 0.1, "centred"
    assert len(np.unique(picture[coloured(picture)].sum(-1))) > 50, "lit: shades, not one grey"


def slide_to_the_sixth_step(page: ExplorerPage, share: float) -> None:
    for step in range(1, 7):
        page.slider("Step").press("ArrowRight")
        page.drawn(step)
    assert coloured(page.look()).mean() > 1.15 * share, "more of the molecule is there"
    page.screenshot("2-step-6")


def change_the_contour(page: ExplorerPage) -> None:
    level, wide = page.level(), coloured(page.look()).sum()
    for _ in range(10):
        page.slider("Contour").press("ArrowRight")
    page.page.wait_for_function(f"() => {MAPS}?.level > {level}")
    page.page.wait_for_timeout(3000)
    assert coloured(page.look()).sum() < wide, "higher contours enclose less"


def show_what_was_gained(page: ExplorerPage) -> None:
    page.press("Start map")
    page.press("Gain/loss")
    page.page.wait_for_function(f"() => {MAPS}?.changes.length === 12")
    page.page.wait_for_timeout(500)
    picture = page.look()
    assert ((picture[..., 2] - picture[..., 0]) > 60).mean() > 0.02, "what was gained is blue"
    page.screenshot("3-changes")


def play_to_the_end(page: ExplorerPage) -> None:
    page.page.locator(".jupyter-widget-Play button, .widget-play button").first.click()
    page.page.wait_for_function(f"() => {MAPS}?.drawn === 11")


def export_and_take_a_snapshot(page: ExplorerPage, folder: Path) -> None:
    page.page.locator(".widget-text", has_text="Folder").locator("input").fill(folder.name)
    page.page.keyboard.press("Tab")
    page.press("Export")
    page.says(f"files written to {folder.name}", 300)  # including a movie, drawn without a GPU
    assert len(list(folder.glob("map_*.mrc"))) == 12
    page.press("Snapshot")
    page.says("Snapshot written")
    with Image.open(folder / "snapshot_011.png") as snapshot:
        assert coloured(np.asarray(snapshot.convert("RGB")).astype(int)).mean() > 0.05
    assert not page.page.locator("img[alt*='last used']").is_visible(), "the picture is for readers without a kernel"
    page.page.locator(".cryotwin-profile").scroll_into_view_if_needed()
    page.screenshot("4-exported")


def save_and_reload(page: ExplorerPage, share: float) -> None:
    page.page.wait_for_timeout(3000)  # the picture is saved after a period without changes
    page.command("docmanager:save")
    page.page.wait_for_timeout(1000)
    page.page.reload()
    page.wait_for_kernel()
    page.drawn(11)
    for _ in range(40):
        if coloured(page.look()).mean() > share:
            break
        page.page.wait_for_timeout(250)
    else:
        pytest.fail("the molecule did not come back")
    assert page.page.locator(".star.end").get_attribute("data-i") == "5"
    page.screenshot("5-reloaded")


def test_the_saved_notebook_is_small_and_shows_the_last_picture_without_a_kernel(lab, tmp_path):
    address, folder, browser = lab
    saved = folder / "explorer.ipynb"
    assert saved.stat().st_size < 1_000_000
    outputs = json.loads(saved.read_text())["cells"][0]["outputs"]
    assert len(outputs[-1]["data"]["image/png"]) > 20_000
    (folder / "later.ipynb").write_bytes(saved.read_bytes())
    page = LabPage(browser, address, "later.ipynb")  # a new kernel without the widget
    picture = page.page.locator(".jp-OutputArea img").last
    picture.wait_for()
    page.screenshot("6-without-a-kernel")
    size = picture.bounding_box()
    assert min(size["width"], size["height"]) > 300
    assert not page.page.get_by_text("Error displaying widget").first.is_visible()
    page.close()
    convert = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", str(tmp_path), str(saved)]
    subprocess.run(convert, check=True, capture_output=True)
    html = browser.new_page(viewport={"width": 1100, "height": 1000})
    html.goto((tmp_path / "explorer.html").as_uri())
    assert html.locator("img").last.bounding_box()["width"] > 300
    html.close()


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080)])
def test_nothing_overlaps_or_is_cut(lab, width, height):
    address, _, browser = lab
    page = ExplorerPage(browser, address, "fresh.ipynb", width, height)
    page.run_all()
    page.page.wait_for_selector(".cryotwin-stars .star")
    page.press("Compute")
    page.says("MaxFlux: log J")
    page.drawn(0)
    page.screenshot(f"7-{width}")
    boxes = page.page.evaluate(
        """() => [...document.querySelectorAll(
            '.jp-OutputArea-output button.jupyter-button, .jp-OutputArea-output select, .cryotwin-frame,'
            + '.cryotwin-maps, .cryotwin-hint, .cryotwin-legend, .cryotwin-profile,'
            + '.jp-OutputArea-output .widget-slider')]
            .filter(e => e.offsetParent !== null && !e.closest('.cryotwin-maps'))
            .map(e => { const b = e.getBoundingClientRect(); return [e.className.baseVal ?? e.className, b.x, b.y,
                b.right, b.bottom, e.scrollWidth - e.clientWidth]; })"""
    )
    right = page.page.evaluate("() => document.querySelector('.jp-OutputArea').getBoundingClientRect().right")
    shown = [box for box in boxes if box[3] - box[1] > 2]
    assert len(shown) > 15
    for i, (name, x, y, to_x, to_y, hidden) in enumerate(shown):
        assert to_x <= right + 1, f"{name} is cut at {width}"
        assert hidden <= 1 or "select" in name or not name, f"text of {name} is cut"
        for other, ox, oy, oto_x, oto_y, _ in shown[:i]:
            apart = x >= oto_x - 1 or ox >= to_x - 1 or y >= oto_y - 1 or oy >= to_y - 1
            inside = (x >= ox and to_x <= oto_x and y >= oy and to_y <= oto_y) or (
                ox >= x and oto_x <= to_x and oy >= y and oto_y <= to_y
            )
            assert apart or inside, f"{name} overlaps {other} at {width}"
    assert page.errors == []
    page.close()
