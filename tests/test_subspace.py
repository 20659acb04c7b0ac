"""Closed-form EM: E-step against the Gaussian marginal, M-step against known coefficients, result against truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

import cryotwin_nb as ct
from cryotwin_nb.evaluation import coordinate_r2
from cryotwin_nb.imaging.fourier import fft3, grid
from cryotwin_nb.imaging.fsc import fsc
from cryotwin_nb.imaging.lattice import HalfBall
from cryotwin_nb.imaging.masks import spherical_mask
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.reconstruction.backprojection import MARGIN, NormalEquations, smooth_spectrum
from cryotwin_nb.reconstruction.eigenvolumes import Eigenvolumes, augmented, begin, iterate
from cryotwin_nb.reconstruction.principal import _principal
from cryotwin_nb.reconstruction.statistics import Statistics, projections

SIZE, PIXEL, N_IMAGES = 16, 20.0, 400
RADIUS = SIZE / 2 + MARGIN
RADII = (0.5 * RADIUS, 0.5 * RADIUS, 0.7 * RADIUS, *[RADIUS] * 8)


pytestmark = pytest.mark.usefixtures("one_thread")


class Scene:
    """Images of the assembling subunit and their ground truth."""

    def __init__(self, snr: float, **options) -> None:
        self.particles = ct.simulate.assembly(N_IMAGES, SIZE, pixel_size=PIXEL, snr=snr, progress=False, **options)
        self.imaging = ImageFormation(SIZE, windowed=False, margin=MARGIN)
        self.imaging.measure(self.particles)
        self.batch = self.imaging.batch(self.particles, np.arange(N_IMAGES))
        self.mask = spherical_mask(SIZE, self.imaging.particle_radius, SIZE / 16)

    def chunks(self, size: int = 100) -> list[ImageBatch]:
        return [self.batch.take(rows) for rows in torch.arange(N_IMAGES).split(size)]

    @property
    def occupancies(self) -> Tensor:
        return torch.as_tensor(self.particles.truth.coordinates).double()

    def blocks(self) -> tuple[Tensor, Tensor]:
        """Return the core (D, D, D) and the five blocks (5, D, D, D)."""
        truth = self.particles.truth
        core = truth.volume_at(np.zeros(5))
        return core, torch.stack([truth.volume_at(row) - core for row in np.eye(5, dtype=np.float32)])

    def run(self, n_basis: int = 5, contrast_spread: float = 0.0) -> tuple[list[Eigenvolumes], list[float]]:
        subspaces = [begin(self.imaging, self.chunks(), self.mask, n_basis, contrast_spread=contrast_spread)]
        evidence = []
        for radius in RADII:
            new, value, _ = iterate(subspaces[-1], self.imaging, self.chunks(), radius)
            subspaces, evidence = [*subspaces, new], [*evidence, value]
        return subspaces, evidence


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(30.0)


@pytest.fixture(scope="module")
def passes(scene):
    return scene.run()


@pytest.fixture(scope="module")
def found(passes) -> Eigenvolumes:
    return passes[0][-1]


def given_coefficients(c: Tensor, spread: float = 0.0) -> Callable[[Statistics], tuple[Tensor, Tensor, Tensor]]:
    """Return an E-step with known coefficients c (n, K) of each image, up to a small variance."""
    done = 0

    def function(full: Statistics) -> tuple[Tensor, Tensor, Tensor]:
        nonlocal done
        part = c[done : done + len(full.b)].double()
        done += len(part)
        covariance = spread**2 * torch.eye(c.shape[1], dtype=torch.float64).expand(len(part), -1, -1)
        return *augmented(part, covariance), torch.zeros(len(part), dtype=torch.float64)

    return function


def statistics(ball: HalfBall, lattice: Tensor, batch: ImageBatch, frequencies: Tensor, weights: Tensor) -> Statistics:
    return projections(ball, lattice, batch, frequencies, weights).statistics()


def shares_inside(maps: Tensor, basis: Tensor) -> Tensor:
    """Return the share of each map's norm in the span of an orthonormal basis."""
    flat = maps.flatten(1)
    return (flat @ basis.flatten(1).T).norm(dim=1) / flat.norm(dim=1)


def infer(scene: Scene, subspace: Eigenvolumes) -> tuple[Tensor, Tensor]:
    """Return contrasts (n,) and posterior means of the coefficients (n, K) of all images."""
    ball, imaging = subspace.ball(RADIUS), scene.imaging
    full = statistics(ball, subspace.lattice(ball), scene.batch, imaging.frequencies, imaging.multiplicity)
    found = subspace.given(full, subspace.prior)
    return found.mean, found.expected


