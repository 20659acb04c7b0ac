"""Algorithm 1 against a literal transcription, and the resistance and barrier of paths against integrals."""

from __future__ import annotations

import math
from time import perf_counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.ridgeline import densify, equidistant, log_resistance, pathway_from_knots, ridgeline


def random_mixture(count: int, dim: int, seed: int = 0) -> GaussianMixture:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(count, dim, dim)) / math.sqrt(dim)
    covariances = factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(dim)
    return GaussianMixture(rng.dirichlet(np.full(count, 5.0)), 2 * rng.normal(size=(count, dim)), covariances)


def two_wells(distance: float = 4.0, dim: int = 1) -> GaussianMixture:
    means = np.zeros((2, dim))
    means[:, 0] = -distance / 2, distance / 2
    return GaussianMixture([0.5, 0.5], means, np.stack([np.eye(dim)] * 2))


def algorithm_1(weights, means, covariances, i, j, n_steps, omega, simplex):
    """Run the paper's pseudocode line by line; `simplex` (K-1, M, C-2) contains points of the unit simplex."""
    count = len(weights)

    def density(z):
        return sum(weights[c] * stats.multivariate_normal(means[c], covariances[c]).pdf(z) for c in range(count))

    path = [means[i]]  # line 1
    for k in range(1, n_steps):  # line 2
        alpha_i = math.cos(math.pi * k / (2 * n_steps))  # line 3
        alpha_j = (1 - math.cos(math.pi * k / (2 * n_steps))) ** omega
        best, lowest = None, math.inf
        for sample in simplex[k - 1]:
            others = list((1 - alpha_i - alpha_j) * sample)
            precision, pull = np.zeros_like(covariances[0]), np.zeros_like(means[0])
            for c in range(count):
                alpha = alpha_i if c == i else alpha_j if c == j else others.pop(0)
                precision += alpha * np.linalg.inv(covariances[c])
                pull += alpha * np.linalg.inv(covariances[c]) @ means[c]
            z = np.linalg.inv(precision) @ pull
            cost = density(path[0]) / density(z) * np.linalg.norm(z - path[k - 1])
            if cost < lowest:
                best, lowest = z, cost
        path.append(best)
    return np.array([*path, means[j]])


@pytest.mark.parametrize(
    ("count", "dim", "start", "end", "n_steps", "omega", "concentration", "seed"),
    [
        (5, 2, 0, 3, 6, 2.0, 1.0, 0),
        (5, 2, 3, 0, 6, 2.0, 1.0, 0),
        (6, 3, 4, 1, 5, 1.3, 0.2, 1),
        (3, 1, 0, 2, 2, 3.0, 1.0, 7),
    ],
)
def test_ridgeline_is_algorithm_1(count, dim, start, end, n_steps, omega, concentration, seed):
    mixture, n_samples = random_mixture(count, dim, seed), 20
    path = ridgeline(mixture, start, end, n_steps, omega, n_samples, seed, concentration)
    simplex = np.random.default_rng(seed).dirichlet(np.full(count - 2, concentration), (n_steps - 1, n_samples))
    arrays = (t.numpy() for t in (mixture.weights, mixture.means, mixture.covariances))
    expected = algorithm_1(*arrays, start, end, n_steps, omega, simplex)
    np.testing.assert_allclose(path.latents, expected, rtol=1e-5, atol=1e-6)


def test_a_path_knows_its_ends_densities_and_origin():
    mixture = random_mixture(5, 3)
    path = ridgeline(mixture, 4, 2, n_steps=7)
    assert path.latents.shape == (8, 3)
    assert path.latents.dtype == torch.float32
    assert torch.equal(path.latents[[0, -1]], mixture.means[[4, 2]].float())
    assert torch.equal(path.curve[[0, -1]], mixture.means[[4, 2]])
    torch.testing.assert_close(path.log_prob.float(), mixture.log_prob(path.latents))
    assert (path.start, path.end, path.method) == (4, 2, "ridgeline")
    assert torch.cdist(path.latents.double(), path.curve).amin(1).max() < 1e-6  # the curve passes through the points
    again, other = ridgeline(mixture, 4, 2, n_steps=7), ridgeline(mixture, 4, 2, n_steps=7, seed=1)
    assert torch.equal(path.latents, again.latents)
    assert not torch.equal(path.latents, other.latents)


