"""Paths of least resistance and states, on densities with known answers."""

import numpy as np
import pytest
import torch
from scipy.interpolate import interpn

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways import Landscape, assign, find_states, max_flux
from cryotwin_nb.pathways.ridgeline import equidistant, log_resistance, pathway_from_knots, ridgeline

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def ring() -> GaussianMixture:
    """Twelve wells on three quarters of a circle: the path between the ends is long, and the straight line is empty."""
    angle = torch.linspace(0.25, 1.75, 12, dtype=torch.float64) * torch.pi
    means = 6 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return GaussianMixture(torch.ones(12) / 12, means, 1.2 * torch.eye(2).expand(12, 2, 2))


@pytest.fixture(scope="module")
def random_mixture() -> GaussianMixture:
    generator = torch.Generator().manual_seed(3)
    factor = 0.4 * torch.randn(15, 4, 4, generator=generator, dtype=torch.float64)
    covariances = factor @ factor.mT + 0.2 * torch.eye(4)
    means = 2.5 * torch.randn(15, 4, generator=generator, dtype=torch.float64)
    return GaussianMixture(torch.ones(15) / 15, means, covariances)


def test_the_path_of_a_single_gaussian_is_symmetric_and_bends_towards_the_mean():
    """Between two points away from the mean, the path passes nearer to the mean than the straight line does."""
    mixture = GaussianMixture([1.0], torch.zeros(1, 2), torch.eye(2)[None])
    path = max_flux(mixture, torch.tensor([-2.0, 1.5]), torch.tensor([2.0, 1.5]), n_steps=20)
    assert path.latents[10, 0].abs() < 1e-2 and path.latents[10, 1] < 1.2
    mirrored = path.latents.flip(0) * torch.tensor([-1.0, 1.0])
    assert torch.allclose(mirrored, path.latents, atol=0.02)


