"""The explorer without a browser: controls are set as by a front end, messages are recorded."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from PIL import Image

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer import job, maps, planes, search
from cryotwin_nb.explorer.figure import draw_view
from cryotwin_nb.explorer.job import Job, Stopped
from cryotwin_nb.explorer.request import PathRequest, fingerprint
from cryotwin_nb.explorer.saving import _write_support, write_snapshot
from cryotwin_nb.explorer.search import path_title
from cryotwin_nb.formats.mrc import read_map
from cryotwin_nb.formats.mrc_writing import map_bytes
from cryotwin_nb.plotting.rendering import automatic_sigma, contour_level

SIZE = 16


def prior_of_three() -> ct.GaussianMixture:
    means = torch.tensor([[0.0, 0.0, 0.0], [4.0, 0.5, 0.0], [8.0, 0.0, 1.0]])
    return ct.GaussianMixture([0.5, 0.2, 0.3], means, 0.8 * torch.eye(3).expand(3, 3, 3))


def decode(z) -> torch.Tensor:
    """A ball that moves along x with the first latent and grows with the second."""
    z = torch.as_tensor(z).double()
    x = torch.arange(SIZE).double() - SIZE // 2
    across = (x - (z[:, :1] - 4) / 2)[:, None, None, :]
    away = across**2 + x[:, None, None] ** 2 + x[:, None] ** 2
    return torch.exp(-away / (8 + z[:, 1].abs()[:, None, None, None])).float()


@pytest.fixture
def explorer():
    prior = prior_of_three()
    return recorded(ct.PathwayExplorer(prior, prior.sample(600), decode, voxel_size=3.0))


def recorded(explorer: ct.PathwayExplorer) -> ct.PathwayExplorer:
    """Record the messages to the browser in `explorer.sent`."""
    explorer.sent = []
    explorer.screen.viewer.widget.send = lambda content, buffers=None: explorer.sent.append((content, buffers))
    return explorer


def last_sent(explorer, task: str) -> tuple[dict, list]:
    return next(pair for pair in reversed(explorer.sent) if pair[0].get("task") == task)


def wait_for(condition) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen within two minutes")


def test_ends_are_offered_by_weight_and_linked_to_the_stars(explorer):
    assert [value for _, value in explorer.controls.start.options] == [0, 2, 1]
    explorer.screen.stars.start, explorer.screen.stars.end = 2, 1
    assert (explorer.controls.start.value, explorer.controls.end.value) == (2, 1)
    explorer.controls.swap.click()
    assert (explorer.screen.stars.start, explorer.screen.stars.end) == (1, 2)


def test_the_button_computes_what_the_core_computes_and_the_maps_reach_the_browser(explorer):
    explorer.choose(0, 2)
    explorer.controls.compute.click()
    wait_for(lambda: explorer.path is not None and not explorer.controls.compute.disabled)
    expected = ct.max_flux(explorer.prior, 0, 2)
    torch.testing.assert_close(explorer.path.latents, expected.latents)
    torch.testing.assert_close(explorer.maps, decode(expected.latents))
    message, buffers = last_sent(explorer, "load")
    assert len(buffers) == 12
    with mrcfile.mrcinterpreter.MrcInterpreter(io.BytesIO(buffers[4])) as sent:
        assert sent.voxel_size.x == 3.0
        inside = sent.data > message["level"]
    level = contour_level(explorer.maps, explorer.controls.sigma.value)
    assert (inside != (explorer.maps[4] > level).numpy()).mean() < 2e-3  # except for rounding to bytes
    assert explorer.controls.stop.disabled


@pytest.mark.parametrize("method", ["Algorithm 1", "MaxFlux", "All routes"])
def test_each_method_gives_its_path(explorer, method):
    explorer.controls.method.value = method
    explorer.controls.n_steps.value = 5
    explorer.choose(0, 2).compute()
    assert explorer.path.latents.shape == (6, 3)
    assert explorer.maps.shape == (6, SIZE, SIZE, SIZE)
    assert {"Algorithm 1": "ridgeline", "MaxFlux": "MaxFlux", "All routes": "route"}[method] == explorer.path.method
    assert explorer.controls.routes.options[0][0] == path_title(explorer.path, {})
    assert explorer.controls.step.max == 5


def test_the_seed_reaches_algorithm_1():
    means = torch.tensor([[0, 0, 0], [3, 1, 0], [6, 0, 1], [8, 3, 2], [4, 4, -1.0]])
    prior = ct.GaussianMixture([0.3, 0.25, 0.2, 0.15, 0.1], means, torch.eye(3).expand(5, 3, 3))
    request = PathRequest(start=0, end=2, method="Algorithm 1", n_steps=4, omega=2.0, seed=7)
    (found,) = search.find_paths(request, prior, lambda: None)
    assert torch.equal(found.latents, ct.ridgeline(prior, 0, 2, 4, 2.0, seed=7).latents)
    assert not torch.equal(found.latents, ct.ridgeline(prior, 0, 2, 4, 2.0, seed=0).latents)


def test_a_step_moves_marker_map_and_profile(explorer):
    explorer.choose(0, 2).compute()
    before = explorer.controls.profile.value
    explorer.step = 7
    assert explorer.screen.stars.step == 7
    assert last_sent(explorer, "show")[0]["step"] == 7
    assert explorer.controls.profile.value != before
    assert "log density" in before


def test_the_contour_is_shared_by_all_maps_and_sent_in_their_unit(explorer):
    explorer.choose(0, 2).compute()
    explorer.controls.sigma.value = 3.0
    message, _ = last_sent(explorer, "level")
    offset, factor = explorer.screen.viewer._scale
    assert message["level"] / factor + offset == pytest.approx(contour_level(explorer.maps, 3.0), rel=1e-6)
    assert message["change"] / factor == pytest.approx(0.5 * contour_level(explorer.maps, 3.0), rel=1e-6)


@pytest.mark.parametrize("size", [24, 40, 64])
def test_the_contour_begins_at_the_particles_surface_however_empty_the_box(size):
    x = torch.arange(size) - size // 2
    radius = (x**2 + x[:, None] ** 2 + x[:, None, None] ** 2).double().sqrt()
    noise = 0.05 * torch.randn(radius.shape, generator=torch.Generator().manual_seed(0))
    ball = torch.sigmoid(8 - radius) + noise
    inside = ball > contour_level(ball, automatic_sigma(ball))
    assert (3 * float(inside.sum()) / (4 * np.pi)) ** (1 / 3) == pytest.approx(8, abs=1)


def test_the_contour_is_chosen_once_and_then_the_users(explorer):
    explorer.choose(0, 2).compute()
    assert explorer.controls.sigma.value == pytest.approx(automatic_sigma(explorer.maps), abs=0.051)
    explorer.controls.sigma.value = 3.3
    explorer.choose(0, 1).compute()
    assert explorer.controls.sigma.value == 3.3


def test_changes_are_sent_when_they_are_asked_for(explorer):
    explorer.choose(0, 2).compute()
    assert not [m for m, _ in explorer.sent if m["task"] == "changes"]
    explorer.controls.change.value = True
    _, buffers = last_sent(explorer, "changes")
    with mrcfile.mrcinterpreter.MrcInterpreter(io.BytesIO(buffers[6])) as sent:
        found = sent.data / explorer.screen.viewer._scale[1]
    change = (explorer.maps[6] - explorer.maps[0]).numpy()
    kept = np.abs(change) < 0.9 * 127 / explorer.screen.viewer._scale[1]
    assert np.abs(found - change)[kept].max() <= 0.51 / explorer.screen.viewer._scale[1]
    assert last_sent(explorer, "overlay")[0] == {"type": "cryotwin", "task": "overlay", "start": False, "change": True}


def test_every_new_view_gets_script_maps_and_overlay(explorer):
    explorer.choose(0, 2).compute()
    explorer.controls.ghost.value = True
    explorer.sent.clear()
    explorer.screen.viewer._received(None, {"type": "request_loaded"}, [])  # as after a reload of the page
    assert explorer.sent[0][0]["methodName"] == "executeCode"
    assert [m.get("task") for m, _ in explorer.sent[1:]] == ["load", "overlay"]
    assert len(last_sent(explorer, "load")[1]) == 12


def test_nothing_of_the_maps_is_kept_in_the_notebooks_state(explorer):
    explorer.choose(0, 2).compute()
    assert explorer.screen.viewer.widget._ngl_msg_archive == []
    assert len(json.dumps(explorer.screen.viewer.widget.get_state(), default=str)) < 20_000


def test_errors_are_said_in_words(explorer):
    explorer.choose(1, 1)
    explorer.controls.compute.click()
    wait_for(lambda: "Not possible" in explorer.controls.message.value)
    with pytest.raises(InputError, match="Choose two"):
        explorer.compute()
    assert not explorer.controls.compute.disabled
    assert "Choose two" in explorer.controls.message.value

    def broken(z):
        raise RuntimeError("out of <memory>")

    explorer._search.decode = broken
    explorer.choose(0, 2)
    explorer.controls.compute.click()
    wait_for(lambda: "RuntimeError: out of &lt;memory&gt;" in explorer.controls.message.value)
    assert explorer.path is None
    assert not explorer.controls.compute.disabled


def test_stopping_leaves_the_former_path(explorer):
    explorer.choose(0, 1).compute()
    former, began = explorer.path, threading.Event()

    def slow(z):
        began.set()
        for _ in range(2000):
            time.sleep(0.01)
        return decode(z)

    explorer._search.decode = slow
    explorer.choose(0, 2)
    explorer.controls.compute.click()
    assert began.wait(20)
    assert not explorer.controls.stop.disabled
    explorer.controls.stop.click()
    wait_for(lambda: explorer.controls.message.value == "Stopped.")
    assert explorer.path is former


def test_a_job_ends_once_and_can_be_stopped_late_or_twice():
    ended = []
    done = Job(lambda report: report(0.5, "half"), lambda share, text: ended.append(share), ended.append)
    assert done.wait(5)
    done.stop()
    assert ended == [0.5, None]
    endless = job.Job(lambda report: time.sleep(0.5), print, ended.append)
    time.sleep(0.05)
    endless.stop()
    endless.stop()
    assert endless.wait(5)
    assert isinstance(ended[-1], Stopped)


def test_work_that_was_stopped_breaks_off_where_it_reports_and_is_not_heard():
    heard, ended, going_on, broken = [], [], threading.Event(), threading.Event()

    def work(report):
        report(0.1, "begun")
        going_on.wait(5)
        try:
            report(0.9, "nearly done")
        except Stopped:
            broken.set()
            raise

    stopped = Job(work, lambda share, text: heard.append(share), ended.append)
    wait_for(lambda: heard == [0.1])
    stopped.stop()
    going_on.set()
    assert broken.wait(5)
    assert heard == [0.1] and len(ended) == 1 and isinstance(ended[0], Stopped)


def test_a_route_is_chosen_from_the_list_without_finding_them_again(explorer, monkeypatch):
    explorer.choose(0, 2).compute()
    other = ct.ridgeline(explorer.prior, 0, 2)
    request = explorer.controls.request
    explorer.screen.show(explorer._search.find(request, lambda *_: None, known=[explorer.path, other]))
    monkeypatch.setattr(search, "find_paths", lambda *a: pytest.fail("searched again"))
    explorer.controls.routes.value = 1
    wait_for(lambda: explorer.path is other)


def test_planes_and_colours_can_be_switched():
    prior = prior_of_three()
    z = prior.sample(400)
    label = np.where(z[:, 0] > 4, "right", "left")
    umap = np.stack([z[:, 0] * 2, z[:, 1] - z[:, 2]], axis=1)
    columns = {"defocus": np.linspace(1, 2, 400), "class": np.arange(400) % 5}
    explorer = ct.PathwayExplorer(prior, z, decode, embedding=umap, labels=label, columns=columns)
    assert explorer.controls.plane.options[:2] == ("embedding", "PC 1, 2")
    assert "latent 2, 3" in explorer.controls.plane.options
    assert explorer.controls.colour.options == ("log density (nats)", "label", "defocus", "class")
    assert explorer.names == {0: "left", 2: "right"} | ({1: explorer.names[1]} if 1 in explorer.names else {})
    explorer.choose(0, 2).compute()
    for plane in explorer.controls.plane.options:
        explorer.controls.plane.value = plane
        assert len(explorer.screen.stars.steps) == 12
        assert len(explorer.screen.stars.points) == 400 * 8
    explorer.controls.plane.value = "latent 1, 3"
    np.testing.assert_allclose(explorer.screen.stars.steps, explorer.path.latents[:, [0, 2]], atol=1e-6)
    for name, legend in (("class", "entries"), ("defocus", "ramp")):
        explorer.controls.colour.value = name
        assert legend in explorer.screen.stars.legend
        assert len(explorer.screen.stars.colours) == 400 * 3


def test_other_points_stand_among_their_nearest_latents_in_an_embedding():
    prior, z = prior_of_three(), torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)) * 3 + 3
    plane = planes.planes(prior, z, z[:, :2].numpy() * 10, np.arange(3000))["embedding"]
    np.testing.assert_allclose(plane.place(z[:5]), z[:5, :2].numpy() * 10, atol=1e-3)
    assert np.abs(plane.means - 10 * prior.means[:, :2].numpy()).max() < 15


def test_many_particles_are_thinned_and_many_labels_merged():
    assert len(planes.shown_rows(100_000)) == planes.MAX_POINTS
    many = planes.colouring("id", np.array([f"c{i % 60}" for i in range(600)]))
    assert len(many.legend["entries"]) == 24
    assert ["others" in [name for name, _ in many.legend["entries"]]] == [True]


def test_an_export_is_read_by_other_tools_and_restores_the_explorer(explorer, tmp_path):
    explorer.controls.method.value = "Algorithm 1"
    explorer.controls.seed.value = 3
    explorer.choose(2, 0).compute()
    explorer.step, explorer.controls.sigma.value, explorer.controls.plane.value = 4, 2.7, "PC 1, 3"
    for step in (4, 99):
        write_snapshot(tmp_path / "out", step, b"png")
    explorer.controls.folder.value = str(tmp_path / "out")
    explorer.controls.export.click()
    wait_for(lambda: "files written" in explorer.controls.message.value)
    assert [file.name for file in (tmp_path / "out").glob("snapshot*")] == ["snapshot_004.png"]  # no longer path's
    assert "snapshot_004.png" in json.loads((tmp_path / "out" / "explorer.json").read_text())["files"]
    assert {"pathway.cxc", "pathway.pml", "pathway.mvsj"} < {file.name for file in (tmp_path / "out").iterdir()}
    volume, voxel = read_map(tmp_path / "out" / "map_004.mrc")
    np.testing.assert_allclose(volume, explorer.maps[4].numpy(), atol=1e-6)
    assert voxel == 3.0
    level = contour_level(explorer.maps, 2.7)
    assert f"level {level:.6g}" in (tmp_path / "out" / "pathway.cxc").read_text()
    with Image.open(tmp_path / "out" / "pathway.gif") as movie, Image.open(tmp_path / "out" / "pathway.png") as still:
        assert movie.n_frames > 12
        assert still.width > 1000
    again = ct.PathwayExplorer.restore(tmp_path / "out", explorer.prior, explorer.latents, decode, voxel_size=3.0)
    torch.testing.assert_close(again.path.latents, explorer.path.latents)
    assert again.controls.shown == explorer.controls.shown
    assert "differs" not in again.controls.message.value


@dataclass
class Support:
    """Stand-in for `PathwaySupport`."""

    resolution: np.ndarray
    n_effective: np.ndarray


def support(path) -> Support:
    """Return half-map resolutions of 20 Å, minus 1 Å per step, except at step 4, which no image supports."""
    steps = np.arange(len(path.latents), dtype=float)
    return Support(np.where(steps == 4, np.nan, 20 - steps), 100 + 10 * steps)


@pytest.fixture
def supported():
    prior = prior_of_three()
    return recorded(ct.PathwayExplorer(prior, prior.sample(600), decode, voxel_size=3.0, support=support))


def test_support_by_images_is_asked_by_a_button_and_drawn_with_the_finest_on_top(supported):
    assert supported.controls.support.layout.display == ""
    supported.controls.support.click()
    wait_for(lambda: "Compute a path first" in supported.controls.message.value)
    supported.choose(0, 2).compute()
    assert supported.support is None
    assert "Å" not in supported.controls.profile.value
    supported.controls.support.click()
    wait_for(lambda: supported.support is not None and not supported.controls.support.disabled)
    supported.step = 2
    drawing = supported.controls.profile.value
    assert "step 3: 17.0 Å from 130 images" in drawing
    assert "step 4:" not in drawing
    tops = [float(points.split(",")[1].split()[0]) for points in re.findall(r'<polygon points="([^"]+)"', drawing)]
    assert len(tops) == 11
    assert tops == sorted(tops, reverse=True), "finer is higher, and y points down"
    (axis,) = (ax for ax in supported.figure().axes if "half maps (Å)" in ax.get_ylabel())
    assert axis.yaxis_inverted()
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), supported.support.resolution)
    supported._search.support = lambda path: Support(np.full(12, np.inf), np.zeros(12))
    supported.screen.show_support(supported._search.supported(supported.screen.answer, lambda *_: None))
    assert "<polygon" not in supported.controls.profile.value
    assert len(supported.figure().axes) == 4
    supported.choose(0, 1).compute()
    assert supported.support is None, "of another path"


def test_support_is_exported_and_does_not_outlive_its_path(supported, tmp_path):
    supported.controls.n_steps.value = 4
    supported.choose(0, 2).compute()
    supported.controls.support.click()
    wait_for(lambda: supported.support is not None)
    supported.export(tmp_path)
    table = np.genfromtxt(tmp_path / "support.csv", delimiter=",", names=True)
    assert table.dtype.names == ("step", "resolution_angstrom", "effective_images")
    np.testing.assert_allclose(table["resolution_angstrom"], supported.support.resolution)
    np.testing.assert_allclose(table["effective_images"], supported.support.n_effective)
    supported.compute().export(tmp_path)
    assert not (tmp_path / "support.csv").exists()


class Findings(Support):
    """Stand-in with findings in words."""

    verdict = "Not supported by the images: 1."

    def findings(self, point):
        return ["density is missing, at x", "cross-fade"] if point == 1 else []


def test_findings_of_the_support_are_shown_and_exported_in_the_same_words(supported, tmp_path):
    supported.controls.n_steps.value = 4
    supported._search.support = lambda path: Findings(np.full(5, 20.0), np.full(5, 100.0))
    supported.choose(0, 2).compute()
    supported.controls.support.click()
    wait_for(lambda: supported.support is not None)
    supported.step = 1
    assert "Not supported by the images: 1." in supported.controls.profile.value
    assert "step 1: density is missing, at x" in supported.controls.profile.value
    supported.step = 2
    assert "density is missing" not in supported.controls.profile.value
    _write_support(tmp_path / "support.csv", supported.support)
    with open(tmp_path / "support.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["findings"] for row in table] == ["", "density is missing, at x; cross-fade", "", "", ""]


def test_support_can_be_stopped_and_what_is_no_support_is_refused_in_words(supported):
    supported.choose(0, 2).compute()
    began = threading.Event()

    def endless(path):
        began.set()
        for _ in range(2000):
            time.sleep(0.01)

    supported._search.support = endless
    supported.controls.support.click()
    assert began.wait(20)
    assert supported.controls.compute.disabled
    supported.controls.stop.click()
    wait_for(lambda: supported.controls.message.value == "Stopped.")
    supported._search.support = lambda path: Support(np.ones(3), np.ones(12))
    supported.controls.support.click()
    wait_for(lambda: "resolution" in supported.controls.message.value)
    assert "(12,)" in supported.controls.message.value
    assert supported.support is None


def test_without_a_way_to_ask_images_there_is_no_button(explorer):
    assert explorer.controls.support.layout.display == "none"


OPEN = """
import sys, torch
import cryotwin_nb as ct
prior = ct.GaussianMixture([0.5, 0.5], torch.eye(2), torch.eye(2).expand(2, 2, 2))
z = prior.sample(50)
ct.CryoTwin
ct.PathwayExplorer(prior, z, lambda z: z, embedding=z)
print(*sys.modules)
"""


def test_the_stars_wait_for_no_figures_tables_or_solvers():
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", OPEN], env=environment, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "cryotwin_nb.explorer.stars" in loaded
    assert not {"pandas", "scipy", "sklearn", "openTSNE", "numba", "matplotlib.figure", "matplotlib.pyplot"} & loaded


@pytest.mark.parametrize("text", ["", "[1]", '{"kind": "PathwayExplorer"}', '{"kind": "PathwayExplorer", "shown": {}}'])
def test_a_file_that_is_no_note_is_refused_by_name(tmp_path, text):
    (tmp_path / "explorer.json").write_text(text)
    with pytest.raises(InputError, match=r"explorer\.json"):
        ct.PathwayExplorer.restore(tmp_path, prior_of_three(), torch.zeros(9, 3), decode)


def test_a_note_of_another_mixture_is_refused(explorer, tmp_path):
    explorer.controls.n_steps.value = 2
    explorer.choose(0, 2).compute()
    explorer.export(tmp_path)
    other = ct.GaussianMixture([0.5, 0.5], torch.zeros(2, 3) + torch.arange(2)[:, None], torch.eye(3).expand(2, 3, 3))
    with pytest.raises(InputError, match="this mixture"):
        ct.PathwayExplorer.restore(tmp_path, other, torch.zeros(9, 3), decode)
    assert fingerprint(explorer.prior) == fingerprint(explorer.prior.detach())


def test_nothing_is_exported_without_a_path(explorer, tmp_path):
    explorer.controls.folder.value = str(tmp_path / "new")
    explorer.controls.export.click()
    wait_for(lambda: "Choose two stars" in explorer.controls.message.value)
    assert not (tmp_path / "new").exists()


def test_a_snapshot_of_the_browser_becomes_a_file(explorer, tmp_path):
    explorer.choose(0, 2).compute()
    explorer.controls.folder.value = str(tmp_path / "shots")
    explorer.controls.snapshot.click()
    assert last_sent(explorer, "picture")
    explorer.screen.viewer._received(None, {"type": "cryotwin", "event": "picture"}, [memoryview(b"png")])
    assert (tmp_path / "shots" / "snapshot_000.png").read_bytes() == b"png"
    (tmp_path / "a file").touch()
    explorer.controls.folder.value = str(tmp_path / "a file")
    explorer.screen.viewer._received(None, {"type": "cryotwin", "event": "picture"}, [memoryview(b"png")])
    assert "Not possible" in explorer.controls.message.value
    explorer.screen.viewer._received(None, {"type": "cryotwin", "event": "failed", "reason": "no WebGL"}, [])
    assert "no WebGL" in explorer.controls.message.value


def test_readers_without_a_kernel_see_the_last_picture(explorer, monkeypatch):
    shown = []

    class Handle:
        def update(self, bundle, raw):
            shown.append(bundle)

    monkeypatch.setattr(
        "cryotwin_nb.explorer.still.display", lambda bundle, raw, display_id=False: shown.append(bundle) or Handle()
    )
    explorer._ipython_display_()
    widget, first = shown
    assert widget["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    explorer.choose(0, 2).compute()
    explorer.step = 5
    assert shown[-1]["image/png"] != first["image/png"]
    assert 5_000 < len(shown[-1]["image/png"]) < 400_000


@pytest.mark.parametrize("computed", [False, True])
def test_the_figure_shows_the_same_view(explorer, computed):
    if computed:
        explorer.choose(0, 2).compute()
        explorer.step = 6
    figure = explorer.figure()
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    titles = [ax.get_title() for ax in figure.axes]
    assert any("step 6 of 11" in title for title in titles) is computed
    assert any("Choose two stars" in text for text in texts) is not computed
    stars = next(ax for ax in figure.axes if ax.get_xlabel())  # latent coordinates have units and ticks
    assert "latent units" in stars.get_xlabel() and len(stars.get_xticks()) > 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"latents": torch.zeros(9, 2)}, "latents"),
        ({"voxel_size": 0.0}, "voxel_size"),
        ({"embedding": np.zeros((4, 2))}, "embedding"),
        ({"columns": {"x": np.zeros(3)}}, "'x'"),
        ({"labels": ["a", "b"]}, "labels"),
    ],
)
def test_arguments_that_do_not_belong_together_are_refused(change, named):
    given = {"latents": torch.zeros(9, 3), "decode": decode} | change
    with pytest.raises(InputError, match=f"(?s){named}"):
        ct.PathwayExplorer(prior_of_three(), **given)


def test_a_wrong_nglview_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(maps, "version", lambda name: "4.0.1")
    with pytest.raises(InputError, match=r"pip install nglview==4\.0"):
        ct.PathwayExplorer(prior_of_three(), torch.zeros(9, 3), decode)


def test_bytes_of_a_map_are_a_valid_mrc_file(tmp_path):
    values = np.arange(-32, 32, dtype=np.int8).reshape(4, 4, 4)
    (tmp_path / "map.mrc").write_bytes(map_bytes(values, 2.5))
    assert mrcfile.validate(tmp_path / "map.mrc", print_file=io.StringIO())
    with mrcfile.open(tmp_path / "map.mrc") as file:
        np.testing.assert_array_equal(file.data, values)
        assert file.voxel_size.z == 2.5


def test_maps_use_all_of_their_byte(explorer):
    """The densest voxel becomes 127, two standard deviations below the mean becomes -127."""
    explorer.choose(0, 1).compute()
    viewer = explorer.screen.viewer
    offset, factor = viewer._scale
    assert (float(explorer.maps.max()) - offset) * factor == pytest.approx(127, abs=0.01)
    values = np.frombuffer(viewer._maps[int(explorer.maps.amax((1, 2, 3)).argmax())][1024:], np.int8)
    assert values.max() == 127 and values.min() >= -127


def test_the_highest_value_has_the_colour_at_the_end_of_the_ramp():
    coloured = planes.colouring("x", np.linspace(0, 1, 1001))
    last = "#" + "".join(f"{channel:02x}" for channel in coloured.rgb[-1])
    distance = max(abs(int(last[i : i + 2], 16) - int(coloured.legend["ramp"][-1][i : i + 2], 16)) for i in (1, 3, 5))
    assert distance <= 1


def test_the_picture_of_a_view_is_cut_to_the_molecule(explorer):
    explorer.choose(0, 1).compute()
    figure = draw_view(explorer.screen.view(), pixels=200)
    (right,) = [axes for axes in figure.axes if axes.get_title().startswith("step")]
    height, width = right.images[0].get_array().shape[:2]
    assert 40 < min(height, width) < 190


def test_a_linear_plane_has_axes_in_latent_units_and_an_embedding_has_none(explorer):
    stars = explorer.screen.stars
    for plane in explorer.screen._planes.values():
        stars.show_plane(plane, planes.colouring("x", np.zeros(len(plane.points))))
        assert (stars.unit == "latent units") == any(plane.axes)
        assert stars.axes == (list(plane.axes) if any(plane.axes) else ["embedding", ""])
