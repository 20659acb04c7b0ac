"""Files written for a pathway agree with the pathway."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from urllib.parse import unquote

import mrcfile
import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.chimerax import path_colors
from cryotwin_nb.imaging.fourier import mirrored
from cryotwin_nb.pathways.ridgeline import Pathway, pathway_from_knots


@pytest.fixture(scope="module")
def prior() -> ct.GaussianMixture:
    return ct.GaussianMixture([0.5, 0.5], torch.tensor([[0.0, 1e-3], [4.0, -7e4]]), torch.eye(2).expand(2, 2, 2))


def path_of(prior: ct.GaussianMixture, n_steps: int) -> Pathway:
    return pathway_from_knots(prior, prior.means, n_steps, start=0, end=1, method="line")


def maps_of(path: Pathway) -> torch.Tensor:
    return torch.randn(len(path.latents), 8, 8, 8, generator=torch.Generator().manual_seed(len(path.latents)))


def test_maps_and_the_differences_of_neighbours_are_written(prior, tmp_path):
    path = path_of(prior, 3)
    maps = maps_of(path)
    files = ct.write_pathway(tmp_path / "new" / "path", path, maps, voxel_size=2.5)
    assert [f.name for f in files] == [f"map_{k:03d}.mrc" for k in range(4)]
    for k, file in enumerate(files):
        volume, voxel_size = ct.read_map(file)
        assert voxel_size == pytest.approx(2.5)
        np.testing.assert_array_equal(volume, maps[k])
    assert not (files[0].parent / "difference_000.mrc").exists()
    for k in (1, 2, 3):
        difference, voxel_size = ct.read_map(files[0].with_name(f"difference_{k:03d}.mrc"))
        assert voxel_size == pytest.approx(2.5)
        np.testing.assert_array_equal(difference, maps[k] - maps[k - 1])


def test_latents_read_back_as_they_were(prior, tmp_path):
    """float32 needs nine digits: the text contains the same numbers as the array."""
    path = pathway_from_knots(prior, torch.randn(5, 2, generator=torch.Generator().manual_seed(3)) * 1e3)
    ct.write_pathway(tmp_path, path, maps_of(path), 1.0)
    np.testing.assert_array_equal(np.load(tmp_path / "latents.npy"), path.latents)
    text = np.loadtxt(tmp_path / "latents.txt")
    assert text.shape == (5, 2)
    np.testing.assert_array_equal(text.astype(np.float32), path.latents)


def test_the_summary_and_the_script_are_those_of_the_path(prior, tmp_path):
    path = path_of(prior, 2)
    maps = maps_of(path)
    ct.write_pathway(tmp_path, path, maps, 1.5, sigma=2.0)
    summary = json.loads((tmp_path / "path.json").read_text())
    assert (summary["method"], summary["start"], summary["end"], summary["voxel_size"]) == ("line", 0, 1, 1.5)
    assert summary["log_prob"] == pytest.approx(path.log_prob.tolist())
    assert (summary["log_cost"], summary["barrier"]) == pytest.approx((path.log_cost, path.barrier))
    script = (tmp_path / "pathway.cxc").read_text()
    assert all(f"map_{k:03d}.mrc" in script for k in range(3)) and "difference" not in script
    assert f"{2 * float(maps.std()):.3g}"[:4] in script


def test_maps_come_on_the_grid_of_the_original_images(prior, tmp_path):
    """Same cube, finer voxels; contour, differences and the voxel size in the summary change accordingly."""
    path = path_of(prior, 1)
    maps = maps_of(path)
    files = ct.write_pathway(tmp_path, path, maps, 3.0, level=0.5, box_size=24)
    for k, file in enumerate([*files, tmp_path / "difference_001.mrc"]):
        volume, voxel_size = ct.read_map(file)
        expected = maps[k] if k < 2 else maps[1] - maps[0]
        assert volume.shape == (24, 24, 24) and voxel_size == pytest.approx(1.0)
        np.testing.assert_allclose(volume[::3, ::3, ::3], expected, atol=1e-5)
    assert json.loads((tmp_path / "path.json").read_text())["voxel_size"] == pytest.approx(1.0)
    assert "level 0.5" in (tmp_path / "pathway.cxc").read_text()


@pytest.mark.parametrize("box_size", [9, 6, 7])
def test_a_coarser_or_odd_grid_is_refused(prior, tmp_path, box_size):
    path = path_of(prior, 1)
    with pytest.raises(InputError, match=f"a map of 8 for a box of {box_size}"):
        ct.write_pathway(tmp_path, path, maps_of(path), 3.0, box_size=box_size)
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_former_longer_path_are_removed_and_others_kept(prior, tmp_path):
    for n_steps in (5, 2):
        path = path_of(prior, n_steps)
        ct.write_pathway(tmp_path, path, maps_of(path), 1.0)
        for name in ("map_of_mine.mrc", "map_B_1.mrc"):
            (tmp_path / name).write_bytes(b"")
    expected = {*(f"map_{k:03d}.mrc" for k in range(3)), "difference_001.mrc", "difference_002.mrc"}
    expected |= {"map_of_mine.mrc", "map_B_1.mrc"}
    for name in ("pathway.cxc", "pathway.pml", "pathway.mvsj"):
        assert set(re.findall(r"map_\d{3}\.mrc", (tmp_path / name).read_text())) == {f"map_00{k}.mrc" for k in range(3)}
    assert {file.name for file in tmp_path.glob("*.mrc")} == expected


# ------------------------------------------------------------------------------------------------------------- viewers


@pytest.fixture
def written(prior, tmp_path):
    """Return a folder with a difficult name, the path of 4 points that is in it, and its maps."""
    path = path_of(prior, 3)
    folder, maps = tmp_path / 'it\'s a "path" [1-3] #1 & 50%', maps_of(path)
    ct.write_pathway(folder, path, maps, 2.5, level=1.25)
    return folder, path, maps


def test_the_viewers_show_the_same_maps_at_one_level_in_the_same_colours(written):
    folder, _, maps = written
    names, colors = [f"map_{k:03d}.mrc" for k in range(4)], path_colors(4)
    cxc, pml = (folder / "pathway.cxc").read_text(), (folder / "pathway.pml").read_text()
    assert re.findall(r'^open "(.+)" id', cxc, re.M) == names and re.findall(r" color (\S+)$", cxc, re.M) == colors
    assert re.findall(r"\('(map.+)', '0x(.+)'\),", pml) == [(n, c[1:]) for n, c in zip(names, colors, strict=True)]
    assert " level 1.25\n" in cxc and "    level=1.25,\n" in pml
    snapshots = json.loads((folder / "pathway.mvsj").read_text())["snapshots"]
    assert len({json.dumps(s["root"]["children"][1]) for s in snapshots}) == 1  # one view, of the middle of the maps
    assert snapshots[0]["root"]["children"][1]["params"]["target"] == [maps.shape[-1] // 2 * 2.5] * 3
    for snapshot, name, color in zip(snapshots, names, colors, strict=True):
        download = snapshot["root"]["children"][0]
        assert (folder / unquote(download["params"]["url"])).samefile(folder / name)
        surface = download["children"][0]["children"][0]["children"][0]
        assert surface["params"] == {"type": "isosurface", "absolute_isovalue": 1.25}
        assert surface["children"][0]["params"] == {"color": color}


def test_scripts_of_two_pathways_can_be_open_in_chimerax(prior, tmp_path):
    numbers = []
    for n_steps in (2, 2, 3):
        path = path_of(prior, n_steps)
        ct.write_pathway(tmp_path, path, maps_of(path), 1.0)
        numbers += re.findall(r"^close #(\d{4})$", (tmp_path / "pathway.cxc").read_text(), re.M)
    assert len(numbers) == 3 and numbers[0] == numbers[1] != numbers[2]


@pytest.mark.parametrize("setting", ["1", "0"])
@pytest.mark.parametrize("fails", [False, True])
def test_pymol_does_not_normalise_the_maps_and_keeps_its_setting(written, monkeypatch, setting, fails):
    folder, state, loaded = written[0], {"normalize_ccp4_maps": setting}, []

    def load(file, name):
        loaded.append((file, state["normalize_ccp4_maps"]))
        if fails:
            raise OSError

    cmd = SimpleNamespace(load=load, get=state.get, set=state.__setitem__, get_unused_name=lambda prefix, _: prefix)
    for name in ("isosurface", "color", "disable", "enable", "group", "scene", "scene_order", "zoom"):
        setattr(cmd, name, lambda *_, **__: None)
    module = ModuleType("pymol")
    module.cmd = cmd
    monkeypatch.setitem(sys.modules, "pymol", module)
    script = (folder / "pathway.pml").read_text().split("\npython\n")[1].removesuffix("python end\n")
    try:
        exec(compile(script, "pathway.pml", "exec"), {"__script__": f"{folder / 'pathway.pml'}"})
    except OSError:
        assert fails
    assert state == {"normalize_ccp4_maps": setting}
    assert loaded == [(f"{folder / f'map_00{k}.mrc'}", 0) for k in range(1 if fails else 4)]


@pytest.mark.skipif(shutil.which("pymol") is None, reason="requires PyMOL")
def test_pymol_opens_the_maps(written, tmp_path):
    folder, _, maps = written
    (tmp_path / "report.py").write_text(
        "import json\n"
        "from pymol import cmd\n"
        "found = {name: [cmd.isolevel(name, query=1), cmd.get_volume_field(name + '_map').tolist()]\n"
        "         for name in cmd.get_names('objects') if cmd.get_type(name) == 'object:surface'}\n"
        "shown = {}\n"
        "for scene in cmd.get_scene_list():\n"
        "    cmd.scene(scene, 'recall', animate=0)\n"
        "    shown[scene] = [n for n in cmd.get_names('objects', enabled_only=1) if n in found]\n"
        f"json.dump([found, shown, cmd.get('normalize_ccp4_maps')], open({str(tmp_path / 'found.json')!r}, 'w'))\n"
    )
    subprocess.run(["pymol", "-cq", folder / "pathway.pml", tmp_path / "report.py"], check=True, timeout=120)
    found, shown, normalize = json.loads((tmp_path / "found.json").read_text())
    names = [f"pathway_{k:03d}" for k in range(4)]
    assert [*found] == names and shown == {name: [name] for name in names} and normalize in ("1", "on")
    for name, volume in zip(names, maps, strict=True):
        level, field = found[name]
        assert level == pytest.approx(1.25)
        np.testing.assert_allclose(np.transpose(field), volume, atol=1e-6)


def test_the_molviewspec_file_is_what_its_builder_writes(written):
    spec = pytest.importorskip("molviewspec")
    file = json.loads((written[0] / "pathway.mvsj").read_text())
    spec.States.model_validate(file)
    for step, (snapshot, color) in enumerate(zip(file["snapshots"], path_colors(4), strict=True)):
        spec.validate_state_tree(json.dumps({"kind": "single", "metadata": file["metadata"], "root": snapshot["root"]}))
        builder = spec.create_builder()
        volume = builder.download(url=f"map_{step:03d}.mrc").parse(format="map").volume()
        volume.representation(type="isosurface", absolute_isovalue=1.25).color(color=color)
        builder.camera(target=[10, 10, 10], position=[10, 10, 30], up=[0, 1, 0])
        built = builder.get_snapshot(title=f"Map {step}", key=f"map_{step:03d}", linger_duration_ms=500)
        expected = json.loads(built.model_dump_json(exclude_none=True).replace('"params":{},', ""))
        assert snapshot == expected


# ---------------------------------------------------------------------------------------------------------------- hand


@pytest.mark.parametrize("box_size", [None, 12])
def test_the_hand_is_flipped_in_all_maps_and_recorded(prior, tmp_path, box_size):
    path = path_of(prior, 2)
    maps = maps_of(path)
    ct.write_pathway(tmp_path / "one", path, maps, 1.5, box_size=box_size)
    files = ct.write_pathway(tmp_path / "other", path, maps, 1.5, box_size=box_size, flip_hand=True)
    for file in [*files, tmp_path / "other/difference_001.mrc", tmp_path / "other/difference_002.mrc"]:
        one = torch.as_tensor(ct.read_map(tmp_path / "one" / file.name)[0])
        np.testing.assert_allclose(ct.read_map(file)[0], mirrored(one), atol=1e-6)
        assert not np.allclose(ct.read_map(file)[0], one, atol=0.1)
        labels = [
            " ".join(mrcfile.open(tmp_path / k / file.name, header_only=True).get_labels()) for k in ("one", "other")
        ]
        assert ["Hand flipped" in label for label in labels] == [False, True]
    summaries = [json.loads((tmp_path / name / "path.json").read_text()) for name in ("one", "other")]
    digests = [summary.pop("sha256") for summary in summaries]
    assert {name for name in digests[0] if digests[0][name] != digests[1][name]} >= {file.name for file in files}
    assert [summary.pop("flipped_hand") for summary in summaries] == [False, True] and summaries[0] == summaries[1]
    for name in ("latents.txt", "pathway.cxc", "pathway.pml"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_another_number_of_maps_is_refused_before_anything_is_written(prior, tmp_path):
    with pytest.raises(InputError, match="3 maps, expected one for each of the 4 points"):
        ct.write_pathway(tmp_path / "path", path_of(prior, 3), torch.zeros(3, 8, 8, 8), 1.0)
    assert list(tmp_path.iterdir()) == []
