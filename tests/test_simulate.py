from itertools import pairwise

import numpy as np
import pytest
import torch

from cryotwin_nb import simulate
from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import fft2, grid
from cryotwin_nb.truth import molecules
from cryotwin_nb.truth.truth import ATOM_WIDTH, Truth


def test_same_seed_same_images_other_seed_other_images():
    a, b, c = (simulate.assembly(5, 16, seed=s, progress=False) for s in (4, 4, 5))
    rows = np.arange(5)
    np.testing.assert_array_equal(a.images(rows), b.images(rows))
    np.testing.assert_array_equal(a.truth.coordinates, b.truth.coordinates)
    assert not np.array_equal(a.images(rows), c.images(rows))


@pytest.mark.parametrize("kind", [simulate.assembly, simulate.hinge])
def test_volume_is_the_sum_of_its_gaussians(kind):
    truth = kind(3, 32, progress=False).truth
    positions, masses = truth.structure(torch.as_tensor(truth.coordinates[1:2]))
    width = ATOM_WIDTH * truth.pixel_size
    axis = torch.arange(-16, 16).double() * truth.pixel_size
    along = [torch.exp(-((axis - c[:, None]) ** 2) / (2 * width**2)) for c in positions[0].double().unbind(1)]
    direct = torch.einsum("j,jz,jy,jx->zyx", masses[0].double(), *along[::-1]) / (2 * torch.pi * width**2) ** 1.5
    volume = truth.volume(1).double()
    # The direct sum aliases: at 0.6 pixels an atom keeps 17 % of its amplitude at Nyquist.
    assert (volume - direct).norm() < 0.1 * direct.norm()
    assert float(volume.sum() * truth.pixel_size**3) == pytest.approx(float(masses.sum()), rel=1e-3)


def test_images_are_projections_along_z_of_the_turned_density():
    """Without CTF effects at one frequency: the image's transform against an explicit sum over the atoms."""
    particles = simulate.hinge(4, 32, snr=1e9, progress=False)
    spectra = fft2(torch.as_tensor(particles.images(np.arange(4))))
    k = grid(32, 2).reshape(-1, 2) / (32 * particles.pixel_size)
    near = (k.norm(dim=1) < 0.4 / particles.pixel_size) & (k.norm(dim=1) > 0)
    for i in range(4):
        positions, masses = particles.truth.structure(torch.as_tensor(particles.truth.coordinates[i : i + 1]))
        turned = positions[0] @ torch.as_tensor(particles.rotations[i])  # rows: R^T x
        displaced = turned[:, :2] - torch.as_tensor(particles.shifts[i])
        angle = -2 * torch.pi * (k[near] @ displaced.T)
        density = torch.polar(torch.ones_like(angle), angle) @ masses[0].to(torch.complex64)
        fall = torch.exp(-2 * (torch.pi * ATOM_WIDTH * particles.pixel_size * k[near].norm(dim=1)) ** 2)
        expected = particles.ctf[i : i + 1](k[near])[0] * density * fall / particles.pixel_size**2 * 32**-1.5
        found = spectra[i].flatten()[near]
        assert (found - expected).norm() < 2e-3 * expected.norm()


def test_group_masses_are_the_published_ones():
    labels = simulate.assembly(8000, 8, progress=False, edge_fraction=0.0).truth.labels
    shares = {letter: np.mean(np.char.startswith(labels, letter)) for letter in "BCDE"}
    for letter, percent in zip("BCDE", (12.5, 25.7, 25.8, 36.0), strict=True):
        assert shares[letter] == pytest.approx(percent / 100, abs=0.015)


def test_particles_between_states_lie_on_planted_routes_only():
    truth = simulate.assembly(5000, 8, progress=False).truth
    assert 0.18 < truth.between.mean() < 0.22
    segments = {pair for route in molecules.ROUTES for pair in pairwise(route)}
    ends = np.array([[molecules.STATES[a], molecules.STATES[b]] for a, b in sorted(segments)])
    start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
    offset = truth.coordinates[truth.between][:, None] - start
    fraction = ((offset * along).sum(-1) / (along**2).sum(-1)).clip(0, 1)
    distance = np.linalg.norm(offset - fraction[..., None] * along, axis=-1).min(1)
    assert distance.max() < 1e-5


def test_routes_add_one_block_at_a_time():
    for route in molecules.ROUTES:
        steps = np.diff([molecules.STATES[s] for s in route], axis=0)
        assert (steps >= 0).all() and (steps.sum(1) == 1).all()


