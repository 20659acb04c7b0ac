"""The explorer's maps in Chromium on a bare HTML page: exact surfaces, then the scene under real mouse and keys."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, chromium
from PIL import Image
from skimage.measure import marching_cubes

import cryotwin_nb

EXPLORER = Path(cryotwin_nb.__file__).parent / "explorer"
REQUIRED = os.environ.get("CRYOTWIN_REQUIRE_BROWSER") == "1"
PAGE = """<!doctype html><link rel="stylesheet" href="/static/explorer.css"><body style="margin:0">
<style>.cryotwin-scene canvas + canvas { visibility: hidden }  /* scale bar and axes, but for their own tests */</style>
<div id="here" style="width:480px;height:360px"></div><div style="height:2000px"></div>
<script type="module">
import { createScene } from "/static/explorer.js";
import * as surface from "/front/surface.js";
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const text = (array) => new Uint8Array(array.buffer).reduce((all, byte) => all + String.fromCharCode(byte), "");
window.createScene = createScene;
window.map = (packed) => new Int8Array(bytes(packed).buffer);
window.surface = surface;
window.mesh = (made) => Object.fromEntries(Object.entries(made).map(([name, array]) => [name, btoa(text(array))]));
window.settled = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
window.fresh = (more) => {
  window.s?.dispose();
  Object.assign(window, { drawn: [], errors: [], cameras: [] });
  window.s = createScene(document.getElementById("here"), {
    onPicture: (one) => drawn.push(one), onError: (error) => errors.push(error.message),
    onCamera: (camera) => cameras.push(camera), ...more,
  });
};
</script>"""
SIZE = 32
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)

pytestmark = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="no Chromium: apt-get install chromium")


def balls(*where: tuple[float, float, float, float], size: int = SIZE) -> np.ndarray:
    """Balls (x, y, z, radius) as bytes, 20 for each voxel inside their surfaces; x is the last axis."""
    z, y, x = np.mgrid[:size, :size, :size]
    inside = [r - np.sqrt((x - u) ** 2 + (y - v) ** 2 + (z - w) ** 2) for u, v, w, r in where]
    return np.clip(np.round(20 * np.max(inside, axis=0)), -127, 127).astype(np.int8)


def packed(volume: np.ndarray) -> str:
    return base64.b64encode(volume.tobytes()).decode()


class ScenePage:
    def __init__(self, page: Any) -> None:
        self.page = page

    def do(self, script: str, *given: Any) -> Any:
        """Run a script in which `s` is the scene and `a` what is given; return its value once all is drawn."""
        act = f"async (a) => {{ const value = await ({script}); await settled(); return value; }}"
        return self.page.evaluate(act, list(given))

    def start(self, *maps: np.ndarray, voxel_size: float = 2.0, **more: Any) -> None:
        """A fresh scene with the maps of a path."""
        self.do("fresh(a[0])", more)
        scale = {"size": len(maps[0]), "voxelSize": voxel_size, "offset": 0, "factor": 1, "n": len(maps)}
        self.do("s.load(1, a[0]), s.contour(0.5), 0", scale)
        for k in reversed(range(len(maps))):
            self.do("s.add(1, a[0], map(a[1]))", k, packed(maps[k]))

    def look(self) -> np.ndarray:
        """Return the maps as they are on the screen, (h, w, 3)."""
        shot = self.page.screenshot(clip={"x": 0, "y": 0, "width": 480, "height": 360})
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    def where(self, colour: tuple[int, int, int] | None = None) -> np.ndarray:
        """Return where the molecule is, or where it has a hue like a colour's, as (n, 2) of x, y up from the centre."""
        picture = self.look()
        seen = np.abs(picture - picture[10, 10]).sum(-1) > 24
        seen[:4] = seen[-4:] = seen[:, :4] = seen[:, -4:] = False  # the ring of the focus
        if colour is not None:
            hue = np.asarray(colour) - np.mean(colour)
            tint = picture - picture.mean(-1, keepdims=True)
            alike = tint @ hue / (np.linalg.norm(tint, axis=-1) * np.linalg.norm(hue) + 1e-9)
            seen &= (alike > 0.9) & (np.linalg.norm(tint, axis=-1) > 50)
        y, x = np.nonzero(seen)
        return np.stack([x - 240, 180 - y], axis=1)

    def surface(self, volume: np.ndarray, script: str) -> dict[str, np.ndarray]:
        """Return the mesh that a script makes from the volume `v`."""
        found = self.do(f"((v) => mesh({script}))(map(a[0]))", packed(volume))
        types = {"positions": "<f4", "normals": "<f4", "indices": "<u4"}
        return {name: np.frombuffer(base64.b64decode(found[name]), types[name]).reshape(-1, 3) for name in types}


