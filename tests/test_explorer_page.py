"""The whole explorer in a bare HTML page, without Jupyter: real mouse and keyboard, the kernel free, busy and gone."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from bare_page import Bridge
from browser import ARTEFACTS, CHROMIUM, chromium

import cryotwin_nb as ct
from cryotwin_nb.explorer import widget

REQUIRED = os.environ.get("CRYOTWIN_REQUIRE_BROWSER") == "1"
in_browser = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="no Chromium")
FRONT, STATIC = Path(widget.__file__).parent / "front", Path(widget.__file__).parent / "static"
APP = "document.querySelector('.cryotwin-explorer').cryotwin"
READY = f"{APP}.maps.frames > 0 && {APP}.states.length"


def test_the_bundle_is_made_of_these_sources():
    """`npm install && npm run build` in explorer/front writes explorer/static; both are in the repository."""
    digest = hashlib.sha256()
    names = [file.name for file in FRONT.iterdir() if re.search(r"\.(js|css|mjs)$", file.name)]
    for name in sorted([*names, "package.json"]):
        digest.update(f"{name}\n".encode())
        digest.update((FRONT / name).read_bytes())
    for name in ("explorer.js", "explorer.css"):
        first = (STATIC / name).read_text(encoding="utf-8").partition("\n")[0]
        assert first == f"/* sources: {digest.hexdigest()} */", f"run `npm run build` in {FRONT}"
    assert "MIT" in (STATIC / "explorer.js").read_text(encoding="utf-8")[:3000], "the licence of three.js"


@pytest.mark.parametrize("file", sorted(FRONT.glob("*.*s")), ids=lambda file: file.name)
def test_a_source_can_be_read_at_once(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 250


def prior_of_four() -> ct.GaussianMixture:
    means = torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.2, 0.0], [10.0, 0.0, 0.0], [0.1, 0.05, 0.0]])
    return ct.GaussianMixture([0.4, 0.3, 0.25, 0.05], means, 0.3 * torch.eye(3).expand(4, 3, 3))


def decode(z) -> torch.Tensor:
    x = torch.arange(32).double() - 16
    across = (x - (torch.as_tensor(z).double()[:, :1] - 5))[:, None, None, :]
    return torch.exp(-(across**2 + x[:, None, None] ** 2 + x[:, None] ** 2) / 20).float()


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


class Page:
    """The explorer in a page."""

    def __init__(self, browser, explorer, width=1100, height=800, scheme="light", ready=READY) -> None:
        self.explorer, self.bridge = explorer, Bridge(explorer)
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.errors, self.outside = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("request", lambda r: self.outside.append(r.url) if not r.url.startswith(self.own) else None)
        self.page.set_default_timeout(30_000)
        self.page.goto(self.bridge.address)
        self.wait(ready)

    own = ("http://127.0.0.1", "data:", "blob:")

    def wait(self, condition: str) -> None:
        self.page.wait_for_function(f"() => {{ try {{ return {condition}; }} catch {{ return false; }} }}")

    def get(self, expression: str):
        return self.page.evaluate(f"() => {expression}")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def star(self, component: int) -> tuple[float, float]:
        """Position of a star in the window."""
        return self.page.evaluate(
            f"""(c) => {{ const app = {APP}, s = app.plane.drawn.stars[c], [x, y] = app.plane.plane.where(...s);
            const box = app.p.plane.querySelector('.cryotwin-plane-frame').getBoundingClientRect();
            return [box.x + x + 1, box.y + y + 1]; }}""",
            component,
        )

    def click_star(self, component: int) -> None:
        self.page.mouse.move(5, 5)
        self.page.mouse.click(*self.star(component))

    def compute(self, n: int = 12) -> None:
        self.press("Compute")
        self.wait(f"!{APP}.stale && {APP}.result.profile && {APP}.result.data.filter(Boolean).length === {n}")

    def close(self) -> None:
        assert self.errors == [] and self.outside == []
        self.context.close()
        self.bridge.close()


@pytest.fixture
def page(browser):
    prior = prior_of_four()
    labels = {0: "A", 1: "B", 2: "C"}
    page = Page(browser, ct.PathwayExplorer(prior, prior.sample(3000), decode, voxel_size=3.0, labels=labels))
    yield page
    page.close()


@in_browser
def test_stars_show_molecules_ends_grey_the_path_and_a_click_brings_its_settings(page):
    x, y = page.star(2)
    page.page.mouse.move(x, y, steps=3)
    page.wait(f"{APP}.p.caption.textContent.startsWith('C, component 2')")
    page.wait(f"{APP}.maps.now.data === {APP}.maps.stars.get(2).data")
    page.click_star(2)  # start
    page.click_star(0)  # end: of the stars at this place the heaviest, not component 3
    assert page.get(f"[{APP}.settings.start, {APP}.settings.end]") == [2, 0]
    page.compute()
    assert page.bridge.explorer.path.start == 2
    page.click_star(1)
    assert page.get(f"{APP}.stale && {APP}.p.root.classList.contains('stale') && !{APP}.p.stale.hidden")
    page.page.keyboard.press("Tab")
    sent = [message for message in page.bridge.received if message["do"] == "compute"]
    assert sent[-1]["settings"]["start"] == 2 and sent[-1]["settings"]["end"] == 0
    page.page.get_by_label("Method").select_option("Algorithm 1")
    page.page.get_by_text("Settings", exact=True).click()
    page.page.get_by_label("Steps K").fill("4")
    page.page.get_by_label("Steps K").press("Tab")
    page.compute(5)
    request = page.explorer.session.answer.request
    assert (request.method, request.n_steps, len(page.explorer.maps)) == ("Algorithm 1", 4, 5)
    page.press("Undo")
    page.wait(f"{APP}.result.n === 12 && {APP}.result.profile")


@in_browser
def test_play_steps_and_contour_need_no_kernel(page):
    page.compute()
    page.bridge.free.clear()  # the kernel is busy from now on
    page.page.evaluate(
        f"""() => {{ const app = {APP}; window.seen = []; const was = app.maps.scene.onPicture;
        app.maps.scene.onPicture = (d) => {{ window.seen.push([d.k, performance.now()]); was(d); }}; }}"""
    )
    page.press("Play")
    page.wait("window.seen.at(-1)?.[0] === 11")
    seen = dict(reversed(page.get("window.seen")))
    assert sorted(seen) == list(range(1, 12)) or sorted(seen) == list(range(12))
    assert (seen[11] - seen[1]) / 10 == pytest.approx(250, rel=0.2)
    step = page.page.get_by_label("Step", exact=True)
    step.focus()
    step.press("ArrowLeft")
    page.wait(f"{APP}.maps.drawn.k === 10")
    level = page.get(f"{APP}.maps.drawn.level")
    page.page.get_by_label("Contour").focus()
    page.page.keyboard.press("ArrowRight")
    page.wait(f"{APP}.maps.drawn.level > {level}")
    page.page.get_by_label("Gain/loss").check()
    page.page.get_by_label("Start map").check()
    page.press("Compute")
    page.page.wait_for_selector("text=queued: the kernel is busy", timeout=1000)
    page.bridge.free.set()
    page.page.wait_for_selector("text=queued: the kernel is busy", state="hidden")
    page.page.evaluate("() => window.lose()")
    page.page.wait_for_selector("text=The kernel is not connected")
    step.press("Home")
    page.wait(f"{APP}.maps.drawn.k === 0")


@in_browser
def test_planes_and_colours_are_switched_without_the_kernel(page):
    page.compute()
    page.wait(f"{APP}.plane.space.latents && {APP}.plane.space.palettes.size === {len(page.explorer.offered[1])}")
    latents, path = page.explorer.latents.numpy(), page.explorer.path.latents.numpy()
    colour = page.explorer.offered[1][-1]
    page.bridge.free.clear()
    page.page.get_by_label("Plane", exact=True).select_option("latent 1, 3")
    page.page.get_by_label("Colour", exact=True).select_option(colour)
    page.wait(f"{APP}.plane.drawn.name === 'latent 1, 3' && {APP}.plane.legend.title === {colour!r}")
    points = np.reshape(page.get(f"[...{APP}.plane.points]"), (-1, 2))
    np.testing.assert_allclose(points, latents[:, [0, 2]], atol=1e-4)
    np.testing.assert_allclose(page.get(f"{APP}.plane.last.steps"), path[:, [0, 2]], atol=1e-4)
    page.page.get_by_label("Plane", exact=True).select_option("PC 1, 2")
    page.wait(f"{APP}.plane.drawn.name === 'PC 1, 2'")
    points = np.reshape(page.get(f"[...{APP}.plane.points]"), (-1, 2))
    plane = page.explorer.session.model.planes["PC 1, 2"]
    np.testing.assert_allclose(points, plane.place(page.explorer.latents), atol=1e-4)
    page.bridge.free.set()
    # The path arrives for the plane that is shown.
    page.page.get_by_label("Plane", exact=True).select_option("latent 2, 3")
    page.compute()
    np.testing.assert_allclose(page.get(f"{APP}.plane.last.steps"), page.explorer.path.latents[:, 1:], atol=1e-4)


@in_browser
def test_a_lasso_counts_at_once_and_by_any_column(page):
    page.page.get_by_text("box", exact=True).click()
    (x, y), (x2, _) = page.star(1), page.star(2)
    page.page.mouse.move(x + (x2 - x) / 2, y - 60)
    page.page.mouse.down()
    page.page.mouse.move(x2 + 30, y + 60, steps=5)
    page.page.mouse.up()
    rows = page.get(f"[...{APP}.rows]")
    expected = np.flatnonzero(page.explorer.latents[:, 0] > 7.5)
    assert set(rows) <= set(expected) and len(rows) > 0.8 * len(expected)
    page.page.wait_for_selector(f"text={len(rows):,} of 3,000 particles")
    page.wait(f"{APP}.p.composition.childElementCount > 0")
    assert page.page.get_by_role("button", name="Mean map", exact=True).is_disabled()
    assert page.page.get_by_text("Needs the images").is_visible()
    page.press("Deselect")
    assert page.get(f"{APP}.p.selection.hidden")


@in_browser
def test_code_and_page_share_one_state_and_a_page_that_opens_later_shows_it(page, browser):
    page.explorer.set(step=3, sigma=4.0, plane="latent 1, 3").choose(1, 2).compute()
    page.wait(f"{APP}.look.step === 3 && {APP}.plane.drawn.name === 'latent 1, 3' && {APP}.result.data[3]")
    page.page.get_by_label("Step", exact=True).focus()
    page.page.keyboard.press("ArrowRight")
    for _ in range(100):
        if page.explorer.step == 4:
            break
        page.page.wait_for_timeout(50)
    assert page.explorer.step == 4
    second = Page(browser, page.explorer, 640, 900, "dark")
    second.wait(f"{APP}.result.profile && {APP}.maps.drawn.k === 4")
    assert second.get(f"{APP}.p.root.classList.contains('dark')")
    second.close()


@in_browser
def test_every_control_has_a_name_and_the_stars_are_one_tab_stop(page):
    page.compute()
    nameless = page.page.evaluate(
        """() => [...document.querySelectorAll('.cryotwin-explorer :is(button, select, input)')]
            .filter((e) => !e.labels?.length && !e.getAttribute('aria-label') && !e.textContent.trim())
            .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    stops = []
    page.page.get_by_label("Start", exact=True).focus()
    for _ in range(40):
        page.page.keyboard.press("Tab")
        stops.append(page.get("document.activeElement.className || document.activeElement.tagName"))
    assert sum("plane" in str(stop) for stop in stops) <= 1 or len({s for s in stops if "plane" in str(s)}) == 1
    frame = page.page.locator(".cryotwin-plane-frame")
    frame.focus()
    before = page.get(f"{APP}.settings.start")
    for _ in range(3):
        page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press(" ")
    after = page.get(f"[{APP}.settings.start, {APP}.settings.end]")
    assert after != [before, 1] and page.get("document.activeElement.className").startswith("cryotwin-plane")


