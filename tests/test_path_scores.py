"""Scores of paths and routes: distances by brute force, orders by SciPy, synthetic routes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import cryotwin_nb as ct
from cryotwin_nb.evaluation.path_scores import (
    curve_distance,
    kendall_tau,
    latents_at,
    path_block_order,
    route_scores,
)
from cryotwin_nb.evaluation.truth_scores import true_block_orders
from cryotwin_nb.pathways import Route
from cryotwin_nb.truth.molecules import BLOCKS, ROUTES, STATES
from cryotwin_nb.truth.truth import Truth

pytestmark = pytest.mark.usefixtures("one_thread")


def spread(curve: np.ndarray, n: int) -> np.ndarray:
    """Return n equally spaced points along a polyline."""
    steps = [(a, b, np.linalg.norm(b - a)) for a, b in pairwise(curve)]
    total, points = sum(s for _, _, s in steps), []
    for left in np.linspace(0, total, n):
        for a, b, length in steps:
            if left <= length + 1e-12:
                points.append(a + left / length * (b - a))
                break
            left -= length
    return np.array(points)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), d=st.integers(1, 4), m=st.integers(2, 5), k=st.integers(2, 5))
def test_distances_of_curves_are_those_of_brute_force(seed, d, m, k):
    generator = np.random.default_rng(seed)
    curve, true = generator.normal(size=(m, d)), generator.normal(size=(k, d))
    a, b = spread(curve, 30), spread(true, 30)
    from_true = [min(np.linalg.norm(p - q) for q in a) for p in b]
    from_curve = [min(np.linalg.norm(p - q) for q in b) for p in a]
    found = curve_distance(torch.as_tensor(curve), torch.as_tensor(true), n_points=30)
    # cdist can use |a|^2 - 2ab + |b|^2, whose root keeps only half of the digits
    assert found.mean == pytest.approx(np.mean(from_true), abs=1e-6)
    assert found.hausdorff == pytest.approx(max(*from_true, *from_curve), abs=1e-6)


def test_distances_between_parallel_lines_and_of_a_curve_that_goes_too_far():
    line = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    assert curve_distance(line + torch.tensor([0.0, 3.0]), line) == pytest.approx((3.0, 3.0))
    assert curve_distance(line.flip(0), line) == pytest.approx((0.0, 0.0), abs=1e-6)
    longer = torch.tensor([[0.0, 0.0], [6.0, 0.0]])
    assert curve_distance(longer, line).mean == pytest.approx(0, abs=0.02)
    assert curve_distance(longer, line).hausdorff == pytest.approx(2)


def truth_of(coordinates: np.ndarray) -> Truth:
    n = len(coordinates)
    return Truth("hinge", coordinates.astype(np.float32), np.full(n, ""), np.zeros(n, bool), 16, 10.0)


def test_latents_of_structures_are_means_over_the_nearest_particles():
    generator = np.random.default_rng(0)
    truth, z = truth_of(generator.random((200, 2))), torch.as_tensor(generator.normal(size=(200, 3)))
    wanted = np.array([[0.2, 0.3], [0.9, 0.9]])
    found = latents_at(z, truth, wanted, n_neighbours=7)
    for row, latent in zip(wanted, found, strict=True):
        nearest = np.argsort(((truth.coordinates - row) ** 2).sum(1))[:7]
        np.testing.assert_allclose(latent, z[nearest].mean(0))
    few = truth_of(truth.coordinates[:10])
    np.testing.assert_allclose(latents_at(z[:10], few, wanted), z[:10].mean(0).expand(2, 3))


# The order of blocks


@given(order=st.permutations("abcdef"))
def test_tau_of_whole_orders_is_that_of_scipy(order):
    expected = stats.kendalltau(range(6), [order.index(name) for name in "abcdef"]).statistic
    assert kendall_tau(order, "abcdef") == pytest.approx(expected)
    assert kendall_tau("abcdef", order) == pytest.approx(expected)


def test_tau_of_orders_that_lack_names():
    """Pairs with a missing name count as undecided."""
    assert kendall_tau("abc", "abc") == 1 and kendall_tau("cba", "abc") == -1
    assert kendall_tau("ab", "abc") == pytest.approx(1 / 3)
    assert kendall_tau("", "abc") == 0 and kendall_tau("abc", "a") == 1 and kendall_tau("xabc", "abc") == 1


def route(way: tuple[str, ...], share: float) -> Route:
    """Return a route whose latents are the occupancies of the blocks."""
    latents = torch.tensor([STATES[state] for state in way], dtype=torch.float32)
    return Route(latents, latents, latents[:, 0], 0.0, 0.0, share=share)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return ct.simulate.assembly(20, 16, progress=False).truth


@pytest.fixture(scope="module")
def decode(truth):
    return lambda z: torch.stack([truth.volume_at(row) for row in z.numpy()])


WRONG = ("B", "C1", "C2", "E1", "E4", "E5")


def by_order(order: tuple[str, ...], share: float) -> Route:
    steps = [[float(order.index(block) < k) for block in BLOCKS] for k in range(len(order) + 1)]
    latents = torch.tensor(steps)
    return Route(latents, latents, latents[:, 0], 0.0, 0.0, share=share)


def test_the_order_of_blocks_is_read_from_the_maps(truth, decode):
    for order in true_block_orders():
        assert path_block_order(decode, by_order(order, 1.0).latents, truth) == order


def test_planted_routes_have_perfect_scores(truth, decode):
    found = route_scores([route(w, s) for w, s in zip(ROUTES, (0.3, 0.3, 0.2, 0.2))], decode, truth)
    assert (found.recall, found.precision, found.f1, found.false_share) == pytest.approx((1, 1, 1, 0))
    assert found.kendall_tau == (1.0,) * 4 and found.share_error == pytest.approx(0)


def test_scores_of_some_planted_routes_and_a_false_one(truth, decode):
    """Two of four routes; a false one at 20 %, an ignored one at 1 %; shares (.5, .29, 0, 0) for (.3, .3, .2, .2)."""
    planted = true_block_orders()
    wrong = tuple(reversed(planted[0]))
    assert wrong not in planted
    made_up = [route(ROUTES[0], 0.5), by_order(wrong, 0.2), route(ROUTES[1], 0.29), by_order(wrong, 0.01)]
    found = route_scores(made_up, decode, truth)
    assert found.recall == pytest.approx(0.5) and found.precision == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx(2 / (1 / 0.5 + 3 / 2)) and found.false_share == pytest.approx(0.2)
    best = max(stats.kendalltau(range(5), [wrong.index(name) for name in p]).statistic for p in planted)
    assert found.kendall_tau == pytest.approx((1, best, 1))
    assert found.share_error == pytest.approx((0.2 + 0.01 + 0.2 + 0.2 + 0.21) / 2)
    assert route_scores(made_up, decode, truth, least_share=0.3).recall == pytest.approx(0.25)


def test_the_same_order_twice_is_one_route_found(truth, decode):
    found = route_scores([route(ROUTES[0], 0.5), route(ROUTES[0], 0.5)], decode, truth)
    assert found.recall == pytest.approx(0.25) and found.precision == 1
    assert found.share_error == pytest.approx(0.7)


def test_scores_of_no_routes(truth, decode):
    found = route_scores([], decode, truth)
    assert (found.recall, found.precision, found.f1, found.kendall_tau) == (0, 0, 0, ())