def test_with_two_components_the_path_stays_between_them():
    mixture = random_mixture(2, 3)
    path = ridgeline(mixture, 0, 1, n_steps=4)
    precision = torch.linalg.inv(mixture.covariances)
    for k in range(1, 4):
        leaving, arriving = math.cos(math.pi * k / 8), (1 - math.cos(math.pi * k / 8)) ** 2
        share = torch.tensor([leaving, arriving], dtype=torch.float64) / (leaving + arriving)
        matrix = torch.einsum("c,cde->de", share, precision)
        pull = torch.einsum("c,cde,ce->d", share, precision, mixture.means)
        torch.testing.assert_close(path.latents[k].double(), torch.linalg.solve(matrix, pull), rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100))
def test_the_path_does_not_depend_on_units_or_on_the_numbering_of_two_ends(seed, scale):
    mixture = random_mixture(4, 2, seed)
    path = ridgeline(mixture, 1, 3, n_samples=50)
    scaled = GaussianMixture(mixture.weights, scale * mixture.means, scale**2 * mixture.covariances)
    same = ridgeline(scaled, 1, 3, n_samples=50)
    torch.testing.assert_close(same.latents, scale * path.latents, rtol=1e-4, atol=1e-5 * scale)
    assert same.barrier == pytest.approx(path.barrier, abs=1e-6)
    assert same.log_cost == pytest.approx(path.log_cost + 3 * math.log(scale), abs=1e-6)
    order = [3, 0, 2, 1]  # the ends are swapped; the others keep their order
    shuffled = GaussianMixture(mixture.weights[order], mixture.means[order], mixture.covariances[order])
    torch.testing.assert_close(ridgeline(shuffled, 3, 0, n_samples=50).latents, path.latents)


def test_small_concentrations_let_other_components_attract_the_path():
    way = [[x, side] for x in np.linspace(-4, 4, 20) for side in (-4.0, 4.0)]  # two detours around a gap
    means = np.array([[-6.0, 0.0], [6.0, 0.0], *way])
    mixture = GaussianMixture(np.full(42, 1 / 42), means, np.stack([np.eye(2)] * 42))
    straight, bent = (ridgeline(mixture, 0, 1, concentration=c) for c in (1.0, 0.02))
    assert straight.latents[:, 1].abs().max() < 0.7
    assert bent.latents[:, 1].abs().max() > 0.9
    assert bent.log_cost < straight.log_cost


def test_hundred_components_take_less_than_a_second():
    mixture = random_mixture(100, 8)
    ridgeline(mixture, 0, 1, n_samples=10)
    seconds = []
    for _ in range(3):
        begun = perf_counter()
        ridgeline(mixture, 0, 1)
        seconds.append(perf_counter() - begun)
    assert min(seconds) < 1.0


def test_a_far_valley_does_not_overflow():
    path = ridgeline(two_wells(400.0, 2), 0, 1)
    assert math.isfinite(path.log_cost)
    assert path.barrier == pytest.approx(200**2 / 2 - 2 * math.log(2), rel=1e-3)


# Cost of a path


def test_cost_and_barrier_in_one_dimension():
    mixture = two_wells(4.0)
    path = pathway_from_knots(mixture, mixture.means, method="straight")

    def density(x):
        return 0.5 * stats.norm.pdf(x, -2) + 0.5 * stats.norm.pdf(x, 2)

    exact = math.log(integrate.quad(lambda x: 1 / density(x), -2, 2)[0])
    assert path.log_cost == pytest.approx(exact, abs=1e-4)
    assert log_resistance(mixture, path.curve) == path.log_cost
    assert path.barrier == pytest.approx(math.log(density(-2) / density(0)), abs=1e-5)
    assert path.method == "straight"
    third = math.log(integrate.quad(lambda x: density(x) ** (-1 / 3), -2, 2)[0])
    assert log_resistance(mixture, path.curve, exponent=1 / 3) == pytest.approx(third, abs=1e-4)


