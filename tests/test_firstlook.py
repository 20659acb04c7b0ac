"""The first look identifies what is wrong with particles, and reports nothing for correct ones."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import matplotlib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import cryotwin_nb as ct
from cryotwin_nb import simulate
from cryotwin_nb.cli.main import main
from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import fft2, grid, ifft2
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.preparation.alternatives import errors_of
from cryotwin_nb.preparation.changes import pose_changes
from cryotwin_nb.preparation.hypotheses import Sample
from cryotwin_nb.simulate import images as images_module
from cryotwin_nb.truth import molecules

matplotlib.use("agg")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clean() -> Particles:
    return simulate.assembly(500, 32, seed=1, progress=False)


@pytest.fixture(scope="module")
def look(clean) -> ct.FirstLook:
    return ct.first_look(clean)


def changed(particles: Particles, **changes) -> Particles:
    parts = {name: getattr(particles, name) for name in ("rotations", "shifts", "ctf", "pixel_size", "contrast")}
    return Particles(**{"images": particles.images(slice(None))} | parts | changes)


def read_back(particles: Particles, folder, **options) -> Particles:
    """Write particles to files and read them back, like a user's data."""
    particles.write(folder / "p.star", progress=False)
    return Particles.read(folder / "p.star", **{"contrast": "dark"} | options)


def names(particles: Particles) -> list[str]:
    return [finding.name for finding in ct.first_look(particles).findings]


# ------------------------------------------------------------------------------------------------------ nothing wrong


def test_clean_images_raise_no_finding(look):
    assert look.findings == ()
    assert look.summary().startswith("Ready for training: nothing wrong")
    assert max(look.scores.values()) <= 0
    assert look.gain > 50
    assert look.errors.rotation_interval[0] == look.errors.shift_interval[0] == 0
    assert "rotation errors, apart from motions: 0.0° (0.0 to" in look.summary() and look.errors.n_modes == 0


@pytest.mark.parametrize(("kind", "box_size", "seed"), [("hinge", 32, 2), ("assembly", 64, 3), ("hinge", 64, 4)])
def test_neither_do_moving_molecules_nor_larger_boxes(kind, box_size, seed):
    assert names(getattr(simulate, kind)(400, box_size, seed=seed, progress=False)) == []


def test_the_map_is_the_molecule(clean, look):
    average = torch.stack([clean.truth.volume(i) for i in range(40)]).mean(0)
    assert look.voxel_size == clean.pixel_size
    # the map has the scale of the images: it agrees with the truth, not only up to a factor
    inside = average > 0.3 * average.max()
    assert float(look.map[inside].mean() / average[inside].mean()) == pytest.approx(1, abs=0.25)
    assert ct.fsc(look.map, average, 10.0).correlation[1:9].min() > 0.9
    assert look.resolution < 30
    assert ct.fsc(*look.half_maps, 10.0).correlation == pytest.approx(look.fsc.correlation)


# ------------------------------------------------------------------------------------------------- something is wrong


def test_transposed_rotations_are_named(clean, tmp_path):
    transposed = clean.rotations.transpose(0, 2, 1).copy()
    assert names(read_back(changed(clean, rotations=transposed), tmp_path)) == ["rotations transposed"]


def test_inverted_contrast_is_named(clean, tmp_path):
    look = ct.first_look(read_back(clean, tmp_path, contrast="light"))
    assert [finding.name for finding in look.findings] == ["contrast inverted"]
    assert "contrast='dark'" in look.findings[0].advice


@pytest.mark.parametrize("factor", [1.1, 1 / 1.1])
def test_a_wrong_pixel_size_is_named_and_estimated(clean, tmp_path, factor):
    look = ct.first_look(read_back(clean, tmp_path, pixel_size=10.0 * factor))
    assert [finding.name.split(" size")[0] for finding in look.findings] == ["pixel"]
    estimate = float(look.findings[0].evidence.split("about ")[1].split()[0])
    assert estimate == pytest.approx(10.0, abs=0.5)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_forgotten_binning_is_named(clean, tmp_path, factor):
    pixels = read_back(clean, tmp_path, pixel_size=10.0 * factor)
    pixels.shifts = pixels.shifts * np.float32(factor)  # a refinement reports them in pixels
    names = [finding.name for finding in ct.first_look(pixels).findings]
    assert names == [f"pixel size {100 / factor - 100:+.0f} %"]