def test_hinge_density_is_an_l():
    c = simulate.hinge(5000, 8, progress=False).truth.coordinates
    on_l = (np.abs(c[:, 1]) < 0.2) | (np.abs(c[:, 0] - 1) < 0.2)
    near_middle = np.linalg.norm(c - 0.5, axis=1) < 0.2
    assert on_l.mean() > 0.99 and near_middle.mean() < 0.01


def test_snr_is_what_was_asked_for():
    clean = simulate.assembly(200, 32, snr=1e9, progress=False).images(np.arange(200))
    noisy = simulate.assembly(200, 32, snr=0.5, progress=False).images(np.arange(200))
    inside = grid(32, 2).float().norm(dim=-1).numpy() < 0.4 * 32
    ratio = clean[:, inside].var(axis=1).mean() / (noisy - clean)[:, inside].var()
    assert ratio == pytest.approx(0.5, rel=0.05)


def test_rotations_are_proper_and_uniform():
    rotations = simulate.random_rotations(4000, np.random.default_rng(0)).astype(float)
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3)[None].repeat(4000, 0), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-5)
    np.testing.assert_allclose(rotations.mean(0), 0, atol=0.04)
    np.testing.assert_allclose((rotations**2).mean(0), 1 / 3, atol=0.03)


def test_pose_error_has_the_asked_size_and_leaves_the_images_alone():
    exact, wrong = (simulate.assembly(400, 8, pose_error=e, progress=False) for e in (0.0, 5.0))
    trace = np.einsum("nij,nij->n", exact.rotations, wrong.rotations)
    angle = np.rad2deg(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    assert np.sqrt((angle**2).mean()) == pytest.approx(5, rel=0.1)
    np.testing.assert_array_equal(exact.images(np.arange(9)), wrong.images(np.arange(9)))


def test_junk_is_labelled_and_does_not_look_like_the_molecule():
    particles = simulate.assembly(100, 16, junk=0.3, snr=1e9, progress=False)
    clean = simulate.assembly(100, 16, snr=1e9, progress=False)
    junk = particles.truth.labels == "junk"
    assert 15 < junk.sum() < 45
    same = [
        np.allclose(a, b, atol=1e-6) for a, b in zip(particles.images(np.arange(100)), clean.images(np.arange(100)))
    ]
    assert np.array_equal(np.array(same), ~junk)


@pytest.mark.parametrize("kind", [simulate.assembly, simulate.hinge])
def test_truth_survives_a_round_trip(kind, tmp_path):
    truth = kind(6, 16, progress=False).truth
    truth.save(tmp_path / "t.npz")
    back = Truth.load(tmp_path / "t.npz")
    assert back.kind == truth.kind and back.box_size == 16 and back.pixel_size == truth.pixel_size
    assert torch.equal(back[[3]].volume(0), truth.volume(3))
    np.testing.assert_array_equal(back.labels, truth.labels)
    assert [p.name for p in tmp_path.iterdir()] == ["t.npz"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_particles": 0},
        {"box_size": 15},
        {"box_size": 4},
        {"snr": 0.0},
        {"snr": -1.0},
        {"junk": 1.5},
    ],
)
def test_impossible_requests_are_refused(arguments):
    with pytest.raises(InputError, match=r"(?s)found .* expected"):
        simulate.assembly(**({"n_particles": 4, "box_size": 16, "progress": False} | arguments))


def test_a_rod_reaches_from_its_start_to_its_stop():
    start, stop = np.array([10.0, -20.0, 5.0]), np.array([40.0, 10.0, -15.0])
    points = molecules._rod(start, stop, 3.0, 400)
    along = (stop - start) / np.linalg.norm(stop - start)
    position = (points - start) @ along
    assert position.min() >= 0 and position.max() <= np.linalg.norm(stop - start)
    assert position.min() < 2 and position.max() > np.linalg.norm(stop - start) - 2
    assert np.linalg.norm(points - start - position[:, None] * along, axis=1).max() <= 3.0 + 1e-9


@pytest.mark.parametrize(("size", "snr"), [(64, 0.25), (32, 1.0), (16, 4.0)])
def test_the_default_dose_is_the_same_at_every_box(size, snr):
    given, default = (
        simulate.hinge(3, size, snr=s, seed=2, pixel_size=20.0, progress=False).images(slice(None)) for s in (snr, None)
    )
    np.testing.assert_array_equal(given, default)