@in_browser
@pytest.mark.parametrize("size", [(640, 900, "dark"), (1100, 700, "light"), (1920, 1080, "dark")])
def test_nothing_overlaps_or_is_cut(browser, size):
    width, height, scheme = size
    prior = prior_of_four()
    explorer = ct.PathwayExplorer(prior, prior.sample(2000), decode, labels={0: "A", 1: "B", 2: "C"})
    page = Page(browser, explorer, width, height, scheme)
    page.compute()
    page.page.wait_for_timeout(500)
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.page.screenshot(path=ARTEFACTS / f"page-{width}-{scheme}.png", full_page=True)
    boxes = page.page.evaluate(
        """() => [...document.querySelectorAll(`.cryotwin-explorer :is(button, select, input, summary, .plane, .stage,
            .legend, .profile, output)`)]
            .filter((e) => e.checkVisibility({ contentVisibilityAuto: true }) && !e.closest('.plane *'))
            .map((e) => [e.className || e.tagName, e.getBoundingClientRect()])
            .map(([name, b]) => [name, b.x, b.y, b.right, b.bottom])"""
    )
    assert len(boxes) > 25
    for i, (name, x, y, to_x, to_y) in enumerate(boxes):
        assert to_x <= width and x >= 0, f"{name} is cut"
        for other, ox, oy, oto_x, oto_y in boxes[:i]:
            apart = x >= oto_x - 1 or ox >= to_x - 1 or y >= oto_y - 1 or oy >= to_y - 1
            inside = (x >= ox and to_x <= oto_x and y >= oy and to_y <= oto_y) or (
                ox >= x and oto_x <= to_x and oy >= y and oto_y <= to_y
            )
            assert apart or inside, f"{name} overlaps {other}"
    plane, stage = (next(box for box in boxes if box[0] == name) for name in ("plane", "stage"))
    assert plane[3] <= stage[1] + 1, "plane and map side by side"
    assert page.page.get_by_text("Voxel size (Å)?").is_visible(), "asked, because nobody gave it"
    page.close()


