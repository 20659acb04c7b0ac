"""Networks of states against resistors solved by hand; routes against tubes of simulated latents."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways import Landscape, Network, State, find_routes, find_states, max_flux, tube
from cryotwin_nb.pathways.distinct import _merged
from cryotwin_nb.pathways.network import _widest, distance, typical_width
from cryotwin_nb.pathways.populations import shares_of

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 0.35
DIAMOND = torch.tensor([[0.0, 0.0], [5.0, 3.0], [5.0, -3.0], [10.0, 0.0]], dtype=torch.float64)
SIDES = [(0, 1), (1, 3), (0, 2), (2, 3)]


def named(latents: Tensor) -> tuple[State, ...]:
    """Return states at latents (m, d), the i-th with component i."""
    return tuple(State(f"S{i + 1}", z, (i,), 1 / len(latents), 0.0) for i, z in enumerate(latents))


def resistors(conductances: dict[tuple[int, int], float], bend: float = 0.3) -> Network:
    """Return a network with given conductances and bent passages between points of a circle."""
    n = 1 + max(max(pair) for pair in conductances)
    angle = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
    states = named(4 * torch.stack([angle.cos(), angle.sin()], dim=1))
    curves, populations = {}, []
    for (i, j), conductance in conductances.items():
        a, b = states[i].latent, states[j].latent
        curves[i, j] = torch.stack([a, (a + b) / 2 + bend * (b - a).flip(0), b])
        length = float((curves[i, j][1] - a).norm() + (b - curves[i, j][1]).norm())
        populations.append(conductance * length**2)
    weights = torch.tensor([0.1] * n + populations + [0.0], dtype=torch.float64)
    return Network(states, curves, torch.ones(1, len(weights), dtype=torch.float64), weights)


def wells(latents: Tensor) -> GaussianMixture:
    n, d = latents.shape
    return GaussianMixture(torch.ones(n) / n, latents, WIDTH**2 * torch.eye(d).expand(n, d, d))


def particles(latents: Tensor, edges: dict[tuple[int, int], int], in_states: int, seed: int = 0) -> Tensor:
    """Return `in_states` latents around each state, and latents spread evenly along the given edges."""
    generator = torch.Generator().manual_seed(seed)
    parts = [latents.repeat_interleave(in_states, dim=0)]
    for (i, j), count in edges.items():
        share = torch.rand(count, 1, dtype=torch.float64, generator=generator)
        parts.append(latents[i] + share * (latents[j] - latents[i]))
    z = torch.cat(parts)
    return z + WIDTH * torch.randn(z.shape, dtype=torch.float64, generator=generator)


def by_states(routes) -> dict[tuple[str, ...], float]:
    return {tuple(s.name for s in r.states): r.share for r in routes}


# A network of resistors


def test_resistors_in_series_and_parallel():
    """Through 1: 1/(1/2 + 1/6) = 3/2; through 2: 1/(1/1 + 1/1) = 1/2; direct: 2. Shares 3/8, 1/8, 4/8."""
    network = resistors({(0, 1): 2.0, (1, 3): 6.0, (0, 2): 1.0, (2, 3): 1.0, (0, 3): 2.0})
    flux = network.flux(0, 3)
    assert [flux[0, 1], flux[0, 2], flux[0, 3]] == pytest.approx([3 / 8, 1 / 8, 4 / 8])
    ways = network.ways(0, 3, 10, 0.02)
    assert [way for way, _ in ways] == [(0, 3), (0, 1, 3), (0, 2, 3)]
    assert [share for _, share in ways] == pytest.approx([1 / 2, 3 / 8, 1 / 8])
    assert len(network.ways(0, 3, 2, 0.02)) == 2 and len(network.ways(0, 3, 10, 0.3)) == 2


def test_wheatstone_bridge():
    """Potentials 2/5 and 3/5 solve Kirchhoff's equations 4 b - c = 2, 4 c - b = 1; the currents are 3, 4, 1, 4, 3."""
    network = resistors({(0, 1): 1.0, (0, 2): 2.0, (1, 2): 1.0, (1, 3): 2.0, (2, 3): 1.0})
    expected = np.zeros((4, 4))
    expected[0, 1], expected[0, 2], expected[2, 1], expected[1, 3], expected[2, 3] = np.array([3, 4, 1, 4, 3]) / 7
    np.testing.assert_allclose(network.flux(0, 3), expected, atol=1e-12)
    shares = dict(network.ways(0, 3, 10, 0.0))
    assert shares == pytest.approx({(0, 1, 3): 3 / 7, (0, 2, 3): 3 / 7, (0, 2, 1, 3): 1 / 7})