@pytest.mark.filterwarnings("ignore:.*have a defocus of 0 or below")
def test_ctf_parameters_missing_for_half_are_named(clean, tmp_path):
    half = np.arange(len(clean)) % 2 == 0
    ctf = replace(
        clean.ctf,
        defocus_u=np.where(half, 0, clean.ctf.defocus_u),
        defocus_v=np.where(half, 0, clean.ctf.defocus_v),
    )
    look = ct.first_look(read_back(changed(clean, ctf=ctf), tmp_path))
    assert [finding.name for finding in look.findings] == ["CTF parameters missing for 50 % of the images"]


def test_half_of_the_images_without_ctf_is_named(clean, monkeypatch):
    truth = clean.truth
    positions, masses = truth.structure(torch.as_tensor(truth.coordinates))
    rows = np.arange(0, len(clean), 2)
    views = torch.as_tensor(clean.rotations[rows]), clean.ctf[rows], torch.as_tensor(clean.shifts[rows])
    arguments = positions.expand(len(clean), -1, -1)[rows], masses[rows], *views, 32, 10.0
    images = clean.images(slice(None)).copy()
    images[rows] -= images_module._project(*arguments)
    monkeypatch.setattr(ct.CTF, "__call__", lambda self, frequencies: -torch.ones(len(self), len(frequencies)))
    images[rows] += images_module._project(*arguments)
    monkeypatch.undo()
    found = names(changed(clean, images=images))
    assert len(found) == 1
    assert 45 < float(found[0].removeprefix("CTF missing in ").split(" %")[0]) < 55


def test_shifts_of_opposite_sign_and_poses_of_others_are_named(clean):
    assert names(changed(clean, shifts=-clean.shifts)) == ["shifts of opposite sign"]
    order = np.random.default_rng(0).permutation(len(clean))
    assert names(changed(clean, rotations=clean.rotations[order])) == ["poses do not fit the images"]


@pytest.mark.parametrize(("degrees", "angstroms"), [(3.0, 0.0), (0.0, 5.0), (0.0, 8.0)])
def test_errors_of_poses_are_estimated_and_told(degrees, angstroms):
    """Shifts with large errors predict better if they are made smaller, but that is not an error of their unit."""
    particles = simulate.assembly(800, 32, seed=5, pose_error=degrees, shift_error=angstroms, progress=False)
    look = ct.first_look(particles)
    found = [finding.name for finding in look.findings]
    if degrees:
        assert look.pose_error == pytest.approx(degrees, rel=0.2) and look.shift_error < 1
        assert found == ["rotations are inexact"]
    else:
        assert look.shift_error == pytest.approx(angstroms, rel=0.2) and look.pose_error < 1
        assert found == ["shifts are inexact"]


def test_inexact_shifts_of_opposite_sign_are_still_named():
    particles = simulate.assembly(500, 32, seed=5, shift_error=3.0, progress=False)
    assert "shifts of opposite sign" in names(changed(particles, shifts=-particles.shifts))


def test_a_motion_too_small_for_principal_directions_is_no_pose_error(monkeypatch):
    """Arms that swing by 10 degrees, in images too noisy for a subspace, and the same with real errors."""
    less = tuple((*hinge[:3], 10.0) for hinge in molecules._HINGES)
    monkeypatch.setattr(molecules, "_HINGES", less)
    exact, wrong = (
        ct.first_look(simulate.hinge(1200, 32, seed=0, snr=0.1, pose_error=error, progress=False))
        for error in (0.0, 4.0)
    )
    assert exact.findings == () and exact.errors.n_modes > 0 and exact.errors.motion > 1
    assert [finding.name for finding in wrong.findings] == ["rotations are inexact"]
    low = wrong.errors.rotation_interval[0]
    assert low > 2 * exact.pose_error and wrong.pose_error == pytest.approx(4.0, rel=0.25) and low < 4.2


# -------------------------------------------------------------------------------------------------------------- parts


def test_a_half_turn_is_a_mirror_image(clean):
    sample = Sample(clean[:200], 200, 32, 0)
    state = sample.stated()
    turned = replace(state, rotations=state.rotations @ torch.diag(torch.tensor([-1.0, -1.0, 1.0])))
    torch.testing.assert_close(sample.gains(turned), sample.gains(state), rtol=1e-3, atol=0.05)
    for name, change in pose_changes(0).items():
        assert sample.gains(change(state)).mean() < sample.gains(state).mean() - 20, name


def test_exact_poses_have_no_error():
    """One rigid molecule: no motion that could be mistaken for an error."""
    particles = simulate.assembly(300, 32, seed=7, images=False, progress=False)
    particles.truth.coordinates[:] = 1
    rng = np.random.default_rng(0)
    views = particles.rotations, particles.ctf, particles.shifts
    all_present = np.zeros(len(particles), bool), *views, np.ones(len(particles), np.float32)
    images = images_module._stack(particles.truth, *all_present, 1.0, rng, False)
    sample = Sample(changed_images(particles, images), 300, 32, 0)
    found = errors_of(sample, sample.stated(), 0)
    assert found.rotation < 0.2 and found.shift < 0.2 and found.rotation_interval[0] == found.shift_interval[0] == 0


