import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fourier_shell_correlation import fsc as witness_fsc

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import fft2, fft3, fourier_padded, grid, half_plane, ifft2, ifft3, shell_mean
from cryotwin_nb.imaging.fsc import FscCurve, fsc, noise_deviation
from cryotwin_nb.imaging.masks import spherical_mask


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_transform_of_a_projection_is_the_central_slice():
    volume = random(16, 16, 16)
    assert torch.allclose(fft2(volume.sum(0)), fft3(volume)[8])


def test_3d_transform_is_unitary_and_both_invert():
    volume, image = random(12, 12, 12), random(12, 12)
    assert fft3(volume).abs().square().sum() == pytest.approx(float(volume.square().sum()))
    assert torch.allclose(ifft3(fft3(volume)).real, volume)
    assert torch.allclose(ifft2(fft2(image)).real, image)


def test_origin_is_at_half_the_box():
    delta = torch.zeros(8, 8, dtype=torch.float64)
    delta[4, 4] = 1
    assert torch.allclose(fft2(delta), torch.full((8, 8), 8**-1.5, dtype=torch.complex128))


@settings(max_examples=20, deadline=None)
@given(size=st.sampled_from([8, 10, 16, 22]), seed=st.integers(0, 99))
def test_half_plane_sums_equal_full_plane_sums(size, seed):
    a, b = (fft2(random(size, size, seed=s)) for s in (seed, seed + 100))
    plane = half_plane(size)
    half = (plane.multiplicity * (plane.gather(a).conj() * plane.gather(b)).real).sum()
    assert float(half) == pytest.approx(float((a.conj() * b).sum().real), rel=1e-6, abs=1e-9)
    assert plane.multiplicity.sum() == size**2
    assert torch.allclose(plane.scatter(plane.gather(a)), a)


def test_half_plane_is_sorted_by_radius_and_cut():
    plane = half_plane(32, 16)
    radius = plane.frequencies.norm(dim=1)
    assert (radius.diff() >= 0).all() and radius.max() < 16
    assert torch.equal(plane.index, (plane.frequencies[:, 1] + 16).long() * 32 + (plane.frequencies[:, 0] + 16).long())


def test_fsc_agrees_with_the_teamtomo_witness():
    size = 32
    radius = grid(size, 3).double().norm(dim=-1)
    a = ifft3(fft3(random(size, size, size)) * torch.exp(-((radius / 9) ** 2))).real
    b = a + 0.02 * random(size, size, size, seed=1)
    curve = fsc(a, b, 2.0)
    # torch-fourier-shell-correlation interpolates between the two nearest shells, ours rounds: equal to a few percent.
    np.testing.assert_allclose(curve.correlation[:-1], witness_fsc(a, b).numpy()[1:-1], atol=0.05)
    np.testing.assert_allclose(curve.frequency, np.arange(1, 17) / 64)


def test_fsc_by_brute_force():
    a, b = random(8, 8, 8), random(8, 8, 8, seed=1)
    left, right = fft3(a), fft3(b)
    shell = grid(8, 3).double().norm(dim=-1).round()
    for s, value in zip(range(1, 5), fsc(a, b, 1.0).correlation, strict=True):
        p, q = left[shell == s], right[shell == s]
        assert value == pytest.approx(float((p.conj() * q).sum().real / (p.norm() * q.norm())))


def test_fsc_in_a_mask_is_that_of_the_masked_maps():
    a, b, mask = random(8, 8, 8), random(8, 8, 8, seed=1), random(8, 8, 8, seed=2).abs()
    expected = fsc(a * mask, b * mask, 1.0).correlation
    assert not np.allclose(expected, fsc(a, b, 1.0).correlation, atol=0.01)
    np.testing.assert_allclose(fsc(a, b, 1.0, mask).correlation, expected)
    np.testing.assert_allclose(fsc(a.numpy(), b, 1.0, mask=mask.float().numpy()).correlation, expected, atol=1e-6)
    np.testing.assert_allclose(fsc(a, b, 1.0, torch.ones(8, 8, 8)).correlation, fsc(a, b, 1.0).correlation)


def test_a_mask_keeps_the_solvent_out_of_the_fsc():
    """One structure, and independent noise in each map outside it."""
    ball = spherical_mask(24, 5.0, 3.0).double()
    noise = [random(24, 24, 24, seed=seed) * (ball == 0) for seed in (1, 2)]
    a, b = (random(24, 24, 24) * ball + n for n in noise)
    assert fsc(a, b, 1.0).correlation.max() < 0.5
    np.testing.assert_allclose(fsc(a, b, 1.0, ball).correlation, 1)


def test_resolution_interpolates_the_first_crossing():
    volume = random(16, 16, 16)
    curve = fsc(volume, volume, 1.5)
    assert curve.area == pytest.approx(1) and curve.resolution() == pytest.approx(3.0)
    curve.correlation[:] = [1, 1, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9]
    assert curve.resolution(0.5) == pytest.approx(1 / (3.5 / 24))
    curve.correlation[0] = 0
    assert curve.resolution() == np.inf


