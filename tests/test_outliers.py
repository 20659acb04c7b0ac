"""Junk particles are detected, and the parts of the outlier score are as documented."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation.outliers import OutlierScores, standardised

pytestmark = pytest.mark.usefixtures("one_thread")
N = 500


@pytest.fixture(scope="module")
def trained() -> tuple[ct.Particles, ct.CryoTwin]:
    particles = ct.simulate.assembly(N, 32, seed=0, junk=0.1, contrast_std=0.2, snr=2.0, progress=False)
    model = ct.CryoTwin(32, contrast=False, latent_dim=4, n_components=2, width=8, n_basis=4)
    ct.fit(model, particles, ct.TrainingConfig(epochs=1), progress=False)
    return particles, model


@pytest.fixture(scope="module")
def scores(trained) -> OutlierScores:
    particles, model = trained
    return ct.outlier_scores(model, particles)


def test_junk_is_told_apart(trained, scores):
    junk = trained[0].truth.labels == "junk"
    assert roc_auc_score(junk, scores.score) > 0.97
    assert np.median(scores.score[junk]) > 3
    assert np.mean(scores.score[~junk] > 3) < 0.05


def test_noise_without_a_particle_is_told_apart(trained):
    """It leaves no excess residual, but its correlation is low."""
    particles, model = trained
    good = particles[np.flatnonzero(particles.truth.labels != "junk")[:200]]
    images = good.images(slice(None))
    images[:20] = ct.simulate.assembly(220, 32, seed=1, snr=1e-4, progress=False).images(np.arange(20)) / 1e2**0.5
    images[:20] *= images[20:, :3].std() / images[:20, :3].std()
    mixed = ct.Particles(images, good.rotations, good.shifts, good.ctf, pixel_size=good.pixel_size)
    scores = ct.outlier_scores(model, mixed)
    empty = np.arange(200) < 20
    assert roc_auc_score(empty, scores.score) > 0.95
    assert scores.residual[empty].mean() < 1.1
    assert np.abs(scores.contrast[empty]).mean() < 0.3


def test_contrast_and_residual_are_those_of_the_images(trained, scores):
    """Doubling an image's contrast doubles the estimate; a perfect model leaves only the noise, chi^2 = 1."""
    particles, model = trained
    good = particles.truth.labels != "junk"
    assert np.median(scores.residual[good]) == pytest.approx(1, abs=0.05)
    assert np.median(scores.contrast[good]) == pytest.approx(1, abs=0.1)
    rows = np.flatnonzero(good)[:50]
    batch = model.imaging.batch(particles, rows)
    seen = model.predict(batch, model.encode(batch)[0]).detach()[:, 1:]
    weights, data = model.imaging.multiplicity[1:].double(), batch.data[:, 1:]
    for i, row in enumerate(rows[:5]):
        a, b = (torch.view_as_real(x[i].to(torch.complex128) * weights.sqrt()).flatten().numpy() for x in (data, seen))
        solution, left, _, _ = np.linalg.lstsq(b[:, None], a, rcond=None)
        assert scores.contrast[row] == pytest.approx(solution[0], rel=1e-3)
        assert scores.residual[row] == pytest.approx(left[0] / float(weights.sum()), rel=1e-3)
        assert scores.correlation[row] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-3)


def test_standardised_values_of_a_normal_distribution_with_outliers_are_standard():
    values = np.random.default_rng(0).normal(5, 2, 20_000)
    values[:200] = 1e6
    assert kstest(standardised(values)[200:], "norm").statistic < 0.02
    assert np.isfinite(standardised(np.ones(5))).all()


def test_one_particle_has_no_others(trained):
    particles, model = trained
    with pytest.raises(InputError, match="one particle"):
        ct.outlier_scores(model, particles[0])
