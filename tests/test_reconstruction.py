"""Maps from images alone, against the exact density, noise, and the predictions of half maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import fft3, grid
from cryotwin_nb.imaging.fsc import fsc
from cryotwin_nb.imaging.masks import spherical_mask
from cryotwin_nb.particles.formation import ImageFormation
from cryotwin_nb.reconstruction.backprojection import MARGIN, NormalEquations
from cryotwin_nb.reconstruction.halves import PADDING, measured, n_effective
from cryotwin_nb.reconstruction.homogeneous import Reconstruction, reconstruct, reconstruct_many

SIZE, PIXEL, N_IMAGES = 32, 10.0, 1000

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def particles():
    return ct.simulate.assembly(N_IMAGES, SIZE, edge_fraction=0.0, progress=False)


@pytest.fixture(scope="module")
def imaging(particles) -> ImageFormation:
    return measured(particles, 0.4)


@pytest.fixture(scope="module")
def whole(particles, imaging) -> Reconstruction:
    return reconstruct(particles, imaging=imaging)


@pytest.fixture(scope="module")
def empty(particles) -> ct.Particles:
    """Images that show noise only."""
    noise, p = np.random.default_rng(0).normal(size=(600, SIZE, SIZE)).astype(np.float32), particles[:600]
    return ct.Particles(noise, p.rotations, p.shifts, p.ctf, pixel_size=PIXEL)


@pytest.fixture(scope="module")
def truth(particles) -> torch.Tensor:
    """Mean of the structures in the images."""
    return mean_density(particles, np.ones(len(particles)))


def mean_density(particles, weights) -> torch.Tensor:
    occupancies = np.average(particles.truth.coordinates, axis=0, weights=weights)
    return particles.truth.volume_at(occupancies)  # maps are linear in the occupancies


def slopes(volume, reference) -> np.ndarray:
    """Return the slope of a map's coefficients on those of a reference, shell by shell."""
    a, b = fft3(volume), fft3(reference)
    shell = grid(SIZE, 3).float().norm(dim=-1).round()
    cross, power = (a * b.conj()).real, b.abs().square()
    return np.array([float(cross[shell == s].sum() / power[shell == s].sum()) for s in range(1, SIZE // 2)])


# One map


def test_the_map_is_the_true_density_in_its_unit(whole, truth):
    assert whole.map.shape == (SIZE, SIZE, SIZE) and whole.half_maps.shape == (2, SIZE, SIZE, SIZE)
    curve = fsc(whole.map, truth, PIXEL).correlation
    assert curve[:8].min() > 0.98 and curve.mean() > 0.9
    np.testing.assert_allclose(slopes(whole.map, truth)[:6], 1, atol=0.05)


def test_half_maps_foretell_the_correlation_with_the_truth(whole, truth, particles, imaging):
    assert np.abs(whole.expected_fsc - fsc(whole.map, truth, PIXEL).correlation)[:15].max() < 0.05
    few = np.zeros(N_IMAGES)
    few[:100] = 1
    poor = reconstruct(particles, few, imaging=imaging)
    measured_fsc = fsc(poor.map, mean_density(particles, few), PIXEL).correlation
    assert np.abs(poor.expected_fsc - measured_fsc)[:13].max() < 0.12
    assert poor.expected_fsc[8] < 0.9 < whole.expected_fsc[8]
    assert poor.resolution > 1.1 * whole.resolution


def test_the_wiener_filter_is_what_the_half_maps_say(whole, truth, particles, imaging):
    few = np.zeros(N_IMAGES)
    few[:100] = 1
    poor = reconstruct(particles, few, imaging=imaging)
    expected = 2 * poor.fsc.correlation / (1 + poor.fsc.correlation)
    np.testing.assert_allclose(slopes(poor.map, mean_density(particles, few))[2:12], expected[2:12], atol=0.15)


def test_noise_alone_has_no_resolution(empty):
    result = reconstruct(empty)
    counts = 4 * np.pi * np.arange(1, SIZE // 2 + 1) ** 2 / 2 * 0.3  # independent pairs within the mask
    assert (np.abs(result.fsc.correlation) < 5 / np.sqrt(counts)).all()
    assert result.resolution > 100
    assert float(result.map.std()) < 0.2 * float(result.half_maps.std())


def test_the_same_seed_gives_the_same_map_and_another_other_halves(particles, imaging, whole):
    again = reconstruct(particles, imaging=imaging)
    other = reconstruct(particles, imaging=imaging, seed=1)
    assert torch.equal(again.map, whole.map) and torch.equal(again.half_maps, whole.half_maps)
    assert np.array_equal(again.halves, whole.halves) and not np.array_equal(other.halves, whole.halves)
    assert abs(whole.halves.sum() - N_IMAGES / 2) <= 1
    assert fsc(other.map, whole.map, PIXEL).area > 0.97


def test_halves_given_are_used(particles, imaging):
    halves = np.arange(N_IMAGES) % 2
    result = reconstruct(particles, halves=halves, imaging=imaging)
    odd = reconstruct(particles, halves.astype(float), imaging=imaging)
    assert np.array_equal(result.halves, halves)
    mine, its = fsc(result.half_maps[1], odd.map, PIXEL).area, fsc(result.half_maps[0], odd.map, PIXEL).area
    assert mine > 0.97 and mine > its + 0.1


# Weights


def test_weights_select_a_state(particles, imaging):
    truth = particles.truth
    states = ("C3", "D3")
    weights = np.stack([truth.labels == s for s in states]).astype(float)
    maps = [result.map for result in reconstruct_many(particles, weights, imaging=imaging)]
    pure = [truth.volume_at(truth.states[s]) for s in states]
    areas = np.array([[fsc(m, p, PIXEL).area for p in pure] for m in maps])
    assert areas[0, 0] > areas[0, 1] + 0.1 and areas[1, 1] > areas[1, 0] + 0.1
    occupancies = ct.evaluation.block_occupancies(torch.stack(maps), truth)
    np.testing.assert_allclose(occupancies, [truth.states[s] for s in states], atol=0.12)


def test_several_weightings_in_one_pass_equal_one_after_the_other(particles, imaging):
    rng = np.random.default_rng(0)
    weights = rng.random((2, N_IMAGES)) * (rng.random((2, N_IMAGES)) < 0.3)
    both = reconstruct_many(particles, weights, imaging=imaging)
    for own, result in zip(weights, both):
        alone = reconstruct(particles, own, imaging=imaging)
        assert result.n_effective == alone.n_effective == pytest.approx(own.sum() ** 2 / np.square(own).sum())
        assert fsc(result.map, alone.map, PIXEL).area > 0.995


def test_the_scale_of_the_weights_does_not_matter(particles, imaging):
    weights = np.random.default_rng(1).random(N_IMAGES)
    one, other = (reconstruct(particles, scale * weights, imaging=imaging) for scale in (1.0, 1e-3))
    torch.testing.assert_close(one.map, other.map, rtol=1e-3, atol=1e-3 * float(one.map.max()))


def test_images_of_weight_zero_are_not_read(particles, imaging, monkeypatch):
    read, images = [], type(particles).images
    monkeypatch.setattr(type(particles), "images", lambda self, rows: read.extend(rows) or images(self, rows))
    weights = np.zeros(N_IMAGES)
    weights[10:60] = 1
    reconstruct(particles, weights, imaging=imaging)
    assert set(read) == set(range(10, 60))


def test_effective_numbers():
    assert n_effective(np.full(7, 0.3)) == pytest.approx(7)
    assert n_effective(np.array([1.0, 0, 0])) == 1 and n_effective(np.zeros(3)) == 0


# Support of a map by the images


def equations_of(particles, imaging) -> NormalEquations:
    equations = NormalEquations(imaging, SIZE / 2 + MARGIN, 1, PADDING)
    for rows in np.array_split(np.arange(len(particles)), 5):
        batch = imaging.batch(particles, rows)
        equations.add_images(batch, torch.ones(len(rows)))
    return equations


def test_images_show_a_true_map_in_full_and_a_false_one_less(particles, imaging, truth):
    equations, inside = equations_of(particles, imaging), slice(1, SIZE // 2)
    true, double = equations.agreement(truth), equations.agreement(2 * truth)
    np.testing.assert_allclose((true.cross / true.power)[inside], 1, atol=0.08)
    torch.testing.assert_close((double.cross / double.power)[inside], (true.cross / true.power)[inside] / 2)
    blob = torch.exp(-(grid(SIZE, 3) - torch.tensor([0.0, 0.0, -9.0])).square().sum(-1) / 8) * 0.3 * truth.max()
    mask = spherical_mask(SIZE, imaging.particle_radius, 2)
    support, error = equations.local_agreement((truth + blob) * mask, mask, 2.0)
    assert -0.2 < float(support[7, 16, 16]) < 0.4 and float(error[7, 16, 16]) < 0.05
    assert 0.9 < float(support[20, 14, 16]) < 1.1


def test_errors_of_the_agreement_are_those_of_the_noise(empty):
    imaging = measured(empty, 0.4)
    equations = equations_of(empty, imaging)
    mask, generator = spherical_mask(SIZE, imaging.particle_radius, 2), torch.Generator().manual_seed(0)
    shells, voxels = [], []
    for _ in range(30):
        volume = 1e-3 * torch.randn(SIZE, SIZE, SIZE, generator=generator) * mask  # negligible compared with the noise
        cross, power = equations.agreement(volume)
        shells.append((cross / (power / 2).sqrt())[3:15])
        support, error = equations.local_agreement(volume, mask, 2.0)
        voxels.append((support / error)[16, 16, ::8])
    for deviations in (torch.stack(shells), torch.stack(voxels)):
        deviations = deviations[deviations.isfinite()]
        assert abs(float(deviations.mean())) < 0.3 and float(deviations.std()) == pytest.approx(1, abs=0.25)


# Invalid input


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        (np.ones(3), "shape"),
        (-np.ones(N_IMAGES), "negative"),
        (np.full(N_IMAGES, np.nan), "NaN"),
        (np.zeros(N_IMAGES), "0 for every image"),
        (np.ones((2, N_IMAGES)), "shape"),
    ],
)
def test_wrong_weights_are_refused(particles, imaging, weights, found):
    with pytest.raises(InputError, match=f"(?s){found}"):
        reconstruct(particles, weights, imaging=imaging)


def test_wrong_halves_and_image_formations_are_refused(particles, imaging):
    with pytest.raises(InputError, match="halves"):
        reconstruct(particles, halves=np.full(N_IMAGES, 2), imaging=imaging)
    with pytest.raises(InputError, match="not measured"):
        reconstruct(particles, imaging=ImageFormation(SIZE))
    with pytest.raises(InputError, match="16 pixels"):
        other = ct.simulate.assembly(50, 16, progress=False)
        reconstruct(particles, imaging=measured(other, 0.4))