# Parts


def test_second_moments_hold_the_covariance():
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([[0.5, -1.0], [2.0, 0.1]]).double()
    root = torch.randn(2, 2, 2, dtype=torch.float64, generator=generator)
    first, second = augmented(mean, root @ root.mT)
    draws = mean[:, None] + torch.randn(2, 200_000, 2, dtype=torch.float64, generator=generator) @ root.mT
    tilde = torch.cat([torch.ones_like(draws[..., :1]), draws], dim=-1)
    torch.testing.assert_close(first, tilde.mean(1), rtol=0, atol=0.02)
    torch.testing.assert_close(second, tilde.mT @ tilde / 200_000, rtol=0, atol=0.05)


@pytest.mark.parametrize("contrasts", [True, False])
def test_principal_components_are_those_of_the_covariance_of_the_maps(contrasts):
    """With contrasts correlated with the coefficients of directions that miss their multiples of the average map."""
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(4, 2, 4, 5, generator=generator)
    contrast = 1 + (0.2 * torch.randn(500, dtype=torch.float64, generator=generator) if contrasts else torch.zeros(500))
    c = torch.randn(500, 3, dtype=torch.float64, generator=generator) @ torch.diag(torch.tensor([2.0, 1, 0.5]).double())
    c = c - c.mean(0)
    tilde = contrast[:, None] * torch.cat([torch.ones(500, 1), c + torch.tensor([0.3, -0.1, 0.0])], dim=1)
    shear = torch.eye(4, dtype=torch.float64)
    shear[0, 1:] = torch.tensor([0.2, -0.1, 0.05]) if contrasts else 0.0  # U_k + m_k V_0 are the true directions
    maps, tilde = (shear.T @ maps.flatten(1).double()).view_as(maps), tilde @ torch.linalg.inv(shear)
    change, variances, spread = _principal(maps, tilde.mean(0), tilde.T @ tilde / 500, contrasts)
    flat = maps.flatten(1).double()
    new, there = change @ flat, tilde @ torch.linalg.inv(change)
    torch.testing.assert_close(there @ new, tilde @ flat, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(new[1:] @ new[1:].T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-5)
    moment = there.T @ there / 500
    scale = float(tilde[:, 0].mean()) ** 2 / (1 + spread**2)  # of the variances of c to those of w = a c
    torch.testing.assert_close(scale * moment[1:, 1:], variances.diag(), rtol=1e-4, atol=1e-4)
    assert there[:, 0].mean() == pytest.approx(1, abs=1e-9) and (variances.diff() < 0).all()
    assert moment[0, 1:].abs().max() < 1e-6 and there[:, 1:].mean(0).abs().max() < 1e-6
    assert spread == pytest.approx(float(there[:, 0].std(correction=0)), abs=1e-6)


def test_a_direction_along_the_average_map_does_not_explain_the_contrasts():
    generator = torch.Generator().manual_seed(2)
    maps = torch.randn(3, 2, 4, 5, generator=generator)
    maps[2] = maps[0] + 0.02 * maps[2]
    contrast = 1 + 0.2 * torch.randn(2000, dtype=torch.float64, generator=generator)
    w = torch.stack([torch.randn(2000, dtype=torch.float64, generator=generator), 0.8 * (contrast - 1)], dim=1)
    tilde = torch.cat([1 + 0.2 * (contrast - 1)[:, None], w], dim=1)  # most of the contrast as a direction
    _, _, spread = _principal(maps, tilde.mean(0), tilde.T @ tilde / 2000, True)
    assert spread == pytest.approx(0.2, rel=0.05)


def test_the_mask_is_a_soft_ball():
    mask, distance = spherical_mask(16, 6.0, 2.0), grid(16, 3).float().norm(dim=-1)
    assert (mask[distance <= 6] == 1).all() and (mask[distance >= 8] < 1e-6).all()
    assert float(mask[8, 8, 15]) == pytest.approx(0.5)


def test_shells_that_no_image_sees_have_the_power_of_one_that_is_seen():
    seen = torch.tensor([4.0, 4.0, 4.0, 4.0, 4.0, 1.0, 0.0, 0.0]).double()
    power = smooth_spectrum(torch.tensor([40.0, 20.0, -3.0, 8.0, 8.0, 0.1, 0.0, 0.0]).double(), seen)
    assert power[[0, 1, 3]].tolist() == [10.0, 5.0, 2.0]
    assert 0 < float(power[2]) < 0.01  # a prior power cannot be negative
    assert power[5:].tolist() == [2.0] * 3


# E-step


def test_the_e_step_is_the_gaussian_marginal_of_the_images(scene, found):
    """log N(X; A_0, 1 + A Lambda A^T) over all coefficients of an image, up to a constant; and regression."""
    imaging, batch = scene.imaging, scene.batch.take(torch.arange(4))
    ball = found.ball(RADIUS)
    lattice = found.lattice(ball)
    full = statistics(ball, lattice, batch, imaging.frequencies, imaging.multiplicity)
    first, second, log_evidence = found.moments()(full)
    root = imaging.multiplicity.sqrt()[:, None].clone()
    root[0] = 0  # the mean of an image is excluded
    slices = torch.complex(*ball.slices(lattice, imaging.frequencies, batch.rotations).chunk(2, dim=-1))
    slices = torch.view_as_real(slices * batch.transfer[..., None] * root).transpose(2, 3).flatten(1, 2).double()
    images = torch.view_as_real(batch.data * root[:, 0]).flatten(1).double()
    for i in range(4):
        design, rest = slices[i, :, 1:], images[i] - slices[i, :, 0]
        marginal = torch.eye(len(rest), dtype=torch.float64) + design @ found.variances.diag() @ design.T
        expected = -0.5 * (rest @ torch.linalg.solve(marginal, rest) + torch.logdet(marginal))
        assert float(log_evidence[i]) == pytest.approx(float(expected), rel=1e-4, abs=0.05)
        gain = found.variances.diag() @ design.T @ torch.linalg.inv(marginal)
        torch.testing.assert_close(first[i, 1:], gain @ rest, rtol=1e-3, atol=1e-3 * float(first[i].abs().max()))
        left = found.variances.diag() - gain @ design @ found.variances.diag()
        mean = first[i, 1:]
        expected = left + mean[:, None] * mean
        torch.testing.assert_close(second[i, 1:, 1:], expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
        assert first[i, 0] == second[i, 0, 0] == 1


# M-step


def test_every_coefficient_of_an_image_counts_once(scene, found):
    """Over both halves of the ball, the normal equations contain sum CTF^2 / sigma^2 over the whole plane."""
    imaging = scene.imaging
    step = NormalEquations(imaging, RADIUS, 1)
    ball = step.ball
    for batch in scene.chunks():
        data = torch.view_as_real(batch.data).flatten(1)[..., None]
        step.add(batch, data, torch.ones(len(data), 1, 1))
    step.solve(torch.zeros_like(scene.mask)[None], found.power[:, :1], scene.mask)
    powers, middle = step.sums[:, 2].double(), ball.positions[:, 0] == 0
    expected = (imaging.multiplicity * scene.batch.transfer.square()).double().sum()
    assert float(2 * powers[~middle].sum() + powers[middle].sum()) == pytest.approx(float(expected), rel=1e-4)
    assert step.count == N_IMAGES


def unfiltered(subspace: Eigenvolumes) -> Eigenvolumes:
    """Return a subspace without initial maps or Wiener filter, for which one pass is least squares."""
    none = {name: torch.zeros_like(getattr(subspace, name)) for name in ("mean", "basis", "uncertainty")}
    return replace(subspace, **none, power=torch.full_like(subspace.power, 1e3))


def test_known_coefficients_give_the_true_maps_in_a_principal_frame(scene, found):
    """Mean, basis, frame and average are consistent: with c' = frame @ (c - average) they give every true volume."""
    c = scene.occupancies @ torch.tensor(
        [[1.0, 0.3, 0, 0, 0], [0, 2.0, 0, 0, 0], [0, 0, 0.5, 0, 0], [0, 0, 0.2, 1, 0], [0, 0, 0, 0, 1.0]]
    ).double() + torch.tensor([3.0, 0.0, -1.0, 0.0, 0.5])
    flat = unfiltered(found)
    new, evidence, (matrix, average) = iterate(flat, scene.imaging, scene.chunks(), RADIUS, given_coefficients(c))
    assert evidence == 0.0
    torch.testing.assert_close(average, c.mean(0), rtol=1e-5, atol=1e-6)
    moved = (c - average) @ matrix.T
    torch.testing.assert_close(moved.T @ moved / len(c), new.variances.diag(), rtol=1e-3, atol=1e-9)
    rows = range(0, N_IMAGES, 40)
    expected = torch.stack([scene.particles.truth.volume(row) for row in rows]) * scene.mask
    volumes = new.mean + torch.tensordot(moved[:: len(rows) * 4][: len(rows)].float(), new.basis, 1)
    assert (volumes - expected).norm() < 0.08 * expected.norm()


def test_uncertain_coefficients_shrink_the_maps_that_belong_to_them(scene, found):
    """Least squares with E[c c^T] = S + s^2: maps (S + s^2)^-1 S U, with known principal variances."""
    c = scene.occupancies - scene.occupancies.mean(0)
    flat = unfiltered(found)
    second, spread = c.T @ c / N_IMAGES, 0.4
    vague, *_ = iterate(flat, scene.imaging, scene.chunks(), RADIUS, given_coefficients(c, spread))
    maps = (scene.blocks()[1] * scene.mask).flatten(1).double()
    expected = []
    for noise in (spread, 0.0):
        shrunken = torch.linalg.solve(second + noise**2 * torch.eye(5), second) @ maps
        expected.append(torch.linalg.eigvals((second + noise**2 * torch.eye(5)) @ shrunken @ shrunken.T).real)
    expected, exact = (values.sort(descending=True).values for values in expected)
    np.testing.assert_allclose(vague.variances[:4], expected[:4], rtol=0.1)
    assert (exact[:4] > 1.3 * expected[:4]).all()  # their values without shrinkage


def test_images_count_alike_in_chunks_of_any_size(scene, passes):
    before = passes[0][4]
    one, other = (iterate(before, scene.imaging, scene.chunks(size), RADIUS) for size in (100, 33))
    assert one[1] == pytest.approx(other[1], rel=1e-5)
    torch.testing.assert_close(one[0].mean, other[0].mean, rtol=0, atol=1e-5 * float(one[0].mean.abs().max()))
    torch.testing.assert_close(one[0].variances, other[0].variances, rtol=1e-4, atol=0)


# Complete fits


def test_the_homogeneous_reconstruction_is_the_mean_of_the_structures(scene, passes):
    core, blocks = scene.blocks()
    mean = core + torch.tensordot(scene.occupancies.mean(0).float(), blocks, 1)
    for subspace, area in ((passes[0][0], 0.97), (passes[0][-1], 0.98)):
        assert fsc(subspace.mean, mean, PIXEL).area > area
        scale = (subspace.mean * mean).sum() / mean.square().sum()
        assert float(scale) == pytest.approx(1, abs=0.04)


def test_the_random_directions_to_begin_with_follow_from_the_seed(scene, passes):
    start = passes[0][0]
    again, other = (begin(scene.imaging, scene.chunks(), scene.mask, 5, seed=seed) for seed in (0, 1))
    assert torch.equal(again.basis, start.basis) and torch.equal(again.mean, start.mean)
    assert shares_inside(other.basis, start.basis).max() < 0.7
    assert torch.equal(other.mean, start.mean)


def test_the_basis_is_orthonormal_and_variances_fall(passes):
    for subspace in passes[0]:
        flat = subspace.basis.flatten(1).double()
        torch.testing.assert_close(flat @ flat.T, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-4)
        assert (subspace.variances.diff() <= 0).all() and subspace.variances[-1] > 0
        outside = subspace.mask == 0
        assert subspace.mean[outside].abs().max() == 0 and subspace.basis[:, outside].abs().max() == 0


def test_the_evidence_rises_from_pass_to_pass(passes):
    at_full_resolution = passes[1][4:]
    assert all(after > before - 0.01 for before, after in pairwise(at_full_resolution))
    assert at_full_resolution[-1] > at_full_resolution[0] + 3


def test_the_blocks_of_the_subunit_lie_in_the_span(scene, found):
    _, blocks = scene.blocks()
    assert shares_inside(blocks, found.basis).min() > 0.93
    axes = torch.linalg.qr(blocks.flatten(1).T).Q
    cosines = torch.linalg.svdvals(found.basis.flatten(1) @ axes)  # of the principal angles
    assert cosines[:4].min() > 0.97 and cosines[4] > 0.92


def test_variances_are_those_of_the_true_structures(scene, found):
    _, blocks = scene.blocks()
    shifted = scene.occupancies - scene.occupancies.mean(0)
    gram = (blocks.flatten(1) @ blocks.flatten(1).T).double()
    expected = torch.linalg.eigvals(shifted.T @ shifted / N_IMAGES @ gram).real.sort(descending=True).values
    np.testing.assert_allclose(found.variances[:4], expected[:4], rtol=0.1)
    np.testing.assert_allclose(found.variances[4], expected[4], rtol=0.25)


def test_coefficients_tell_the_occupancies(scene, found):
    _, c = infer(scene, found)
    design = torch.cat([c, torch.ones(N_IMAGES, 1)], dim=1)
    fitted = design @ torch.linalg.lstsq(design, scene.occupancies).solution
    r2 = 1 - (fitted - scene.occupancies).square().mean(0) / scene.occupancies.var(0)
    assert r2.min() > 0.95  # with a linear fit
    assert c.mean(0).abs().max() < 0.1 * found.variances[0].sqrt()
    np.testing.assert_allclose(c.var(0), found.variances, rtol=0.25)


def test_beyond_the_radius_the_power_goes_on_like_that_of_the_mean(scene, passes):
    before = passes[0][0]
    after = iterate(before, scene.imaging, scene.chunks(), 0.5 * RADIUS)[0]
    assert torch.isfinite(after.power).all() and (after.power > 0).all()
    assert after.power.shape == before.power.shape
    ratio = after.power[5:] / before.power[5:, :1]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    join = after.power[4] / after.power[3]
    assert join.log().abs().max() < 3
    inside = grid(SIZE, 3).float().norm(dim=-1) < 0.5 * RADIUS + 1
    spectra = fft3(torch.cat([after.mean[None], after.basis])).abs().square()
    assert (spectra * ~inside).sum((1, 2, 3)).div(spectra.sum((1, 2, 3))).max() < 0.1  # except for the mask


def test_the_power_of_each_shell_is_that_of_the_maps_and_what_is_uncertain(found):
    shell = grid(SIZE, 3).float().norm(dim=-1).round().long()
    spectra = fft3(torch.cat([found.mean[None], found.basis])).abs().square().double()
    for s in range(1, 8):
        power = spectra[:, shell == s].mean(1)
        assert (found.power[s] >= 0.999 * power).all() and (found.power[s] < 1.5 * power + 1e-4).all()


# Repeated estimation


# Contrast


@pytest.fixture(scope="module")
def uneven() -> Scene:
    return Scene(10.0, contrast_std=0.2)


def true_contrasts() -> Tensor:
    """Contrasts of `uneven`: its images divided by those of even contrast, both without noise."""

    def clean(contrast: float) -> Particles:
        options = {"pixel_size": PIXEL, "snr": 1e9, "contrast_std": contrast, "progress": False}
        return ct.simulate.assembly(N_IMAGES, SIZE, **options)

    even, images = (torch.as_tensor(clean(spread).images(np.arange(N_IMAGES))).flatten(1) for spread in (0.0, 0.2))
    return (images * even).sum(1) / even.square().sum(1)


@pytest.fixture(scope="module")
def with_contrast(uneven) -> Eigenvolumes:
    return uneven.run(contrast_spread=0.1)[0][-1]


def test_coordinates_are_better_where_contrasts_are_fitted(uneven, with_contrast):
    without = uneven.run()[0][-1]
    fits = [
        np.mean(list(coordinate_r2(infer(uneven, subspace)[1], uneven.particles.truth).values()))
        for subspace in (without, with_contrast)
    ]
    assert fits[1] > fits[0] + 0.01 and fits[1] > 0.95
    assert (infer(uneven, without)[0] == 1).all()


def test_fitted_contrasts_are_the_true_ones(uneven, with_contrast):
    contrast, expected = infer(uneven, with_contrast)[0], true_contrasts()
    assert float(torch.corrcoef(torch.stack([contrast, expected.double()]))[0, 1]) > 0.85
    assert with_contrast.contrast_spread == pytest.approx(0.2, rel=0.25)


def test_contrasts_that_are_even_are_found_to_be_even(scene, found):
    """One structure scaled by two: the spread of the contrasts adapts in one pass."""
    a = torch.where(torch.arange(N_IMAGES) % 2 == 0, 0.8, 1.2).double()
    c = infer(scene, found)[1]
    scaled = scene.batch._replace(data=scene.batch.data * a[:, None].float())
    ball, imaging = found.ball(RADIUS), scene.imaging
    full = statistics(ball, found.lattice(ball), scaled, imaging.frequencies, imaging.multiplicity)
    open_minded = replace(found, contrast_spread=0.3)
    inferred = open_minded.given(full, found.prior)
    assert float((inferred.mean - a).square().mean().sqrt()) < 0.1
    again = inferred.expected
    assert float((again - c).norm() / c.norm()) < 0.2
