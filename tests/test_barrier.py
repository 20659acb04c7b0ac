"""Barriers that count images: known densities, dead directions, bends, neighbours, copies, and images of a model."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.models.likelihood import ImageLikelihood
from cryotwin_nb.models.records import Records, pack
from cryotwin_nb.pathways.corridor import live_directions
from cryotwin_nb.pathways.counting import highest
from cryotwin_nb.pathways.deconvolution import LineCounts, LineDensity
from cryotwin_nb.pathways.line import Line

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from barriers import Planted, family, with_dead

pytestmark = pytest.mark.usefixtures("one_thread")
BENT = Planted(2.0, live=2, bend=2.5, width=0.1, error=(0.05, 0.15))


@pytest.mark.parametrize("barrier", [1.0, 3.0])
@pytest.mark.parametrize("number", range(5))
def test_the_barrier_of_a_known_density_is_found(barrier, number):
    planted = family(barrier)[number]
    found = planted.measured(8_000, seed=number, n_draws=2)
    assert found.value == pytest.approx(planted.true_barrier(), abs=0.4)
    assert abs(found.narrowest - 1) < 0.3 * Line.through(planted.curve()).length and found.gap is None


def test_a_high_barrier_is_found_in_many_images():
    assert family(5.0)[1].measured(200_000, seed=0, n_draws=2).value == pytest.approx(5.0, abs=0.4)


@pytest.mark.parametrize("passing", [0.08, 0.25])
def test_the_barrier_beside_compact_states_is_not_too_high(passing):
    """Each of two states ends sharply at an end of the path; the other images lie evenly between them."""
    generator, n, width, error = np.random.default_rng(0), 12_000, 0.03, 0.06
    kind, away = generator.choice(3, n, p=(0.45, 0.55 - passing, passing)), width * np.abs(generator.normal(size=n))
    s = np.choose(kind, (away, 1 - away, generator.uniform(size=n)))
    inside = 0.45 * (2 * stats.norm.cdf(0.05 / width) - 1) + 0.05 * passing  # the densest 5 % of the path
    x, noise = (s + error * generator.normal(size=n))[:, None], np.full((n, 1, 1), error**2)
    found = ct.measure_barrier(np.array([[0.0], [1.0]]), x, noise, n_draws=2)
    assert found.value == pytest.approx(np.log(inside / (0.05 * passing)), abs=0.3)


def test_without_removing_the_errors_the_barrier_would_be_too_low():
    planted = Planted(3.0, live=1, error=(0.3, 0.5))
    x, noise = planted.sample(8_000, seed=0)
    assert ct.measure_barrier(planted.curve(), x, n_draws=2).value < 2.2
    assert ct.measure_barrier(planted.curve(), x, noise, n_draws=2).value == pytest.approx(3.0, abs=0.5)


@pytest.mark.parametrize("live", [1, 2, 3])
def test_directions_that_carry_nothing_do_not_change_the_barrier(live):
    planted = Planted(2.0, live=live)
    x, noise = planted.sample(8_000, seed=1)
    alone = ct.measure_barrier(planted.curve(), x, noise, n_draws=2)
    for n in (5,):
        more = ct.measure_barrier(np.pad(planted.curve(), ((0, 0), (0, n))), *with_dead(x, noise, n), n_draws=2)
        assert more.value == pytest.approx(alone.value, abs=0.1)
        assert more.n_on_path == pytest.approx(alone.n_on_path, rel=0.01)


def test_live_directions_are_those_in_which_structures_differ():
    x, noise = with_dead(*Planted(2.0, live=2).sample(4_000, seed=0), 3)
    basis = live_directions(x, noise, np.array([2.0, 0, 0, 0, 0]))
    assert basis.shape == (5, 2) and np.abs(basis[2:]).max() < 0.05


def test_a_passage_wider_than_the_states_is_counted_in_full():
    narrow, wide = (Planted(2.0, live=3, widening=w, error=(0.02, 0.1)) for w in (1.0, 3.0))
    barriers = [planted.measured(20_000, seed=2, n_draws=2).value for planted in (narrow, wide)]
    assert barriers[1] == pytest.approx(barriers[0], abs=0.25)


def test_a_state_beside_the_path_is_not_counted():
    planted = Planted(3.0, live=2, width=0.1, error=(0.03, 0.1))
    x, noise = planted.sample(8_000, seed=0)
    generator = np.random.default_rng(1)
    neighbour, white = [0.0, 0.9] + 0.1 * generator.normal(size=(3_000, 2)), generator.normal(size=(3_000, 2))
    x = np.concatenate([x, neighbour + np.einsum("nde,ne->nd", np.linalg.cholesky(noise[:3_000]), white)])
    found = ct.measure_barrier(planted.curve(), x, np.concatenate([noise, noise[:3_000]]), n_draws=2)
    assert found.value == pytest.approx(3.0, abs=0.5) and found.n_on_path < 8_100


def test_an_empty_straight_line_between_two_states_is_not_measured():
    x, noise = BENT.sample(8_000, seed=1)
    straight = ct.measure_barrier(BENT.curve()[[0, -1]], x, noise, n_draws=2)
    assert np.isnan(straight.value) and straight.gap is not None and straight.summary()["nats"] is None
    assert 0.1 < straight.gap[0] < 0.45 and 0.55 < straight.gap[1] < 0.9
    first, last = (round(100 * fraction) for fraction in straight.gap)
    assert str(straight) == f"not measured: no image between {first} and {last} % of the path"
    assert ct.measure_barrier(BENT.curve(), x, noise, n_draws=2).value == pytest.approx(2.0, abs=0.4)


def test_the_fractions_of_an_empty_stretch_are_those_of_the_path():
    x = np.concatenate([np.linspace(-0.2, 2.0, 400), np.linspace(6.0, 10.0, 400)])[:, None]
    assert ct.measure_barrier(np.array([[0.0], [10.0]]), x).gap == pytest.approx((0.2, 0.6), abs=0.01)


def test_images_that_only_their_errors_brought_between_two_states_do_not_fill_the_gap():
    generator = np.random.default_rng(2)
    states = generator.normal(0, 0.1, 6_000) + np.repeat([0.0, 6.0], 3_000)
    x = (states + generator.normal(0, 1, 6_000))[:, None]
    assert np.diff(np.sort(x[(x > 0) & (x < 6)])).max() < 0.3  # no stretch of 5 % is empty
    found = ct.measure_barrier(np.array([[0.0], [6.0]]), x, np.ones((6_000, 1, 1)), n_draws=2)
    assert np.isnan(found.value) and found.n_narrowest == 0 and found.gap is not None
    first, last = found.gap
    assert 0.05 < first < 0.35 and 0.65 < last < 0.95
    assert found.n_in_gap == ((x > 6 * first) & (x < 6 * last)).sum() > 0
    assert f"errors of images from neighbouring places can explain all {found.n_in_gap:,} images" in str(found)


def test_an_end_far_from_all_images_is_refused_with_the_distance():
    x, noise = BENT.sample(2_000, seed=1)
    away = BENT.curve() + np.linspace(0, 4, 200)[:, None] * np.array([0.0, 1.0])
    nearest = np.linalg.norm(x - away[-1], axis=1).min()
    with pytest.raises(InputError, match=rf"end of the path is far from all images: the nearest is {nearest:.3g} "):
        ct.measure_barrier(away, x, noise)
    with pytest.raises(InputError, match="start of the path is far"):
        ct.measure_barrier(away[::-1].copy(), x, noise)


def test_the_result_is_read_as_one_line():
    found = Planted(2.0).measured(4_000, seed=3, n_draws=20)
    low, high = found.interval
    expected = f"barrier {found.value:.1f} nats ({low:.1f}-{high:.1f}); {found.n_narrowest} images at its narrowest"
    assert str(found) == expected and low < found.value < high and 0 < found.n_narrowest < found.n_on_path
    assert found.profile.min() <= 0 and np.interp(found.narrowest, found.position, found.profile) == pytest.approx(
        found.value, abs=0.05
    )
    assert "; 1 image at" in str(replace(found, n_narrowest=1))


def test_copies_of_an_image_do_not_narrow_the_interval():
    planted = Planted(2.0, live=1, wells="gaussian")
    x, noise = planted.sample(1_500, seed=4)
    four, errors, groups = np.repeat(x, 4, 0), np.repeat(noise, 4, 0), np.repeat(np.arange(1_500), 4)
    once = np.ptp(ct.measure_barrier(planted.curve(), x, noise, n_draws=40).interval)
    together = np.ptp(ct.measure_barrier(planted.curve(), four, errors, groups=groups, n_draws=40).interval)
    apart = np.ptp(ct.measure_barrier(planted.curve(), four, errors, n_draws=40).interval)
    assert together == pytest.approx(once, rel=0.25) and apart < 0.7 * once


@pytest.mark.parametrize(("spacing", "few"), [(0.45, True), (0.02, False)])
def test_few_images_at_the_narrowest_place_have_the_interval_of_their_number(spacing, few):
    """A bootstrap of two images does not know that there could have been five."""
    states = np.random.default_rng(0).normal(0, 0.3, 4000) + np.repeat([0.0, 10.0], 2000)
    x = np.concatenate([states, np.arange(1, 9, spacing)])[:, None]
    found = ct.measure_barrier(np.array([[0.0], [10.0]]), x, n_draws=20)
    count, low = found.n_narrowest, found.interval[0]
    upper = next(m for m in np.arange(0, 100, 0.01) if stats.poisson.cdf(count, m) < 0.05)
    assert (count <= 2) == few
    if few:
        assert found.value - low > np.log(upper / (count + 0.5))
    else:
        assert found.value - low < np.log(upper / count)


def test_intervals_contain_the_truth():
    """Six simulations: with a coverage of 90 %, fewer than four hits have a probability of 0.1 %."""
    planted = Planted(2.0, live=1, wells="gaussian")
    found = [planted.measured(2_000, seed=50 + k, n_draws=20).interval for k in range(6)]
    hits = sum(low <= planted.true_barrier() <= high for low, high in found)
    assert hits >= 4 and max(high - low for low, high in found) < 1


def test_the_mixture_alone_gives_the_same_integral_as_its_samples():
    means = np.array([[0, 0, 0], [1.2, 1.0, 0], [2.4, 0, 0]])
    covariances = np.stack([np.diag([0.25, w, 0.04]) for w in (0.05, 0.2, 0.05)])
    prior = ct.GaussianMixture([0.5, 0.1, 0.4], means, covariances)
    path = ct.max_flux(prior, 0, 2)
    alone = ct.measure_barrier(path, prior=prior)
    sampled = ct.measure_barrier(path, prior.sample(100_000, seed=0), n_draws=2)
    assert alone.value == pytest.approx(sampled.value, abs=0.3)
    assert str(alone) == f"barrier {alone.value:.1f} nats in the mixture; no images were counted"
    assert alone.summary()["source"] == "mixture" and alone.summary()["interval"] is None


def test_directions_in_which_all_components_are_alike_do_not_change_the_integral():
    means = np.array([[0.0, 0.0], [2.0, 0.0]])
    narrow = ct.GaussianMixture([0.5, 0.5], means, np.stack([np.diag([0.2, 0.1])] * 2))
    dead = np.pad(narrow.covariances.numpy(), ((0, 0), (0, 3), (0, 3)))
    dead[:, [2, 3, 4], [2, 3, 4]] = [1e-4, 0.01, 0.3]
    wiggle = np.array([[0, 0, 0.0, 0.01, 0.2], [0, 0, 0.002, -0.01, -0.1]])
    more = ct.GaussianMixture([0.5, 0.5], np.pad(means, ((0, 0), (0, 3))) + wiggle, dead)
    barriers = [ct.measure_barrier(prior.means, prior=prior).value for prior in (narrow, more)]
    assert barriers[0] == pytest.approx(-np.log(2) + 1 / 0.4, abs=0.05)  # 2 N(1; 0, 0.2) against N(0; 0, 0.2)
    assert barriers[1] == pytest.approx(barriers[0], abs=0.05)


def test_images_behind_the_start_count_for_its_state():
    """The densest place lies 0.5 before the start, on the prolongation; without it, the barrier would be lower."""
    energy = lambda s: 0.5 * ((s + 0.5) / 0.5) ** 2  # noqa: E731
    position = np.linspace(-2, 0.5, 500)
    assert highest(position, energy(position), 0.5)[0] == pytest.approx(2.0, abs=0.01)
    assert highest(position, energy(position), 0.5)[2] == pytest.approx(-0.5, abs=0.01)


def test_a_state_without_spread_is_as_dense_as_its_images_in_a_stretch():
    """All images of the two states are equal but for their errors; counts in stretches of 5 % are the oracle."""
    generator = np.random.default_rng(0)
    s = np.concatenate([np.zeros(4_000), np.full(2_000, 10.0), generator.uniform(0, 10, 1_000)])
    x = (s + 0.2 * generator.normal(size=len(s)))[:, None]
    found = ct.measure_barrier(np.array([[0.0], [10.0]]), x, np.full((len(x), 1, 1), 0.04), n_draws=2)
    assert found.value == pytest.approx(np.log(4_025 / 40), abs=0.5) and 20 < found.n_narrowest < 75


def test_a_denser_state_on_the_way_does_not_count_as_the_start():
    position = np.linspace(-1, 4, 1000)
    density = 0.2 * stats.norm.pdf(position, 0, 0.3) + stats.norm.pdf(position, 2, 0.3) + 1e-3
    value, place, densest = highest(position, -np.log(density), 3.5)
    assert densest == pytest.approx(0, abs=0.02) and place == pytest.approx(3.5, abs=0.02)
    assert value == pytest.approx(np.log(0.2 * stats.norm.pdf(0, 0, 0.3) / density[position <= 3.5].min()), abs=0.1)


def test_the_density_along_a_line_is_that_before_the_errors():
    generator = np.random.default_rng(0)
    error = generator.uniform(0.1, 0.5, 20_000)
    where = generator.choice([-1.0, 1.0], 20_000) + 0.4 * generator.normal(size=20_000)
    counts = LineCounts.of(where + error * generator.normal(size=20_000), error)
    density = np.exp(LineDensity.fitted(counts, np.ones(20_000)).log_density)
    expected = (stats.norm.pdf(counts.grid, -1, 0.4) + stats.norm.pdf(counts.grid, 1, 0.4)) / 2
    assert density.sum() * counts.step == pytest.approx(1)
    assert np.abs(density - expected).max() < 0.05 * expected.max()


def test_the_frames_of_a_line_are_across_it_and_do_not_turn_around_it():
    angle = np.linspace(0, 2, 100)
    line = Line.through(np.column_stack([np.cos(angle), np.sin(angle), np.zeros(100)]))
    across = np.einsum("nd,ndk->nk", line.tangents, line.frames)
    assert np.abs(across).max() < 1e-9 and np.abs(np.diff(line.frames[:, 2], axis=0)).max() < 1e-6
    assert line.length == pytest.approx(2, abs=1e-3) and line.position[0] == pytest.approx(-line.length)


def test_wrong_input_is_refused():
    line, x = np.array([[0.0, 0.0], [1.0, 0.0]]), np.random.default_rng(0).normal(size=(50, 2))
    with pytest.raises(InputError, match="neither latents nor a mixture"):
        ct.measure_barrier(line)
    with pytest.raises(InputError, match="noise_covariances"):
        ct.measure_barrier(line, x, np.ones((50, 2)))
    with pytest.raises(InputError, match="single point"):
        ct.measure_barrier(np.zeros((2, 2)), x)
    with pytest.raises(InputError, match="latents"):
        ct.measure_barrier(line, np.zeros((50, 3)))


def test_the_points_of_images_are_their_estimates_without_a_prior():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(4, 2, generator=generator)
    root = torch.randn(30, 4, 4, generator=generator)
    G, truth = root @ root.mT + torch.eye(4), torch.randn(30, 2, generator=generator)
    b = (G @ (truth @ matrix.T)[..., None])[..., 0]
    coefficients = lambda z: (z @ matrix.T, matrix.expand(len(z), -1, -1))  # noqa: E731
    none = torch.zeros(30, 0)
    records = [Records(none, none, none, b, pack(G), none, none, none, none, none)]
    likelihood = ImageLikelihood(coefficients, torch.ones(4), records, latents=0.5 * truth)
    points, errors = likelihood.points()
    torch.testing.assert_close(points, truth.double(), rtol=0, atol=0.02)
    torch.testing.assert_close(errors, torch.linalg.inv(matrix.T @ G @ matrix).double(), rtol=0.05, atol=1e-3)
    with pytest.raises(InputError, match="points: found no latents"):
        ImageLikelihood(coefficients, torch.ones(4), records).points()