def _serve(route: Any) -> None:
    name = route.request.url.removeprefix("http://explorer.test/")
    kinds = {"js": "text/javascript", "css": "text/css"}
    if name:
        route.fulfill(body=(EXPLORER / name).read_text(), content_type=kinds[name.rsplit(".")[-1]])
    else:
        route.fulfill(body=PAGE, content_type="text/html")


def _note(problems: list[str], said: Any) -> None:
    if said.type == "error" or "WebGL contexts" in said.text:
        problems.append(said.text)


@pytest.fixture(scope="module")
def scene() -> Iterator[ScenePage]:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 640, "height": 480}, color_scheme="light")
        page.set_default_timeout(30_000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda m: problems.append(m.text) if "WebGL contexts" in m.text or m.type == "error" else None
        )
        page.route("**/*", _serve)
        page.goto("http://explorer.test/")
        page.wait_for_function("() => window.fresh")
        yield ScenePage(page)
        assert not problems


def edges(indices: np.ndarray) -> np.ndarray:
    return np.concatenate([indices[:, [0, 1]], indices[:, [1, 2]], indices[:, [2, 0]]])


def is_closed(indices: np.ndarray) -> bool:
    """Whether every edge belongs to two triangles, which pass it in opposite directions."""
    there = edges(indices).astype(np.int64)
    forth, back = there @ [1 << 32, 1], there @ [1, 1 << 32]
    return len(np.unique(forth)) == len(forth) and np.array_equal(np.sort(forth), np.sort(back))


def euler(mesh: dict[str, np.ndarray]) -> int:
    return len(mesh["positions"]) - len(edges(mesh["indices"])) // 2 + len(mesh["indices"])


def test_sphere_has_its_area_and_volume_and_is_closed(scene: ScenePage) -> None:
    centre, radius = np.array([30.3, 32.1, 33.7]), 20.0
    mesh = scene.surface(balls((*centre, radius), size=64), "surface.isosurface(v, 64, 0)")
    corners = mesh["positions"][mesh["indices"]].astype(float)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert np.linalg.norm(across, axis=1).sum() / 2 == pytest.approx(4 * np.pi * radius**2, rel=0.01)
    assert (corners[:, 0] * across).sum() / 6 == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)  # > 0: outwards
    out = (mesh["positions"] - centre) / np.linalg.norm(mesh["positions"] - centre, axis=1, keepdims=True)
    np.testing.assert_allclose((mesh["normals"] * out).sum(1), 1, atol=0.01)
    assert is_closed(mesh["indices"])
    assert euler(mesh) == 2


def test_surfaces_are_closed_whatever_the_volume(scene: ScenePage) -> None:
    noise = np.random.default_rng(0).integers(-127, 128, (20, 20, 20), dtype=np.int8)  # touches the border too
    for level in (-100.5, 3.0, 90.2):  # whole numbers put vertices on voxels
        assert is_closed(scene.surface(noise, f"surface.isosurface(v, 20, {level})")["indices"])
    two_tori = np.minimum(np.abs(balls((10, 10, 16, 5), (22, 22, 16, 5))), 40)  # shells: a ball in a ball, twice
    assert euler(scene.surface(-two_tori, f"surface.isosurface(v, {SIZE}, -30)")) == 8
    assert not len(scene.surface(noise, "surface.isosurface(v, 20, 127)")["indices"])


