"""What the first look finds out about views, contents and optics."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.imaging.fourier import fft3, grid, ifft3
from cryotwin_nb.preparation.contents import junk_share, optics_of
from cryotwin_nb.preparation.directional import crossing, directional_resolution
from cryotwin_nb.preparation.findings import contained, inexact
from cryotwin_nb.preparation.optics import improbable
from cryotwin_nb.preparation.orientation import depends_on_view, described, oriented
from cryotwin_nb.preparation.views import asymmetric_unit, hemisphere, point_groups, sampling_of
from cryotwin_nb.reconstruction.pose_errors import PoseErrors

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from verdicts import made, measured
from view_sets import views_of

pytestmark = pytest.mark.usefixtures("one_thread")
AXIS = np.array([2.0, -1.0, 2.0]) / 3


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def directions(rng, n: int) -> np.ndarray:
    v = rng.normal(size=(n, 3))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def along(views: np.ndarray) -> np.ndarray:
    """Return rotations with these views."""
    rotations = np.zeros((len(views), 3, 3))
    rotations[:, :, 2] = views
    return rotations


def chosen(rng, n: int, condition) -> np.ndarray:
    """Return directions whose height along `AXIS` fulfils a condition."""
    many = directions(rng, 40 * n)
    return many[condition(np.abs(many @ AXIS))][:n]


def near(rng, n: int, degrees: float) -> np.ndarray:
    return chosen(rng, n, lambda height: height > np.cos(np.radians(degrees)))


def names(sampling) -> list[tuple[str, str]]:
    flat = np.full(len(sampling.directions), 8.0)
    return [(finding.level, finding.name) for finding in oriented(sampling, flat, 7.2)]


# -------------------------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("degrees", [50, 65])
def test_views_near_one_axis_leave_a_double_cone_along_it(rng, degrees):
    found = sampling_of(along(near(rng, 3000, degrees)))
    assert found.cone == pytest.approx(90 - degrees, abs=3)
    assert abs(found.axis @ AXIS) > np.cos(np.radians(4))
    assert names(found) == [("warning", "directions are unmeasured")]
    (finding,) = oriented(found, np.full(1000, 8.0), 7.2)
    assert f"double cone of {found.cone:.0f}° around the axis (x, y, z) = (0.6" in finding.evidence


def test_many_views_along_one_axis_are_a_preferred_orientation_that_leaves_nothing_unmeasured(rng):
    found = sampling_of(along(np.concatenate([near(rng, 2100, 25), directions(rng, 900)])))
    assert found.unmeasured == 0 and found.cone is None and not found.is_belt
    assert found.within == 25 and found.share == pytest.approx(0.73, abs=0.02)
    assert names(found) == [("warning", "preferred orientation")]
    assert "no direction is unmeasured" in next(oriented(found, np.full(1000, 8.0), 7.2)).evidence


def test_side_views_measure_everything(rng):
    belt = chosen(rng, 3000, lambda height: height < np.sin(np.radians(30)))
    found = sampling_of(along(belt))
    assert found.is_belt and found.unmeasured == 0 and found.within == 30
    assert names(found) == [("note", "uneven views")]


def test_even_views_are_silent_even_if_they_are_few(rng):
    for n in (150, 1000, 5000):
        found = sampling_of(along(directions(rng, n)))
        assert names(found) == [] and found.evenness > 0.97


@pytest.mark.parametrize("name", ["C2", "C5", "D3", "D6", "T", "T with twofold axes along x, y and z", "O", "I2", "I4"])
def test_views_of_one_asymmetric_unit_are_recognised_and_expanded_views_are_even(rng, name):
    operators = point_groups()[name]
    views = directions(rng, 1500)
    copies = np.einsum("gij,nj->ngi", operators, views)
    inside = copies[np.arange(1500), (copies @ rng.normal(size=3)).argmax(1)]
    assert asymmetric_unit(inside) == name
    ((level, found),) = names(sampling_of(along(inside)))
    assert level == "warning" and found == f"poses look like those of a {name.split(' ')[0]} refinement"
    (finding,) = oriented(sampling_of(along(inside)), np.full(1000, 8.0), 7.2)
    assert f"--sym {name.split(' ')[0]}" in finding.advice
    beside = np.stack([inside @ g.T for g in operators], axis=1).reshape(-1, 3)  # copies of an image in adjacent rows
    assert names(sampling_of(along(beside))) == []


def test_part_of_an_asymmetric_unit_is_a_preferred_orientation(rng):
    """Views around one axis do not overlap with their copies by a symmetry, but do not fill a unit either."""
    assert asymmetric_unit(near(rng, 1500, 30) * np.sign(near(rng, 1500, 30) @ AXIS)[:, None]) is None


def test_the_icosahedral_settings_are_those_of_relion():
    """Rotations by 72 degrees around z exist in the settings 3 and 4 only, by 180 degrees around x, y, z in 1 and 2."""
    groups = point_groups()
    c, s = np.cos(np.radians(72)), np.sin(np.radians(72))
    fifth, half = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), np.diag([1.0, -1.0, -1.0])
    for name, rotation, expected in [(f"I{k}", fifth, k > 2) for k in range(1, 5)] + [("I1", half, True)]:
        assert (np.abs(groups[name] - rotation).max((1, 2)).min() < 1e-9) == expected


# --------------------------------------------------------------------------------------------------------- resolution


def test_the_resolution_in_each_direction_follows_the_sampling():
    frequency, points = np.arange(1, 25) / 100, hemisphere(400)
    sampling = np.where(np.abs(points @ AXIS) > np.cos(np.radians(40)), 0.1, 1.2)
    x = 200 * np.exp(-frequency / 0.02)  # signal-to-noise ratio of one half map
    a = x[:, None] * sampling / (1 + x[:, None] * sampling)
    correlation = np.square(a).mean(1) / a.mean(1)
    found = directional_resolution(correlation, frequency, points, sampling, 2.0)
    for inside, rate in ((np.abs(points @ AXIS) > 0.97, 0.1), (np.abs(points @ AXIS) < 0.4, 1.2)):
        expected = 1 / (0.02 * np.log(3 * 2 * 200 * rate))  # a ratio of 1/3 is a correlation of 0.5
        assert found[inside] == pytest.approx(expected, rel=0.05)
    assert "in the best and" in described(found, 1.0)
    assert crossing(frequency, np.linspace(1, 0.6, 24)) == pytest.approx(100 / 24)


def test_the_resolution_of_a_cone_counts_its_unmeasured_part_as_zero():
    frequency, points = np.arange(1, 25) / 100, hemisphere(400)
    height, x = points[:, 2], 200 * np.exp(-frequency / 0.02)
    measured_here = height < np.cos(np.radians(50))
    found = directional_resolution(x / (1 + x), frequency, points, measured_here.astype(float), 2.0)
    assert np.isinf(found[height > np.cos(np.radians(25))]).all()  # nothing, or too little, of these cones is measured
    half = np.abs(np.degrees(np.arccos(height)) - 50) < 1.5
    cones = np.abs(points @ points[half].T) > np.cos(np.radians(20))
    share = cones[measured_here].sum(0) / cones.sum(0)
    ratio = 1 / (4 * share - 1)  # the correlation is the root of share * ratio / (1 + ratio)
    assert found[half] == pytest.approx(1 / (0.02 * np.log(2 * 200 / ratio)), rel=0.03)


def test_the_measured_resolution_is_coarse_where_a_map_is_wrong():
    axis, k = np.array([0.96, 0.0, 0.28]), grid(32, 3).double()
    truth, noise = torch.randn(2, 32, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wrong = (k @ torch.as_tensor(axis)).abs() > k.norm(dim=-1) * np.cos(np.radians(40))
    volume = ifft3(torch.where(wrong, fft3(noise), fft3(truth))).real
    along, across, mirrored = measured(volume, truth, 2.0, np.array([axis, [0, 1, 0], axis[::-1]]))
    assert along > 20 and across == pytest.approx(4.0) and mirrored < along / 2


def test_the_resolution_of_uneven_views_is_the_one_measured_with_the_truth(rng):
    axis = np.array([2.0, 2.0, -1.0]) / 3  # exchanging x and z, the order of the axes of an array, changes it
    particles = made("hinge", views_of("70 % within 25", 600, axis, rng), rng, 0, box_size=32, snr=0.1)
    truth = torch.stack([particles.truth.volume(i) for i in range(0, 600, 50)]).mean(0)
    found, sampling = ct.reconstruct(particles), sampling_of(particles.rotations)
    curve, directions = found.fsc, sampling.directions
    expected = directional_resolution(curve.correlation, curve.frequency, directions, sampling.sampling, 2.0)[::10]
    true = measured(found.map, truth, particles.pixel_size, directions[::10])
    assert np.median(np.abs(expected / true - 1)) < 0.1  # 0.18 with x and z exchanged


def test_coordinates_that_follow_the_view_are_named(rng):
    views = directions(rng, 1000)
    free, bound = rng.normal(size=1000), views[:, 0] * views[:, 1] + 0.1 * rng.normal(size=1000)
    assert not list(depends_on_view(free[:, None], views)) and not list(depends_on_view(free[:, None][:, :0], views))
    (finding,) = depends_on_view(np.stack([free, bound], axis=1), views)
    assert "principal coordinate 2 follows the view" in finding.evidence


# ----------------------------------------------------------------------------------------------------------- contents


def test_images_without_the_particle_are_counted(rng):
    error = rng.uniform(0.1, 0.25, 4000)
    contrast = rng.normal(1, 0.15, 4000)
    contrast[:320] = rng.normal(0.1, 0.1, 320)
    share, (low, high), spread = junk_share(contrast + error * rng.normal(size=4000), error)
    assert low < 0.08 < high and share == pytest.approx(0.08, abs=0.015) and spread == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize("kind", ["one", "lighter", "noisy"])
def test_neither_lighter_particles_nor_noise_are_junk(rng, kind):
    error = np.full(4000, 0.5 if kind == "noisy" else 0.2)
    contrast = rng.normal(1, 0.2, 4000)
    if kind == "lighter":
        contrast[:1000] *= 0.55
    share, (low, _), _ = junk_share(contrast + error * rng.normal(size=4000), error)
    assert low == 0 and (np.isnan(share) if kind == "noisy" else share == 0)


def test_what_the_images_contain_is_a_note_or_a_warning():
    contents = SimpleNamespace(contrast_spread=0.25, junk=0.05, junk_interval=(0.04, 0.06))
    assert [f.level for f in contained(contents)] == ["note", "warning"]
    few = SimpleNamespace(contrast_spread=0.1, junk=0.02, junk_interval=(0.015, 0.03))
    assert [f.level for f in contained(few)] == ["note"]


def test_pose_errors_are_named_where_they_cost_something():
    errors = PoseErrors(2.5, (2.3, 2.7), 0.1, (0.0, 0.2), 0, 0.0)
    (finding,) = inexact(errors, 20.0, 3.6)
    assert finding.level == "warning" and "costs 20 to 26 % of the amplitude at 3.6 Å" in finding.evidence
    assert not list(inexact(errors, 20.0, 40.0))
    (unsure,) = inexact(replace(errors, motion=1.0), 20.0, 3.6)
    assert unsure.level == "note" and "parts move by 1 Å" in unsure.evidence
    assert not list(inexact(replace(errors, rotation_interval=(0.9, 2.7)), 20.0, 3.6))


# ------------------------------------------------------------------------------------------------------------- optics


def test_improbable_optics_and_angles_are_named(rng):
    particles = ct.simulate.hinge(150, 32, pixel_size=2.0, images=False, progress=False)
    assert not list(improbable(particles))
    near_focus = replace(
        particles.ctf, **{name: np.full(150, 600.0, np.float32) for name in ("defocus_u", "defocus_v")}
    )
    stand_in = SimpleNamespace(require_views=lambda: (particles.rotations, near_focus), pixel_size=2.0)
    assert [f.name for f in improbable(stand_in)] == ["the CTF does not oscillate", "no astigmatism"]
    radians = ct.formats.poses.rotations_from_euler(*(rng.uniform(-np.pi, np.pi, 150) for _ in range(3)))
    stand_in = SimpleNamespace(require_views=lambda: (radians, particles.ctf), pixel_size=2.0)
    assert [(f.level, f.name) for f in improbable(stand_in)] == [("must be mended", "angles look like radians")]


def test_optics_groups_are_listed_and_not_averaged():
    ctf = ct.simulate.hinge(30, 32, images=False, progress=False).ctf
    ctf = replace(ctf, voltage=np.repeat([300.0, 200.0], [10, 20]))
    first, second = optics_of(ctf, np.repeat([4, 7], [10, 20]))
    assert first.startswith("10 images, 300 kV, Cs 2.7 mm") and second.startswith("20 images, 200 kV")