def changed_images(particles: Particles, images: np.ndarray) -> Particles:
    return Particles(images, particles.rotations, particles.shifts, particles.ctf, pixel_size=particles.pixel_size)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_share_of_flipped_images(clean, share):
    sample = Sample(clean, 500, 32, 0)
    state, flipped = sample.stated(), torch.arange(500) < share * 500
    known = replace(state, kind=torch.where(flipped, 2, 0))
    signs = torch.sign(sample.transfer(known, torch.arange(500)) * sample.transfer(state, torch.arange(500)))
    sample.batch = sample.batch._replace(data=sample.batch.data * signs)
    _, found, error = sample.flips(state)
    assert found == pytest.approx(share, abs=max(0.05, 3 * error))
    assert error < 0.1


def test_what_is_needed_is_asked_for(clean):
    with pytest.raises(InputError, match="at least 100"):
        ct.first_look(clean[:50])
    with pytest.raises(InputError, match="no poses"):
        ct.first_look(Particles(clean.images(slice(None)), ctf=clean.ctf, pixel_size=10.0))


def test_the_figure_and_the_command(clean, look, tmp_path, capsys):
    figure = ct.plotting.first_look(look)
    bars = next(axis for axis in figure.axes if "nats per image" in axis.get_xlabel())
    assert {label.get_text() for label in bars.get_yticklabels()} == set(look.scores)
    read_back(clean, tmp_path)
    options = ["--n-images", "120", "--contrast", "dark", "--output", str(tmp_path / "look")]
    assert main(["look", str(tmp_path / "p.star"), *options]) == 0
    printed = capsys.readouterr().out
    assert "examined: 120 images to 20 Å" in printed
    made = {"look.html", "look.txt", "look.png", "map.mrc", "half1.mrc", "half2.mrc"}
    assert {p.name for p in (tmp_path / "look").iterdir()} == made
    assert (tmp_path / "look" / "look.txt").read_text(encoding="utf-8") == printed
    page = (tmp_path / "look" / "look.html").read_text(encoding="utf-8")
    assert "First look at p.star" in page and "Ready for training" in page and "http" not in page
    assert ct.read_map(tmp_path / "look" / "map.mrc")[1] == pytest.approx(10.0)


def test_the_images_of_a_sample_are_not_windowed():
    """The noise of their coefficients stays white with unit power."""
    sample = Sample(simulate.assembly(300, 32, snr=0.05, seed=6, progress=False), 300, 32, 0)
    assert not sample.imaging.windowed
    assert float(sample.batch.data[:, 20:].abs().square().mean()) == pytest.approx(1, abs=0.1)


def test_the_share_of_phase_flipped_images_is_estimated_with_its_error():
    """A quarter of the images are multiplied by the sign of the CTF: the estimated share is 1/4."""
    particles = simulate.assembly(1200, 32, snr=2.0, seed=6, progress=False)
    frequencies = grid(32, 2).reshape(-1, 2) / (32 * particles.pixel_size)
    rows = np.arange(0, 1200, 4)
    images = particles.images(slice(None)).copy()
    sign = particles.ctf[rows](frequencies).sign().unflatten(-1, (32, 32))
    images[rows] = -ifft2(fft2(torch.as_tensor(images[rows])) * sign).real.numpy()
    mixed = Particles(images, particles.rotations, particles.shifts, particles.ctf, pixel_size=particles.pixel_size)
    sample = Sample(mixed, 1200, 32, 0)
    gain, share, error = sample.flips(sample.stated())
    assert share == pytest.approx(0.25, abs=0.06)
    assert 0 < error < 0.1
    assert len(gain) == 1200


def test_alternatives_for_the_poses_are_rotations():
    rotations = torch.as_tensor(Rotation.random(5, rng=0).as_matrix()).float()
    stated = SimpleNamespace(rotations=rotations)
    for name, change in pose_changes(0).items():
        with patch(
            "cryotwin_nb.preparation.changes.replace", lambda _, rotations: SimpleNamespace(rotations=rotations)
        ):
            changed = change(stated).rotations
        torch.testing.assert_close(changed @ changed.mT, torch.eye(3).expand(5, 3, 3), atol=1e-5, rtol=0)
        assert (torch.linalg.det(changed) - 1).abs().max() < 1e-5, name
        assert not torch.allclose(changed, rotations), name
