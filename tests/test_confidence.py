"""Confidence of a path, on mixtures of two wells with a known barrier; path profiles, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from cryotwin_nb.errors import InputError
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways import Landscape, PathConfidence, bootstrap_path, max_flux, profile
from cryotwin_nb.pathways.network import typical_width
from cryotwin_nb.pathways.profile import log_line_density
from cryotwin_nb.pathways.ridgeline import pathway_from_knots

pytestmark = pytest.mark.usefixtures("one_thread")


def two_wells(d: int = 1, apart: float = 4.0, share: float = 0.6) -> GaussianMixture:
    means = torch.zeros(2, d, dtype=torch.float64)
    means[1, 0] = apart
    return GaussianMixture([share, 1 - share], means, torch.eye(d).expand(2, d, d))


def true_barrier(apart: float = 4.0, share: float = 0.6) -> float:
    """Return the barrier from the mean of the first well on the line between the two; the same in every dimension."""
    x = np.linspace(0, apart, 4001)
    density = share * stats.norm.pdf(x) + (1 - share) * stats.norm.pdf(x, apart)
    return float(np.log(density[0] / density.min()))


def fitted(truth: GaussianMixture, n: int, seed: int, **options) -> tuple[torch.Tensor, GaussianMixture]:
    z = truth.sample(n, seed)
    return z, GaussianMixture.fit(z, start=truth, **options)


def test_the_interval_holds_the_true_barrier_in_most_samples():
    """Ten samples of 600; the widths of the intervals match the scatter of the estimates."""
    truth, held, estimates, widths = two_wells(1), 0, [], []
    for seed in range(10):
        z, prior = fitted(truth, 600, seed)
        path = max_flux(prior, 0, 1)
        confidence = bootstrap_path(prior, z, path, n_draws=25, seed=seed)
        low, high = confidence.interval()
        held += low < true_barrier() < high
        estimates.append(path.barrier)
        widths.append(high - low)
        assert low < path.barrier < high
    assert held >= 7
    assert np.mean(widths) == pytest.approx(3.29 * np.std(estimates), rel=0.6)


def test_the_interval_holds_the_true_barrier_in_two_dimensions():
    z, prior = fitted(two_wells(2), 600, seed=1)
    low, high = bootstrap_path(prior, z, max_flux(prior, 0, 1), n_draws=30).interval()
    assert low < true_barrier() < high < low + 1.2


@pytest.fixture(scope="module")
def example() -> tuple[torch.Tensor, GaussianMixture]:
    return fitted(two_wells(2), 500, seed=4)


def test_shapes_and_that_draws_scatter_about_the_path(example):
    z, prior = example
    path = max_flux(prior, 0, 1, n_steps=6)
    confidence = bootstrap_path(prior, z, path, n_draws=20)
    assert confidence.latents.shape == (20, 7, 2) and confidence.latents.dtype == torch.float32
    assert confidence.radius.shape == (7,) and (confidence.radius > 0).all()
    line = profile(path, prior, z).line_energy.max()
    known = {"barrier": path.barrier, "log_cost": path.log_cost, "line_barrier": line}
    for name, value in known.items():
        draws = getattr(confidence, name)
        assert draws.shape == (20,) and draws.std() > 0
        assert abs(draws.mean() - value) < 4 * draws.std() / 20**0.5 + 0.02, name
    gaps = confidence.latents.diff(dim=1).norm(dim=2)
    torch.testing.assert_close(gaps, gaps.mean(1, keepdim=True).expand_as(gaps), rtol=0.1, atol=0)


def test_draws_follow_from_the_seed(example):
    z, prior = example
    path = max_flux(prior, 0, 1)
    first, again, other = (bootstrap_path(prior, z, path, n_draws=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.latents, again.latents) and np.array_equal(first.barrier, again.barrier)
    assert not np.array_equal(first.barrier, other.barrier)
    known = bootstrap_path(prior, z, path, n_draws=3, seed=1, landscape=Landscape.of(prior))
    assert np.allclose(first.barrier, known.barrier)


def test_ends_move_with_means_and_stay_where_they_are_latents(example):
    """The mean of m particles scatters by 1 / sqrt(m) along each axis; here m = 300."""
    z, prior = example
    ends = prior.means.float()
    of_means = bootstrap_path(prior, z, max_flux(prior, 0, 1), n_draws=25).latents[:, 0]
    spread = of_means.std(0) * (500 * float(prior.weights[0])) ** 0.5
    assert ((spread > 0.6) & (spread < 1.6)).all()
    assert (of_means.mean(0) - ends[0]).norm() < 0.05
    fixed = bootstrap_path(prior, z, max_flux(prior, ends[0], ends[1]), n_draws=3).latents
    torch.testing.assert_close(fixed[:, [0, -1]], ends.expand(3, 2, 2), rtol=0, atol=1e-5)


def test_the_tube_shrinks_with_the_number_of_particles():
    """By its square root: a factor of ten from 200 to 20,000."""
    truth, radius = two_wells(2), []
    for n in (200, 20_000):
        z, prior = fitted(truth, n, seed=2)
        radius.append(bootstrap_path(prior, z, max_flux(prior, 0, 1), n_draws=15).radius.mean())
    assert 6 < radius[0] / radius[1] < 16


def test_the_tube_is_wider_where_less_is_known():
    """A path through a well with few particles, between two wells with many."""
    means = torch.tensor([[0.0, 0.0], [4.0, 4.0], [8.0, 0.0]])
    truth = GaussianMixture([0.48, 0.04, 0.48], means, torch.eye(2).expand(3, 2, 2))
    z, prior = fitted(truth, 1500, seed=0)
    radius = bootstrap_path(prior, z, max_flux(prior, 0, 2, n_steps=8), n_draws=25).radius
    assert radius[3:6].mean() > 2 * radius[[0, -1]].mean()


def test_what_the_mixture_would_move_by_itself_is_taken_off():
    """A density 1.5 times as wide as that of the particles: draws start from it and would all have higher barriers."""
    truth = two_wells(1)
    z = truth.sample(2000, 5)
    wide = GaussianMixture(truth.weights, truth.means, 1.5 * truth.covariances)
    path = max_flux(wide, 0, 1)
    assert true_barrier() > path.barrier + 0.4
    confidence = bootstrap_path(wide, z, path, n_draws=15)
    for draws, value in ((confidence.barrier, path.barrier), (confidence.log_cost, path.log_cost)):
        assert abs(draws.mean() - value) < 4 * draws.std() / 15**0.5


def test_errors_of_latents_are_taken_off_in_every_draw():
    """Noise with the variance of the wells hides half of the barrier from a bootstrap that ignores it."""
    truth, generator = two_wells(1), torch.Generator().manual_seed(0)
    z = truth.sample(4000, 1) + torch.randn(4000, 1, generator=generator)
    noise = torch.ones(4000, 1, 1)
    prior = GaussianMixture.fit(z, start=truth, noise_covariances=noise)
    path = max_flux(prior, 0, 1)
    aware, naive = (bootstrap_path(prior, z, path, n_draws=12, noise_covariances=n) for n in (noise, None))
    low, high = aware.interval()
    assert low < true_barrier() < high
    assert aware.barrier.std() > 1.5 * naive.barrier.std()


def test_intervals_are_quantiles_and_refuse_nonsense():
    values = np.arange(101.0)
    confidence = PathConfidence(torch.zeros(101, 3, 2), 2 * values, values, 3 * values, np.zeros(3))
    assert confidence.interval() == pytest.approx((5, 95))
    assert confidence.interval("log_cost", 0.5) == pytest.approx((50, 150))
    assert confidence.interval("line_barrier", 0.98) == pytest.approx((3, 297))
    for arguments in (("latents",), ("radius",), ("barrier", 0.0), ("barrier", 1.0), ("barrier", np.nan)):
        with pytest.raises(InputError, match="interval"):
            confidence.interval(*arguments)


def test_no_draws_are_refused(example):
    z, prior = example
    with pytest.raises(InputError, match="n_draws: found 0"):
        bootstrap_path(prior, z, max_flux(prior, 0, 1), n_draws=0)


def test_a_progress_bar_counts_the_draws(example, capsys):
    z, prior = example
    bootstrap_path(prior, z, max_flux(prior, 0, 1), n_draws=2, progress=True)
    assert "2/2" in capsys.readouterr().err


# Path profiles


@pytest.fixture(scope="module")
def bend() -> tuple[GaussianMixture, torch.Tensor]:
    means = torch.tensor([[0.0, 0.0, 0.0], [4.0, 0.0, 0.0], [4.0, 4.0, 1.0]])
    factor = 0.3 * torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    prior = GaussianMixture([0.5, 0.2, 0.3], means, factor @ factor.mT + 0.4 * torch.eye(3))
    return prior, prior.sample(700, seed=3)


@pytest.mark.parametrize("radius", [None, 0.8])
def test_particles_near_the_points_are_those_of_brute_force(bend, radius):
    prior, z = bend
    path = pathway_from_knots(prior, prior.means, n_steps=5)
    found = profile(path, prior, z, radius)
    reach = 3 * typical_width(prior) if radius is None else radius
    expected = [[] for _ in range(6)]
    a, b = prior.means[:-1].numpy(), prior.means[1:].numpy()
    for row, point in enumerate(z.double().numpy()):
        along = np.clip(((point - a) * (b - a)).sum(1) / ((b - a) ** 2).sum(1), 0, 1)
        from_curve = np.linalg.norm(a + along[:, None] * (b - a) - point, axis=1).min()
        if from_curve <= reach:
            expected[int(np.linalg.norm(path.latents.numpy() - point, axis=1).argmin())].append(row)
    assert found.radius == pytest.approx(reach)
    assert sum(map(len, expected)) not in (0, len(z))
    differing = set().union(*(set(p.tolist()) ^ set(e) for p, e in zip(found.particles, expected, strict=True)))
    assert len(differing) <= 1  # at the very edge: the curve is a polyline
    assert found.counts.tolist() == [len(p) for p in found.particles] and found.counts.dtype.kind == "i"


def test_energy_and_position_along_a_path(bend):
    prior, z = bend
    path = pathway_from_knots(prior, prior.means, n_steps=5)
    found = profile(path, prior, z)
    length = 4 + 17**0.5
    assert found.position[0] == 0 and found.position[-1] == pytest.approx(length)
    np.testing.assert_allclose(found.step_position, np.linspace(0, length, 6), atol=length / 300)
    at = np.interp(4.0, found.position, found.energy)
    assert at == pytest.approx(float(prior.log_prob(prior.means[:1]) - prior.log_prob(prior.means[1:2])), abs=0.01)
    assert found.energy[0] == 0 and found.energy.max() == pytest.approx(path.barrier, abs=0.01)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_mass_per_length_is_that_of_quadrature_across_the_path(d):
    """Over the line or plane across a straight path, with a weight that falls like a Gaussian."""
    generator, width = torch.Generator().manual_seed(d), 0.7
    factor = 0.6 * torch.randn(3, d, d, generator=generator, dtype=torch.float64)
    means = torch.randn(3, d, generator=generator, dtype=torch.float64)
    mixture = GaussianMixture([0.5, 0.2, 0.3], means, factor @ factor.mT + 0.3 * torch.eye(d))
    frame = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0].T
    curve = torch.linspace(-1, 2, 7, dtype=torch.float64)[:, None] * frame[0]

    def across(*offsets: float) -> float:
        point = curve[2] + sum(o * axis for o, axis in zip(offsets, frame[1:]))
        fall = float(np.exp(-np.square(offsets).sum() / (2 * width**2)))
        return fall * float(mixture.log_prob(point[None]).exp())

    expected = across() if d == 1 else integrate.nquad(across, [(-4, 4)] * (d - 1), opts={"epsrel": 1e-6})[0]
    found = log_line_density(mixture, curve, width)
    assert found.shape == (7,)
    assert float(found[2]) == pytest.approx(np.log(expected), abs=1e-4)


def test_a_wider_passage_has_more_mass_for_the_same_density():
    """Two wells with a passage twice as wide in the middle: the energy per length is lower by log 2 there."""
    means = torch.tensor([[0.0, 0.0], [3.0, 0.0], [6.0, 0.0]])
    wide = torch.diag_embed(torch.tensor([[1.0, 0.01], [1.0, 0.04], [1.0, 0.01]]))
    prior = GaussianMixture([0.4, 0.2, 0.4], means, wide)
    found = profile(pathway_from_knots(prior, prior.means, 4), prior, prior.sample(100))
    middle = len(found.energy) // 2
    gain = found.energy[middle] - found.line_energy[middle]
    assert 0.3 < gain < np.log(2)
