"""What is taken out of an explorer: planes and colours, selections, figures, views and files."""

from __future__ import annotations

import csv
import gc
import json
import os
import subprocess
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_explorer import an_explorer, ask, decode, prior_of_three, recorded, settings, told

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer import messages_of_planes, ngl, planes
from cryotwin_nb.explorer.figure import draw_view
from cryotwin_nb.explorer.request import fingerprint
from cryotwin_nb.explorer.saving import _write_support, write_snapshot
from cryotwin_nb.explorer.selection import composition
from cryotwin_nb.formats.mrc import read_map


@pytest.fixture
def explorer():
    return an_explorer()


def test_planes_and_colours_can_be_switched():
    prior = prior_of_three()
    z = prior.sample(400)
    label = np.where(z[:, 0] > 4, "right", "left")
    umap = np.stack([z[:, 0] * 2, z[:, 1] - z[:, 2]], axis=1)
    columns = pd.DataFrame({"defocus": np.linspace(1, 2, 400), "class": np.arange(400) % 5})
    explorer = recorded(ct.PathwayExplorer(prior, z, decode, embedding=umap, labels=label, columns=columns))
    assert explorer.setup["planes"][:2] == ["embedding", "PC 1, 2"] and "latent 2, 3" in explorer.setup["planes"]
    assert explorer.setup["columns"] == ["log density (nats)", "label", "defocus", "class"]
    assert explorer.names == {0: "left", 2: "right"} | ({1: explorer.names[1]} if 1 in explorer.names else {})
    explorer.choose(0, 2).compute()
    for plane in explorer.setup["planes"]:
        ask(explorer, "plane", plane=plane, settings=settings(explorer))
        content, (points,) = explorer.sent[-1]
        assert len(content["path"]["steps"]) == 12 and content["path"]["version"] == explorer.session.version
        assert len(points) == 400 * 8 and len(content["plane"]["stars"]) == 3
        known = plane != "embedding"
        assert (content["plane"]["unit"] == "latent units") == known == any(content["plane"]["axes"][1:])
    ask(explorer, "plane", plane="latent 1, 3", settings=settings(explorer))
    steps = told(explorer, "plane")[-1]["path"]["steps"]
    np.testing.assert_allclose(steps, explorer.path.latents[:, [0, 2]], atol=1e-6)
    for name, legend in (("class", "entries"), ("defocus", "ramp")):
        ask(explorer, "colours", colour=name)
        content, (rgb,) = explorer.sent[-1]
        assert legend in content["legend"] and len(rgb) == 400 * 3


def test_latents_and_colours_travel_in_advance_within_a_budget(monkeypatch):
    prior, z = prior_of_three(), prior_of_three().sample(400)
    columns = {"empty": np.full(400, np.nan), "class": np.arange(400) % 5}
    explorer = recorded(ct.PathwayExplorer(prior, z, decode, embedding=z[:, :2], columns=columns))
    ask(explorer, "hello")
    ((content, (latents,)),) = [sent for sent in explorer.sent if sent[0]["kind"] == "space"]
    np.testing.assert_array_equal(np.frombuffer(latents, "<f4").reshape(400, 3), explorer.latents)
    assert list(content["planes"]) == explorer.setup["planes"][1:], "an embedding is not linear"
    for name, drawn in content["planes"].items():
        place = (explorer.latents.double().numpy() - drawn["centre"]) @ np.array(drawn["matrix"])
        np.testing.assert_allclose(place, explorer.session.model.planes[name].place(explorer.latents), atol=1e-9)
    assert [palette["colour"] for palette in told(explorer, "palette")] == ["log density (nats)", "class"]
    monkeypatch.setattr(messages_of_planes, "LIVE", 400 * 3)
    explorer.sent.clear()
    ask(explorer, "hello")
    assert not told(explorer, "space") and len(told(explorer, "palette")) == 1