def test_vertices_are_those_of_another_program(scene: ScenePage) -> None:
    volume = balls((12, 13, 15, 8), (20, 19, 17, 7))
    mesh = scene.surface(volume, f"surface.isosurface(v, {SIZE}, 0.5)")
    theirs, *_ = marching_cubes(volume.astype(float), 0.5)

    def ordered(vertices: np.ndarray) -> np.ndarray:
        rounded = np.round(vertices.astype(float), 4)
        return rounded[np.lexsort(rounded.T)]

    np.testing.assert_allclose(ordered(mesh["positions"]), ordered(theirs[:, ::-1]), atol=2e-4)


def test_dust_is_what_is_small_in_every_direction(scene: ScenePage) -> None:
    volume = balls((16, 16, 20, 7), (5, 5, 5, 2))
    everything = scene.surface(volume, f"surface.isosurface(v, {SIZE}, 0.5)")
    large = scene.surface(volume, f"surface.dust(surface.isosurface(v, {SIZE}, 0.5), 5)")
    assert (euler(everything), euler(large)) == (4, 2)
    assert is_closed(large["indices"])
    assert large["positions"].min() > 8
    assert not len(scene.surface(volume, f"surface.dust(surface.isosurface(v, {SIZE}, 0.5), 15)")["indices"])


@pytest.mark.parametrize("fraction", [0.003, 0.05, 0.5])
def test_level_at_volume(scene: ScenePage, fraction: float) -> None:
    smooth = np.random.default_rng(1).normal(0, 30, (SIZE,) * 3)
    volume = np.clip(np.round(smooth), -127, 127).astype(np.int8)
    level = scene.do("surface.levelAtVolume(map(a[0]), a[1])", packed(volume), fraction)
    assert (smooth > level).mean() == pytest.approx(fraction, rel=0.05)


def test_surfaces_are_made_in_time(scene: ScenePage, capsys: pytest.CaptureFixture[str]) -> None:
    script = """((v, size) => [...Array(6)].map(() => {
        const start = performance.now(); surface.isosurface(v, size, 0.5); return performance.now() - start; }))"""
    for size, most in ((64, 40), (128, 250)):
        x, y, z = np.meshgrid(*[np.linspace(0, 16, size, dtype=np.float32)] * 3, sparse=True)
        gyroid = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)
        volume = np.round(60 * gyroid).astype(np.int8)  # more surface than maps have
        best = min(scene.do(f"{script}(map(a[0]), {size})", packed(volume)))
        with capsys.disabled():
            print(f" {size}³: {best:.0f} ms", end="")
        assert best <= 3 * most  # the suite also runs on busy machines


def test_maps_lie_with_x_right_y_up_and_z_to_the_reader(scene: ScenePage) -> None:
    scene.start(balls((24, 15.5, 15.5, 4)), balls((15.5, 24, 15.5, 4)), balls((15.5, 15.5, 26, 4)))
    right = scene.where().mean(0)
    assert right[0] > 40 and abs(right[1]) < 4
    scene.do("s.show(1)")
    up = scene.where().mean(0)
    assert up[1] > 40 and abs(up[0]) < 4
    scene.do("s.show(2)")
    assert np.abs(scene.where().mean(0)).max() < 4
    scene.page.locator(".cryotwin-scene").focus()
    for _ in range(3):
        scene.page.keyboard.press("ArrowRight")  # the side that faces the reader turns to the right
    scene.do("0")
    assert scene.where().mean(0)[0] > 30


