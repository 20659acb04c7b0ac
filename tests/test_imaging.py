import numpy as np
import pytest
import torch
from torch_ctf import calculate_ctf_2d

from cryotwin_nb import simulate
from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import fft2, fft3, grid, half_plane
from cryotwin_nb.imaging.lattice import half_ball
from cryotwin_nb.imaging.optics import (
    CTF,
    circular_window,
    electron_wavelength,
    noise_power,
    shift_phases,
    slice_coordinates,
)
from cryotwin_nb.particles.formation import ImageFormation
from cryotwin_nb.particles.particles import Particles


def make_ctf(**changes) -> CTF:
    values = dict(
        defocus_u=15000.0,
        defocus_v=14000.0,
        defocus_angle=25.0,
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.1,
        phase_shift=0.0,
    )
    return CTF(**{name: np.array([value], dtype=np.float32) for name, value in (values | changes).items()})


@pytest.mark.parametrize("changes", [{}, {"phase_shift": 40.0, "amplitude_contrast": 0.07}, {"voltage": 200.0}])
def test_ctf_agrees_with_torch_ctf(changes):
    ctf, size, pixel = make_ctf(**changes), 64, 2.5
    ours = ctf(grid(size, 2).reshape(-1, 2) / (size * pixel)).view(size, size)
    u, v = float(ctf.defocus_u[0]), float(ctf.defocus_v[0])
    theirs = calculate_ctf_2d(
        defocus=torch.tensor((u + v) / 2e4),
        astigmatism=torch.tensor((u - v) / 2e4),
        astigmatism_angle=torch.tensor(float(ctf.defocus_angle[0])),
        voltage=torch.tensor(float(ctf.voltage[0])),
        spherical_aberration=torch.tensor(2.7),
        amplitude_contrast=torch.tensor(float(ctf.amplitude_contrast[0])),
        phase_shift=torch.tensor(float(ctf.phase_shift[0])),
        pixel_size=pixel,
        image_shape=(size, size),
        rfft=False,
        fftshift=True,
    )
    # Up to the global sign. Near Nyquist gamma is about 60, so the last digits of lambda matter at 1e-3.
    sign = torch.sign((ours * theirs).sum())
    assert (ours - sign * theirs).abs().max() < 5e-3


def test_ctf_is_negative_at_low_frequency_and_minus_w_at_zero():
    values = make_ctf()(torch.tensor([[0.0, 0.0], [0.005, 0.0]]))[0]
    assert values[0] == pytest.approx(-0.1) and values[1] < -0.1


def test_wavelengths_of_the_textbooks():
    assert electron_wavelength(torch.tensor([200.0, 300.0])).tolist() == pytest.approx([0.02508, 0.01969], abs=2e-5)


def test_slices_match_the_exact_projections_of_the_simulator():
    particles = simulate.assembly(3, 32, snr=1e8, shift_std=8.0, progress=False, seed=3)
    imaging = ImageFormation(32)
    imaging.pixel_size.fill_(particles.pixel_size)
    batch = imaging.batch(particles, np.arange(3))
    offsets = grid(32, 3).reshape(-1, 3).double()
    positions = slice_coordinates(imaging.frequencies.double(), batch.rotations.double())
    for i in range(3):  # the volume's transform at off-grid positions, summed directly
        waves = torch.polar(torch.ones(()).double(), -2 * torch.pi * positions[i] @ offsets.T / 32)
        exact = waves @ particles.truth.volume(i).double().flatten().to(waves.dtype) * 32**-1.5
        predicted, seen = exact * batch.transfer[i], batch.data[i]
        near = imaging.frequencies.norm(dim=1) > 1.5  # DC and its neighbours contain the background level
        assert (predicted - seen)[near].norm() < 0.02 * seen[near].norm()


def test_axis_aligned_slice_is_a_plane_of_the_transform():
    volume = torch.randn(16, 16, 16)
    plane = half_plane(16, 8)
    positions = slice_coordinates(plane.frequencies, torch.eye(3)[None])[0].long() + 8
    x, y, z = positions.unbind(1)
    assert torch.allclose(fft3(volume)[z, y, x], plane.gather(fft2(volume.sum(0))), atol=1e-5)


def test_shift_moves_the_recorded_image_by_minus_t():
    image = torch.zeros(16, 16)
    image[8, 8] = 1
    frequencies = grid(16, 2).reshape(-1, 2) / (16 * 2.0)
    moved = torch.roll(image, (3, -2), (0, 1))  # recorded 2 pixels to the left, 3 down: t = (+2, -3) pixels
    phases = shift_phases(frequencies, torch.tensor([[4.0, -6.0]]))[0].view(16, 16)
    assert torch.allclose(fft2(image) * phases, fft2(moved), atol=1e-6)


def test_noise_of_prepared_images_has_unit_power_after_the_window():
    particles = simulate.assembly(600, 32, snr=1e-4, progress=False)
    imaging = ImageFormation(32)
    imaging.measure(particles)
    power = imaging.batch(particles, np.arange(600)).data.abs().square().mean(0)
    by_shell = [float(power[imaging.shell == s].mean()) for s in range(2, 16)]
    assert np.mean(by_shell) == pytest.approx(1, abs=0.03) and np.ptp(by_shell) < 0.25