def test_other_points_stand_among_their_nearest_latents_in_an_embedding():
    prior, z = prior_of_three(), torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)) * 3 + 3
    plane = planes.planes(z, z[:, :2].numpy() * 10)["embedding"]
    np.testing.assert_allclose(plane.place(z[:5]), z[:5, :2].numpy() * 10, atol=1e-3)
    assert np.abs(plane.place(prior.means) - 10 * prior.means[:, :2].numpy()).max() < 15


def test_principal_components_are_those_of_an_svd_with_fixed_signs():
    z = prior_of_three().sample(500)
    plane = planes.planes(z, None)["PC 1, 2"]
    _, _, directions = np.linalg.svd((z - z.mean(0)).numpy(), full_matrices=False)
    directions = directions * np.sign(directions.sum(1, keepdims=True))
    np.testing.assert_allclose(plane.points(z, np.arange(500)), (z - z.mean(0)).numpy() @ directions[:2].T, atol=1e-4)


def test_all_particles_are_shown_up_to_half_a_million_and_many_labels_merged():
    assert len(planes.shown_rows(500_000)) == 500_000 and len(planes.shown_rows(2_000_000)) == planes.MAX_POINTS
    many = planes.colouring("id", np.array([f"c{i % 60}" for i in range(600)]))
    assert len(many.legend["entries"]) == 24
    assert ["others" in [name for name, _ in many.legend["entries"]]] == [True]


def test_the_highest_value_has_the_colour_at_the_end_of_the_ramp():
    coloured = planes.colouring("x", np.linspace(0, 1, 1001))
    last = "#" + "".join(f"{channel:02x}" for channel in coloured.rgb[-1])
    distance = max(abs(int(last[i : i + 2], 16) - int(coloured.legend["ramp"][-1][i : i + 2], 16)) for i in (1, 3, 5))
    assert distance <= 1


# --------------------------------------------------------------------------------------------------------- selections


def test_the_composition_of_a_selection_is_counted_by_any_column():
    labels = np.array(["a", "b", "b", "c", "b", "a"])
    assert composition(labels, np.array([1, 2, 5])) == [["b", 2, 3], ["a", 1, 2], ["c", 0, 1]]
    values = np.append(np.arange(1.0, 801), np.nan)
    parts = composition(values, np.array([0, 1, 799, 800]))
    assert [part[1:] for part in parts] == [[2, 100], *[[0, 100]] * 6, [1, 100], [1, 1]]
    assert parts[0][0] == "1 to 100.9" and parts[-1][0] == "not finite"
    explorer = an_explorer(columns={"class": np.arange(600) % 3})
    ask(explorer, "selection", np.arange(0, 600, 3, dtype="<u4").tobytes(), colour="class")
    assert told(explorer, "selection")[-1]["parts"] == [["0", 200, 200], ["1", 0, 200], ["2", 0, 200]]
    for buffers in ([], [b"x"], [np.array([600], "<u4").tobytes()], [b""]):
        ask(explorer, "selection", *buffers, colour="class")
        assert told(explorer, "failed")[-1]["word"] == "Not possible."


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    file = tmp_path_factory.mktemp("images") / "p.star"
    ct.simulate.hinge(600, 16, seed=0, progress=False).write(file, progress=False)
    return ct.Particles.read(file, contrast="dark")


def test_selected_particles_are_reconstructed_and_written(images):
    explorer = an_explorer(particles=images, voxel_size=None)
    assert explorer.voxel_size == pytest.approx(images.pixel_size) and explorer.setup["particles"]
    rows = np.arange(0, 600, 1, dtype="<u4")
    ask(explorer, "mean", rows.tobytes())
    first, last = told(explorer, "single")
    assert "from 400 images" in first["title"] and "from 600 images" in last["title"]
    assert last["maps"]["size"] == 16 and last["maps"]["voxel"] == pytest.approx(images.pixel_size)
    assert "600 images: half maps agree to" in told(explorer, "done")[-1]["text"]
    few = Path(images.source).with_name("few.star")
    ask(explorer, "write", rows[:7].tobytes(), file=str(few))
    assert len(ct.Particles.read(few, contrast="dark")) == 7
    explorer.choose(0, 2).compute()
    ask(explorer, "mean", step=0, version=explorer.session.version)
    count = len(explorer.session.answer.profile.particles[0])
    assert told(explorer, "single")[-1]["title"] == f"mean map of step 0 from {count:,} images"
    with pytest.raises(InputError, match="particles"):
        ct.PathwayExplorer(explorer.prior, explorer.latents[:9], decode, particles=images)