@in_browser
def test_a_map_that_cannot_be_decoded_is_said_and_no_other_is_shown_in_its_place(browser):
    prior, decoded = prior_of_four(), []

    def fails_late(z):
        decoded.extend(z)
        if len(decoded) > 9:  # the stars, and the first steps of the path
            raise RuntimeError("out of memory")
        return decode(z)

    page = Page(browser, ct.PathwayExplorer(prior, prior.sample(500), fails_late, voxel_size=3.0))
    page.page.get_by_text("Choose two stars and press Compute").wait_for()
    page.press("Compute")
    page.page.get_by_text("RuntimeError: out of memory").wait_for()
    scene, caption = page.page.locator(".scene"), page.page.locator(".caption")
    step = page.page.get_by_label("Step", exact=True)
    step.press("End")
    page.wait(f"{APP}.p.caption.textContent === 'step 11 of 11: no map'")
    assert not scene.is_visible()
    step.press("Home")
    page.wait(f"{APP}.p.caption.textContent === 'step 0 of 11'")
    assert scene.is_visible() and caption.is_visible()
    page.close()


@in_browser
def test_a_decoder_that_never_works_leaves_no_map_waited_for(browser):
    prior = ct.GaussianMixture([1.0], torch.zeros(1, 3), torch.eye(3)[None])
    explorer = ct.PathwayExplorer(prior, prior.sample(500), lambda z: decode(z) * torch.nan, voxel_size=3.0)
    page = Page(browser, explorer, ready=f"{APP}.p.caption.textContent === 'component 0, weight 100.0%: no map'")
    page.page.get_by_text("maps with NaN or infinite values").wait_for()
    page.close()