def test_scale_bar_measures_the_molecule(scene: ScenePage) -> None:
    scene.start(balls((15.5, 15.5, 15.5, 10)), voxel_size=3.0)
    bar = scene.do("s.view.bar")
    assert bar["length"] in (5, 10, 20, 50)
    seen = np.ptp(scene.where()[:, 0]) + 1
    assert seen / bar["pixels"] * bar["length"] == pytest.approx(2 * 10 * 3.0, rel=0.03)


def test_draws_only_when_something_changes(scene: ScenePage) -> None:
    scene.start(*[balls((16, 16, 16, 5 + k)) for k in range(4)])
    scene.page.wait_for_function("() => s.surfaces.kept.size === 4")  # the others are made while idle
    frames = scene.do("drawn.length")
    scene.page.wait_for_timeout(300)
    assert scene.do("drawn.length") == frames
    sizes = [len(scene.where()) for k in range(4) if scene.do("s.show(a[0])", k) is None]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] / 1.5
    assert scene.do("drawn.at(-1)") == {"version": 1, "k": 3, "level": 0.5}


def test_mouse_wheel_and_keys_move_the_camera(scene: ScenePage) -> None:
    scene.start(balls((24, 15.5, 15.5, 4)))
    mouse = scene.page.mouse
    mouse.move(240, 150)
    mouse.wheel(0, 50)  # without the focus the page scrolls
    scene.page.wait_for_function("() => scrollY === 50")
    scene.page.evaluate("scrollTo(0, 0)")
    assert scene.do("s.camera") == {"turn": [0, 0, 0, 1], "zoom": 1, "shift": [0, 0]}
    mouse.move(240, 150)
    mouse.down()
    mouse.move(240, 90, steps=4)
    mouse.up()
    turned = scene.do("s.camera")
    assert turned["turn"][0] < -0.2 and abs(turned["turn"][1]) < 1e-3  # the front goes up with the mouse
    assert scene.do("cameras.at(-1)") == turned
    mouse.wheel(0, -300)
    scene.page.wait_for_function("() => s.camera.zoom > 1.3")
    assert scene.page.evaluate("scrollY") == 0
    scene.page.keyboard.down("Shift")
    mouse.down()
    mouse.move(270, 90, steps=3)
    mouse.up()
    scene.page.keyboard.up("Shift")
    moved = scene.do("s.camera")
    assert moved["shift"][0] > 0.02 and moved["turn"] == turned["turn"]
    scene.do("s.reset()")
    before = scene.where().mean(0)
    scene.do("s.camera = a[0]", moved)
    assert scene.do("s.camera") == moved
    scene.page.keyboard.press("0")
    scene.do("0")
    np.testing.assert_allclose(scene.where().mean(0), before, atol=1)
    refused = "(() => { try { s.camera = a[0]; } catch (error) { return error.message; } })()"
    for bad in (
        {"turn": [0, 0, 0, 0], "zoom": 1, "shift": [0, 0]},
        {"turn": [0, 0, 0, 1], "zoom": "2", "shift": [0, 0]},
    ):
        assert "A camera has" in scene.do(refused, bad)


def test_contours_by_bytes_density_and_volume(scene: ScenePage) -> None:
    volume = balls((15.5, 15.5, 15.5, 9))
    scene.start(volume)
    whole = len(scene.where())
    scene.do("s.contour(60)")  # 3 voxels further in
    assert len(scene.where()) == pytest.approx(whole * (6 / 9) ** 2, rel=0.04)
    scene.do("s.contour({ volume: a[0] })", float((volume > 0).mean()))
    assert len(scene.where()) == pytest.approx(whole, rel=0.04)
    scene.do("s.peek(map(a[0]), { size: 32, voxelSize: 2, offset: 10, factor: 2 })", packed(volume))
    scene.do("s.contour({ density: 40 })")  # byte 60
    assert len(scene.where()) == pytest.approx(whole * (6 / 9) ** 2, rel=0.04)
    scene.do("s.contour(NaN)")
    assert scene.do("errors") == ["A contour is a number."]