def test_nothing_flows_through_a_balanced_bridge():
    network = resistors({(0, 1): 1.0, (0, 2): 3.0, (1, 2): 5.0, (1, 3): 2.0, (2, 3): 6.0})
    assert np.abs(network.flux(0, 3)[[1, 2], [2, 1]]).max() < 1e-12
    assert dict(network.ways(0, 3, 10, 0.0)) == pytest.approx({(0, 1, 3): 1 / 4, (0, 2, 3): 3 / 4})


def test_a_stop_on_the_way_changes_nothing():
    """A tube of population p, and one cut in two by a state with p / 2 in each half, have the same flux."""
    latents = torch.tensor([[0.0, 0.0], [6.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    bow = torch.cat([latents[:1], torch.tensor([[3.0, -4.0]]).double(), latents[1:2]])
    curves = {(0, 1): bow, (0, 2): latents[[0, 2]], (1, 2): latents[[1, 2]]}
    weights = torch.tensor([0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0.0], dtype=torch.float64)
    network = Network(named(latents), curves, torch.ones(1, 7).double(), weights)
    assert network.conductances[0, 1] == pytest.approx(0.2 / 10**2)
    assert dict(network.ways(0, 1, 5, 0.02)) == pytest.approx({(0, 1): 0.5, (0, 2, 1): 0.5})


@st.composite
def networks(draw) -> Network:
    n = draw(st.integers(3, 6))
    pairs = list(combinations(range(n), 2))
    values = draw(st.lists(st.floats(0.01, 10.0), min_size=len(pairs), max_size=len(pairs)))
    return resistors(dict(zip(pairs, values, strict=True)))


@settings(max_examples=60, deadline=None)
@given(network=networks())
def test_flux_is_conserved_and_that_of_the_pseudo_inverse(network):
    """Currents of the Laplacian's pseudo-inverse: c_ij (e_i - e_j)^T L^+ (e_first - e_last)."""
    first, last, c = 0, len(network.states) - 1, network.conductances
    flux, inner = network.flux(first, last), slice(1, -1)
    assert (flux >= 0).all() and flux[:, first].sum() == 0 and flux[last].sum() == 0
    assert flux[first].sum() == pytest.approx(1) and flux[:, last].sum() == pytest.approx(1)
    np.testing.assert_allclose(flux.sum(0)[inner], flux.sum(1)[inner], atol=1e-9)
    level = np.linalg.pinv(np.diag(c.sum(1)) - c)[:, [first, last]] @ [1, -1]
    np.testing.assert_allclose(flux, np.maximum(c * (level[:, None] - level), 0), atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(network=networks())
def test_ways_take_the_whole_flux_the_widest_first_and_are_the_same_from_either_end(network):
    first, last = 0, len(network.states) - 1
    ways, flux = network.ways(first, last, 1000, 0.0), network.flux(first, last)
    assert sum(share for _, share in ways) == pytest.approx(1, abs=1e-9)
    assert all(a >= b - 1e-12 for (_, a), (_, b) in pairwise(ways))
    inner = [i for i in range(len(network.states)) if i not in (first, last)]
    simple = [(first, *p, last) for n in range(len(inner) + 1) for p in permutations(inner, n)]
    way, width = _widest(flux, first, last)
    assert width == pytest.approx(max(min(flux[i, j] for i, j in pairwise(w)) for w in simple))
    assert width == pytest.approx(min(flux[i, j] for i, j in pairwise(way)))
    assert sum(share for _, share in network.ways(first, last, 3, 0.1)) <= 1 + 1e-9
    assert network.ways(last, first, 1000, 0.0) == [(way[::-1], share) for way, share in ways]


def test_ways_equally_wide_are_the_same_from_either_end():
    """Two edges in and three out, all through one state: both edges in are wider than any edge out."""
    conductances = {(0, 2): 1.1, (0, 1): 0.9, (1, 3): 9.0, (2, 3): 11.0}
    network = resistors(
        conductances | {(3, 4): 0.68, (3, 5): 0.66, (3, 6): 0.66, (4, 7): 6.8, (5, 7): 6.6, (6, 7): 6.6}
    )
    there, back = network.ways(0, 7, 20, 0.0), network.ways(7, 0, 20, 0.0)
    assert {way[::-1]: pytest.approx(share) for way, share in back} == dict(there)


def test_corners_go_from_state_to_state_in_the_order_of_the_way():
    network = resistors({(0, 1): 1.0, (0, 2): 1.0, (1, 2): 1.0})
    corners, latents = network.corners((1, 0, 2)), [network.states[i].latent for i in (1, 0, 2)]
    for passage, start, end in zip(corners, latents, latents[1:]):
        assert torch.equal(passage[0], start) and torch.equal(passage[-1], end)
    assert torch.equal(torch.cat(network.corners((2, 0, 1))).flip(0), torch.cat(corners))


def test_there_is_no_way_to_a_state_apart():
    assert _widest(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), 0, 2) == ((), 0.0)


def test_ways_beside_one_another_count_as_one():
    latents = torch.tensor([[0.0, 0.0], [5.0, 3.0], [5.0, 3.5], [5.0, -3.0], [10.0, 0.0]], dtype=torch.float64)
    curves = {(i, j): latents[[i, j]] for i, j in combinations(range(5), 2)}
    network = Network(named(latents), curves, torch.ones(1, 16).double(), torch.ones(16).double() / 16)
    ways = [((0, 1, 4), 0.35), ((0, 3, 4), 0.4), ((0, 2, 4), 0.25)]
    assert _merged(replace(network, width=0.5), ways) == [((0, 1, 4), pytest.approx(0.6)), ((0, 3, 4), 0.4)]
    assert len(_merged(replace(network, width=0.05), ways)) == 3


# Populations


def test_shares_are_the_maximum_of_the_likelihood():
    """Against a general optimiser; a particle with weight two is equivalent to two particles."""
    from scipy.optimize import minimize

    fit = torch.rand(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) ** 3
    counts = torch.tensor([1.0, 2.0]).double().repeat(20)

    def cost(y):
        return -(counts.numpy() * np.log(fit.numpy() @ (np.exp(y) / np.exp(y).sum()))).sum()

    best = np.exp(minimize(cost, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-10}).x)
    found = shares_of(fit, 3000, counts=counts)
    np.testing.assert_allclose(found, best / best.sum(), atol=1e-4)
    torch.testing.assert_close(found, shares_of(torch.cat([fit, fit[1::2]]), 3000))


@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("counts", [(600, 600, 600, 600), (1000, 1000, 250, 250), (900, 400, 300, 600)])
def test_populations_of_tubes_are_those_drawn(d, counts):
    """In two dimensions and in five, where the density of a tube is a poor measure of its population."""
    latents = torch.cat([DIAMOND, torch.zeros(4, d - 2, dtype=torch.float64)], dim=1)
    prior, edges = wells(latents), dict(zip(SIDES, counts, strict=True))
    z = particles(latents, edges, in_states=500)
    network = Network.of(prior, find_states(prior), z)
    found = dict(zip(network.curves, network.populations, strict=True))
    for pair, population in found.items():
        true = edges.get(pair, 0) / len(z)
        spread = np.sqrt(max(true * (1 - true), 1e-4) / len(z))
        # ends of tubes resemble states, which gain a few per cent: four standard deviations instead of three
        assert abs(population - true) < 4 * spread + 0.05 * true, (pair, population, true)
    assert found[0, 3] < 0.005 and found[1, 2] < 0.005
    assert float(network.weights.sum()) == pytest.approx(1)


def test_particles_far_from_everything_belong_nowhere():
    latents = torch.cat([DIAMOND, DIAMOND.new_zeros(4, 1)], dim=1)
    z = particles(latents, dict.fromkeys(SIDES, 200), in_states=200)
    junk = torch.tensor([0.0, 0.0, 30.0]) + 3 * torch.randn(400, 3, generator=torch.Generator().manual_seed(1)).double()
    weights = Network.of(wells(latents), named(latents), torch.cat([z, junk])).weights
    assert float(weights[-1]) == pytest.approx(400 / (len(z) + 400), abs=0.005)


@pytest.mark.parametrize("d", [2, 3])
def test_a_curved_passage_is_found_by_the_bent_curve(d):
    """A half circle between two wells, which also rises in three dimensions."""
    angle = torch.linspace(torch.pi, 0, 25, dtype=torch.float64)
    arc = torch.stack([4 * angle.cos(), 4 * angle.sin(), 1.5 * angle.sin() ** 2], dim=1)[:, :d]
    weights = torch.full((25,), 0.3 / 23)
    weights[[0, -1]] = 0.35
    prior = GaussianMixture(weights, arc, 0.3**2 * torch.eye(d).expand(25, d, d))
    left = State("S1", arc[0], tuple(range(13)), 0.5, 0.0)
    right = State("S2", arc[-1], tuple(range(13, 25)), 0.5, 0.0)
    (route,) = find_routes(prior, 0, 24, evidence=prior.sample(3000, seed=1), states=[left, right])
    assert route.share == pytest.approx(1)
    assert route.populations[0] == pytest.approx(0.3, abs=0.03)
    assert distance(route.curve, arc) < 0.15 < 2 < distance(arc[[0, -1]], arc)


def test_a_straight_passage_stays_straight_where_the_density_is_bent():
    """The prior has an arc between the wells, while the particles are on the chord."""
    angle = torch.linspace(torch.pi, 0, 13, dtype=torch.float64)
    arc = torch.stack([4 * angle.cos(), 4 * angle.sin()], dim=1)
    states = [State("S1", arc[0], tuple(range(7)), 0.5, 0.0), State("S2", arc[-1], tuple(range(7, 13)), 0.5, 0.0)]
    z = particles(arc[[0, -1]], {(0, 1): 500}, in_states=500)
    network = Network.of(wells(arc), states, z)
    assert torch.equal(network.curves[0, 1], arc[[0, -1]])
    assert network.populations[0] == pytest.approx(1 / 3, abs=0.04)


# Routes


@pytest.fixture(scope="module")
def diamond() -> tuple[GaussianMixture, Tensor]:
    """Two routes of equal length, with three quarters and one quarter of the particles."""
    return wells(DIAMOND), particles(DIAMOND, dict(zip(SIDES, (900, 900, 300, 300), strict=True)), in_states=600)


def test_routes_have_the_shares_of_their_particles(diamond):
    prior, z = diamond
    routes = find_routes(prior, 0, 3, n_steps=7, evidence=z)
    assert [[s.components for s in r.states] for r in routes] == [[(0,), (1,), (3,)], [(0,), (2,), (3,)]]
    assert [r.share for r in routes] == pytest.approx([0.75, 0.25], abs=0.03)
    for route, corner in zip(routes, (1, 2), strict=True):
        assert route.latents.shape == (8, 2) and route.method == "route"
        assert route.populations == pytest.approx([(900, 300)[corner - 1] / len(z)] * 2, rel=0.1)
        assert distance(route.curve, DIAMOND[[0, corner, 3]]) < 0.1
        assert route.frequency == 1 and route.share_interval[0] < (0.75, 0.25)[corner - 1] < route.share_interval[1]
    without = find_routes(prior, 0, 3, n_steps=7, evidence=z, n_draws=0)[0]
    assert without.share == routes[0].share and np.isnan(without.frequency) and np.isnan(without.share_interval).all()
    assert len(find_routes(prior, 0, 3, max_routes=1, evidence=z)) == 1
    assert len(find_routes(prior, 0, 3, least_share=0.5, evidence=z)) == 1


def test_routes_by_way_of_a_state_are_combinations_of_those_before_and_after_it(diamond):
    """From corner 0 to corner 3 by way of corner 2: each part can go straight or around the other side."""
    prior, z = diamond
    name = next(state.name for state in find_states(prior) if state.components == (2,))
    routes = find_routes(prior, 0, 3, n_steps=6, evidence=z, via=[name], n_draws=0, least_share=0.0)
    parts = [find_routes(prior, *ends, evidence=z, n_draws=0, least_share=0.0) for ends in ((0, 2), (2, 3))]
    expected = sorted((a.share * b.share for a in parts[0] for b in parts[1]), reverse=True)
    assert [r.share for r in routes] == pytest.approx(expected)
    assert [s.components for s in routes[0].states] == [(0,), (2,), (3,)] and routes[0].latents.shape == (7, 2)
    for route in routes:
        assert float((route.curve - DIAMOND[2]).norm(dim=1).min()) < 0.05
        assert len(route.populations) == len(route.states) - 1
    inside = find_routes(prior, 0, 3, evidence=z, via=[DIAMOND[0] + 0.05], n_draws=0)  # a way-point within a state
    direct = find_routes(prior, 0, 3, evidence=z, n_draws=0)
    assert [r.share for r in inside] == pytest.approx([r.share for r in direct])


def test_a_longer_route_lets_less_through():
    """Equal particles per unit of length on both routes, one twice as long: a third of the flux."""
    latents = torch.tensor([[0.0, 0.0], [6.0, 0.0], [3.0, 5.196]], dtype=torch.float64)
    z = particles(latents, {(0, 1): 600, (0, 2): 600, (1, 2): 600}, in_states=600)
    routes = find_routes(wells(latents), 0, 1, evidence=z)
    assert [len(r.states) for r in routes] == [2, 3]
    assert [r.share for r in routes] == pytest.approx([2 / 3, 1 / 3], abs=0.03)


def test_swapping_the_ends_gives_the_same_routes_backwards(diamond):
    prior, z = diamond
    there, back = find_routes(prior, 0, 3, evidence=z, n_draws=5), find_routes(prior, 3, 0, evidence=z, n_draws=5)
    for a, b in zip(there, back, strict=True):
        assert (a.share, a.share_interval, a.populations) == (b.share, b.share_interval, b.populations[::-1])
        assert [s.name for s in a.states] == [s.name for s in b.states][::-1]
        torch.testing.assert_close(a.latents, b.latents.flip(0), atol=1e-4, rtol=0)


def test_routes_start_and_end_where_they_are_told_to(diamond):
    prior, z = diamond
    start, end = torch.tensor([-0.3, 0.2]), np.array([10.1, -0.4])
    for route in find_routes(prior, start, end, evidence=z):
        torch.testing.assert_close(route.latents[0], start)
        torch.testing.assert_close(route.latents[-1], torch.as_tensor(end).float())
        assert route.curve[0].tolist() == pytest.approx(start.tolist())
        assert float(torch.cdist(DIAMOND[[0, 3]], route.curve).amin(1).max()) < 0.05  # through the states
    exact = find_routes(prior, 0, 3, evidence=z)[0]
    assert torch.equal(exact.latents[[0, -1]], DIAMOND[[0, 3]].float())


def test_evidence_may_be_latents_an_array_or_a_function(diamond):
    prior, z = diamond
    expected = by_states(find_routes(prior, 0, 3, evidence=z))
    for evidence in (z.numpy(), tube(z, typical_width(prior))):
        assert by_states(find_routes(prior, 0, 3, evidence=evidence)) == pytest.approx(expected)
    same = find_routes(prior, 0, 3, evidence=z, states=find_states(prior), landscape=Landscape.of(prior))
    assert by_states(same) == pytest.approx(expected)


def test_evidence_of_a_tube_is_that_of_a_gaussian():
    z, points = torch.tensor([[0.0, 1.0], [2.0, 2.0]]), torch.tensor([[0.0, 0.0], [2.0, 2.0], [3.0, 2.0]])
    expected = torch.distributions.Normal(0, 0.5).log_prob(z[:, None] - points).sum(-1)
    expected -= 2 * torch.distributions.Normal(0, 0.5).log_prob(torch.tensor(0.0))
    torch.testing.assert_close(tube(z, 0.5)(points), expected.double())


def test_without_evidence_the_density_is_sampled():
    """A chain of wells: by default routes stop at wells with at least 1 % of the mass."""
    latents = torch.tensor([[0.0, 0.0], [1.2, 0.0], [2.4, 0.0], [4.2, 0.0]], dtype=torch.float64)
    prior = GaussianMixture([0.3945, 0.2, 0.4, 0.0055], latents, 0.25**2 * torch.eye(2).expand(4, 2, 2))
    (route,) = find_routes(prior, 0, 2)
    assert [s.components for s in route.states] == [(0,), (1,), (2,)]
    assert route.share == pytest.approx(1, abs=0.03)
    assert [s.components for s in find_routes(prior, 0, 3)[0].states][-1] == (3,)  # an end can have less mass


def test_bootstrap_intervals_hold_the_truth_about_as_often_as_they_say():
    """Forty data sets with random numbers of particles: nine of ten 90 % intervals contain the true value of 0.7."""
    prior, held, widths = wells(DIAMOND), [], []
    for seed in range(40):
        counts = np.random.default_rng(seed).multinomial(1600, [0.175, 0.175, 0.075, 0.075, 0.5])
        z = particles(DIAMOND, dict(zip(SIDES, counts.tolist())), in_states=int(counts[-1]) // 4, seed=seed)
        first, second = find_routes(prior, 0, 3, evidence=z, n_draws=60, seed=seed, least_share=0.01)
        low, high = first.share_interval
        assert 0 <= low <= high <= 1 and low < first.share < high
        assert (first.frequency, second.frequency) == (1.0, 1.0)
        held.append(low < 0.7 < high)
        widths.append(high - low)
    assert sum(held) >= 30
    # Each route's flux is the harmonic mean of two multinomial counts; the error of its share follows by propagation.
    spread = 0.7 * 0.3 * np.sqrt((1 / 280 + 1 / 280 + 1 / 120 + 1 / 120) / 4)
    # Intervals are 1.35 times as wide, for the error of fitted states and passages, which are known here.
    assert np.mean(widths) == pytest.approx(1.35 * 2 * 1.645 * spread, rel=0.2)


def test_a_route_on_the_edge_is_found_in_some_draws_only_and_omitted():
    """A few particles on the second route, at the minimum share."""
    z = particles(DIAMOND, dict(zip(SIDES, (400, 400, 16, 16), strict=True)), in_states=200, seed=3)
    options = {"evidence": z, "n_draws": 60, "least_share": 0.036}
    assert len(find_routes(wells(DIAMOND), 0, 3, **options)) == 1
    routes = find_routes(wells(DIAMOND), 0, 3, **options, least_frequency=0.0)
    assert len(routes) == 2 and routes[0].frequency == 1.0
    assert 0.1 < routes[1].frequency < 0.95
    assert routes[1].share_interval[0] == 0 and routes[1].share_interval[1] < 0.12


def test_a_progress_bar_counts_the_draws(diamond, capsys):
    find_routes(diamond[0], 0, 3, evidence=diamond[1][::8], n_draws=3, progress=True)
    assert "5/5" in capsys.readouterr().err
    find_routes(diamond[0], 0, 3, evidence=diamond[1][::8])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, torch.tensor([0.2, 0.1])), {}, "Both ends belong to state S"),
        ((0, 4), {}, "component 4"),
        ((0, torch.zeros(3)), {}, "2 finite numbers"),
        ((0, 3), {"max_routes": 0}, "max_routes: found 0"),
        ((0, 3), {"n_draws": -1}, "n_draws: found -1"),
        ((0, 3), {"least_share": -0.1}, "least_share"),
        ((0, 3), {"least_share": 1.0}, "least_share"),
        ((0, 3), {"n_steps": 1}, "n_steps: found 1"),
    ],
)
def test_what_it_refuses(diamond, arguments, options, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        find_routes(diamond[0], *arguments, **options)


def test_typical_width_is_the_median_over_the_mass():
    covariances = torch.diag_embed(torch.tensor([[1.0, 0.1], [4.0, 9.0], [0.2, 0.04]])).double()
    means = torch.zeros(3, 2)
    assert typical_width(GaussianMixture([0.3, 0.1, 0.6], means, covariances)) == pytest.approx(0.2**0.5)
    assert typical_width(GaussianMixture([0.3, 0.3, 0.4], means, covariances)) == pytest.approx(1.0)
    assert typical_width(GaussianMixture([0.1, 0.8, 0.1], means, covariances)) == pytest.approx(3.0)


def test_distance_of_curves_is_the_larger_of_the_two_ways_round():
    short, long = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 1.0], [5.0, 1.0]])
    along = np.linspace(0, 5, 64)
    expected = np.hypot(np.maximum(along - 1, 0), 1).mean()
    assert distance(short, long) == pytest.approx(distance(long, short)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", [Network, State, Landscape])
def test_results_cannot_be_changed(kind):
    assert kind.__dataclass_params__.frozen and not kind.__dataclass_params__.eq


def test_a_passage_without_particles_has_no_share():
    """Particles on one side of the diamond only, and a state to which no passage leads."""
    z = particles(DIAMOND, {(0, 1): 600, (1, 3): 600}, in_states=400)
    (route,) = find_routes(wells(DIAMOND), 0, 3, evidence=z, least_share=0.0)
    assert [s.components for s in route.states] == [(0,), (1,), (3,)] and route.share == pytest.approx(1, abs=1e-3)
    (empty,) = find_routes(wells(DIAMOND), 0, 2, evidence=z)
    assert empty.share == 0


@pytest.mark.parametrize("direct", [True, False])
def test_the_path_with_evidence_is_the_first_route(direct):
    """A wide direct passage with many particles, and a narrow detour with few, or the reverse; two dead directions."""
    latents = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 4.0], [9.0, 0.0]], dtype=torch.float64)
    counts = (700, 130, 60, 130) if direct else (60, 300, 200, 300)
    counts = dict(zip(((0, 3), (0, 1), (1, 2), (2, 3)), counts, strict=True))
    live = particles(latents, counts, in_states=1500)
    noise = torch.randn(len(live), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z = torch.cat([live, 0.02 * torch.sin(live) + 0.002 * noise], dim=1)
    prior = GaussianMixture.fit(z, 30, n_init=2)
    ends = torch.cat([latents, 0.02 * torch.sin(latents)], dim=1)[[0, 3]]
    path, first = max_flux(prior, *ends, evidence=z), find_routes(prior, *ends, evidence=z)[0]
    assert len(first.states) == (2 if direct else 4)
    torch.testing.assert_close(path.latents, first.latents)
    planted = latents[[0, 3]] if direct else latents
    assert distance(path.curve[:, :2], planted) < 0.5
    inside = max_flux(prior, ends[0], ends[0] + 0.1, evidence=z)  # within one state, evidence has no influence
    assert torch.equal(inside.latents, max_flux(prior, ends[0], ends[0] + 0.1).latents)