def test_noise_power_of_white_noise_is_flat_and_of_known_height():
    images = 3.0 * torch.randn(400, 32, 32, generator=torch.Generator().manual_seed(0))
    power = noise_power(images, particle_radius=12.0)[:17]
    np.testing.assert_allclose(power[2:], 9.0 * 32**2 / 32**3, rtol=0.05)
    np.testing.assert_allclose(power[:2], 9.0 * 32**2 / 32**3, rtol=0.12)  # removing the level costs some power there


def test_expected_distortion_is_half_kappa_times_the_volume_error():
    """Projection-slice theorem over random views and CTFs, for an error with a known transform."""
    particles = simulate.assembly(3000, 32, progress=False)
    imaging = ImageFormation(32, ctf_floor=1e-6)
    imaging.measure(particles)
    generator = torch.Generator().manual_seed(0)
    atoms, masses = 4 * torch.randn(30, 3, generator=generator), torch.randn(30, generator=generator)

    def transform(positions: torch.Tensor) -> torch.Tensor:
        angle = -2 * torch.pi / 32 * positions @ atoms.T
        fall = torch.exp(-2 * (torch.pi * 1.2 * positions / 32).square().sum(-1))
        return (torch.polar(torch.ones_like(angle), angle) @ masses.to(torch.complex64)) * fall

    norm = transform(grid(32, 3).reshape(-1, 3).float()).abs().square().sum()  # the 3-D transform is unitary
    values = []
    for rows in np.split(np.arange(3000), 10):
        batch = imaging.batch(particles, rows)
        slices = transform(slice_coordinates(imaging.frequencies, batch.rotations))
        values.append(imaging.distortion(batch, batch.data - slices * batch.transfer))
    assert float(torch.cat(values).mean()) == pytest.approx(float(0.5 * imaging.kappa * norm), rel=0.03)


@pytest.mark.parametrize("weighting", ["volume", "paper"])
def test_mean_squared_weight_is_one(weighting):
    particles = simulate.assembly(50, 32, progress=False)
    imaging = ImageFormation(32, weighting=weighting)
    imaging.measure(particles)
    assert imaging.weights().sum() == pytest.approx(float(imaging.multiplicity.sum()), rel=1e-5)
    if weighting == "paper":
        weights = imaging.weights() / imaging.multiplicity
        np.testing.assert_allclose(weights / weights[1], imaging.frequencies.norm(dim=1), rtol=1e-5)


def test_optics_groups_are_whitened_each_by_its_own_noise():
    particles = simulate.assembly(2100, 16, snr=1e-3, progress=False)
    images = particles.images(np.arange(2100))
    images[:1050] *= 1.4  # groups that differ more are brought to one scale first
    groups = np.arange(2100) // 1050
    both = Particles(
        images=images,
        rotations=particles.rotations,
        shifts=particles.shifts,
        ctf=particles.ctf,
        pixel_size=particles.pixel_size,
        optics_group=groups,
    )
    imaging = ImageFormation(16)
    imaging.measure(both)
    assert float((imaging.noise[1] / imaging.noise[2])[1:8].mean()) == pytest.approx(1.96, rel=0.1)
    for rows in (np.arange(1000), np.arange(1100, 2100)):
        assert float(imaging.batch(both, rows).data.abs().square().mean()) == pytest.approx(1, abs=0.1)


def test_window_is_soft_and_flat():
    window = circular_window(32, 10, 4)
    assert window[16, 16] == 1 and window[16, 26] == 1 and 0 < window[16, 28] < 1 and window[0, 0] == 0


def test_constant_images_are_refused():
    particles = simulate.assembly(20, 16, progress=False)
    constant = Particles(
        images=np.ones((20, 16, 16), dtype=np.float32),
        rotations=particles.rotations,
        shifts=particles.shifts,
        ctf=particles.ctf,
        pixel_size=5.0,
    )
    with pytest.raises(InputError, match="no noise outside"):
        ImageFormation(16).measure(constant)


def test_unknown_weighting_is_refused():
    with pytest.raises(InputError, match="'volume' or 'paper'"):
        ImageFormation(16, weighting="ramp")


def test_distances_in_the_distortion_metric_are_expected_distortions():
    """For a map added to the projections of all images, over many poses and the CTFs of the set."""
    particles = simulate.assembly(600, 16, pixel_size=20.0, snr=1.0, progress=False)
    imaging = ImageFormation(16)
    imaging.measure(particles)
    change = particles.truth.volume(0) - particles.truth.volume(7)
    ball = half_ball(16, 8.0, 2.5)
    batch = imaging.batch(particles, np.arange(600))
    slices = ball.slices(ball.from_volumes(change[None]), imaging.frequencies, batch.rotations)
    distortion = imaging.distortion(batch._replace(data=torch.view_as_complex(slices) * batch.transfer), 0 * batch.data)
    expected = imaging.in_distortion_metric(change[None]).square().sum()
    assert float(distortion.mean() / expected) == pytest.approx(1, abs=0.06)