@pytest.mark.parametrize("narrow", [1.0, 0.05])
def test_cost_of_a_bent_path_in_two_dimensions(narrow):
    mixture = GaussianMixture([0.3, 0.3, 0.4], [[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]], narrow * np.stack([np.eye(2)] * 3))
    path = pathway_from_knots(mixture, mixture.means, n_steps=7, start=0, end=2)
    scales = [stats.multivariate_normal(m, narrow * np.eye(2)) for m in mixture.means.numpy()]

    def resistance(s):
        at = [s, 0.0] if s < 3 else [3.0, s - 3]
        return math.exp(-np.logaddexp.reduce([math.log(w) + g.logpdf(at) for w, g in zip((0.3, 0.3, 0.4), scales)]))

    breaks = [1.5, 3.0, 5.0]
    exact = math.log(integrate.quad(resistance, 0, 7, points=breaks, limit=500)[0])
    assert path.log_cost == pytest.approx(exact, abs=2e-3)
    np.testing.assert_allclose(path.latents[:, 0], [0, 1, 2, 3, 3, 3, 3, 3], atol=1e-6)
    np.testing.assert_allclose(path.latents[:, 1], [0, 0, 0, 0, 1, 2, 3, 4], atol=1e-6)
    there = path.log_cost
    assert pathway_from_knots(mixture, mixture.means.flip(0)).log_cost == pytest.approx(there, abs=1e-6)


def test_barrier_is_seen_from_the_start():
    mixture = GaussianMixture([0.9, 0.1], [[-2.0], [2.0]], np.ones((2, 1, 1)))
    up = pathway_from_knots(mixture, mixture.means)
    down = pathway_from_knots(mixture, mixture.means.flip(0))
    difference = mixture.log_prob(mixture.means).diff()
    assert up.barrier - down.barrier == pytest.approx(-float(difference), abs=1e-9)
    assert pathway_from_knots(mixture, torch.tensor([[3.0], [2.0]])).barrier == 0


def test_curves_are_cut_finely_and_evenly():
    mixture = random_mixture(3, 2)
    knots = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [3.0, 5.0]], dtype=torch.float64)
    curve = densify(mixture, knots)
    assert (torch.cdist(knots, curve).amin(1) == 0).all()
    lengths = curve.diff(dim=0).norm(dim=-1)
    finest = torch.linalg.eigvalsh(mixture.covariances).min().sqrt() / 50
    assert lengths.max() <= finest + 1e-12
    assert float(lengths.sum()) == pytest.approx(6.0)
    even = equidistant(knots, 7)
    torch.testing.assert_close(even.diff(dim=0).norm(dim=-1), torch.ones(6, dtype=torch.float64))
    assert torch.equal(even[[0, -1]], knots[[0, -1]])
    tiny = GaussianMixture([1.0], [[0.0, 0.0]], 1e-12 * np.eye(2)[None])
    assert len(densify(tiny, knots)) < 10_100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end": 0}, "Start and end are the same component"),
        ({"start": 3}, "start: found component 3, expected an integer from 0 to 2"),
        ({"end": -1}, "end: found component -1"),
        ({"start": 0.5}, "component 0.5"),
        ({"start": torch.zeros(2)}, "expected an integer"),
        ({"n_steps": 1}, "n_steps: found 1, expected an integer from 2"),
        ({"omega": 1.0}, "omega: found 1.0"),
        ({"omega": math.nan}, "omega"),
        ({"n_samples": 0}, "n_samples"),
        ({"concentration": 0.0}, "concentration"),
        (
            {"prior": two_wells().unchecked(torch.ones(1), torch.zeros(1, 1), torch.ones(1, 1, 1))},
            "a single component,",
        ),
    ],
)
def test_bad_input_is_refused(changes, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        ridgeline(**{"prior": random_mixture(3, 2), "start": 0, "end": 1} | changes)