def test_without_images_it_is_said_why_there_is_no_mean_map(explorer):
    assert explorer.setup["particles"] is False
    for do in ("mean", "write"):
        ask(explorer, do, np.arange(3, dtype="<u4").tobytes(), file="x.star")
        assert "opened without images" in told(explorer, "failed")[-1]["text"]


# -------------------------------------------------------------------------------------------------------------- files


def test_an_export_is_read_by_other_tools_and_restores_the_explorer(explorer, tmp_path):
    explorer.set(method="Algorithm 1", seed=3, n_steps=4).choose(2, 0).compute()
    explorer.set(step=4, sigma=2.7, plane="PC 1, 3")
    for step in (4, 99):
        write_snapshot(tmp_path / "out", step, b"png")
    version, look = explorer.session.version, explorer.session.look.as_dict()
    ask(explorer, "export", version=version, look=look, folder=str(tmp_path / "out"), movie=True)
    assert "files written to" in told(explorer, "done")[-1]["text"]
    assert any("movie" in message["text"] for message in told(explorer, "progress"))
    assert [file.name for file in (tmp_path / "out").glob("snapshot*")] == ["snapshot_004.png"]  # no longer path's
    assert "snapshot_004.png" in json.loads((tmp_path / "out" / "explorer.json").read_text())["files"]
    assert {"pathway.cxc", "pathway.pml", "pathway.mvsj"} < {file.name for file in (tmp_path / "out").iterdir()}
    volume, voxel = read_map(tmp_path / "out" / "map_004.mrc")
    np.testing.assert_allclose(volume, explorer.maps[4].numpy(), atol=1e-6)
    assert voxel == 3.0
    level = explorer.session.model.stars.packing.level(2.7)
    assert f"level {level:.6g}" in (tmp_path / "out" / "pathway.cxc").read_text()
    with Image.open(tmp_path / "out" / "pathway.gif") as movie, Image.open(tmp_path / "out" / "pathway.png") as still:
        assert movie.n_frames > 5
        assert still.width > 1000
    again = ct.PathwayExplorer.restore(tmp_path / "out", explorer.prior, explorer.latents, decode, voxel_size=3.0)
    torch.testing.assert_close(again.path.latents, explorer.path.latents)
    assert again.session.look == explorer.session.look
    explorer.export(tmp_path / "out")
    assert not (tmp_path / "out" / "pathway.gif").exists(), "a movie only on request"


def test_no_map_is_written_with_a_voxel_size_that_nobody_gave(tmp_path):
    explorer = an_explorer(voxel_size=None)
    explorer.choose(0, 2).set(n_steps=2).compute()
    with pytest.raises(InputError, match="voxel size is not known"):
        explorer.export(tmp_path / "out")
    assert told(explorer, "path")[0]["maps"]["voxel"] is None and not (tmp_path / "out").exists()
    ask(explorer, "voxel", value=0)
    assert explorer.voxel_size is None
    ask(explorer, "voxel", value=2.5)
    explorer.export(tmp_path / "out")
    assert read_map(tmp_path / "out" / "map_000.mrc")[1] == 2.5