def test_changes_are_shown_and_painted(scene: ScenePage) -> None:
    scene.start(balls((10, 15.5, 15.5, 6)), balls((21, 15.5, 15.5, 6)), voxel_size=2)
    scene.do("s.show(1)")
    assert not len(scene.where(BLUE)) and not len(scene.where(ORANGE))
    scene.do("s.contour(40), s.overlay({ change: true })")
    assert scene.where(BLUE)[:, 0].mean() > 20 and scene.where(ORANGE)[:, 0].mean() < -20
    scene.do("s.overlay({}), s.paint('change')")
    painted = scene.where(BLUE)
    assert len(painted) > 0.7 * len(scene.where()) and not len(scene.where(ORANGE))
    scene.do("s.paint('none'), s.overlay({ start: true })")
    assert scene.where()[:, 0].min() < -40 and not len(scene.where(BLUE))  # the start, see-through
    scene.do("s.show(0), s.overlay({ start: true, change: true })")
    assert scene.where()[:, 0].max() < 20
    colours = {"map": ["#0072b2", "#d55e00"], "low": 13, "high": 18}
    scene.do("s.setColour(0, new Float32Array(32 ** 3).map((_, i) => (i >> 5) % 32), a[0]), s.paint('colour')", colours)
    assert scene.where(ORANGE)[:, 1].mean() > scene.where(BLUE)[:, 1].mean() + 20


def test_slice_cuts_away_the_front(scene: ScenePage) -> None:
    scene.start(balls((15.5, 15.5, 25, 4), (8, 15.5, 6, 4)))
    front = lambda: (np.abs(scene.where()) < 8).all(1).sum()  # noqa: E731
    assert front() > 100
    scene.do("s.contour(60), s.slice({ axis: 'z', position: 0.5 })")
    grey = scene.look()[180, 240]
    assert np.ptp(grey) < 8  # the empty plane, on which nothing is left in front
    scene.do("s.slice(null), s.contour(0.5)")
    assert front() > 100


def test_two_maps_side_by_side_and_a_kept_path(scene: ScenePage) -> None:
    scene.start(balls((15.5, 15.5, 15.5, 4)), balls((15.5, 15.5, 15.5, 9)))
    scene.do("s.show(1), s.second({ k: 0, captions: ['now', 'start'] })")
    halves = lambda: [(scene.where()[:, 0] < 0).sum(), (scene.where()[:, 0] > 0).sum()]  # noqa: E731
    left, right = halves()
    assert left > 3 * right > 0
    scene.do("s.second({ k: 1 })")  # the path as it is now stays beside the next one
    scene.do("s.load(2, { size: 32, voxelSize: 2, offset: 0, factor: 1, n: 1 }), s.add(2, 0, map(a[0]))",
             packed(balls((15.5, 15.5, 15.5, 4))))  # fmt: skip
    assert halves()[1] > 3 * halves()[0] > 0
    scene.do("s.second(null)")
    scene.do("s.load(3, { size: 32, voxelSize: 2, offset: 0, factor: 1, n: 1 })")
    assert scene.do("[...s.sets.keys()]") == [3]


def test_a_star_is_shown_before_any_path_and_instead_of_it(scene: ScenePage) -> None:
    scene.do("fresh()")
    one = packed(balls((15.5, 15.5, 15.5, 9)))
    scale = {"size": SIZE, "voxelSize": 2, "offset": 0, "factor": 1}
    scene.do("s.peek(map(a[0]), a[1])", one, scale)
    assert scene.do("errors") == [] and len(scene.where()) > 1000
    scene.start(balls((24, 15.5, 15.5, 4)))
    scene.do("s.peek(map(a[0]), a[1])", one, scale)
    assert abs(scene.where()[:, 0].mean()) < 4
    scene.do("s.peek(null)")
    assert scene.where()[:, 0].mean() > 40


