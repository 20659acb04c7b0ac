"""The explorer's plane in Chromium on a bare HTML page, operated with a real mouse and keyboard."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import ARTEFACTS, CHROMIUM, chromium
from matplotlib.path import Path as Outline

import cryotwin_nb

FRONT = Path(cryotwin_nb.__file__).parent / "explorer" / "front"
REQUIRED = os.environ.get("CRYOTWIN_REQUIRE_BROWSER") == "1"
PAGE = """<!doctype html><link rel="stylesheet" href="/plane.css"><body style="margin:8px">
<div id="here" style="height:420px"></div><div style="height:2000px"></div>
<script type="module">
import { createPlane } from "/plane.js";
window.bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
const text = (rows) => btoa(new Uint8Array(rows.buffer).reduce((all, byte) => all + String.fromCharCode(byte), ""));
const note = (name) => (...given) => window.calls.push([name, ...given.map((x) => (x?.buffer ? text(x) : x))]);
const on = Object.fromEntries(["Choose", "Hover", "Lasso", "Point", "Step"].map((name) => [`on${name}`, note(name)]));
window.fresh = () => {
  window.p?.dispose();
  window.calls = [];
  window.p = createPlane(document.getElementById("here"), on);
};
fresh();
</script>"""
REACH = 6.0
FAR = (60, 365)  # px, without a star

pytestmark = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="no Chromium: apt-get install chromium")


class PlanePage:
    """The plane on a page of its own; positions are px from the corner of its frame."""

    def __init__(self, page: Any) -> None:
        self.page = page
        box = page.locator(".cryotwin-plane-frame").bounding_box()
        self.corner = np.array([box["x"] + 1, box["y"] + 1])  # the frame has a border of 1 px
        self.size = np.array([box["width"], box["height"]]) - 2

    def do(self, script: str, *given: Any) -> Any:
        """Run a script in which `p` is the plane and `a` what is given; return its value once all is drawn."""
        act = f"async (a) => {{ const value = await ({script}); await p.settled(); return value; }}"
        return self.page.evaluate(act, list(given))

    def points(self, xy: np.ndarray, rgb: np.ndarray) -> float:
        """Show points; return how many ms it took until they were drawn."""
        packed = [base64.b64encode(array.tobytes()).decode() for array in (xy.astype("<f4"), rgb.astype(np.uint8))]
        script = "(window.xy = new Float32Array(bytes(a[0])), window.rgb = new Uint8Array(bytes(a[1])), 0)"
        self.do(script, *packed)
        return self.timed("p.points(xy, rgb)")

    def timed(self, script: str) -> float:
        """Return how many ms a script takes until its result is drawn."""
        timer = "const t = performance.now(); {}; await p.settled(); return performance.now() - t;"
        return self.do(f"(async () => {{ {timer.format(script)} }})()")

    def where(self, xy: Any) -> np.ndarray:
        origin, unit = np.array(self.do("[p.where(0, 0), p.where(1, 1)]"))
        return origin + np.asarray(xy, float) * (unit - origin)

    def mouse(self, at: Any) -> None:
        self.page.mouse.move(*(self.corner + at).tolist())

    def click(self, at: Any) -> None:
        self.mouse(at)
        self.page.mouse.down()
        self.page.mouse.up()

    def draw(self, corners: np.ndarray) -> None:
        """Drag the mouse along corners."""
        self.mouse(corners[0])
        self.page.mouse.down()
        for corner in corners[1:]:
            self.mouse(corner)
        self.page.mouse.up()

    def calls(self, name: str) -> list[Any]:
        """Return what the app was called with since the last time."""
        every = self.page.evaluate("() => window.calls.splice(0)")
        return [given for called, *given in every if called == name]

    def rows(self) -> np.ndarray:
        """Return the rows of the last lasso."""
        return np.frombuffer(base64.b64decode(self.calls("Lasso")[-1][0]), "<u4")

    def tip(self) -> str:
        return self.page.evaluate("() => document.querySelector('.cryotwin-plane-tip:not([hidden])')?.innerText ?? ''")

    def hint(self) -> str:
        self.do("0")
        return self.page.locator(".cryotwin-plane-hint").inner_text()

    def focused(self) -> str:
        """Return the accessible name of the star that has the keyboard's focus."""
        return self.page.evaluate(
            "() => document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))?.textContent"
        )