@pytest.mark.parametrize("radius", [0.25, 0.4, None])
def test_the_deviation_of_the_correlation_of_noise_is_that_of_drawn_noise(radius):
    mask = torch.ones(16, 16, 16) if radius is None else spherical_mask(16, radius * 16, 1.0)
    draws = np.array(
        [fsc(random(16, 16, 16, seed=i), random(16, 16, 16, seed=-i), 1.0, mask).correlation for i in range(1, 400)]
    )
    expected = noise_deviation(mask)
    np.testing.assert_allclose(draws[:, 1:].std(0), expected[1:], rtol=0.17)
    assert (draws[:, 1:].std(0) / expected[1:]).mean() == pytest.approx(1, abs=0.04)
    assert (np.abs(draws) > 3 * expected).mean() < 0.006
    if radius is None:
        assert expected[0] == pytest.approx(18**-0.5)  # without a mask all coefficients are independent
    np.testing.assert_allclose(noise_deviation(mask, copies=4.0), 2 * expected)


def test_a_correlation_that_could_be_noise_gives_no_resolution():
    noise, frequency = noise_deviation(spherical_mask(16, 6.4, 1.0)), np.arange(1, 9) / 16

    def resolution(*correlation):
        return FscCurve(frequency, np.array([*correlation, *[0.0] * (8 - len(correlation))]), noise).resolution()

    assert resolution(0.9) == resolution(0.5, 0.3, 0.2) == np.inf
    assert resolution(0.9, 0.9, 0.9) == FscCurve(frequency, np.array([0.9] * 3 + [0.0] * 5)).resolution() < 16 / 3
    assert resolution(*[1.0] * 8) == 2.0
    assert FscCurve(frequency, np.full(8, 0.2), np.ones(8)).resolution() == np.inf  # never below the threshold


def test_shell_mean_is_a_weighted_mean():
    shell = torch.tensor([0, 1, 1, 3])
    means = shell_mean(torch.tensor([1.0, 2.0, 4.0, 5.0]), shell, 4, torch.tensor([1.0, 1.0, 3.0, 2.0]))
    assert means.tolist() == [1.0, 3.5, 0.0, 5.0]


@pytest.mark.parametrize("shapes", [((8, 8, 8), (10, 10, 10)), ((8, 8, 10), (8, 8, 8)), ((9, 9, 9), (9, 9, 9))])
def test_fsc_refuses_maps_that_do_not_fit(shapes):
    with pytest.raises(InputError, match=r"(?s)found .* expected"):
        fsc(*(np.ones(s) for s in shapes), 1.0)


@pytest.mark.parametrize("shape", [(10, 10, 10), (8, 8), (1, 8, 8), ()])
def test_fsc_refuses_a_mask_that_does_not_fit(shape):
    with pytest.raises(InputError, match=r"(?s)found a map of shape .* expected \(8, 8, 8\)"):
        fsc(np.ones((8, 8, 8)), np.ones((8, 8, 8)), 1.0, np.ones(shape))


@pytest.mark.parametrize("box_size", [16, 32, 40, 48])
def test_a_padded_map_is_the_same_density_on_a_finer_grid(box_size):
    """Blobs smooth enough for the coarse grid: both grids sample one function, with aligned centres."""

    def blobs(size: int) -> torch.Tensor:
        place = grid(size, 3).double() * (48 / size)  # Å, from the centre of a cube of 48
        centres, widths = torch.tensor([[0.0, 0, 0], [3, -5, 2], [-5, 2, 4]]), (4.0, 4.2, 4.4)
        return sum(torch.exp(-(place - c).square().sum(-1) / (2 * w**2)) for c, w in zip(centres, widths))

    padded = fourier_padded(blobs(16), box_size)
    torch.testing.assert_close(padded, blobs(box_size), atol=1e-3, rtol=0)


@pytest.mark.parametrize("box_size", [16, 24, 32, 40])
def test_padding_adds_nothing_and_loses_nothing(box_size):
    noise = torch.randn(2, 16, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    padded = fourier_padded(noise, box_size)
    assert padded.shape == (2, *(box_size,) * 3)
    edge = (box_size - 16) // 2
    inner = slice(edge + 1, edge + 16)  # without the old Nyquist planes, which are split between both sides
    spectrum = fft3(padded[0]) * (16 / box_size) ** 1.5
    torch.testing.assert_close(spectrum[inner, inner, inner], fft3(noise[0])[1:, 1:, 1:])
    outside = spectrum.clone()
    outside[edge : edge + 17, edge : edge + 17, edge : edge + 17] = 0
    assert outside.abs().max() < 1e-9
    if box_size % 16 == 0:
        step = box_size // 16
        torch.testing.assert_close(padded[:, ::step, ::step, ::step], noise)
    cut = ifft3(spectrum[edge : edge + 16, edge : edge + 16, edge : edge + 16]).real
    assert fsc(cut, noise[0], 2.5).correlation[:-1].min() > 1 - 1e-9
