"""Class averages: turned images match projections, and averages of noisy images match the structure."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation.class_averages import _in_plane, main_views, turned
from cryotwin_nb.simulate.images import _project

matplotlib.use("agg")


def project(occupancies: np.ndarray, rotations: np.ndarray, ctf: ct.CTF) -> np.ndarray:
    """Return projections (m, D, D) of structures with `occupancies` (m, 5) without shifts."""
    truth = ct.simulate.assembly(2, 32, images=False, progress=False).truth
    positions, masses = truth.structure(torch.as_tensor(occupancies, dtype=torch.float32))
    none = torch.zeros(len(rotations), 2)
    return _project(positions.expand(len(rotations), -1, -1), masses, torch.as_tensor(rotations), ctf, none, 32, 10.0)


def without_phase_contrast(n: int) -> ct.CTF:
    """Return CTFs that are -1 at all frequencies."""
    none = np.zeros(n, np.float32)
    return ct.CTF(none, none, none, none + 300, none, none + 1, none)


def test_an_image_is_turned_to_the_pose_of_the_view():
    view = Rotation.random(random_state=0).as_matrix()[None].astype(np.float32)
    angles = np.deg2rad([0.0, 30.0, -100.0, 175.0])
    poses = view @ Rotation.from_euler("Z", angles[:, None]).as_matrix().astype(np.float32)
    np.testing.assert_allclose(_in_plane(view.repeat(4, 0), poses), angles, atol=1e-5)
    images = torch.as_tensor(project(np.ones((4, 5)), poses, without_phase_contrast(4)))
    first = images[0].numpy().ravel()
    for picture in turned(images, torch.as_tensor(angles, dtype=torch.float32)).numpy():
        assert np.corrcoef(picture.ravel(), first)[0, 1] > 0.99
    assert np.corrcoef(images[2].numpy().ravel(), first)[0, 1] < 0.9


def test_averages_show_the_structure_of_each_state_along_each_view():
    """Images of two structures along two directions, at any in-plane angle and with any CTF."""
    n, rng = 160, np.random.default_rng(0)
    ctf = ct.simulate.assembly(n, 32, images=False, progress=False).ctf
    views = Rotation.random(2, random_state=1).as_matrix().astype(np.float32)
    view, state = np.arange(n) % 2, np.arange(n) // 2 % 2
    angles = Rotation.from_euler("Z", rng.uniform(0, 6.28, (n, 1))).as_matrix().astype(np.float32)
    poses = views[view] @ angles
    images = project(np.repeat(state[:, None], 5, 1), poses, ctf)
    images += rng.normal(0, images.std(), images.shape).astype(np.float32)
    particles = ct.Particles(images, poses, np.zeros((n, 2), np.float32), ctf, pixel_size=10.0)
    averages = ct.evaluation.class_averages(particles, np.array(["early", "late"])[state], n_views=2)
    assert averages.names == ["early", "late"] and averages.counts.tolist() == [[40, 40], [40, 40]]
    k = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32)) * 32
    band = (k > 2.5) & (k < 10)  # the CTFs transfer little below
    for row in range(2):
        truth = -project(np.full((2, 5), row), averages.rotations, without_phase_contrast(2))
        found, expected = np.fft.fft2(averages.images)[..., band], np.fft.fft2(truth)[:, band]
        norms = np.linalg.norm(found, axis=2)[:, :, None] * np.linalg.norm(expected, axis=1)
        alike = np.einsum("svk,wk->svw", found, expected.conj()).real / norms
        assert alike[row].diagonal().min() > 0.9
        assert max(alike[row, 0, 1], alike[row, 1, 0], *alike[1 - row].diagonal()) < alike[row].diagonal().min()


def test_views_are_dense_and_apart():
    rng = np.random.default_rng(0)
    directions = np.concatenate([rng.normal([0, 0, 5], 0.3, (300, 3)), rng.normal(size=(200, 3))])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    views = main_views(directions, 4)[:, :, 2]
    assert views[0, 2] > 0.98
    assert (views @ views.T)[~np.eye(4, dtype=bool)].max() < np.cos(np.deg2rad(40)) + 1e-6


def test_labels_must_match_the_images():
    particles = ct.simulate.assembly(5, 16, progress=False)
    with pytest.raises(InputError, match="one for each image"):
        ct.evaluation.class_averages(particles, [0, 1])


def test_the_figure_has_a_row_for_each_state_and_a_column_for_each_view():
    images = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    counts = np.arange(6).reshape(2, 3)
    averages = ct.evaluation.ClassAverages(images, counts, np.eye(3)[None].repeat(3, 0), ["S1", "S2"], 4.0)
    figure = ct.plotting.class_averages(averages, ["S1", "S2 (looks like junk)"])
    assert [ax.get_title() for ax in figure.axes] == [f"{count} images" for count in range(6)]
    assert figure.axes[3].get_ylabel() == "S2 (looks like junk)"
    np.testing.assert_array_equal(figure.axes[4].images[0].get_array(), images[1, 1])
    matplotlib.pyplot.close(figure)