@pytest.fixture(scope="module")
def page():
    """A page whose errors are collected."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 900, "height": 600})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.route("http://plane.test/**", serve)
        page.goto("http://plane.test/")
        page.wait_for_function("() => window.p")
        yield page
        assert errors == []


@pytest.fixture
def plane(page):
    """A new plane without anything in it."""
    page.evaluate("() => { scrollTo(0, 0); fresh(); }")
    page.mouse.move(0, 0)
    return PlanePage(page)


def serve(route: Any) -> None:
    name = route.request.url.removeprefix("http://plane.test/")
    if not name:
        route.fulfill(body=PAGE, content_type="text/html")
    elif (FRONT / name).is_file():
        route.fulfill(path=FRONT / name)
    else:
        route.fulfill(status=404)


def mixture(seed: int, n: int = 4000, n_stars: int = 60) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """Return points, their colours, and crowded stars of which the heaviest of each state is labelled."""
    rng = np.random.default_rng(seed)
    states = rng.normal(0, 4, (13, 2))
    state = np.arange(n_stars) % 13
    means = states[state] + rng.normal(0, 0.25, (n_stars, 2))
    mass = rng.dirichlet(np.full(n_stars, 0.7))
    at = rng.choice(n_stars, n, p=mass)
    colours = rng.integers(0, 255, (13, 3))[state[at]]
    heaviest = {s: max(np.flatnonzero(state == s), key=lambda i: mass[i]) for s in range(13)}
    stars = [
        {"x": x, "y": y, "mass": m, "name": f"S{s}", "label": f"S{s}" if heaviest[s] == i else "",
         "tip": f"S{s}, component {i}, {m:.1%}", "junk": False}
        for i, ((x, y), m, s) in enumerate(zip(means.tolist(), mass.tolist(), state.tolist()))
    ]  # fmt: skip
    return means[at] + rng.normal(0, 0.4, (n, 2)), colours, stars


def show(plane: PlanePage, seed: int) -> list[dict]:
    xy, rgb, stars = mixture(seed)
    plane.points(xy, rgb)
    plane.do("p.stars(a[0]), p.axes(['PC 1', 'PC 2'], 'latent units')", stars)
    return stars


@pytest.mark.parametrize("seed", range(2))
def test_a_click_takes_the_labelled_star_and_says_so_before(plane, seed):
    stars = show(plane, seed)
    places = plane.where([[star["x"], star["y"]] for star in stars])
    labelled = [i for i, star in enumerate(stars) if star["label"]]
    for i in labelled:
        plane.do("(p.ends({}), p.role('start'))")
        close = [j for j in labelled if np.hypot(*(places[j] - places[i])) <= REACH]
        for _ in range(1 + sum(stars[j]["mass"] > stars[i]["mass"] for j in close)):
            plane.mouse(places[i])
            named = plane.tip()
            plane.page.mouse.down()
            plane.page.mouse.up()
            star, role, _ = plane.calls("Choose")[-1]
            assert role == "start" and named.startswith(stars[star]["tip"])
        assert star == i


def test_clicks_at_one_place_take_all_stars_there_in_turn(plane):
    mass, names = [0.2, 0.5, 0.3], "ABC"
    stars = [{"x": 0, "y": 0, "mass": m, "name": n, "label": n, "tip": f"state {n}"} for m, n in zip(mass, names)]
    plane.do("p.stars(a[0])", [*stars, stars[0] | {"x": 1, "name": "D", "tip": "state D"}])
    here, there = plane.where([[0, 0], [1, 0]])
    for _ in range(4):
        plane.click(here)
    assert plane.calls("Choose") == [[1, "start", None], [2, "start", 1], [0, "start", 2], [1, "start", 0]]
    plane.click(there)
    assert plane.calls("Choose") == [[3, "end", None]]
    plane.click(there)  # no other star there
    plane.mouse(there + np.ones(2))
    assert plane.calls("Choose") == []
    plane.page.keyboard.down("Shift")
    plane.click(here + np.ones(2))
    plane.page.keyboard.up("Shift")
    assert plane.calls("Choose") == [[1, "way", None]]


def test_a_labelled_star_comes_before_a_heavier_one_without_a_label(plane):
    star = {"x": 0, "y": 0, "mass": 0.3, "name": "A", "label": "A", "tip": "labelled"}
    plane.do("p.stars(a[0])", [star | {"mass": 0.6, "label": ""}, star, star | {"x": 1}])
    plane.click(plane.where([[0, 0]])[0])
    assert plane.calls("Choose") == [[1, "start", None]]


def test_hovering_reports_the_star_and_leaving_none(plane):
    stars = show(plane, 0)
    heaviest = max(range(len(stars)), key=lambda i: stars[i]["mass"])
    plane.mouse(plane.where([[stars[heaviest]["x"], stars[heaviest]["y"]]])[0])
    plane.mouse(FAR)
    assert plane.calls("Hover") == [[heaviest], [None]]


def test_small_stars_are_shown_on_demand(plane):
    star = {"x": 0, "y": 0, "mass": 0.9, "name": "A", "label": "A", "tip": "A"}
    plane.do("p.stars(a[0])", [star, {"x": 1, "y": 0, "mass": 0.004, "name": "A", "label": "", "tip": "little"}])
    place = plane.where([[1, 0]])[0]
    plane.click(place)
    assert plane.calls("Choose") == []
    plane.do("p.showSmall(true)")
    plane.click(plane.where([[1, 0]])[0])
    assert plane.calls("Choose") == [[1, "start", None]]
    plane.do("(p.showSmall(false), p.ends({start: 1}))")  # an end is shown, however small
    assert plane.page.get_by_role("option", name="little").count() == 1


def test_outliers_do_not_empty_the_plane(plane):
    xy, rgb, stars = mixture(1)
    xy[7] = [9000, -40]
    plane.points(xy, rgb)
    plane.do("p.stars(a[0])", [*stars, {"x": 0, "y": 5000, "mass": 0.03, "name": "far", "label": "far", "tip": "far"}])
    low, high = plane.where(np.percentile(xy, (5, 95), axis=0))
    assert (abs(high - low) / plane.size).max() > 0.6
    outside = plane.page.locator(".cryotwin-plane-outside").inner_text()
    assert outside.endswith("and 1 star outside") and int(outside.split()[0]) < 0.01 * len(xy)


def test_the_path_is_always_in_the_frame(plane):
    show(plane, 0)
    far = [[-60, 3], [0, 0], [40, 25]]
    plane.do("p.path({curve: a[0], steps: a[0], counts: [1, 0, 2]})", far)
    inside(plane, far)
    plane.do("p.path(null)")
    plane.click(plane.size / 2)
    for _ in range(5):
        plane.page.mouse.wheel(0, -240)
    assert plane.do("p.view.zoom") > 5
    plane.do("p.path({curve: a[0], steps: a[0]})", far)
    inside(plane, far)
    plane.do("(p.path(null), p.ends({start: {x: 300, y: 0}}))")
    inside(plane, [[300, 0]])


def inside(plane: PlanePage, xy: Any) -> None:
    at = plane.where(xy)
    assert (at >= 0).all() and (at <= plane.size).all()


def test_scrolling_over_the_plane_scrolls_the_page_until_it_has_the_focus(plane):
    show(plane, 0)
    plane.mouse((200, 100))
    plane.page.mouse.wheel(0, 50)
    plane.page.wait_for_function("() => window.scrollY === 50")
    assert plane.do("p.view.zoom") == 1
    plane.page.evaluate("() => window.scrollTo(0, 0)")
    plane.page.keyboard.down("Control")
    plane.page.mouse.wheel(0, -100)
    plane.page.keyboard.up("Control")
    plane.page.wait_for_function("() => p.view.zoom > 1.2")
    fixed = plane.do("p.where(0, 0)")
    plane.click(FAR)
    plane.page.mouse.wheel(0, -100)
    plane.page.wait_for_function("() => p.view.zoom > 1.5")
    assert plane.page.evaluate("() => window.scrollY") == 0
    assert plane.do("p.where(0, 0)") != fixed


def test_dragging_moves_and_a_double_click_shows_the_whole_plane(plane):
    star = {"x": 0, "y": 0, "mass": 0.9, "name": "A", "label": "A", "tip": "A"}
    plane.do("p.stars(a[0])", [star, star | {"x": 1}])
    before = plane.where([[0, 0], [1, 0]])
    plane.draw(np.array([[300, 100], [310, 90], [340, 60]]))
    after = plane.where([[0, 0], [1, 0]])
    np.testing.assert_allclose(after - before, [[40, -40]] * 2, atol=1e-6)
    plane.page.mouse.dblclick(*(plane.corner + after[0]).tolist())  # two clicks on a star
    np.testing.assert_allclose(plane.where([[0, 0]])[0], after[0])
    plane.page.mouse.dblclick(*(plane.corner + FAR).tolist())
    np.testing.assert_allclose(plane.where([[0, 0]])[0], before[0])


def test_the_keyboard_reaches_every_star_from_one_tab_stop(plane):
    stars = show(plane, 2)
    shown = [star for star in stars if star["mass"] >= 0.005 or star["label"]]
    by_mass = [star["tip"] for star in sorted(shown, key=lambda star: -star["mass"])]
    at = {star["tip"]: plane.where([[star["x"], star["y"]]])[0] for star in shown}
    key = plane.page.keyboard.press
    key("Tab")
    assert plane.focused() == by_mass[0]
    visited = [plane.focused()]
    for _ in by_mass[1:]:
        key("PageDown")
        visited.append(plane.focused())
    assert visited == by_mass
    for arrow, axis, sign in (("ArrowLeft", 0, -1), ("ArrowDown", 1, 1), ("ArrowRight", 0, 1), ("ArrowUp", 1, -1)):
        key("Home")
        here = plane.focused()
        key(arrow)
        there = plane.focused()
        assert there == here or sign * (at[there] - at[here])[axis] > 0
    key("PageDown")
    held = plane.focused()
    plane.do("(p.stars(a[0]), p.path({curve: [[0, 0], [1, 1]], steps: [[0, 0]]}), p.step(0), p.points(xy, rgb))", stars)
    assert plane.focused() == held and plane.tip()
    key("Enter")
    key("End")
    key("Space")
    chosen = [stars[star]["tip"] for star, *_ in plane.calls("Choose")]
    assert chosen == [held, by_mass[-1]]
    selected = plane.page.get_by_role("option", selected=True).all_inner_texts()
    assert sorted(selected) == sorted([f"start: {held}", f"end: {by_mass[-1]}"])
    key("Tab")
    assert plane.page.evaluate("() => document.activeElement.className") != "cryotwin-plane-frame"


@pytest.mark.parametrize("zoom", [1.0, 3.0])
def test_lasso_and_box_return_exactly_the_rows_inside(plane, zoom):
    rng = np.random.default_rng(5)
    xy = rng.normal(0, 1, (20_000, 2)).astype("f4")
    xy[17] = np.nan
    plane.points(xy, rng.integers(0, 2, (20_000, 3)) * 255)
    plane.do("(p.view = {zoom: a[0], x: .2, y: .1}, p.mode('lasso'))", zoom)
    places = plane.where(xy.astype(float)[np.isfinite(xy[:, 0])])
    finite = np.flatnonzero(np.isfinite(xy[:, 0]))
    corners = np.array([[200, 60], [700, 90], [520, 200], [760, 370], [420, 260], [150, 350], [330, 180]])
    plane.draw(corners)
    lassoed = plane.rows()
    assert len(lassoed) > 300
    np.testing.assert_array_equal(lassoed, finite[Outline(corners, closed=False).contains_points(places)])
    assert f"{len(lassoed):,} points selected" in plane.hint()
    counts = {
        c["colour"]: c["count"]
        for c in plane.do("p.count(new Uint32Array(bytes(a[0])))", base64.b64encode(lassoed).decode())
    }
    assert sum(counts.values()) == len(lassoed)
    plane.do("p.mode('box')")
    plane.draw(np.array([[610, 330], [500, 200], [250, 110]]))
    boxed = plane.rows()
    np.testing.assert_array_equal(boxed, finite[((places > [250, 110]) & (places < [610, 330])).all(1)])
    plane.page.keyboard.press("Escape")
    assert plane.calls("Lasso") == [[""]]
    plane.do("p.mode('lasso')")
    plane.mouse((300, 100))
    plane.page.mouse.down()
    plane.mouse((400, 200))
    plane.page.keyboard.press("Escape")
    plane.mouse((300, 200))
    plane.page.mouse.up()
    assert plane.calls("Lasso") == [[""]]  # given up half way


def test_any_point_can_be_an_end(plane):
    stars = show(plane, 0)
    plane.do("p.mode('point')")
    target = [[1.5, -2.0], [stars[0]["x"], stars[0]["y"]]]
    for at in plane.where(target):
        plane.click(np.round(at))
    (start, role), (end, other) = plane.calls("Point")
    assert (role, other) == ("start", "end")
    np.testing.assert_allclose(
        [[p["x"], p["y"]] for p in (start, end)], target, atol=1.0 / plane.do("p.where(1, 0)[0] - p.where(0, 0)[0]")
    )


def test_a_step_of_the_path_can_be_clicked(plane):
    plane.do("p.path({curve: a[0], steps: a[0], counts: [12, 0, 1]})", [[0, 0], [1, 1], [2, 0]])
    at = plane.where([[1, 1]])[0]
    plane.mouse(at)
    assert plane.tip() == "step 1: 0 particles near it"
    plane.click(at)
    assert plane.calls("Step") == [[1]]


def test_names_do_not_overlap_and_the_heaviest_is_written(plane):
    stars = show(plane, 1)
    written = plane.do("p.names")
    heaviest = max(stars, key=lambda star: star["mass"])
    assert heaviest["label"] in written and len(written) >= 6
    at = plane.do("import('/plane_stars.js').then((m) => m.placeNames(a[0], { width: 300, height: 200 }))",
                  [{"text": "far left", "x": 30, "y": 90, "radius": 9, "width": 70}])  # fmt: skip
    assert at[0]["x"] >= 20, "the name of the y axis stays free"
    crowd = [
        {"x": 1e-4 * i, "y": 0, "mass": 0.1 + 0.01 * i, "name": f"N{i}", "label": f"N{i}", "tip": ""} for i in range(9)
    ]
    plane.do("p.points(new Float32Array([0, 0, 5, 5]), new Uint8Array(6)), p.stars(a[0])", crowd)
    assert "N8" in plane.do("p.names") and len(plane.do("p.names")) <= 4


def test_a_hundred_thousand_points(plane):
    xy, rgb, stars = mixture(3, 100_000)
    assert plane.points(xy, rgb) <= 1000
    plane.do("p.stars(a[0]), p.mode('lasso')", stars)
    plane.page.evaluate(
        "() => { addEventListener('pointerup', () => released = performance.now(), true);"
        "calls.push = (call) => { told = performance.now(); calls[calls.length] = call; }}"
    )
    angle = np.linspace(0, 2 * np.pi, 24)
    plane.draw(np.stack([400 + 150 * np.cos(angle), 200 + 130 * np.sin(angle)], 1))
    assert len(plane.rows()) > 1000
    assert plane.page.evaluate("() => told - released") <= 300
    redrawn = min(
        plane.timed(f"p.view = {{zoom: {zoom}, x: 0, y: 0}}") for zoom in (2, 3, 4, 5, 6, 7)
    )  # other programs may run
    assert redrawn <= 150


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [640, 1100])
def test_pictures(page, scheme, width):
    page.set_viewport_size({"width": width, "height": 600})
    page.emulate_media(color_scheme=scheme)
    page.evaluate("() => fresh()")
    plane = PlanePage(page)
    stars = show(plane, 0)
    stars[3]["junk"] = True
    route = np.stack([np.linspace(-5, 6, 40), 3 * np.sin(np.linspace(0, 3, 40))], 1)
    routes = [{"curve": (route * [1, k]).tolist(), "share": s, "name": f"{s:.0%}"} for k, s in ((-1, 0.7), (0.3, 0.3))]
    steps = {"curve": route.tolist(), "steps": route[::5].tolist(), "counts": [9, 0, 4, 3, 0, 1, 2, 8]}
    plane.do(
        "(p.stars(a[0]), p.routes(a[1]), p.path(a[2]), p.step(3), p.ends({start: 0, end: {x: 4, y: 3}, ways: [5]}))",
        stars,
        routes,
        steps,
    )
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    plane.page.screenshot(path=ARTEFACTS / f"plane-{width}-{scheme}.png")
    ground = plane.page.evaluate(
        "() => getComputedStyle(document.querySelector('.cryotwin-plane-frame')).backgroundColor"
    )
    ink = plane.page.evaluate("() => getComputedStyle(document.querySelector('.cryotwin-plane-hint')).color")
    assert abs(brightness(ground) - brightness(ink)) > 90
    assert (brightness(ground) < 60) == (scheme == "dark")
    width_of_all = plane.page.evaluate("() => document.documentElement.scrollWidth")
    assert width_of_all <= width


def brightness(colour: str) -> float:
    return float(np.mean([int(part) for part in colour.strip("rgb()").split(",")]))


def test_disposing_leaves_nothing(plane):
    show(plane, 0)
    assert plane.page.evaluate("async () => (await p.picture()).size") > 5000
    plane.page.evaluate("() => { p.dispose(); window.p = null; }")
    assert plane.page.locator("#here *").count() == 0