def test_nothing_is_exported_without_a_path(explorer, tmp_path):
    ask(explorer, "export", version=0, look={}, folder=str(tmp_path / "new"))
    assert "Choose two stars" in told(explorer, "failed")[-1]["text"]
    with pytest.raises(InputError, match="no path"):
        explorer.export(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_two_explorers_never_write_into_one_folder(explorer, tmp_path):
    other = an_explorer()
    for one in (explorer, other):
        one.choose(0, 2).set(n_steps=2).compute()
    explorer.export(tmp_path / "mine")
    with pytest.raises(InputError, match="Another explorer"):
        other.export(tmp_path / "mine")
    ask(other, "snapshot", b"\x89PNG\r\n\x1a\n", step=0, folder=str(tmp_path / "mine"))
    assert "Another explorer" in told(other, "failed")[-1]["text"]
    explorer.close()
    other.export(tmp_path / "mine")


def test_a_snapshot_of_the_browser_becomes_a_file(explorer, tmp_path):
    png = b"\x89PNG\r\n\x1a\n..."
    ask(explorer, "snapshot", png, step=0, folder=str(tmp_path / "shots"))
    assert (tmp_path / "shots" / "snapshot_000.png").read_bytes() == png
    assert "Snapshot written" in told(explorer, "done")[-1]["text"]
    (tmp_path / "a file").touch()
    for buffers, folder in (((png,), "a file"), ((b"GIF",), "shots"), ((), "shots")):
        ask(explorer, "snapshot", *buffers, step=0, folder=str(tmp_path / folder))
        assert told(explorer, "failed")[-1]["word"] == "Not possible."


# ------------------------------------------------------------------------------------------------------------ support


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
    return an_explorer(support=support)


def test_support_by_images_is_asked_by_a_button_and_drawn_with_the_finest_on_top(supported):
    assert supported.setup["support"] is True and an_explorer().setup["support"] is False
    ask(supported, "support", version=0)
    assert "Choose two stars and press Compute" in told(supported, "failed")[-1]["text"]
    supported.choose(0, 2).compute()
    assert supported.support is None and told(supported, "answer")[-1]["support"] is None
    ask(supported, "support", version=supported.session.version)
    (sent,) = told(supported, "support")
    assert sent["resolution"][3] == 17.0 and sent["resolution"][4] is None and sent["images"][3] == 130
    (axis,) = (ax for ax in supported.figure().axes if "half maps (Å)" in ax.get_ylabel())
    assert axis.yaxis_inverted()
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), supported.support.resolution)
    supported.choose(0, 1).compute()
    assert supported.support is None, "of another path"


