"""The mixture: densities, window mass, modes, samples, moments of mini-batches, fitting and deconvolution."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor

import cryotwin_nb as ct
import cryotwin_nb.mixture.gaussian as mixture_module
from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture import selection
from cryotwin_nb.mixture.components import Components
from cryotwin_nb.mixture.em import Latents
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.live import flattened
from cryotwin_nb.mixture.moments import MixtureMoments

pytestmark = pytest.mark.usefixtures("one_thread")


def random_mixture(count: int = 5, dim: int = 3, seed: int = 0, spread: float = 2.0) -> GaussianMixture:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(count, dim, dim)) / math.sqrt(dim)
    covariances = factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(dim)
    return GaussianMixture(rng.dirichlet(np.full(count, 5.0)), spread * rng.normal(size=(count, dim)), covariances)


def as_sklearn(mixture: GaussianMixture) -> SklearnMixture:
    twin = SklearnMixture(mixture.n_components)
    twin.weights_, twin.means_, twin.covariances_ = (
        t.numpy() for t in (mixture.weights, mixture.means, mixture.covariances)
    )
    twin.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(twin.covariances_))
    return twin


def latents(n: int, dim: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Densities


def test_log_prob_and_responsibilities_equal_scikit_learn():
    mixture, z = random_mixture(), latents(200, 3)
    twin = as_sklearn(mixture)
    np.testing.assert_allclose(mixture.log_prob(z), twin.score_samples(z.numpy()), rtol=1e-10)
    np.testing.assert_allclose(mixture.responsibilities(z), twin.predict_proba(z.numpy()), atol=1e-12)


def test_float32_latents_give_float32_and_float64_accuracy():
    mixture, z = random_mixture(), latents(50, 3)
    for method in (mixture.log_prob, mixture.responsibilities, lambda z: mixture.log_window_mass(z, 0.5)):
        assert method(z).dtype == torch.float64
        assert method(z.float()).dtype == torch.float32
        torch.testing.assert_close(method(z.float()).double(), method(z.float().double()), rtol=2e-7, atol=1e-7)


def test_many_points_are_computed_in_pieces(monkeypatch):
    mixture, z = random_mixture(), latents(101, 3)
    whole = mixture.log_prob(z)
    widest = []
    plain = GaussianMixture._log_joint

    def spy(self, z, window=0.0):
        widest.append(len(z))
        return plain(self, z, window)

    monkeypatch.setattr(GaussianMixture, "_log_joint", spy)
    monkeypatch.setattr(mixture_module, "_AT_ONCE", 150)
    torch.testing.assert_close(mixture.log_prob(z), whole, rtol=0, atol=1e-12)
    assert max(widest) == 10
    assert sum(widest) == 101


def test_the_score_is_the_gradient_of_the_log_density():
    mixture = random_mixture()
    z = torch.cat([latents(40, 3), 1e3 * latents(3, 3)]).requires_grad_()  # including points where densities underflow
    (gradient,) = torch.autograd.grad(mixture.log_prob(z).sum(), z)
    value, score = mixture.log_prob_and_score(z)
    torch.testing.assert_close(value, mixture.log_prob(z).detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(score, gradient, rtol=1e-10, atol=1e-10)
    assert not value.requires_grad
    assert not score.requires_grad


def test_factors_are_computed_once_and_never_hide_a_gradient(monkeypatch):
    calls = []
    plain = Components.factorised
    monkeypatch.setattr(Components, "factorised", lambda *a: calls.append(a[1]) or plain(*a))
    mixture, z = random_mixture(), latents(5, 3)
    for _ in range(3):
        mixture.log_prob(z)
        mixture.log_window_mass(z, 1.0)
    assert calls == [0.0, 1.0]
    with torch.inference_mode():
        fresh = random_mixture().to("cpu")
        fresh.log_prob(z)
    z.requires_grad_()
    fresh.log_prob(z).sum().backward()
    means = mixture.means.clone().requires_grad_()
    moving = GaussianMixture.unchecked(mixture.weights, means, mixture.covariances)
    with torch.no_grad():
        moving.log_prob(z)
    moving.log_prob(z.detach()).sum().backward()
    assert z.grad.abs().min() > 0
    assert means.grad.abs().max() > 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_density_is_covariant_under_affine_maps_and_blind_to_component_order(seed):
    mixture, z = random_mixture(seed=seed), latents(20, 3, seed)
    rng = np.random.default_rng(seed)
    matrix, shift = torch.from_numpy(rng.normal(size=(3, 3)) + 2 * np.eye(3)), torch.from_numpy(rng.normal(size=3))
    moved = GaussianMixture(mixture.weights, mixture.means @ matrix.T + shift, matrix @ mixture.covariances @ matrix.T)
    expected = mixture.log_prob(z) - torch.linalg.det(matrix).abs().log()
    torch.testing.assert_close(moved.log_prob(z @ matrix.T + shift), expected, rtol=1e-6, atol=1e-6)
    order = torch.from_numpy(rng.permutation(5))
    shuffled = GaussianMixture(mixture.weights[order], mixture.means[order], mixture.covariances[order])
    torch.testing.assert_close(shuffled.log_prob(z), mixture.log_prob(z))
    torch.testing.assert_close(shuffled.responsibilities(z), mixture.responsibilities(z)[:, order])


# The window mass Q_z


@pytest.mark.parametrize("dim", [1, 2])
def test_window_mass_is_close_to_the_integral_over_the_box(dim):
    """Eq. 1 by brute force: at means of components of width T/2 or more, the error is at most 2 % per axis."""
    window = 0.6
    mixture = random_mixture(4, dim, seed=3)
    assert torch.linalg.eigvalsh(mixture.covariances).min().sqrt() >= window / 2
    nodes, node_weights = np.polynomial.legendre.leggauss(24)
    offsets = np.stack(np.meshgrid(*[nodes * window / 2] * dim, indexing="ij"), -1).reshape(-1, dim)
    volume = np.prod(np.meshgrid(*[node_weights * window / 2] * dim, indexing="ij"), axis=0).ravel()
    for mean in mixture.means:
        density = as_sklearn(mixture).score_samples(mean.numpy() + offsets)
        exact = math.log(volume @ np.exp(density))
        assert abs(float(mixture.log_window_mass(mean[None], window)) - exact) < math.log(1.02) * dim


@pytest.mark.parametrize("ratio", [0.5, 0.7, 1.0, 3.0])
def test_window_mass_of_diagonal_covariances_against_error_functions(ratio):
    window, dim = 2.0, 3
    deviation = np.array([1.0, 1.3, 2.0]) * ratio * window
    gaussian = GaussianMixture([1.0], np.zeros((1, dim)), np.diag(deviation**2)[None])
    exact = np.log([math.erf(window / 2 / s / math.sqrt(2)) for s in deviation]).sum()
    assert abs(float(gaussian.log_window_mass(torch.zeros(1, dim), window)) - exact) < dim * math.log(1.02)


def test_window_mass_of_a_collapsing_component_is_finite_monotone_and_bounded():
    widths = torch.logspace(2, -9, 60, dtype=torch.float64)
    rate = [
        float(GaussianMixture([1.0], [[0.0]], [[[s**2]]]).log_window_mass(torch.zeros(1, 1).double(), 1.0))
        for s in widths.tolist()
    ]
    assert np.isfinite(rate).all()
    assert (np.diff(rate) >= 0).all()
    assert rate[-1] == pytest.approx(math.log(math.sqrt(6 / math.pi)), abs=1e-6)  # 1.38, for a mass of 1
    assert math.exp(rate[-1]) < 1.3825


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3))
def test_window_mass_has_no_unit(scale):
    mixture, z = random_mixture(), latents(10, 3)
    scaled = GaussianMixture(mixture.weights, scale * mixture.means, scale**2 * mixture.covariances)
    torch.testing.assert_close(scaled.log_window_mass(scale * z, scale * 0.7), mixture.log_window_mass(z, 0.7))


# Modes and samples


def test_modes_are_the_maxima_of_a_grid():
    mixture = random_mixture(8, 2, seed=5, spread=1.5)
    axis = torch.linspace(-6, 6, 601, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    density = mixture.log_prob(points).view(601, 601).numpy()
    peaks = np.argwhere((density == ndimage.maximum_filter(density, size=5)) & (density > -20))
    expected = points.view(601, 601, 2)[tuple(peaks.T)]
    modes = mixture.modes()
    assert 1 < len(modes) < 8
    assert len(modes) == len(expected)
    assert torch.cdist(modes, expected).amin(1).max() < 0.03
    assert (mixture.log_prob(modes).diff() <= 0).all()
    z = modes.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_prob(z).sum(), z)
    assert gradient.abs().max() < 1e-4


def test_a_mean_on_a_saddle_is_no_mode():
    wide, narrow = 0.5 * np.eye(2), 0.1 * np.eye(2)
    mixture = GaussianMixture([0.45, 0.1, 0.45], [[-1, 0], [0, 0], [1, 0]], [narrow, wide, narrow])
    assert len(mixture.modes()) == 2


def test_samples_have_the_moments_of_the_mixture():
    mixture = random_mixture()
    z = mixture.sample(200_000, seed=1)
    assert z.dtype == torch.float32
    assert torch.equal(z, mixture.sample(200_000, seed=1))
    assert not torch.equal(z, mixture.sample(200_000, seed=2))
    mean = mixture.weights @ mixture.means
    second = mixture.covariances + mixture.means[:, :, None] * mixture.means[:, None]
    covariance = torch.einsum("c,cde->de", mixture.weights, second) - mean[:, None] * mean
    torch.testing.assert_close(z.double().mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(z.double().T.cov(), covariance, rtol=0.02, atol=0.03)
    share = torch.bincount(mixture.responsibilities(z).argmax(-1), minlength=5) / len(z)
    expected = mixture.responsibilities(mixture.sample(200_000, seed=3)).double().mean(0)
    torch.testing.assert_close(expected, mixture.weights, rtol=0, atol=0.005)
    assert (share - mixture.weights).abs().max() < 0.1


GOOD = {"weights": [0.5, 0.5], "means": [[0.0, 0.0], [1.0, 0.0]], "covariances": [np.eye(2), np.eye(2)]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [0.5, 0.6]}, "sum of 1.1"),
        ({"weights": [1.5, -0.5]}, "no negative weight"),
        ({"weights": [1.0]}, r"shape \(1,\)"),
        ({"weights": [float("nan"), 0.5]}, "NaN"),
        ({"means": [0.0, 1.0]}, r"\(C, d\)"),
        ({"means": [[0.0, math.inf], [0.0, 0.0]]}, "infinity"),
        ({"covariances": [np.eye(3), np.eye(3)]}, r"expected \(2, 2, 2\)"),
        ({"covariances": [np.eye(2), -np.eye(2)]}, "component 1, which is not positive definite"),
        ({"covariances": [np.eye(2), np.array([[1.0, 0.5], [0.0, 1.0]])]}, "component 1, which is not symmetric"),
        ({"covariances": [np.eye(2), np.ones((2, 2))]}, "positive definite"),
    ],
)
def test_what_is_no_mixture_is_refused(change, message):
    arguments = {name: np.array(value) for name, value in (GOOD | change).items()}
    with pytest.raises(InputError, match=f"(?s){message}"):
        GaussianMixture(**arguments)


def test_bad_latents_and_windows_are_refused():
    mixture = random_mixture()
    with pytest.raises(InputError, match=r"expected \(n, 3\)"):
        mixture.log_prob(torch.zeros(4, 2))
    with pytest.raises(InputError, match=r"expected \(n, 3\)"):
        mixture.log_prob(torch.zeros(3))
    with pytest.raises(InputError, match="window"):
        mixture.log_window_mass(torch.zeros(1, 3), 0.0)


# Moments of mini-batches


def test_the_rate_has_the_right_gradient_through_the_moments():
    z, w = latents(12, 2), latents(12, 3, seed=1)
    moments = MixtureMoments(3, 2, decay=0.6)
    moments.update(latents(12, 2, seed=2), latents(12, 3, seed=3))

    def rate(z: Tensor, w: Tensor) -> Tensor:
        return -copy.deepcopy(moments).update(z, w).log_window_mass(z, 1.5)

    assert torch.autograd.gradcheck(rate, (z.requires_grad_(), w.requires_grad_()))
    (gradient,) = torch.autograd.grad(rate(z, w).sum(), w)
    assert gradient.abs().max() > 1e-3


def test_successive_batches_do_not_share_a_graph():
    moments = MixtureMoments(4, 2)
    for seed in range(3):
        z, w = latents(20, 2, seed).float().requires_grad_(), latents(20, 4, seed + 10).float().requires_grad_()
        moments.update(z, w).log_window_mass(z, 1.0).mean().backward()
        assert z.grad.isfinite().all()
        assert not moments.second.requires_grad


def test_moments_are_the_debiased_moving_average_of_the_batches():
    decay, moments = 0.7, MixtureMoments(3, 2, decay=0.7)
    batches = [(latents(30, 2, seed), latents(30, 3, seed + 50)) for seed in range(6)]
    for z, w in batches:
        mixture = moments.update(z, w)
    share = np.array([decay ** (5 - k) for k in range(6)])
    share /= share.sum()
    gamma = [w.softmax(-1) for _, w in batches]
    mass = sum(a * g.mean(0) for a, g in zip(share, gamma, strict=True))
    first = sum(a * g.T @ z / 30 for a, g, (z, _) in zip(share, gamma, batches, strict=True))
    second = sum(
        a * torch.einsum("nc,nd,ne->cde", g, z, z) / 30 for a, g, (z, _) in zip(share, gamma, batches, strict=True)
    )
    torch.testing.assert_close(moments.mass, mass)
    torch.testing.assert_close(moments.first, first)
    torch.testing.assert_close(moments.second, second)
    means = first / mass[:, None]
    torch.testing.assert_close(mixture.weights, mass, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(mixture.means, means, rtol=1e-6, atol=1e-6)
    expected = second / mass[:, None, None] - means[:, :, None] * means[:, None]
    torch.testing.assert_close(mixture.covariances, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moments.mixture().covariances, mixture.covariances)


def test_moments_converge_to_those_of_the_data():
    truth = random_mixture(1, 3, seed=4)
    moments = MixtureMoments(1, 3, decay=0.99)
    for seed in range(500):
        moments.update(truth.sample(128, seed), torch.zeros(128, 1))
    torch.testing.assert_close(moments.mixture().means, truth.means, rtol=0, atol=0.03)
    torch.testing.assert_close(moments.mixture().covariances, truth.covariances, rtol=0.05, atol=0.03)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("logit", [10.0, 100.0, 1000.0])
def test_mixture_stays_positive_definite_when_components_have_no_mass(logit, offset):
    moments = MixtureMoments(6, 4)
    w = latents(40, 6).float() / 10
    w[:, 0] += logit
    z = (latents(40, 4, seed=1) + offset).float()
    mixture = moments.update(z, w)
    GaussianMixture(mixture.weights, mixture.means, mixture.covariances)
    assert mixture.log_window_mass(z, 1.0).isfinite().all()
    assert moments.starved() == [1, 2, 3, 4, 5]


def test_a_batch_of_equal_latents_gives_a_finite_rate():
    z, w = torch.zeros(8, 3, requires_grad=True), torch.zeros(8, 2, requires_grad=True)
    rate = MixtureMoments(2, 3).update(z, w).log_window_mass(z, 1.0).mean()
    rate.backward()
    assert rate.isfinite()
    assert z.grad.isfinite().all()


def test_starved_components_are_those_below_a_tenth_of_their_share():
    moments = MixtureMoments(4, 1)
    moments.assign(GaussianMixture([0.9, 0.05, 0.026, 0.024], np.zeros((4, 1)), np.ones((4, 1, 1))))
    assert moments.starved() == [3]
    assert moments.starved(0.3) == [1, 2, 3]
    moments.mass.mul_(50)  # shares count, not masses
    assert moments.starved(0.3) == [1, 2, 3]


def test_split_changes_neither_mass_nor_moments():
    moments = MixtureMoments(4, 3)
    moments.assign(random_mixture(4, 3))
    before = [t.clone() for t in (moments.mass, moments.first, moments.second)]
    covariance = moments.mixture().covariances[2]
    moments.split(2, 0, torch.Generator().manual_seed(0))
    for old, new in zip(before, (moments.mass, moments.first, moments.second), strict=True):
        torch.testing.assert_close(new.sum(0), old.sum(0))
        torch.testing.assert_close(new[[1, 3]], old[[1, 3]], rtol=0, atol=0)
    assert moments.mass[0] == moments.mass[2]
    mixture = moments.mixture()
    GaussianMixture(mixture.weights, mixture.means, mixture.covariances)
    assert (mixture.means[0] - mixture.means[2]).norm() > 0.5 * torch.linalg.eigvalsh(covariance)[-1].sqrt()


def test_moments_survive_a_round_trip_through_mixture_and_state_dict():
    mixture = random_mixture(3, 2)
    moments = MixtureMoments(5, 2)
    moments.assign(mixture, steps=7)
    torch.testing.assert_close(moments.mixture().weights[:3], mixture.weights)
    torch.testing.assert_close(moments.mixture().covariances[:3], mixture.covariances, rtol=1e-4, atol=1e-4)
    assert moments.mixture().weights[3:].sum() == 0
    twin = MixtureMoments(5, 2)
    twin.load_state_dict(moments.state_dict())
    z, w = latents(10, 2), latents(10, 5, seed=1)
    torch.testing.assert_close(twin.update(z, w).covariances, moments.update(z, w).covariances, rtol=0, atol=0)
    with pytest.raises(InputError, match="at most 5"):
        moments.assign(random_mixture(6, 2))
    with pytest.raises(InputError, match="decay"):
        MixtureMoments(5, 2, decay=1.0)


# Fitting


def three_clusters(n: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    return torch.from_numpy(centres[rng.integers(3, size=n)] + rng.normal(size=(n, 3)) * [1.0, 1.0, 0.5])


def test_three_clusters_give_three_components_as_good_as_those_of_scikit_learn(capsys):
    z, test = three_clusters(2000), three_clusters(20_000, seed=1)
    mixture = GaussianMixture.fit(z, 100, seed=0, progress=True)
    assert mixture.n_components == 3
    lines = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("11 components,") for line in lines)  # stops after two steps without improvement
    printed = max(float(line.split()[-4]) for line in lines)
    assert printed == pytest.approx(float(mixture.log_prob(test).mean()), abs=0.05)
    assert (mixture.weights.diff() <= 0).all()
    twin = SklearnMixture(3, n_init=3, random_state=0).fit(z.numpy())
    assert float(mixture.log_prob(test).mean()) > twin.score(test.numpy()) - 0.002
    distance = torch.cdist(mixture.means, torch.from_numpy(twin.means_))
    assert distance.amin(0).max() < 0.05


def test_the_number_of_components_is_within_a_twentieth_of_a_nat_of_the_best():
    truth = random_mixture(12, 3, seed=8, spread=2.5)
    z, test = truth.sample(3000), truth.sample(20_000, seed=1)
    chosen = GaussianMixture.fit(z, 64)
    scores = {c: float(GaussianMixture.fit(z, c, select=False).log_prob(test).mean()) for c in (4, 8, 11, 16, 32, 64)}
    assert 6 <= chosen.n_components <= 32
    assert float(chosen.log_prob(test).mean()) > max(scores.values()) - 0.05
    assert scores[4] < max(scores.values()) - 0.05  # otherwise the bound would be meaningless


def test_few_latents_do_not_get_overfitted():
    truth = random_mixture(3, 8, seed=2)
    z, test = truth.sample(300), truth.sample(20_000, seed=1)
    score = float(GaussianMixture.fit(z, 100).log_prob(test).mean())
    best = max(SklearnMixture(c, random_state=0).fit(z.numpy()).score(test.numpy()) for c in (1, 2, 3))
    assert score > best - 0.05


def test_tight_components_stay_tight_beside_broad_ones():
    rng = np.random.default_rng(0)
    z = torch.from_numpy(np.concatenate([2 * rng.normal(size=(540, 4)), 8 + 0.05 * rng.normal(size=(60, 4))]))
    tight = GaussianMixture.fit(z, 2, select=False).covariances[1]
    assert tight.diagonal().mean().sqrt() == pytest.approx(0.05, rel=0.2)


def test_exactly_as_many_components_as_asked_for():
    z = three_clusters(500)
    mixture = GaussianMixture.fit(z.float(), 17, select=False, n_init=2)
    assert mixture.n_components == 17
    assert mixture.weights.min() > 0
    GaussianMixture(mixture.weights, mixture.means, mixture.covariances)
    again = GaussianMixture.fit(z.float(), 17, select=False, n_init=2)
    torch.testing.assert_close(again.means, mixture.means, rtol=0, atol=0)


@pytest.mark.parametrize("make", [lambda: torch.zeros(20, 3), lambda: torch.randn(3, 2), lambda: torch.ones(1, 2)])
def test_latents_without_spread_or_number_still_give_a_mixture(make):
    z = make()
    mixture = GaussianMixture.fit(z, 1)
    assert mixture.log_prob(z).isfinite().all()


def test_latents_on_a_plane_give_a_mixture():
    z = three_clusters(500)
    z[:, 2] = 7.0
    mixture = GaussianMixture.fit(z, 10)
    GaussianMixture(mixture.weights, mixture.means, mixture.covariances)
    assert mixture.n_components == 3


def spikes(dim: int = 5, n: int = 500) -> Tensor:
    """Return eight narrow clusters with heavy tails and directions of small variance."""
    rng = np.random.default_rng(11)
    centres = 6 * rng.normal(size=(8, dim))
    z = centres[rng.integers(8, size=n)] + 0.05 * rng.standard_t(3, size=(n, dim))
    z[:, 3:] *= 0.02
    return torch.from_numpy(z)


@pytest.mark.parametrize("noise", [None, 1e-4 * torch.eye(5).expand(500, 5, 5)])
def test_no_component_is_left_without_latents(noise, monkeypatch):
    z, options = spikes(), {"n_init": 2, "max_iter": 60, "select": False}
    mixture = GaussianMixture.fit(z, 250, noise, **options)
    assert (mixture.weights * len(z)).min() > 1 - 1e-6
    assert mixture.weights.sum() == pytest.approx(1)
    monkeypatch.setattr("cryotwin_nb.mixture.fitting.without_empty", lambda latents, mixture, *_, **__: mixture)
    assert (GaussianMixture.fit(z, 250, noise, **options).weights * len(z)).min() < 0.5  # otherwise nothing is tested


def test_a_component_that_is_nowhere_the_most_likely_is_dropped():
    z = three_clusters(300)
    three = GaussianMixture.fit(z, 3, select=False)
    parts = (torch.cat([part, part[:1]]) for part in (three.means, three.covariances))
    weights = torch.cat([three.weights * torch.tensor([0.6, 1, 1]), 0.4 * three.weights[:1]])
    start = GaussianMixture(weights, *parts)  # of two equal components, the lighter one is nowhere the most likely
    assert GaussianMixture.fit(z, start=start, select=False).n_components == 4
    assert GaussianMixture.fit(z, start=start).n_components == 3


def test_a_start_loses_empty_components_unless_the_latents_have_weights():
    """The draws of a bootstrap refer to components by their index."""
    z = three_clusters(200)
    three = GaussianMixture.fit(z, 3, select=False)
    far = torch.cat([three.means[:1], 100 * torch.ones(1, 3, dtype=torch.float64), three.means[1:]])
    weights = torch.cat([three.weights[:1], torch.tensor([1e-3]), three.weights[1:]])
    start = GaussianMixture(weights / weights.sum(), far, torch.eye(3).expand(4, 3, 3))
    plain = GaussianMixture.fit(z, start=start)
    assert plain.n_components == 3
    torch.testing.assert_close(plain.means, three.means, rtol=0, atol=0.05)
    drawn = GaussianMixture.fit(z, weights=torch.ones(200), start=start)
    assert drawn.n_components == 4 and float(drawn.weights[1]) < 1e-6


def test_weights_count_like_repeated_latents():
    z, start = three_clusters(200), GaussianMixture.fit(three_clusters(300, seed=1), 3, select=False)
    counts = torch.from_numpy(np.random.default_rng(0).integers(0, 4, size=200))
    weighted = GaussianMixture.fit(z, weights=counts, start=start, max_iter=10)
    repeated = GaussianMixture.fit(z.repeat_interleave(counts, 0), start=start, max_iter=10)
    plain = GaussianMixture.fit(z, start=start, max_iter=10)
    torch.testing.assert_close(weighted.means, repeated.means)
    torch.testing.assert_close(weighted.covariances, repeated.covariances)
    assert (weighted.means - plain.means).abs().max() > 1e-3
    noise = torch.zeros(200, 3, 3)
    noisy = GaussianMixture.fit(z, 3, noise, counts, start=start, max_iter=10, tol=0)
    exact = GaussianMixture.fit(z, 3, None, counts, start=start, max_iter=10, tol=0)
    torch.testing.assert_close(noisy.covariances, exact.covariances, rtol=1e-3, atol=1e-3)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_fit_is_covariant_under_affine_maps_and_blind_to_the_order_of_latents(seed):
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    matrix = torch.from_numpy(left * rng.uniform(0.5, 2, 3) @ right)  # a nearly singular one makes a direction dead
    shift = torch.from_numpy(rng.normal(size=3))
    z, start = three_clusters(150, seed), random_mixture(4, 3, seed)
    moved_start = GaussianMixture(start.weights, start.means @ matrix.T + shift, matrix @ start.covariances @ matrix.T)
    plain = GaussianMixture.fit(z, start=start, max_iter=5, tol=0)
    order = torch.from_numpy(rng.permutation(150))
    moved = GaussianMixture.fit(z[order] @ matrix.T + shift, start=moved_start, max_iter=5, tol=0)
    torch.testing.assert_close(moved.means, plain.means @ matrix.T + shift, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moved.weights, plain.weights, rtol=1e-5, atol=1e-7)


def noisy_sample(n: int, seed: int = 0) -> tuple[GaussianMixture, Tensor, Tensor]:
    """Return a known density, a noisy sample of it, and the covariances of the noise, from tiny to large."""
    truth = GaussianMixture([0.6, 0.4], [[0.0, 0.0], [3.0, 1.0]], [[[0.5, 0.2], [0.2, 0.3]], [[0.1, 0.0], [0.0, 0.6]]])
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, 2, 2)) * rng.uniform(0.1, 1.0, (n, 1, 1))
    noise = torch.from_numpy(factors @ factors.transpose(0, 2, 1))
    error = torch.from_numpy((factors @ rng.normal(size=(n, 2, 1)))[..., 0])
    return truth, truth.sample(n, seed).double() + error, noise


def test_deconvolution_recovers_the_density_before_the_errors():
    truth, z, noise = noisy_sample(4000)
    test = truth.sample(20_000, seed=5)
    ignorant = GaussianMixture.fit(z, 2, select=False)
    informed = GaussianMixture.fit(z, 2, noise, select=False)
    torch.testing.assert_close(informed.means, truth.means, rtol=0, atol=0.08)
    torch.testing.assert_close(informed.weights, truth.weights, rtol=0, atol=0.02)
    torch.testing.assert_close(informed.covariances, truth.covariances, rtol=0.15, atol=0.05)

    def divergence(mixture: GaussianMixture) -> float:
        return float((truth.log_prob(test) - mixture.log_prob(test)).mean())

    assert divergence(informed) < 0.01
    assert divergence(ignorant) > 0.1
    assert divergence(GaussianMixture.fit(z, 6, noise)) < 0.02


def test_deconvolution_maximises_the_likelihood_of_latents_with_errors():
    """A step of the pairwise EM against its definition, evaluated for each latent with SciPy."""
    from cryotwin_nb.mixture.em import NoisyLatents

    truth, z, noise = noisy_sample(40)
    moments, log_likelihood = NoisyLatents(z, torch.ones(40, dtype=torch.float64), noise).expect(truth)
    expected, total = np.zeros((2, 7)), 0.0
    for x, s in zip(z.numpy(), noise.numpy(), strict=True):
        joint, parts = [], []
        for weight, mean, covariance in zip(*(t.numpy() for t in vars_of(truth)), strict=True):
            joint.append(weight * stats.multivariate_normal(mean, covariance + s).pdf(x))
            gain = covariance @ np.linalg.inv(covariance + s)
            centre = mean + gain @ (x - mean)
            second = covariance - gain @ covariance + np.outer(centre, centre)
            parts.append(np.concatenate([[1.0], centre, second.ravel()]))
        expected += np.array(joint)[:, None] / sum(joint) * np.array(parts)
        total += math.log(sum(joint)) / 40
    np.testing.assert_allclose(moments, expected, rtol=2e-3, atol=2e-3)
    assert log_likelihood == pytest.approx(total, abs=1e-9)


def vars_of(mixture: GaussianMixture) -> tuple[Tensor, Tensor, Tensor]:
    return mixture.weights, mixture.means, mixture.covariances


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"z": torch.zeros(5)}, r"expected \(n, d\)"),
        ({"z": torch.zeros(0, 2)}, r"expected \(n, d\)"),
        ({"n_components": 31}, "31 components for 30 latents"),
        ({"n_components": 0}, "n_components: found 0"),
        ({"z": torch.full((30, 2), math.nan)}, "NaN"),
        ({"weights": torch.ones(29)}, "weights"),
        ({"weights": -torch.ones(30)}, "non-negative numbers"),
        ({"weights": torch.zeros(30)}, "not all zero"),
        ({"noise_covariances": torch.zeros(30, 2)}, r"expected \(30, 2, 2\)"),
        ({"noise_covariances": -torch.eye(2).expand(30, 2, 2)}, "eigenvalue -1"),
        ({"noise_covariances": torch.full((30, 2, 2), math.nan)}, "NaN"),
    ],
)
def test_what_cannot_be_fitted_is_refused(arguments, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        GaussianMixture.fit(**{"z": torch.randn(30, 2), "n_components": 3} | arguments)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_everything_runs_on_a_gpu_and_gives_the_same():
    z = three_clusters(1000)
    here = GaussianMixture.fit(z, 10)
    there = GaussianMixture.fit(z.cuda(), 10)
    assert there.means.is_cuda
    torch.testing.assert_close(there.log_prob(z), here.log_prob(z), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(here.to("cuda").sample(10).cpu(), here.sample(10))
    torch.testing.assert_close(here.to("cuda").modes().cpu(), here.modes(), rtol=1e-5, atol=1e-5)
    moments = MixtureMoments(3, 3).cuda()
    w = torch.randn(1000, 3, device="cuda", requires_grad=True)
    moments.update(z.cuda(), w).log_window_mass(z.cuda(), 1.0).mean().backward()
    moments.split(0, 1, torch.Generator().manual_seed(0))
    noise = 0.1 * torch.eye(3).expand(1000, 3, 3)
    GaussianMixture.fit(z.cuda(), 5, noise.cuda())


def test_whole_numbers_as_latents_give_densities_that_are_not():
    mixture = GaussianMixture([1.0], [[0.0, 0.0]], np.eye(2)[None])
    assert float(mixture.log_prob(torch.tensor([[0, 1]]))[0]) == pytest.approx(-math.log(2 * math.pi) - 0.5)


def searching(monkeypatch, held_out, n: int = 9000):
    """Return a function that selects, where `held_out` gives the log-likelihood (n,) of each count and strength."""
    tried = []

    class Scored(Latents):
        def subset(self, index):
            part = Scored(self.x[index], self.weights[index])
            part.rows = index
            return part

        def log_prob(self, choice):
            return held_out(*choice)[self.rows]

    def best(self, latents, count, strength):
        tried.append(count)
        return count, strength

    monkeypatch.setattr(selection.Search, "best", best)
    search = selection.Search(torch.ones(2, dtype=torch.float64), torch.Generator().manual_seed(0), 2, 10, 1e-3)
    latents = Scored(torch.zeros(n, 2, dtype=torch.float64), torch.ones(n, dtype=torch.float64))
    return search.select(latents, torch.arange(n), 100, False), tried


def test_the_ladder_goes_on_past_one_rung_that_brings_nothing(monkeypatch):
    """Three components can be no better than two although four are; the second rung without gain ends the search."""
    values = {1: 0.0, 2: 1.0, 3: 0.9, 4: 2.0, 6: 1.9, 8: 1.8, 11: 5.0}
    found, tried = searching(monkeypatch, lambda count, strength: torch.full((9000,), values[count]).double())
    assert found[0] == 4
    assert 8 in tried and 11 not in tried


def test_the_most_parsimonious_choice_within_a_standard_error_is_taken(monkeypatch):
    """The standard error is 0.011 nats; a choice that loses 0.005 is as good, one that loses 0.04 is not."""
    noise = torch.randn(9000, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def held_out(count, strength):
        lost = {1: 3.0, 2: 0.04, 3: 0.005, 4: 0.004}.get(count, 0.0 if count == 6 else 0.2)
        return 5 - lost - 0.001 * (strength < 8) + (noise - noise.mean()) * (count == 6)

    assert searching(monkeypatch, held_out)[0] == (3, 32.0)


def test_a_single_latent_does_not_decide(monkeypatch):
    """One latent that costs 1e5 nats with more than one component; all others gain 0.1 nats."""

    def held_out(count, strength):
        values = torch.full((9000,), 0.1 if count > 1 else 0.0, dtype=torch.float64)
        values[::9000] -= 1e5 * (count > 1)
        return values - 0.05 * (count > 2)

    assert searching(monkeypatch, held_out)[0][0] == 2


def test_small_separated_states_are_kept_and_components_are_few():
    """A curved motion of 2,000 latents with a state of 2 % beside it, in three dimensions."""
    rng = np.random.default_rng(3)
    t = rng.random(1960)
    curve = np.stack([8 * t, 3 * np.sin(np.pi * t), 0 * t], axis=1)
    rare = np.tile([4.0, -4.0, 0.0], (40, 1))
    z = torch.from_numpy(np.concatenate([curve, rare]) + 0.4 * rng.normal(size=(2000, 3)))
    mixture = GaussianMixture.fit(z, 100)
    assert mixture.n_components <= 12
    near = (mixture.means - torch.tensor([4.0, -4.0, 0.0])).norm(dim=1) < 0.5
    assert float(mixture.weights[near].sum()) == pytest.approx(0.02, abs=0.003)


def sheet(n: int = 3000) -> tuple[Tensor, Tensor]:
    """Return live latents (n, 2) on an arc, and the same with two axes that are smooth functions of them."""
    rng = np.random.default_rng(5)
    t = np.concatenate([0.05 * rng.normal(size=n // 3), 1 + 0.05 * rng.normal(size=n // 3), rng.random(n // 3)])
    live = np.stack([8 * t, 4 * np.sin(np.pi * t)], axis=1) + 0.5 * rng.normal(size=(n, 2))
    dead = 0.03 * np.stack([np.sin(live[:, 0]), np.cos(live[:, 1])], axis=1) + 1e-3 * rng.normal(size=(n, 2))
    mixing = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    return torch.from_numpy(live), torch.from_numpy(np.concatenate([live, dead], axis=1) @ mixing)


def test_dead_directions_change_neither_components_nor_the_density_of_the_others():
    live, z = sheet()
    alone, mixture = GaussianMixture.fit(live, 40), GaussianMixture.fit(z, 40)
    assert mixture.n_components == alone.n_components
    assert ct.kl_divergence(z, mixture) < 0.02
    components = Components(mixture.weights, mixture.means, mixture.covariances)
    axes = torch.linalg.eigh(components.covariance())[1]
    kept = axes[:, 2:]
    marginal = GaussianMixture(mixture.weights, mixture.means @ kept, kept.T @ mixture.covariances @ kept)
    difference = marginal.log_prob(z @ kept) - alone.log_prob(live)
    assert float(difference.abs().median()) < 0.02
    of_dead = axes[:, :2].T @ torch.linalg.inv(mixture.covariances) @ axes[:, :2]  # inverse covariance given the others
    torch.testing.assert_close(of_dead, of_dead[:1].expand_as(of_dead), rtol=0.1, atol=0.1 * float(of_dead.abs().max()))


def test_dead_directions_stay_tied_in_draws_and_after_deconvolution():
    _, z = sheet(1500)
    mixture = GaussianMixture.fit(z, 12)
    noise = 1e-3 * torch.eye(4, dtype=torch.float64).expand(len(z), 4, 4)
    weights = torch.empty(len(z), dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(0))
    for options in ({"weights": weights}, {"noise_covariances": noise}):
        again = GaussianMixture.fit(z, start=mixture, max_iter=10, **options)
        axes = torch.linalg.eigh(Components(mixture.weights, mixture.means, mixture.covariances).covariance())[1]
        of_dead = axes[:, :2].T @ torch.linalg.inv(again.covariances) @ axes[:, :2]
        spread = (of_dead - of_dead.mean(0)).abs().amax() / of_dead.abs().amax()
        assert spread < 0.2


def test_narrow_axes_of_a_state_are_not_dead():
    """Two states 200 standard deviations apart: the axes across them are narrow, but as wide as the states."""
    z = torch.randn(600, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z[300:, 0] += 200
    z[450:, 1] += 4
    assert GaussianMixture.fit(z, 8).n_components == 3


def test_a_flattened_mixture_has_the_same_live_density_and_one_dead_gaussian():
    _, z = sheet()
    mixture = GaussianMixture.fit(z, 40)
    flat = flattened(Components(mixture.weights, mixture.means, mixture.covariances))
    axes = torch.linalg.eigh(flat.covariance())[1]
    marginal = [GaussianMixture(m.weights, m.means @ axes[:, 2:], axes[:, 2:].T @ m.covariances @ axes[:, 2:])
                for m in (mixture, GaussianMixture(*flat))]  # fmt: skip
    torch.testing.assert_close(*(m.log_prob(z @ axes[:, 2:]) for m in marginal), rtol=1e-6, atol=1e-6)
    of_dead = axes[:, :2].T @ flat.covariances @ axes[:, :2]
    torch.testing.assert_close(of_dead, of_dead[:1].expand_as(of_dead))
    plain = Components(torch.ones(1).double(), torch.zeros(1, 2).double(), torch.eye(2).double()[None])
    assert flattened(plain) is plain
