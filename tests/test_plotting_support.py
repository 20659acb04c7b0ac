"""The figure of a pathway's support shows the numbers passed to it."""

from __future__ import annotations

from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from cryotwin_nb.evaluation.differences import DensityDifference
from cryotwin_nb.evaluation.support_result import PathwaySupport
from cryotwin_nb.plotting import COLOURS, density_differences, path_support

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def _figures_closed():
    yield
    plt.close("all")


def support() -> PathwaySupport:
    """Return four points: a good one, one with false detail in shell 6, one without images, one with few."""
    m, shells, size = 4, 8, 16
    share, error = np.full((m, shells), 0.99), np.full((m, shells), 0.01)
    share[1, 5], share[2], error[2], error[3, 4:] = 0.3, np.nan, np.nan, 0.5
    return PathwaySupport(
        latents=torch.zeros(m, 2),
        n_effective=np.array([200.0, 150.0, 0.0, 12.0]),
        bandwidth=np.full(m, 2.0),
        offset=np.zeros(m),
        maps=torch.zeros(m, size, size, size),
        frequency=np.arange(1, shells + 1) / (size * 10.0),
        half_map_fsc=np.full((m, shells), 0.5),
        resolution=np.array([21.0, 22.0, np.inf, 64.0]),
        decoded_fsc=np.full((m, shells), 0.5),
        departure=np.array([21.0, 22.0, np.inf, 64.0]),
        shell_support=share,
        shell_error=error,
        local_support=np.full((m, size, size, size), np.nan, dtype=np.float32),
        local_error=np.full((m, size, size, size), np.nan, dtype=np.float32),
        scale=np.ones(m),
        voxel_size=10.0,
    )


def test_each_point_has_its_resolution_its_images_and_its_flag():
    given = support()
    assert given.flagged == (1, 2) and given.reasons(1)[0].startswith("detail at 26.7 Å")
    figure = path_support(given)
    top, middle, bottom, *_ = figure.axes
    assert [t.get_text() for t in top.texts if t.get_text().isdigit()] == ["21", "22", "64"]
    assert [t.get_text() for t in middle.texts] == ["200", "150", "0", "12"]
    heights = [bar.get_height() for bar in middle.patches]
    np.testing.assert_allclose(heights, given.n_effective)
    colours = [bar.get_facecolor() for bar in middle.patches]
    assert colours[1] == colours[2] != colours[0] == colours[3]
    crosses = next(line for line in bottom.lines if line.get_marker() == "x")
    np.testing.assert_allclose(crosses.get_xydata(), [[1, given.frequency[5]]])


def test_shares_are_shown_where_they_are_known():
    bottom = path_support(support()).axes[2]
    shown = bottom.images[0].get_array()
    assert shown.shape == (8, 4)
    assert shown.mask[:, 2].all() and shown.mask[4:, 3].all() and not shown.mask[:4, 3].any()
    assert shown[5, 1] == pytest.approx(0.3)
    assert "1/Å" in bottom.get_ylabel()


def test_it_draws_into_a_figure_given():
    figure = plt.figure()
    assert path_support(support(), figure=figure) is figure and len(figure.axes) == 4


def test_a_share_is_flagged_only_where_it_lies_beyond_its_noise():
    """Half of the amplitude missing is no evidence where the share is uncertain by 0.2, in shells and in regions."""
    given = support()
    given.shell_support[0, 4] = 0.5
    for error, flagged in ((0.2, (1, 2)), (0.05, (0, 1, 2))):
        given.shell_error[0, 4] = error
        assert given.flagged == flagged
    given.shell_support[0, 4] = 0.99
    given.local_support[0, 8, 8, 8] = 0.3
    for error, flagged in ((0.2, (1, 2)), (0.05, (0, 1, 2))):
        given.local_error[0, 8, 8, 8] = error
        assert given.flagged == flagged


def test_differences_are_outlined_at_their_place():
    given, mask = support(), np.zeros((16, 16, 16), dtype=bool)
    mask[6:9, 10:13, 2:5] = True  # zyx
    centre = 10.0 * (np.array([3, 11, 7]) - 8)  # xyz
    missing = DensityDifference(1, False, centre, 0.1, 20.0, mask)
    added = replace(missing, point=0, shown=True, significance=30.0)
    first, second = density_differences(replace(given, differences=(missing, added))).axes[:2]
    assert first.get_title() == "point 0, z -10 Å\nnot in the images" and "point 1" in second.get_title()
    np.testing.assert_allclose(second.lines[0].get_xydata(), [centre[:2]])
    outline = np.concatenate([path.vertices for path in second.collections[0].get_paths()])
    np.testing.assert_allclose(outline.mean(0), centre[:2], atol=5)
    assert first.lines[0].get_color() == COLOURS[1] and second.lines[0].get_color() == COLOURS[0]


def test_without_differences_the_figure_states_it():
    figure = plt.figure()
    assert density_differences(support(), figure=figure) is figure
    assert [text.get_text() for text in figure.axes[0].texts] == ["no differences"]