def test_support_is_exported_and_does_not_outlive_its_path(supported, tmp_path):
    supported.set(n_steps=4).choose(0, 2).compute()
    ask(supported, "support", version=supported.session.version)
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
    supported.set(n_steps=4).choose(0, 2).compute()
    supported.session.model.search().support = lambda path: Findings(np.full(5, 20.0), np.full(5, 100.0))
    ask(supported, "support", version=supported.session.version)
    (sent,) = told(supported, "support")
    assert sent["verdict"] == "Not supported by the images: 1."
    assert sent["findings"][:3] == [[], ["density is missing, at x", "cross-fade"], []]
    _write_support(tmp_path / "support.csv", supported.support)
    with open(tmp_path / "support.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["findings"] for row in table] == ["", "density is missing, at x; cross-fade", "", "", ""]


def test_what_is_no_support_is_refused_in_words(supported):
    supported.choose(0, 2).compute()
    supported.session.model.search().support = lambda path: Support(np.ones(3), np.ones(12))
    ask(supported, "support", version=supported.session.version)
    assert "(12,)" in told(supported, "failed")[-1]["text"] and supported.support is None


# ------------------------------------------------------------------------------------------------ views and pictures


def test_a_view_is_small_and_restores_everything(explorer, tmp_path):
    explorer.names.update({0: "core"})
    explorer.set(n_steps=4).choose(0, "S2", via=[1]).compute()
    camera = {"turn": [0.0, 0.0, 0.6, 0.8], "zoom": 2.0, "shift": [0.0, 0.1]}
    explorer.set(step=3, sigma=3.1, ghost=True, camera=camera)
    view = json.loads(json.dumps(explorer.view()))
    assert len(json.dumps(view)) < 2000
    (tmp_path / "view.json").write_text(json.dumps(view))
    bundle = explorer.picture._bundle(b"")
    notebook = {"cells": [{"outputs": [{"data": json.loads(json.dumps(bundle))}]}, {}]}
    (tmp_path / "n.ipynb").write_text(json.dumps(notebook))
    for source in (view, tmp_path / "view.json", tmp_path / "n.ipynb"):
        again = ct.PathwayExplorer.restore(source, explorer.prior, explorer.latents, decode)
        assert again.view() == view and again.session.look.camera == camera
        torch.testing.assert_close(again.path.latents, explorer.path.latents)
        assert again.names == {0: "core"} and again.card["look"]["step"] == 3


def test_a_view_of_another_model_is_refused_in_one_sentence(explorer):
    other = ct.GaussianMixture([0.5, 0.5], torch.zeros(2, 3) + torch.arange(2)[:, None], torch.eye(3).expand(2, 3, 3))
    with pytest.raises(InputError, match=r"^This view belongs to another model"):
        ct.PathwayExplorer.restore(explorer.view(), other, torch.zeros(9, 3), decode)


GIVEN = {"start": 0, "end": 1, "method": "MaxFlux", "n_steps": 4, "omega": 2.0, "seed": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"kind": "other"},
        {"version": 2},
        {"chosen": -1},
        {"chosen": True},
        {"names": {"0": 3}},
        {"names": {"../0": "x"}},
        {"names": {"0": "x" * 300}},
        {"look": {"step": "1"}},
        {"look": {"folder": "/etc"}},
        {"ends": "x"},
        {"settings": {"start": 0}},
        {"settings": {"start": 0, "end": [1e999, 0, 0], "method": "MaxFlux", "n_steps": 4, "omega": 2.0, "seed": 0}},
        {"settings": {"start": 0, "end": 1, "method": "MaxFlux", "n_steps": 10**9, "omega": 2.0, "seed": 0}},
        {
            "settings": {
                "start": 0,
                "end": 1,
                "method": "MaxFlux",
                "n_steps": 4,
                "omega": 2.0,
                "seed": 0,
                "ways": [0] * 99,
            }
        },
    ],
)
def test_a_view_is_read_as_untrusted_text(explorer, change, tmp_path):
    (tmp_path / "view.json").write_text(json.dumps(explorer.view() | change))
    with pytest.raises(InputError):
        ct.PathwayExplorer.restore(tmp_path / "view.json", explorer.prior, explorer.latents, decode)


@pytest.mark.parametrize("text", ["", "[1]", '{"kind": "PathwayExplorer"}', '{"kind": "PathwayExplorer", "shown": {}}'])
def test_a_file_that_is_no_note_is_refused_by_name(tmp_path, text):
    (tmp_path / "explorer.json").write_text(text)
    for source in (tmp_path, tmp_path / "explorer.json"):
        with pytest.raises(InputError, match=r"explorer\.json"):
            ct.PathwayExplorer.restore(source, prior_of_three(), torch.zeros(9, 3), decode)


def test_a_note_of_another_mixture_is_refused(explorer, tmp_path):
    explorer.set(n_steps=2).choose(0, 2).compute()
    explorer.export(tmp_path)
    other = ct.GaussianMixture([0.5, 0.5], torch.zeros(2, 3) + torch.arange(2)[:, None], torch.eye(3).expand(2, 3, 3))
    with pytest.raises(InputError, match="this mixture"):
        ct.PathwayExplorer.restore(tmp_path, other, torch.zeros(9, 3), decode)
    assert fingerprint(explorer.prior) == fingerprint(explorer.prior.detach())


@pytest.fixture
def displayed(monkeypatch):
    """What is displayed, as MIME bundles."""
    shown = []

    class Handle:
        def update(self, bundle, raw):
            shown.append(bundle)

    monkeypatch.setattr(
        "cryotwin_nb.explorer.still.display", lambda bundle, raw, display_id=False: shown.append(bundle) or Handle()
    )
    return shown


