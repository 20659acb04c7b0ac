"""Files written for a pathway agree with the pathway."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
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
        (tmp_path / "map_of_mine.mrc").write_bytes(b"")
    expected = {*(f"map_{k:03d}.mrc" for k in range(3)), "difference_001.mrc", "difference_002.mrc", "map_of_mine.mrc"}
    assert {file.name for file in tmp_path.glob("*.mrc")} == expected


def test_another_number_of_maps_is_refused_before_anything_is_written(prior, tmp_path):
    with pytest.raises(InputError, match="3 maps, expected one for each of the 4 points"):
        ct.write_pathway(tmp_path / "path", path_of(prior, 3), torch.zeros(3, 8, 8, 8), 1.0)
    assert list(tmp_path.iterdir()) == []
