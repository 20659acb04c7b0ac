"""Copies of an image stay together in held-out folds, halves and bootstrap draws; without copies, nothing changes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cryotwin_nb as ct
from cryotwin_nb import evaluation
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.groups import arrange, bootstrap_weights, number_groups
from cryotwin_nb.models import subspace
from cryotwin_nb.training import trainer

pytestmark = pytest.mark.usefixtures("one_thread")
N = 120
WELLS = GaussianMixture([0.35, 0.35, 0.3], [[0, 0], [6, 0], [3, 4]], 0.6 * np.stack([np.eye(2)] * 3))
THRICE = np.repeat(np.arange(N), 3)
ALONE = np.random.default_rng(4).permutation(N) + 7  # numbers that say only that no two rows belong together


@pytest.fixture(scope="module")
def z():
    return torch.randn(N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@given(st.lists(st.integers(-3, 6), min_size=1, max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_groups_are_numbered_as_they_appear_and_arranged_as_a_whole(groups, random):
    number = number_groups(np.array(groups), len(groups))
    first = [groups.index(group) for group in groups]
    assert [sorted(set(first)).index(f) for f in first] == number.tolist()
    order = torch.tensor(random.sample(range(int(number.max()) + 1), int(number.max()) + 1))
    rows, place = arrange(number, order)
    assert sorted(rows.tolist()) == list(range(len(groups)))
    assert (order[place] == number[rows]).all() and (place.diff() >= 0).all()
    weights = bootstrap_weights(number, torch.Generator().manual_seed(0))
    assert len(set(weights.tolist())) == len(set(groups))
    assert all(weights[i] == weights[first[i]] for i in range(len(groups)))


@pytest.mark.parametrize("groups", [np.arange(5), np.zeros((N, 1), int), np.zeros(N), np.array(["a"] * N)])
def test_groups_of_another_shape_or_type_are_refused(groups, z):
    with pytest.raises(ct.InputError, match=rf"groups.*integers of shape \({N},\)(?s:.*)particles.identity"):
        GaussianMixture.fit(z, 2, groups=groups)


def test_without_copies_groups_change_nothing(z):
    path, samples = ct.max_flux(WELLS, 0, 1, n_steps=3), WELLS.sample(N, seed=1)
    truth = SimpleNamespace(coordinates=z.numpy() @ np.ones((2, 3)), coordinate_names=("a", "b", "c"))

    def everything(**given):
        mixture = GaussianMixture.fit(z, 6, **given)
        yield from (mixture.weights, mixture.means, mixture.covariances)
        yield ct.kl_divergence(z, WELLS, n_samples=40, **given)
        yield evaluation.kl_neighbours(z, WELLS, n_samples=70, **given)
        yield evaluation.kl_lower_bound(z, WELLS, 3, **given)
        for mean, ends in evaluation.held_out_log_likelihood(z, (1, 3), **given).values():
            yield from (mean, *ends)
        yield from evaluation.coordinate_r2(z, truth, 3, **given).values()
        yield from evaluation.r2_interval(z, truth, 3, **given).values()
        yield from (ct.bootstrap_path(WELLS, samples, path, 2, **given).latents)
        for route in ct.find_routes(WELLS, 0, 1, evidence=samples, n_draws=3, **given):
            yield (*route.share_interval, route.frequency)

    for without, alone in zip(everything(), everything(groups=ALONE), strict=True):
        np.testing.assert_array_equal(without, alone)


def test_the_number_of_components_is_not_raised_by_copies(z):
    """One Gaussian, each latent listed six times: held out row by row, a component for every other latent pays off."""
    names = np.repeat(np.arange(N), 6)
    assert GaussianMixture.fit(z, 60).n_components == 1
    assert GaussianMixture.fit(z[names], 60).n_components > 10
    assert GaussianMixture.fit(z[names], 60, groups=names).n_components == 1


def test_held_out_likelihood_of_an_overfitted_mixture_is_not_raised_by_copies(z):
    names, prior = np.repeat(np.arange(N), 12), GaussianMixture.fit(z, 1)

    def lead(latents, **given):
        scores = evaluation.held_out_log_likelihood(latents, (1, 30), **given)
        selected = int(list(scores)[-1].removeprefix("selected (C = ").rstrip(")"))
        assert (selected < 5) == (len(latents) == N or bool(given))
        return scores["C = 30"][0] - scores["C = 1"][0]

    def width(latents, **given):
        return float(np.diff(evaluation.held_out_log_likelihood(latents, (1,), **given)["C = 1"][1])[0])

    assert width(z[names], groups=names) == pytest.approx(width(z), rel=0.1)
    assert lead(z) < -1
    assert lead(z[names]) > 0.3
    assert lead(z[names], groups=names) < -1
    once = evaluation.kl_lower_bound(z, prior, 60)
    assert evaluation.kl_lower_bound(z[names], prior, 60, groups=names) == pytest.approx(once, abs=0.25)
    assert evaluation.kl_lower_bound(z[names], prior, 60) > once + 0.3


@pytest.mark.parametrize("estimate", [ct.kl_divergence, evaluation.kl_neighbours])
def test_divergences_are_not_raised_by_copies(estimate):
    prior = GaussianMixture([1.0], [[0.0, 0.0]], np.eye(2)[None])
    names = np.repeat(np.arange(200), 12)
    raised, whole = [], []
    for seed in range(4):
        z = prior.sample(200, seed=50 + seed)[names]
        raised.append(estimate(z, prior, seed=seed))
        whole.append(estimate(z, prior, seed=seed, groups=names))
    assert np.mean(raised) > np.mean(whole) + 0.04
    assert abs(np.mean(whole)) < 0.04


def test_an_interval_is_not_narrowed_by_copies(z):
    def mean(x):
        return float(x.mean())

    values = z[:, 0].numpy()
    once = evaluation.interval(mean, values)
    rows = np.random.default_rng(1).permutation(3 * N)
    order = np.argsort(np.unique(THRICE[rows], return_index=True)[1])  # images by first appearance
    assert evaluation.interval(mean, values[order][np.argsort(order)][THRICE], groups=THRICE) == pytest.approx(once)
    whole = evaluation.interval(mean, values[THRICE][rows], groups=THRICE[rows])
    narrow = evaluation.interval(mean, values[THRICE][rows])
    width = once.high - once.low
    assert whole.high - whole.low == pytest.approx(width, rel=0.1)
    assert narrow.high - narrow.low == pytest.approx(width / 3**0.5, rel=0.1)


def test_a_coordinate_is_not_predicted_by_copies(z):
    """Coordinates that have nothing to do with the latents."""
    truth = SimpleNamespace(coordinates=np.random.default_rng(0).normal(size=(N, 1)), coordinate_names=("a",))
    truth.coordinates = np.concatenate([truth.coordinates] * 3)
    names = np.tile(np.arange(N), 3)
    assert evaluation.coordinate_r2(z[names], truth, 2)["a"] > 0.9
    assert evaluation.coordinate_r2(z[names], truth, 2, groups=names)["a"] < 0.2
    low, high = evaluation.r2_interval(z[names], truth, 2, groups=names)["a"]
    assert low < evaluation.coordinate_r2(z[names], truth, 2, groups=names)["a"] < high < 0.3


def test_draws_of_routes_and_paths_are_those_of_the_list_without_copies():
    samples, path = WELLS.sample(N, seed=2), ct.max_flux(WELLS, 0, 1, n_steps=3)
    once = ct.find_routes(WELLS, 0, 1, evidence=samples, n_draws=12)
    thrice = ct.find_routes(WELLS, 0, 1, evidence=samples[THRICE], n_draws=12, groups=THRICE)
    by_rows = ct.find_routes(WELLS, 0, 1, evidence=samples[THRICE], n_draws=12)
    assert thrice[0].share_interval == pytest.approx(once[0].share_interval, abs=1e-6)
    assert by_rows[0].share_interval != pytest.approx(once[0].share_interval, abs=1e-4)

    def spread(latents, **given):
        return ct.bootstrap_path(WELLS, latents, path, n_draws=12, **given).log_cost.std()

    assert spread(samples[THRICE], groups=THRICE) == pytest.approx(spread(samples), rel=0.15)
    assert spread(samples[THRICE]) < 0.75 * spread(samples)


def test_training_and_likelihood_know_the_copies(monkeypatch):
    made = ct.simulate.assembly(60, 16, progress=False)
    particles = made[np.tile(np.arange(60), 2)]
    given, fit = [], GaussianMixture.fit.__func__

    def watched(cls, z, *args, **options):
        given.append(options.get("groups"))
        return fit(cls, z, *args, **options)

    monkeypatch.setattr(GaussianMixture, "fit", classmethod(watched))
    assert subspace.GaussianMixture is trainer.GaussianMixture is GaussianMixture
    model = ct.CryoTwin(16, latent_dim=2, n_components=3)
    ct.fit(model, particles, ct.TrainingConfig(epochs=1), progress=False)
    selecting = [groups for groups in given if groups is not None]
    assert len(selecting) == 2  # the density of the coefficients and the final prior
    assert all((groups == particles.identity).all() for groups in selecting)
    assert (model.likelihood(particles).groups == particles.identity).all()


def test_evidence_that_knows_its_copies_is_drawn_by_image():
    samples = WELLS.sample(N, seed=2)[THRICE]

    def evidence(points):
        return ct.pathways.tube(samples, 0.5)(points)

    by_rows = ct.find_routes(WELLS, 0, 1, evidence=evidence, n_draws=6)[0].share_interval
    evidence.groups = THRICE
    by_image = ct.find_routes(WELLS, 0, 1, evidence=evidence, n_draws=6)[0].share_interval
    given = ct.find_routes(WELLS, 0, 1, evidence=evidence, n_draws=6, groups=THRICE)[0].share_interval
    assert by_image == given != by_rows