def test_resistance_is_that_of_brute_force_on_a_grid(ring):
    """Dijkstra on a fine grid with 32 neighbours overestimates a length by at most 1 %; compares J."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import dijkstra

    axis = np.linspace(-9, 9, 181)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    points = torch.as_tensor(np.stack([x.ravel(), y.ravel()], axis=1))
    energy = -ring.log_prob(points).numpy()
    index = np.arange(len(points)).reshape(x.shape)
    rows, columns, values = [], [], []
    moves = [(1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1), (1, -2), (3, 1), (1, 3), (3, -1), (1, -3)]
    moves += [(3, 2), (2, 3), (3, -2), (2, -3)]
    for dx, dy in moves:
        a = index[: len(axis) - dx, max(0, -dy) : len(axis) - max(0, dy)].ravel()
        b = index[dx:, max(0, dy) : len(axis) + min(0, dy)].ravel()
        between = points[a][:, None] + torch.linspace(0, 1, 5)[:, None] * (points[b] - points[a])[:, None]
        density = -ring.log_prob(between.flatten(0, 1)).view(len(a), 5).numpy()
        mean = np.exp(density) @ (np.array([7, 32, 12, 32, 7]) / 90)  # Boole's rule
        rows, columns = [*rows, a], [*columns, b]
        values.append(mean * np.hypot(dx, dy) * (axis[1] - axis[0]))
    graph = csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(len(points),) * 2
    )
    ends = [int(((points - ring.means[c]) ** 2).sum(1).argmin()) for c in (0, 11)]
    expected = dijkstra(graph, directed=False, indices=ends[0])[ends[1]]
    path = max_flux(ring, points[ends[0]], points[ends[1]])
    assert energy[ends].max() < 6
    assert np.exp(path.log_cost) == pytest.approx(expected, rel=0.015)


def crowd(seed: int, d: int) -> GaussianMixture:
    """Return ten wells of random shapes in a box."""
    generator = torch.Generator().manual_seed(seed)
    means = (torch.rand(10, d, generator=generator, dtype=torch.float64) - 0.5) * torch.tensor([8.0, 6.0, 4.0])[:d]
    factor = 0.35 * torch.randn(10, d, d, generator=generator, dtype=torch.float64)
    return GaussianMixture(torch.ones(10) / 10, means, factor @ factor.mT + 0.2 * torch.eye(d))


def marched(mixture: GaussianMixture, start: np.ndarray, end: np.ndarray, step: float, radius: float) -> float:
    """Return the least resistance from a ball around the start to the end: travel time of a front at speed P."""
    skfmm = pytest.importorskip("skfmm")
    low = mixture.means.amin(0).numpy() - 2
    axes = [x + step * np.arange(1 + np.ceil((y - x) / step)) for x, y in zip(low, mixture.means.amax(0).numpy() + 2)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    log_prob = mixture.log_prob(torch.as_tensor(points.reshape(-1, len(axes)))).numpy().reshape(points.shape[:-1])
    from_ball = np.linalg.norm(points - start, axis=-1) - radius
    time = skfmm.travel_time(from_ball, np.exp(log_prob - log_prob.max()), dx=step, order=2)
    return float(interpn(axes, time, end)[0] * np.exp(-log_prob.max()))


@pytest.mark.parametrize(
    ("d", "seed", "step"), [(2, 0, 0.04), (2, 7, 0.04), (2, 34, 0.04), (2, 53, 0.04), (3, 4, 0.08), (3, 9, 0.08)]
)
def test_resistance_is_that_of_fast_marching(d, seed, step):
    """Some crowds favour wrong paths: long edges over barriers, or paths that are nearly as good.

    The front starts from a ball, because its error is large near a point; the path's part in the ball is subtracted.
    """
    mixture, radius = crowd(seed, d), 0.4
    start, end = mixture.means[mixture.means[:, 0].argmin()], mixture.means[mixture.means[:, 0].argmax()]
    path = max_flux(mixture, start, end)
    inside = (path.curve - start).norm(dim=1) < radius
    assert bool(inside.diff().sum() == 1)
    outside = path.curve[int(inside.sum()) - 1 :]
    expected = marched(mixture, start.numpy(), end.numpy(), step, radius)
    assert np.exp(log_resistance(mixture, outside)) == pytest.approx(expected, rel=0.01)


def test_resistance_around_the_ring_is_that_of_fast_marching(ring):
    path = max_flux(ring, 0, 11)
    outside = path.curve[int(((path.curve - ring.means[0]).norm(dim=1) < 1.0).sum()) - 1 :]
    expected = marched(ring, ring.means[0].numpy(), ring.means[11].numpy(), 0.05, 1.0)
    assert np.exp(log_resistance(ring, outside)) == pytest.approx(expected, rel=0.01)


def test_long_edges_see_the_barriers_that_they_cross():
    """An edge 14 standard deviations long through a third well, against a fine quadrature."""
    means = torch.tensor([[0.0, 0.0], [7.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    mixture = GaussianMixture(torch.ones(3) / 3, means, 0.25 * torch.eye(2).expand(3, 2, 2))
    landscape = Landscape.of(mixture)
    (edge,) = np.flatnonzero((landscape.edges == [0, 1]).all(1))
    exact = pathway_from_knots(mixture, means[:2])
    assert landscape.log_resistance[edge] == pytest.approx(exact.log_cost, abs=0.15)
    assert landscape.ceiling[edge] - landscape.energy[0] == pytest.approx(exact.barrier, abs=0.15)


def test_the_path_follows_the_ring(ring):
    path = max_flux(ring, 0, 11, n_steps=30)
    assert (path.latents.norm(dim=1) > 4.5).all() and path.latents[15, 0] < -4.5
    assert path.log_cost < pathway_from_knots(ring, ring.means[[0, 11]]).log_cost - 1
    assert path.residual < 0.2


@pytest.mark.parametrize(("start", "end"), [(0, 1), (3, 9), (14, 2), (7, 11)])
def test_it_is_never_worse_than_algorithm_1_and_the_straight_line(random_mixture, start, end):
    path = max_flux(random_mixture, start, end)
    others = [ridgeline(random_mixture, start, end, seed=seed) for seed in range(3)]
    others += [
        ridgeline(random_mixture, end, start),
        pathway_from_knots(random_mixture, random_mixture.means[[start, end]]),
    ]
    assert path.log_cost <= min(o.log_cost for o in others) + 1e-9
    assert path.log_cost == pytest.approx(log_resistance(random_mixture, path.curve), abs=1e-9)


def test_swapping_the_ends_reverses_the_path(random_mixture):
    there, back = max_flux(random_mixture, 3, 9), max_flux(random_mixture, 9, 3)
    assert torch.equal(there.latents, back.latents.flip(0))
    assert there.log_cost == pytest.approx(back.log_cost, abs=1e-9)
    assert (there.start, there.end, back.start) == (3, 9, 9)


def test_the_ends_may_be_states(ring):
    states = find_states(ring, threshold=0.9)
    path = max_flux(ring, states[0], states[-1])
    assert torch.equal(path.latents, max_flux(ring, states[0].latent, states[-1].latent).latents)


def test_a_path_by_way_of_points_consists_of_the_paths_between_them(ring):
    """States can be given by name, and the points lie at equal distances along the whole."""
    states = find_states(ring)
    path = max_flux(ring, states[0].name, 11, n_steps=8, via=[7, torch.tensor([-5.0, 3.0])])
    legs = [(states[0], 7), (7, torch.tensor([-5.0, 3.0])), (torch.tensor([-5.0, 3.0]), 11)]
    parts = [max_flux(ring, *leg) for leg in legs]
    assert path.log_cost == pytest.approx(float(torch.tensor([p.log_cost for p in parts]).logsumexp(0)), abs=1e-3)
    assert path.latents.shape == (9, 2) and (path.start, path.end, path.method) == (None, 11, "MaxFlux")
    torch.testing.assert_close(path.latents[0].double(), states[0].latent, atol=1e-5, rtol=0)
    whole = equidistant(torch.cat([part.curve for part in parts]), 9)
    torch.testing.assert_close(path.latents.double(), whole, atol=1e-2, rtol=0)
    with pytest.raises(InputError, match=r"state 'S99', expected one of S1"):
        max_flux(ring, 0, "S99")


def test_points_at_equal_flux_stand_where_the_passages_are(ring):
    even, flux = max_flux(ring, 0, 6, n_steps=40), max_flux(ring, 0, 6, n_steps=40, spacing="flux")
    assert flux.log_prob.mean() < even.log_prob.mean()
    assert torch.equal(flux.latents[[0, -1]], even.latents[[0, -1]])


def test_a_small_exponent_minds_the_density_less(ring):
    lengths = [max_flux(ring, 0, 7, exponent=e).curve.diff(dim=0).norm(dim=1).sum() for e in (0.05, 1.0)]
    assert lengths[0] < lengths[1]


def test_what_it_refuses(ring):
    for arguments in ((0, 0), (0, 12), (0, torch.zeros(3)), (0, torch.tensor([torch.nan, 0.0]))):
        with pytest.raises(InputError):
            max_flux(ring, *arguments)
    for options in ({"n_steps": 1}, {"exponent": 0.0}, {"spacing": "even"}):
        with pytest.raises(InputError):
            max_flux(ring, 0, 1, **options)


def test_states_are_the_groups_that_passages_separate():
    """Two distant wells of two components each, and a single third; a finer threshold separates the halves."""
    means = torch.tensor([[0.0, 0.0], [2.6, 0.0], [20.0, 0.0], [22.6, 0.0], [10.0, 15.0]])
    mixture = GaussianMixture([0.3, 0.3, 0.15, 0.15, 0.1], means, torch.eye(2).expand(5, 2, 2))
    states = find_states(mixture)
    assert [s.name for s in states] == ["S1", "S2", "S3"]
    assert [s.components for s in states] == [(0, 1), (2, 3), (4,)]
    assert [s.mass for s in states] == pytest.approx([0.6, 0.3, 0.1])
    assert len(find_states(mixture, threshold=0.95)) == 5
    assert len(find_states(mixture, least_mass=0.2)) == 2
    assert assign(mixture, states, torch.tensor([[1.0, 0.5], [21.0, 0.0], [10.0, 14.0]])).tolist() == [0, 1, 2]
    for state in states:
        assert torch.cdist(state.latent[None], mixture.modes()).min() < 1e-6
    with pytest.raises(InputError, match="threshold"):
        find_states(mixture, threshold=1.0)


@pytest.mark.parametrize(
    ("place", "n_clump", "n_states"),
    [((5.0, 0.0), 12, 2), ((5.0, 0.0), 60, 3), ((5.0, 12.0), 12, 3)],
    ids=["few between two states", "many between two states", "few elsewhere"],
)
def test_a_few_particles_on_a_passage_are_not_a_state(place, n_clump, n_states):
    rng = np.random.default_rng(0)
    ends = np.repeat([[0.0, 0.0], [10.0, 0.0]], 400, axis=0) + 0.5 * rng.normal(size=(800, 2))
    passage = np.column_stack([rng.uniform(1, 9, 10), 0.3 * rng.normal(size=10)])
    clump = np.array(place) + 0.3 * rng.normal(size=(n_clump, 2))
    covariances = torch.tensor([0.25, 0.25, 0.09])[:, None, None] * torch.eye(2)
    weights = torch.tensor([400.0, 400.0, n_clump])
    mixture = GaussianMixture(weights / weights.sum(), torch.tensor([[0.0, 0.0], [10.0, 0.0], place]), covariances)
    assert len(find_states(mixture)) == 3
    assert len(find_states(mixture, latents=np.concatenate([ends, passage, clump]))) == n_states


def test_states_without_particles_are_omitted():
    """A component of no weight, one whose mean belongs to the broad one around it, and one without a latent."""
    means = torch.tensor([[0.0, 0.0], [40.0, 0.0], [20.0, 30.0], [0.0, 60.0]])
    mixture = GaussianMixture([0.6, 0.4 - 1e-3, 3e-16, 1e-3 - 3e-16], means, torch.eye(2).expand(4, 2, 2))
    assert [s.components for s in find_states(mixture)] == [(0,), (1,), (3,)]
    latents = torch.cat([means[:1] + 0.1 * torch.randn(50, 2), means[1:2] + 0.1 * torch.randn(50, 2)])
    states = find_states(mixture, latents=latents.numpy())
    assert [(s.name, s.components) for s in states] == [("S1", (0,)), ("S2", (1,))]
    assert len(find_states(mixture, latents=torch.cat([latents, means[3:]]))) == 3
    with pytest.raises(InputError, match=r"expected \(n, 2\)"):
        find_states(mixture, latents=torch.zeros(4, 3))