def test_atoms_lie_in_the_map(scene: ScenePage) -> None:
    scene.start(balls((15.5, 15.5, 15.5, 12)))
    atoms = "new Float32Array([50, 31, 31, 54, 31, 31])"
    scene.do(f"s.setModel({{ positions: {atoms}, colours: new Uint8Array([213, 94, 0, 213, 94, 0]), bonds: [0, 1] }})")
    seen, scale = scene.where(ORANGE), scene.do("s.view.bar.pixels / s.view.bar.length")
    assert len(seen) > 20
    assert seen[:, 0].mean() == pytest.approx((52 - 31) * scale, abs=3)  # px; Å from the box's centre
    scene.do("s.setModel({ positions: new Float32Array(4) })")
    assert "three coordinates" in scene.do("errors[0]")


def test_picture_is_twice_as_fine_and_complete(scene: ScenePage) -> None:
    scene.start(balls((15.5, 15.5, 15.5, 9)))
    scene.do("s.theme({ background: 'rgb(20, 30, 40)', text: 'rgb(240, 240, 240)' })")
    data = scene.do("s.picture().then((blob) => new Promise((done) => {"
                    "const reader = new FileReader(); reader.onload = () => done(reader.result.split(',')[1]);"
                    "reader.readAsDataURL(blob); }))")  # fmt: skip
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)
    assert picture.shape == (720, 960, 3)
    np.testing.assert_array_equal(picture[0, 0], (20, 30, 40))
    assert picture[360, 480].min() > 100
    assert (picture[-60:, :300] > 200).all(-1).any()  # the scale bar
    np.testing.assert_array_equal(scene.look()[0, 0], (20, 30, 40))


def test_memory_is_bounded_and_given_back(scene: ScenePage) -> None:
    maps = [balls((16, 16, 16, 12 - k)) for k in range(8)]
    scene.start(*maps, budget=1_000_000)
    for k in range(8):
        scene.do("s.show(a[0])", k)
        assert 0 < scene.do("s.surfaces.bytes") <= 1_000_000
        assert len(scene.where()) > 1000
    assert scene.do("s.bytes") <= 1_000_000 + 8 * SIZE**3
    scene.do("s.load(2, { size: 32, n: 1 }), s.add(1, 0, new Int8Array(32 ** 3))")  # the path's maps are gone
    assert scene.do("s.bytes") <= SIZE**3
    assert scene.do("(s.dispose(), s.bytes)") == 0
    assert scene.page.locator("#here *").count() == 0
    for _ in range(17):  # a browser has 16 places for WebGL
        scene.do("fresh()")


def test_what_cannot_be_shown_is_said(scene: ScenePage) -> None:
    scene.start(balls((15.5, 15.5, 15.5, 9)))
    scene.do("s.add(1, 0, new Int8Array(7)), s.add(1, 5, new Int8Array(32 ** 3))")
    assert scene.do("errors") == ["A map of 7 bytes is not of 32³ voxels.", "There is no map 5 among 1."]
    assert len(scene.where()) > 1000
    refused = """(() => { const known = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = () => null;
        try { createScene(document.body); } catch (error) { return error.message; }
        finally { HTMLCanvasElement.prototype.getContext = known; } })()"""
    assert "offers no WebGL" in scene.do(refused)
    assert scene.do("(() => { window.Worker = undefined; })()") is None
    scene.start(*[balls((16, 16, 16, 5 + k)) for k in range(3)])  # without a worker all surfaces are made too
    scene.page.wait_for_function("() => s.surfaces.kept.size === 3")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_page(scene: ScenePage, scheme: str) -> None:
    scene.page.emulate_media(color_scheme=scheme)
    scene.start(balls((15.5, 15.5, 15.5, 9)))
    assert (scene.look()[0, 0].mean() > 128) == (scheme == "light")