@in_browser
def test_scales_of_colours_can_be_seen_on_a_dark_ground_and_follow_the_theme(browser):
    prior = prior_of_four()
    page = Page(browser, ct.PathwayExplorer(prior, prior.sample(500), decode, voxel_size=3.0), scheme="dark")
    darkest = f"Math.min(...{APP}.plane.toned())"
    assert page.get(darkest) >= 76 and "white" in page.get("document.querySelector('.ramp').style.background")
    page.page.emulate_media(color_scheme="light")
    page.wait(f"{APP}.p.root.classList.contains('light')")
    assert page.get(darkest) < 40 and "white" not in page.get("document.querySelector('.ramp').style.background")
    page.close()


@in_browser
def test_without_webgl_the_rest_goes_on(browser):
    prior = prior_of_four()
    explorer = ct.PathwayExplorer(prior, prior.sample(500), decode, voxel_size=3.0)
    page = Page.__new__(Page)
    page.explorer, page.bridge, page.errors, page.outside = explorer, Bridge(explorer), [], []
    page.context = browser.new_context()
    page.page = page.context.new_page()
    page.page.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        " return kind.startsWith('webgl') ? null : get.call(this, kind, ...rest); };"
    )
    page.page.goto(page.bridge.address)
    page.page.get_by_text("Maps cannot be shown here").wait_for()
    assert page.page.locator(".scene").inner_text().count("WebGL") == 1
    page.press("Compute")
    page.wait(f"{APP}.result.profile")
    page.close()
