"""Likelihood of the coefficients: statistics against distortions, posteriors against numerical integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import cryotwin_nb as ct
from cryotwin_nb.imaging.lattice import HalfBall, half_ball
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.eigenvolumes import MARGIN
from cryotwin_nb.reconstruction.statistics import Statistics, contrasts, posterior, projections

pytestmark = pytest.mark.usefixtures("one_thread")


# Statistics


@pytest.fixture(scope="module")
def scene():
    """An image formation, twenty images and four maps on a lattice: V_0 and three directions."""
    particles = ct.simulate.assembly(20, 16, pixel_size=20.0, snr=5.0, progress=False)
    imaging = ImageFormation(16, windowed=False, margin=MARGIN)
    imaging.measure(particles)
    batch = imaging.batch(particles, np.arange(20))
    empty = particles.truth.volume_at(np.zeros(5))
    maps = torch.stack([empty, *(particles.truth.volume_at(row) - empty for row in np.eye(5, dtype=np.float32)[:3])])
    ball = half_ball(16, imaging.plane.radius, 1.5)
    return imaging, batch, ball, ball.from_volumes(maps)


def predicted(scene: tuple, c: Tensor) -> Tensor:
    """Return CTF / sigma times the slice of V_0 + sum_k c_k U_k, coefficient by coefficient."""
    imaging, batch, ball, lattice = scene
    real, imaginary = ball.slices(lattice, imaging.frequencies, batch.rotations).chunk(2, dim=-1)
    weights = torch.cat([torch.ones(len(c), 1), c], dim=1)[:, None]
    return torch.complex((real * weights).sum(-1), (imaginary * weights).sum(-1)) * batch.transfer


def statistics(ball: HalfBall, lattice: Tensor, batch: ImageBatch, frequencies: Tensor, weights: Tensor) -> Statistics:
    return projections(ball, lattice, batch, frequencies, weights).statistics()


def quadratic(given: Statistics, c: Tensor) -> Tensor:
    c = c.double()
    return given.energy - 2 * (given.b * c).sum(-1) + (c[:, None] @ given.G.double() @ c[..., None])[:, 0, 0]


def full_of(scene: tuple, weights: Tensor) -> Statistics:
    imaging, batch, ball, lattice = scene
    return statistics(ball, lattice, batch, imaging.frequencies, weights)


@pytest.mark.parametrize("seed", range(3))
def test_the_quadratic_form_is_the_distortion(scene, seed):
    imaging, batch, *_ = scene
    c = torch.randn(20, 3, generator=torch.Generator().manual_seed(seed))
    full = full_of(scene, imaging.weights(batch.group))
    expected = imaging.distortion(batch, predicted(scene, c)).double()
    found = quadratic(full, torch.cat([torch.ones(20, 1), c], dim=1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(full.energy.mean()))
    by_hand = (imaging.weights(batch.group) * (batch.data - predicted(scene, c)).abs().square()).sum(1).double()
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-4 * float(full.energy.mean()))


@pytest.mark.parametrize("seed", range(3))
def test_statistics_given_the_contrast_leave_the_coefficients(scene, seed):
    """For the image a (V_0 + sum_k c_k U_k), with the weights of the likelihood."""
    imaging, batch, *_ = scene
    generator = torch.Generator().manual_seed(seed)
    c, a = torch.randn(20, 3, generator=generator), 0.5 + torch.rand(20, generator=generator)
    full = full_of(scene, imaging.multiplicity)
    residual = batch.data - a[:, None] * predicted(scene, c)
    expected = (imaging.multiplicity * residual.abs().square()).sum(1).double()
    expected -= (residual[:, 0].abs().square()).double()  # excludes the mean of an image
    found = quadratic(full.given(a), c)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(full.energy.mean()))
    assert full.given(a.double()).b.shape == (20, 3)


def test_fewer_frequencies_and_weights_of_each_image(scene):
    imaging, batch, ball, lattice = scene
    near = ball.slices(lattice, imaging.frequencies[:30], batch.rotations)
    weights = torch.rand(20, 30, generator=torch.Generator().manual_seed(0))
    found = statistics(ball, lattice, batch, imaging.frequencies[:30], weights)
    weights[:, 0] = 0  # the mean of an image is always excluded
    slices = torch.complex(*near.chunk(2, dim=-1)) * batch.transfer[:, :30, None]
    gram = torch.einsum("mp,mpq,mpr->mqr", weights.to(slices.dtype), slices.conj(), slices).real
    cross = torch.einsum("mp,mpq,mp->mq", weights.to(slices.dtype), slices.conj(), batch.data[:, :30]).real
    torch.testing.assert_close(found.G, gram, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.b, cross, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.energy, (weights * batch.data[:, :30].abs().square()).sum(1))


# Posterior


def likelihoods(n: int, dim: int, seed: int = 0, rank: int | None = None) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, dim, rank or dim))
    b = (factors @ rng.normal(size=(n, rank or dim, 1)))[..., 0] * 1.5
    return torch.as_tensor(b), torch.as_tensor(factors @ factors.transpose(0, 2, 1))


def test_with_one_gaussian_the_posterior_is_that_of_linear_regression():
    b, G = likelihoods(8, 3)
    root = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([[0.5, -1.0, 2.0]]).double()
    covariance = root @ root.T + torch.eye(3)
    found = posterior(b.float(), G.float(), GaussianMixture([1.0], mean, covariance[None]))
    for i in range(8):
        precision = torch.linalg.inv(covariance)
        spread = torch.linalg.inv(G[i] + precision)
        torch.testing.assert_close(found.covariance[i], spread, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.mean[i], spread @ (b[i] + precision @ mean[0]), rtol=1e-5, atol=1e-5)
        # c = G^-1 b is observed with noise of covariance G^-1
        point, noise = torch.linalg.solve(G[i], b[i]), torch.linalg.inv(G[i])
        density = stats.multivariate_normal(mean[0].numpy(), (covariance + noise).numpy()).logpdf(point.numpy())
        best = float(b[i] @ point) / 2 + 0.5 * math.log(float((2 * math.pi * noise).det()))
        assert float(found.log_evidence[i]) == pytest.approx(density + best, rel=1e-4, abs=1e-4)


MIXTURES = {
    1: GaussianMixture([0.5, 0.3, 0.2], [[-2.0], [1.0], [3.0]], [[[0.2]], [[0.05]], [[1.0]]]),
    2: GaussianMixture([0.6, 0.4], [[-1.0, 0.5], [1.5, 1.0]], [[[0.5, 0.2], [0.2, 0.3]], [[0.1, -0.05], [-0.05, 0.6]]]),
}


@pytest.mark.parametrize(("dim", "rank"), [(1, 1), (2, 2), (2, 1)])
def test_with_a_mixture_the_posterior_is_that_of_numerical_integration(dim, rank):
    """Including singular G, and images without any information."""
    prior = MIXTURES[dim]
    b, G = likelihoods(6, dim, seed=3, rank=rank)
    b[0], G[0] = 0, 0
    step = 0.01 if dim == 1 else 0.04
    axis = torch.arange(-8, 10, step, dtype=torch.float64)
    points = torch.cartesian_prod(*[axis] * dim).view(-1, dim)
    log_joint = b @ points.T - 0.5 * torch.einsum("nd,mde,ne->mn", points, G, points) + prior.log_prob(points)
    found = posterior(b, G, prior)
    evidence = log_joint.logsumexp(1) + dim * math.log(step)
    share = log_joint.softmax(1)
    mean = share @ points
    second = torch.einsum("mn,nd,ne->mde", share, points, points)
    torch.testing.assert_close(found.log_evidence, evidence, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.covariance, second - mean[:, :, None] * mean[:, None], rtol=0, atol=1e-6)
    assert float(found.log_evidence[0]) == pytest.approx(0, abs=1e-9)


def test_posteriors_do_not_depend_on_how_coefficients_are_measured():
    """c -> A c: b -> A^-T b, G -> A^-T G A^-1, with the prior transformed accordingly; the evidence is unchanged."""
    prior, (b, G) = MIXTURES[2], likelihoods(5, 2, seed=1)
    matrix = torch.tensor([[2.0, 0.3], [-0.5, 0.7]]).double()
    inverse = torch.linalg.inv(matrix)
    moved = GaussianMixture(prior.weights, prior.means @ matrix.T, matrix @ prior.covariances @ matrix.T)
    plain, other = posterior(b, G, prior), posterior(b @ inverse, inverse.T @ G @ inverse, moved)
    torch.testing.assert_close(other.mean, plain.mean @ matrix.T)
    torch.testing.assert_close(other.covariance, matrix @ plain.covariance @ matrix.T)
    torch.testing.assert_close(other.log_evidence, plain.log_evidence)


# Contrast


def planted(a: Tensor, variances: Tensor, noise: float, seed: int = 0) -> Statistics:
    """Return statistics of whitened images a (A_0 + A c) + noise with random slices A."""
    n, generator = len(a), torch.Generator().manual_seed(seed)
    slices = torch.randn(n, 60, len(variances) + 1, dtype=torch.float64, generator=generator)
    c = torch.randn(n, len(variances), dtype=torch.float64, generator=generator) * variances.sqrt()
    images = a[:, None] * (slices @ torch.cat([torch.ones(n, 1), c], dim=1)[..., None])[..., 0]
    images += noise * torch.randn(images.shape, dtype=torch.float64, generator=generator)
    slices, images = slices / noise, images / noise
    return Statistics((images[:, None] @ slices)[:, 0], slices.mT @ slices, images.square().sum(1))


def gaussian(variances: Tensor) -> GaussianMixture:
    return GaussianMixture([1.0], torch.zeros(1, len(variances)).double(), variances.diag()[None])


def test_planted_contrasts_are_found():
    a = 1 + 0.2 * torch.randn(500, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    variances = torch.tensor([0.5, 0.1]).double()
    found = contrasts(planted(a, variances, noise=0.1), gaussian(variances), 0.2)
    assert found.mean.dtype == torch.float64
    assert (found.mean - a).abs().max() < 0.06
    assert float((found.mean - a).mean()) == pytest.approx(0, abs=2e-3)


def test_contrasts_are_drawn_to_one_where_the_images_say_little():
    """Least squares is noisier than the posterior mean, which is unbiased in a regression of the truth on it."""
    a = 1 + 0.2 * torch.randn(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    variances = torch.tensor([0.5, 0.1]).double()
    full, prior = planted(a, variances, noise=2.0), gaussian(variances)
    free, drawn = contrasts(full, prior, 1e3).mean, contrasts(full, prior, 0.2)
    assert (drawn.mean - a).square().mean() < 0.8 * (free - a).square().mean()
    slope = ((drawn.mean - 1) * (a - 1)).mean() / (drawn.mean - 1).square().mean()
    assert float(slope) == pytest.approx(1, abs=0.08)  # E[a | posterior mean] is the posterior mean
    assert 0.64 < float(((drawn.mean - a).abs() < drawn.error).double().mean()) < 0.72
    assert (contrasts(full, prior, 1e-6).mean - 1).abs().max() < 1e-6


def test_the_likelihood_of_the_coefficients_is_integrated_over_the_contrast():
    """By numerical integration over a; the closed form linearises the image in (a, c) around its best values."""
    a = 1 + 0.2 * torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    variances, spread = torch.tensor([0.5, 0.1]).double(), 0.2
    full = planted(a, variances, noise=0.3)
    found = contrasts(full, gaussian(variances), spread)
    grid = torch.linspace(0.01, 2.5, 2000, dtype=torch.float64)
    deviation = torch.linalg.inv(found.G).diagonal(dim1=1, dim2=2).sqrt()
    offset = None
    for step in torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.5]]).double():
        c = found.expected + step * deviation
        tilde = torch.cat([torch.ones(50, 1).double(), c], dim=1)
        linear, square = (full.b * tilde).sum(1), (tilde[:, None] @ full.G @ tilde[..., None])[:, 0, 0]
        joint = linear[:, None] * grid - square[:, None] * grid**2 / 2 - (grid - 1) ** 2 / (2 * spread**2)
        exact = joint.logsumexp(1)
        closed = (found.b * c).sum(1) - (c[:, None] @ found.G @ c[..., None])[:, 0, 0] / 2
        offset = exact - closed if offset is None else offset
        torch.testing.assert_close(closed + offset, exact, rtol=0, atol=0.15)


def test_a_batch_is_weighed_row_by_row(scene):
    """The statistics of some images are those rows of the statistics of all images."""
    imaging, batch, ball, lattice = scene
    rows = torch.tensor([7, 3])
    some: ImageBatch = batch.take(rows)
    all_of_them = full_of(scene, imaging.weights(batch.group))
    found = statistics(ball, lattice, some, imaging.frequencies, imaging.weights(some.group))
    for part, whole in zip(found, all_of_them, strict=True):
        torch.testing.assert_close(part, whole[rows], rtol=1e-5, atol=1e-4)
