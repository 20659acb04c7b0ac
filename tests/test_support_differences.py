"""Support in both directions: density that is missing or added is named with its place, and cross-fades are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation.blends import Blend, find_blend
from cryotwin_nb.evaluation.differences import DensityDifference, _lacking, find_differences
from cryotwin_nb.evaluation.path_maps import _mean_map
from cryotwin_nb.evaluation.support import pathway_support
from cryotwin_nb.reconstruction.halves import back_project, density_power, measured, particle_mask
from cryotwin_nb.simulate.images import _simulate
from cryotwin_nb.truth.truth import Truth, atom_transform, waves

SIZE = 32
ENDS = np.array([(1, 0, 0, 0, 0), (0, 1, 0, 0, 0)], dtype=np.float32)
"""Two states of the assembly, each with a block that the other one lacks."""

pytestmark = pytest.mark.usefixtures("one_thread")


def images_of(kind: str, coordinates: np.ndarray, seed: int = 0, snr: float = 1.0) -> ct.Particles:
    """Simulate images at given coordinates (n, q)."""
    n = len(coordinates)
    truth = Truth(kind, coordinates.astype(np.float32), np.full(n, "x"), np.zeros(n, bool), SIZE, 320 / SIZE)
    return _simulate(truth, snr, seed, progress=False)


@pytest.fixture(scope="module")
def particles() -> ct.Particles:
    """400 images of one state."""
    return images_of("assembly", np.tile(ENDS[0], (400, 1)))


@pytest.fixture(scope="module")
def true_map(particles) -> Tensor:
    return particles.truth.volume(0)


def part_of(positions: Tensor) -> Tensor:
    """Return the density (D, D, D) of pseudo-atoms at positions (J, 3), as in the simulated maps."""
    x, y, z = (wave[0] for wave in waves(positions[None], SIZE, 320 / SIZE))
    fall = atom_transform(SIZE)
    spectrum = torch.einsum("jz,jy,jx->zyx", z, y, x) * fall[:, None, None] * fall[:, None] * fall
    return torch.fft.ifftn(spectrum).real / (320 / SIZE) ** 3


def third_of_base(truth: Truth) -> Tensor:
    """Return the positions (J, 3) of that third of the base which is farthest along x, Å."""
    base = truth.blocks(ENDS[0])["base"]
    return base[base[:, 0].argsort()[2 * len(base) // 3 :]]


def supported(volume: Tensor, particles: ct.Particles, **options) -> ct.PathwaySupport:
    """Compare a map with all the images, whatever their latents."""
    z = torch.randn(len(particles), 2, generator=torch.Generator().manual_seed(0))
    decode = lambda q: volume.expand(len(q), -1, -1, -1)  # noqa: E731
    return pathway_support(decode, particles, torch.zeros(1, 2), latents=z, bandwidth=10.0, **options)


# Density that is missing or added


def test_the_true_map_has_no_differences(true_map, particles):
    found = supported(true_map, particles)
    assert found.differences == found.blends == () and found.flagged == ()
    assert found.verdict == "The images support every decoded map."


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_third_of_a_block_that_is_missing_or_added_is_named_with_its_place(true_map, particles, sign):
    third = third_of_base(particles.truth) + (0 if sign < 0 else torch.tensor([0.0, 20.0, 75.0]))
    found = supported(true_map + sign * part_of(third), particles, blocks={"there": third, "centre": np.zeros((1, 3))})
    (difference,) = found.differences
    assert difference.shown == (sign > 0) and found.flagged == (0,)
    assert np.linalg.norm(difference.centre - third.mean(0).numpy()) < 10
    assert difference.block == "there" and difference.block_distance < 10
    assert difference.share < 0.35 and difference.significance > 10
    assert difference.mask.shape == (SIZE,) * 3 and 5 < difference.mask.sum() < 1500
    words = "is not supported: the images contain" if sign > 0 else "is missing: the map shows"
    assert words in found.summary() and difference.place in found.summary() and "Å from there" in found.summary()
    assert found.summary().count("density around") == 1


def test_a_block_that_is_missing_in_another_place_is_not_taken_for_this_one(true_map, particles):
    found = supported(true_map - part_of(third_of_base(particles.truth) * torch.tensor([-1.0, 1.0, 1.0])), particles)
    assert found.differences[0].centre[0] < -20


def test_the_noise_of_the_missing_density_is_known(true_map, particles):
    """Deviations from the true map, in standard errors, have a standard deviation of 1; copies of images add noise."""
    imaging = measured(particles, 0.4)
    (pair,) = back_project(particles, np.ones((1, 400)), np.arange(400) % 2, imaging)
    equations, power = pair.first, density_power(particles, np.arange(400), imaging)
    agreement = equations.agreement(true_map)
    scale = float(agreement.cross[1:].sum() / agreement.power[1:].sum())
    lacking, error = _lacking(equations, scale * true_map, power, SIZE / 32)
    assert 0.7 < (lacking[particle_mask(imaging).numpy() == 1] / error).std() < 1.35
    erased = true_map - part_of(third_of_base(particles.truth))
    one, four = (find_differences(0, equations, erased, power, 10.0, copies=copies)[0] for copies in (1.0, 4.0))
    assert four.significance == pytest.approx(one.significance / 2, rel=1e-6)


def test_heterogeneity_of_the_nearby_images_is_no_difference():
    """The block is present in half of the images; at the point between both, the map shows half of it."""
    occupancy = np.zeros((600, 5), dtype=np.float32)
    occupancy[:, 0] = np.linspace(0, 1, 600) > 0.7
    some = images_of("assembly", occupancy)
    core, base = (some.truth.volume_at(row) for row in (np.zeros(5), ENDS[0]))

    def decode(q: Tensor) -> Tensor:
        return torch.lerp(core, base, q[:, :1, None, None].clamp(0, 1) ** 2)

    found = pathway_support(decode, some, torch.tensor([[0.2]]), latents=occupancy[:, :1], bandwidth=100.0)
    assert found.n_effective[0] > 500
    assert found.differences == ()


def test_the_mean_map_of_latents_is_exact_for_a_quadratic_decoder():
    z, weights = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), np.linspace(0, 1, 50)
    decode = lambda q: (q.square().sum(1) + q[:, 0] * q[:, 1] - q[:, 2])[:, None, None, None]  # noqa: E731
    expected = (torch.as_tensor(weights) * decode(z.double()).flatten()).sum() / weights.sum()
    assert float(_mean_map(decode, z, weights)) == pytest.approx(float(expected), rel=1e-5)


# Cross-fades


def swung(n: int, snr: float = 1.0) -> ct.Particles:
    """Simulate n images each of an arm at rest, swung by a quarter, and swung by 40 degrees."""
    return images_of("hinge", np.repeat([(0, 0), (0.25, 0), (1, 0)], n, axis=0), 1, snr)


@pytest.fixture(scope="module")
def swings() -> ct.Particles:
    return swung(130)


def with_middle(particles: ct.Particles, blended: bool) -> ct.PathwaySupport:
    """Hand in three maps as arrays, the middle one true or a blend of the others."""
    points, truth = np.array([(0, 0), (0.25, 0), (1, 0)], dtype=np.float32), particles.truth
    maps = torch.stack([truth.volume_at(point) for point in points])
    if blended:
        maps[1] = torch.lerp(maps[0], maps[2], 0.25)
    return pathway_support(None, particles, points, maps=maps, latents=truth.coordinates)


def test_a_blend_where_the_images_show_an_intermediate_is_called_a_cross_fade(swings):
    found = with_middle(swings, blended=True)
    (blend,) = found.blends
    assert (blend.point, blend.first, blend.last) == (1, 0, 2) and blend.weight == pytest.approx(0.25, abs=0.01)
    assert blend.difference > 0.5 and blend.error < 0.05
    assert found.cross_fades == (1,) and 1 in found.flagged and found.undecided == ()
    assert "cross-fade: this map is a blend of maps 0 and 2 (75% and 25%), not an intermediate" in found.summary()


def test_a_true_intermediate_is_not_called_a_cross_fade(swings):
    found = with_middle(swings, blended=False)
    assert found.blends == found.differences == () and found.flagged == ()


def test_a_few_noisy_images_leave_it_undecided():
    found = with_middle(swung(10, snr=0.2), blended=True)
    assert found.cross_fades == () and found.undecided == (1,)
    assert "Undecided whether cross-fades: 1." in found.verdict
    assert "undecided: this map is a blend of maps 0 and 2" in found.summary() and found.findings(0) == []


def test_a_blend_that_each_image_shows_is_no_cross_fade():
    """Two blocks that are half occupied in each image: one is lost while the other one is gained."""
    shares = np.array([0, 0.5, 1], dtype=np.float32)
    points = (1 - shares)[:, None] * ENDS[0] + shares[:, None] * ENDS[1]
    some = images_of("assembly", np.repeat(points, 130, axis=0))
    maps = torch.stack([some.truth.volume_at(point) for point in points])
    found = pathway_support(None, some, points, maps=maps, latents=some.truth.coordinates)
    (blend,) = found.blends
    assert abs(blend.difference) < 0.15 and blend.error < 0.05
    assert found.flagged == found.cross_fades == found.undecided == () and "as the images show" in str(blend)


def test_a_block_that_is_only_gained_is_not_a_motion(particles):
    def seen(maps: Tensor) -> np.ndarray:
        return (maps.flatten(1) @ maps.flatten(1).T).double().numpy() * 1e6

    core, base, other = (particles.truth.volume_at(row) for row in (np.zeros(5), *ENDS))
    gained = torch.stack([core, (core + base) / 2, base])
    exchanged = torch.stack([other, (other + base) / 2, base])
    assert find_blend(1, gained, seen(gained)) is None
    found = find_blend(1, exchanged, seen(exchanged))
    assert (found.first, found.last) == (0, 2) and found.weight == pytest.approx(0.5, rel=1e-4)
    assert find_blend(0, exchanged, seen(exchanged)) is None, "an end has nothing on one side"
    assert find_blend(1, exchanged, seen(exchanged) * 1e-12) is None, "no image distinguishes the ends"


# Maps handed in as arrays


def test_the_maps_of_a_model_can_be_handed_in(swings):
    truth, points = swings.truth, np.array([(0, 0), (0.25, 0)], dtype=np.float32)
    parts = [truth.volume_at(point) for point in ((0, 0), (1, 0))]

    def decode(q: Tensor) -> Tensor:
        return torch.lerp(*parts, torch.as_tensor(q)[:, :1, None, None])

    given = {"latents": truth.coordinates, "bandwidth": 2.0}
    one = pathway_support(decode, swings, points, **given)
    same = pathway_support(decode, swings, points, maps=decode(points), **given)
    other = pathway_support(decode, swings, points, maps=decode(points) + 1e-3 * torch.eye(SIZE), **given)
    np.testing.assert_array_equal(one.local_support, same.local_support)
    assert np.abs(one.decoded_fsc - other.decoded_fsc).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"maps": torch.zeros(3, 8, 8, 8)}, "maps.*3 finite maps of 32"),
        ({"maps": torch.full((3, SIZE, SIZE, SIZE), torch.nan)}, "maps"),
        ({"maps": None}, "model"),
        ({"path": np.zeros((3, 2), np.float32)}, "two or more latents"),
    ],
)
def test_wrong_maps_are_refused(swings, change, found):
    arguments = {"path": np.eye(3, 2, dtype=np.float32), "maps": torch.ones(3, SIZE, SIZE, SIZE)} | change
    with pytest.raises(InputError, match=f"(?s){found}"):
        pathway_support(None, swings, latents=swings.truth.coordinates, **arguments)


def test_blocks_are_the_positions_of_the_named_parts(swings):
    blocks = swings.truth.blocks(np.zeros(2))
    assert list(blocks) == ["core", "left arm", "right arm"]
    assert blocks["left arm"][:, 0].max() < 0 < blocks["right arm"][:, 0].min()
    swung = swings.truth.blocks(np.array([1.0, 0.0]))
    assert (swung["left arm"] - blocks["left arm"]).norm(dim=1).max() > 30
    torch.testing.assert_close(swung["core"], blocks["core"])


def test_texts_of_findings_round_and_name():
    there = DensityDifference(3, False, np.array([-11.4, 4.6, 0.2]), 0.123, 9.0, np.zeros((2, 2, 2), bool))
    expected = (
        "density around x -11, y +5, z +0 Å from the centre is missing: the map shows 12% of what the images contain"
    )
    assert str(there) == expected
    near = replace(there, block="LID", block_distance=2.4).place
    assert near == "x -11, y +5, z +0 Å from the centre, 2 Å from LID"


def test_a_cross_fade_is_significant_considerable_and_noticed_by_an_image():
    blend = Blend(2, 0, 5, weight=0.3, motion=30.0, difference=0.1, error=0.01)
    assert not blend.is_cross_fade and not blend.undecided
    assert replace(blend, difference=0.25).is_cross_fade
    assert replace(blend, error=0.06).undecided
    assert replace(blend, difference=-0.2, error=0.12).undecided, "negative by chance"
    near = replace(blend, difference=0.25, error=0.06)
    assert not near.is_cross_fade and near.undecided, "not significant"
    small = replace(blend, difference=0.3, motion=10.0)
    assert not small.is_cross_fade and not small.undecided, "1.7 standard errors of an image"
    assert replace(small, motion=15.0).is_cross_fade
