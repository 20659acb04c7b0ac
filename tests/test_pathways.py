import itertools

import pytest
import torch

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways import ridgeline_chain, straight_resistances, waypoints
from cryotwin_nb.pathways.ridgeline import log_resistance, pathway_from_knots, ridgeline


@pytest.fixture(scope="module")
def corner() -> GaussianMixture:
    """Return three wells in an L: the straight path from 0 to 2 crosses a high barrier, the path through 1 does not."""
    means = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [-3.0, 9.0]])
    return GaussianMixture([0.3, 0.3, 0.3, 0.1], means, 0.8 * torch.eye(2).expand(4, 2, 2))


def test_chain_goes_around_the_corner_and_is_cheaper(corner):
    assert waypoints(corner, 0, 2) == [0, 1, 2]
    chain, direct = ridgeline_chain(corner, 0, 2), ridgeline(corner, 0, 2)
    assert chain.log_cost < direct.log_cost - 0.5
    assert chain.barrier < direct.barrier
    assert chain.latents.shape == (12, 2)
    assert torch.equal(chain.latents[[0, -1]], corner.means[[0, 2]].float())
    assert float((chain.curve - corner.means[1]).norm(dim=1).min()) < 1e-6
    assert (chain.start, chain.end, chain.method) == (0, 2, "ridgeline chain")


def test_neighbours_are_joined_directly_by_the_cheaper_of_line_and_ridge(corner):
    assert waypoints(corner, 1, 0) == [1, 0]
    chain = ridgeline_chain(corner, 1, 0, seed=3)
    line = pathway_from_knots(corner, corner.means[[1, 0]])
    assert chain.log_cost == pytest.approx(min(line.log_cost, ridgeline(corner, 1, 0, seed=3).log_cost), abs=1e-3)


def test_waypoints_agree_with_brute_force():
    generator = torch.Generator().manual_seed(2)
    means = 3 * torch.randn(6, 3, generator=generator)
    mixture = GaussianMixture(torch.ones(6) / 6, means, torch.eye(3).expand(6, 3, 3))
    cost = straight_resistances(mixture).exp()
    between = range(1, 5)
    chains = [[0, *p, 5] for n in range(5) for p in itertools.permutations(between, n)]
    best = min(chains, key=lambda c: float(sum(cost[i, j] for i, j in itertools.pairwise(c))))
    assert waypoints(mixture, 0, 5) == best


def test_straight_resistances_agree_with_fine_quadrature(corner):
    line = torch.lerp(corner.means[0], corner.means[2], torch.linspace(0, 1, 4000).double()[:, None])
    matrix = straight_resistances(corner)
    assert float(matrix[0, 2]) == pytest.approx(log_resistance(corner, line), abs=0.03)
    assert torch.equal(matrix, matrix.T)
    assert torch.isneginf(matrix.diagonal()).all()


@pytest.mark.parametrize("arguments", [(0, 0), (0, 9), (-1, 2), (0, 2, 1)])
def test_impossible_chains_are_refused(corner, arguments):
    with pytest.raises(InputError, match=r"(?s)found .* expected|same component"):
        ridgeline_chain(corner, *arguments)


def test_two_components_may_share_a_mean():
    means = torch.tensor([[0.0, 0.0], [0.0, 0.0], [4.0, 0.0], [8.0, 0.0]])
    shapes = torch.stack([torch.eye(2), 2 * torch.eye(2), torch.eye(2), torch.eye(2)])
    assert waypoints(GaussianMixture([0.3, 0.2, 0.25, 0.25], means, shapes), 0, 3)[-2:] == [2, 3]


def test_waypoints_are_found_where_all_passages_are_high():
    """Passages of 800 nats or more: resistances are relative to the lowest one."""
    means = torch.tensor([[0.0, 0.0], [80.0, 0.0], [160.0, 0.0]])
    assert waypoints(GaussianMixture([0.4, 0.3, 0.3], means, torch.eye(2).expand(3, 2, 2)), 0, 2) == [0, 1, 2]
