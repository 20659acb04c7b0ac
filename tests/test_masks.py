import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import grid
from cryotwin_nb.imaging.masks import map_mask, soft_edge, spherical_mask

SIZE = 24


def away_from(centre: tuple[float, float, float]) -> torch.Tensor:
    """Return the distance of each voxel (D, D, D) from a point given as an offset xyz from the origin, in voxels."""
    return (grid(SIZE, 3).float() - torch.tensor(centre)).norm(dim=-1)


def ball(centre: tuple[float, float, float], radius: float) -> torch.Tensor:
    return (away_from(centre) <= radius).float()


def test_soft_edge_is_one_then_a_raised_cosine_then_zero():
    distance = torch.tensor([-5.0, 0.0, 0.5, 1.0, 1.5, 2.0, 9.0])
    expected = [1, 1, np.cos(np.pi / 8) ** 2, 0.5, np.sin(np.pi / 8) ** 2, 0, 0]
    np.testing.assert_allclose(soft_edge(distance, 2.0), expected, atol=1e-6)


def test_an_edge_without_width_is_sharp():
    assert soft_edge(torch.tensor([-1.0, 0.0, 0.1]), 0.0).tolist() == [1, 1, 0]


def test_spherical_mask_is_a_ball_with_an_edge_around_the_origin():
    mask, distance = spherical_mask(SIZE, 5.0, 4.0), away_from((0, 0, 0))
    assert mask.shape == (SIZE,) * 3 and mask.dtype == torch.float32
    assert (mask[distance <= 5] == 1).all() and (mask[distance >= 9] == 0).all()
    between = mask[(distance > 5) & (distance < 9)]
    assert between.min() > 0 and between.max() < 1
    assert mask[12, 12, 12 + 7] == mask[12, 12 - 7, 12] == pytest.approx(0.5)


@settings(max_examples=10, deadline=None)
@given(radius=st.floats(2, 6), extend=st.floats(0, 3), width=st.floats(0.5, 3))
def test_map_mask_falls_with_the_distance_to_the_surface(radius, extend, width):
    """Brute force: the distance of each voxel to the nearest voxel above the level."""
    inside, voxels = ball((2, -1, 1), radius), grid(SIZE, 3).float()
    exact = "donot_use_mm_for_euclid_dist"
    distance = torch.cdist(voxels.flatten(0, 2), voxels[inside > 0], compute_mode=exact).amin(1).view_as(inside)
    mask = map_mask(3 * inside, 1.0, extend, width)
    assert mask.shape == (SIZE,) * 3 and mask.dtype == torch.float32
    fraction = ((distance - extend) / width).clamp(0, 1)
    torch.testing.assert_close(mask, (np.pi / 2 * fraction).cos().square(), rtol=0, atol=1e-5)
    assert (mask[distance <= extend - 1e-3] == 1).all() and (mask[distance >= extend + width + 1e-3] == 0).all()


@pytest.mark.parametrize("side", [1, -1])
def test_map_mask_keeps_the_largest_piece(side):
    large, small = ball((0, 0, 5 * side), 3.5), ball((0, 0, -7 * side), 2.5)
    both, alone = map_mask(large + 5 * small, 0.5), map_mask(large, 0.5)
    assert torch.equal(both, alone)
    assert alone[small > 0].max() == 0


def test_pieces_that_touch_are_one():
    bridge = ((grid(SIZE, 3)[..., 1:] == 0).all(-1) & (grid(SIZE, 3)[..., 0].abs() <= 7)).float()
    mask = map_mask(ball((-5, 0, 0), 3) + ball((7, 0, 0), 2) + bridge, 0.5)
    assert (mask[ball((7, 0, 0), 2) > 0] == 1).all()


def test_the_axes_are_those_of_the_map():
    volume = torch.zeros(SIZE, SIZE, SIZE)
    volume[3, 8, 20] = 1
    mask = map_mask(volume, 0.5, extend=0.0, width=1.5)
    assert mask[3, 8, 20] == 1 and (mask == 1).sum() == 1
    neighbours = [mask[4, 8, 20], mask[3, 9, 20], mask[3, 8, 21]]
    np.testing.assert_allclose(neighbours, 0.5 + 0.5 * np.cos(np.pi / 1.5), atol=1e-6)


def test_the_level_is_by_default_a_tenth_of_the_dense_part():
    volume = torch.exp(-away_from((0, 0, 0)).square() / 32)
    dense = float(np.quantile(volume, 0.999))
    for factor in (1.0, 250.0):
        assert torch.equal(map_mask(factor * volume), map_mask(volume, 0.1 * dense))
    assert map_mask(volume, 0.5).sum() < map_mask(volume).sum() < map_mask(volume, 0.01).sum()


def test_maps_may_be_arrays_or_tensors_that_require_grad():
    volume = ball((0, 0, 0), 4)
    expected = map_mask(volume, 0.5)
    assert torch.equal(map_mask(volume.numpy().astype(np.float64), 0.5), expected)
    assert torch.equal(map_mask(volume.clone().requires_grad_(), 0.5), expected)


@pytest.mark.parametrize(("volume", "level"), [(torch.zeros(8, 8, 8), None), (torch.ones(8, 8, 8), 1.5)])
def test_a_map_that_is_nowhere_above_the_level_is_refused(volume, level):
    with pytest.raises(InputError, match=r"(?s)map_mask.*no voxel above.*Lower the level"):
        map_mask(volume, level)
