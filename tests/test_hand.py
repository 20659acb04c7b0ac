"""The other hand: mirrored maps and mirrored rotations have the projections of the originals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cryotwin_nb import simulate
from cryotwin_nb.formats.poses import euler_from_rotations, mirrored_rotations, require_rotations
from cryotwin_nb.imaging.fourier import half_plane, mirrored
from cryotwin_nb.imaging.lattice import half_ball
from cryotwin_nb.simulate.images import _project, random_rotations

pytestmark = pytest.mark.usefixtures("one_thread")
MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0]))


def volume_of(size: int) -> Tensor:
    """Return noise (size, size, size), zero on the outermost plane of an even box, which has no partner."""
    volume = torch.randn(size, size, size, generator=torch.Generator().manual_seed(size))
    if size % 2 == 0:
        volume[0] = 0
    return volume


def rotations_of(n: int) -> np.ndarray:
    return random_rotations(n, np.random.default_rng(4))


@pytest.mark.parametrize("size", [7, 8, 9, 16])
def test_the_voxel_at_the_centre_stays_and_its_neighbours_change_places(size):
    volumes, centre = torch.randn(2, size, size, size, generator=torch.Generator().manual_seed(0)), size // 2
    other = mirrored(volumes)
    for offset in range(-((size - 1) // 2), (size - 1) // 2 + 1):
        assert torch.equal(other[:, centre + offset], volumes[:, centre - offset])
    if size % 2 == 0:
        assert torch.equal(other[:, 0], volumes[:, 0])
    assert torch.equal(mirrored(other), volumes)


def test_mirrored_rotations_are_rotations_and_mirroring_twice_changes_nothing():
    rotations = rotations_of(20)
    other = mirrored_rotations(rotations)
    assert other.dtype == rotations.dtype
    np.testing.assert_array_equal(require_rotations(other, "poses"), other)
    np.testing.assert_array_equal(other, MIRROR.numpy() @ rotations @ MIRROR.numpy())
    np.testing.assert_array_equal(mirrored_rotations(other), rotations)


def test_in_relions_angles_the_other_hand_is_the_opposite_tilt():
    rotations = rotations_of(50)
    rot, tilt, psi = euler_from_rotations(rotations)
    again = euler_from_rotations(mirrored_rotations(rotations))
    turned = [np.deg2rad(a - b) for a, b in zip(again, (rot + 180, tilt, psi + 180), strict=True)]
    np.testing.assert_allclose(np.cos(turned), 1, atol=1e-6)  # (rot, -tilt, psi) with the tilt brought back above 0


@pytest.mark.parametrize("size", [9, 12])
def test_mirrored_maps_have_the_same_central_slices(size):
    """The transform is summed voxel by voxel in double precision."""
    volume, rotations = volume_of(size).double(), torch.as_tensor(rotations_of(3)).double()
    axis = torch.arange(size).double() - size // 2
    zyx = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    plane = torch.cartesian_prod(*[torch.linspace(-size / 3, size / 3, 5).double()] * 2)

    def slices(volume: Tensor, rotations: Tensor) -> Tensor:
        k = torch.nn.functional.pad(plane, (0, 1)) @ rotations.mT  # R (kx, ky, 0)
        phase = -2j * torch.pi * (k @ zyx.flip(1).T) / size
        return torch.exp(phase) @ volume.flatten().to(torch.complex128)

    other = torch.as_tensor(mirrored_rotations(rotations.numpy()))
    torch.testing.assert_close(slices(mirrored(volume), other), slices(volume, rotations), rtol=0, atol=1e-9)
    assert (slices(volume, other) - slices(volume, rotations)).abs().max() > 1


def test_the_projector_makes_the_same_images_of_the_other_hand():
    volume, rotations = volume_of(16), rotations_of(6)
    ball, frequencies = half_ball(16, 8.0, 2.0), half_plane(16, 7.5).frequencies

    def slices(volume: Tensor, rotations: np.ndarray) -> Tensor:
        return ball.slices(ball.from_volumes(volume[None]), frequencies, torch.as_tensor(rotations))

    expected = slices(volume, rotations)
    torch.testing.assert_close(slices(mirrored(volume), mirrored_rotations(rotations)), expected, rtol=0, atol=2e-6)
    assert (slices(volume, mirrored_rotations(rotations)) - expected).norm() > 0.5 * expected.norm()


def test_the_mirrored_molecule_has_the_mirrored_map_and_the_same_images(monkeypatch):
    particles = simulate.assembly(4, 32, seed=2, progress=False)
    truth, shifts = particles.truth, torch.as_tensor(particles.shifts)
    positions, masses = truth.structure(torch.as_tensor(truth.coordinates))

    def images(positions: Tensor, rotations: np.ndarray) -> np.ndarray:
        arguments = torch.as_tensor(rotations), particles.ctf, shifts, 32, particles.pixel_size
        return _project(positions, masses, *arguments)

    volume, expected = truth.volume(0), images(positions, particles.rotations)
    found = images(positions @ MIRROR, mirrored_rotations(particles.rotations))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    monkeypatch.setattr(type(truth), "structure", lambda *_: (positions[:1] @ MIRROR, masses[:1]))
    atol = 3e-4 * float(volume.abs().max())  # at Nyquist, the waves of the atoms are not exactly symmetric
    torch.testing.assert_close(truth.volume(0), mirrored(volume), rtol=0, atol=atol)