def test_without_a_browser_the_picture_is_drawn_by_the_kernel(explorer, displayed):
    explorer._ipython_display_()
    widget, first = displayed
    assert widget["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    explorer.choose(0, 2).compute()
    explorer.step = 5
    assert len(displayed) == 2, "only at the end of a cell"
    explorer.picture._draw_now()
    assert displayed[-1]["image/png"] != first["image/png"]
    assert 5_000 < len(displayed[-1]["image/png"]) < 400_000


def test_with_a_browser_the_picture_is_the_browsers(explorer, displayed, monkeypatch):
    monkeypatch.setattr("cryotwin_nb.explorer.still.cell_of", lambda: ("cell", 1))
    monkeypatch.setattr(explorer.picture, "_draw", lambda: pytest.fail("drawn by the kernel"))
    explorer._ipython_display_()
    explorer.choose(0, 2).compute()
    ask(explorer, "picture", b"\x89PNG\r\n\x1a\nmine")
    assert displayed[-1]["image/png"] == "iVBORw0KGgptaW5l"
    ask(explorer, "picture", b"<script>")
    assert told(explorer, "failed")[-1]["word"] == "Not possible." and len(displayed) == 3


def test_running_a_cell_again_closes_what_it_opened_and_gives_the_memory_back(monkeypatch):
    here = ["cell", 1]
    monkeypatch.setattr("cryotwin_nb.explorer.widget.cell_of", lambda: tuple(here))
    first, second = an_explorer(), an_explorer()
    first.choose(0, 2).compute()
    maps = weakref.ref(first.maps)
    assert second.comm is not None and first.comm is not None, "two explorers of one run stay open"
    here[1] = 2
    third = an_explorer()
    gc.collect()
    assert first.comm is None and second.comm is None and third.comm is not None
    assert first.maps is None and maps() is None
    with pytest.raises(InputError, match="closed"):
        first.choose(0, 1)
    first.close()


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


def test_the_picture_of_a_view_is_cut_to_the_molecule(explorer):
    explorer.choose(0, 1).compute()
    figure = draw_view(explorer.picture_of(explorer.session.answer, explorer.session.look), pixels=200)
    (right,) = [axes for axes in figure.axes if axes.get_title().startswith("step")]
    height, width = right.images[0].get_array().shape[:2]
    assert 40 < min(height, width) < 190


def test_nglview_is_an_extra_viewer_whose_version_is_checked(explorer, monkeypatch):
    with pytest.raises(InputError, match="no path"):
        explorer.show(viewer="nglview")
    explorer.set(n_steps=2).choose(0, 2).compute()
    slider, view = explorer.show(viewer="nglview").children
    assert (slider.max, len(view._ngl_component_ids)) == (2, 3)
    monkeypatch.setattr(ngl, "version", lambda name: "4.0.1")
    with pytest.raises(InputError, match=r"pip install nglview==4\.0"):
        explorer.show(viewer="nglview")


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


@pytest.mark.parametrize("values", [{"method": "Other"}, {"n_steps": 1}, {"plane": "x"}, {"colour": "x"}, {"end": 1}])
def test_settings_that_do_not_exist_are_refused(explorer, values):
    before = explorer.card
    with pytest.raises(InputError, match=next(iter(values))):
        explorer.set(**values)
    assert explorer.card == before


OPEN = """
import sys, torch
import cryotwin_nb as ct
prior = ct.GaussianMixture([0.5, 0.5], torch.eye(2), torch.eye(2).expand(2, 2, 2))
z = prior.sample(50)
ct.CryoTwin
ct.PathwayExplorer(prior, z, lambda z: z, embedding=z)._draw_first()
print(*sys.modules)
"""


def test_the_stars_wait_for_no_figures_tables_or_solvers():
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", OPEN], env=environment, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "cryotwin_nb.explorer.widget" in loaded
    heavy = {"pandas", "scipy", "sklearn", "openTSNE", "numba", "nglview", "matplotlib.figure", "matplotlib.pyplot"}
    assert not heavy & loaded
