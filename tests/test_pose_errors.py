"""Statistics of poses against images made at known poses; see also `test_firstlook` for whole data sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.imaging.masks import spherical_mask
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.eigenvolumes import Eigenvolumes, begin
from cryotwin_nb.reconstruction.pose_errors import _largest, _most_likely
from cryotwin_nb.reconstruction.pose_statistics import POSE, Linearised, PoseStatistics, coordinates, moved, regions

SIZE, N = 32, 60
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made() -> tuple[ImageFormation, ImageBatch, Eigenvolumes]:
    particles = ct.simulate.assembly(N, SIZE, snr=5.0, progress=False)
    imaging = ImageFormation(SIZE, windowed=False, margin=1.0)
    imaging.measure(particles)
    batch = imaging.batch(particles, np.arange(N))
    found = begin(imaging, [batch], spherical_mask(SIZE, 12, 2), 2)
    found.variances.fill_(1e-12)
    return imaging, batch, found


def projected(found: Eigenvolumes, maps: torch.Tensor, batch: ImageBatch, imaging: ImageFormation) -> torch.Tensor:
    """Return images (N, P) of a map at the poses of a batch, without noise."""
    ball = found.ball(SIZE / 2 + 1)
    return torch.view_as_complex(ball.slices(ball.from_volumes(maps[None]), imaging.frequencies, batch.rotations)) * (
        batch.transfer
    )


def test_small_changes_of_poses_are_found(made):
    imaging, batch, found = made
    change = 0.004 * torch.randn(N, POSE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    change[:, 3:] *= 5
    there = moved(batch, change, imaging)
    back = moved(there._replace(data=projected(found, found.mean, there, imaging)), -change, imaging)
    images = back._replace(rotations=batch.rotations)  # at the recorded rotations, and shifted by the change
    seen = Linearised.of(found, SIZE / 2 + 1, torch.zeros(0)).statistics(images, imaging, torch.zeros_like(change))
    assert seen.h.shape == (N, POSE)
    estimate = torch.linalg.solve(seen.J, seen.h[..., None])[..., 0]
    np.testing.assert_allclose(estimate, change, atol=0.1 * float(change.std()))
    again = Linearised.of(found, SIZE / 2 + 1, torch.zeros(0)).statistics(images, imaging, change)
    np.testing.assert_allclose(torch.linalg.solve(again.J, again.h[..., None])[..., 0], change, atol=1e-4)


def test_displacements_of_a_region_are_found_in_the_frame_of_the_molecule(made):
    imaging, batch, found = made
    weights = regions(found.mean, 4)
    torch.testing.assert_close(weights.sum(0), torch.ones(SIZE, SIZE, SIZE))
    displacement = torch.tensor([0.06, -0.04, 0.05])
    frequencies = [torch.fft.fftfreq(SIZE)] * 3
    phase = sum(
        f.view(*[-1 if axis == k else 1 for k in range(3)]) * displacement[2 - axis]
        for axis, f in enumerate(frequencies)
    )
    part = torch.fft.ifftn(torch.fft.fftn(found.mean * weights[1]) * torch.exp(-2j * torch.pi * phase)).real
    data = projected(found, found.mean * (1 - weights[1]) + part, batch, imaging)
    zero = torch.zeros(N, POSE, dtype=torch.float64)
    seen = Linearised.of(found, SIZE / 2 + 1, weights).statistics(batch._replace(data=data), imaging, zero)
    own = slice(POSE + 3, POSE + 6)
    estimate = torch.linalg.solve(seen.J[:, own, own].sum(0), seen.h[:, own].sum(0))
    np.testing.assert_allclose(estimate, displacement, atol=0.005)


def test_regions_are_compact(made):
    weights = regions(made[2].mean, 4)
    places = torch.stack(coordinates(SIZE), dim=-1)
    centres = torch.stack([places[w > 0.9].mean(0) for w in weights])
    assert torch.pdist(centres).min() > 3


def test_widths_are_those_of_drawn_changes():
    """h = J e + noise of covariance J, with rotations of .03 radians an axis and shifts of .4 pixels."""
    rng = np.random.default_rng(0)
    root = torch.as_tensor(rng.normal(size=(3000, 9, POSE)) * [40, 40, 40, 3, 3])
    J = root.mT @ root
    e = torch.as_tensor(rng.normal(size=(3000, POSE)) * [0.03, 0.03, 0.03, 0.4, 0.4])
    noise = torch.linalg.cholesky(J) @ torch.as_tensor(rng.normal(size=(3000, POSE, 1)))
    seen = PoseStatistics((J @ e[..., None] + noise)[..., 0], J)
    found, evidence = _largest(seen, np.log([0.1, 0.1]))
    assert np.exp(found) == pytest.approx([0.03, 0.4], rel=0.06)
    assert evidence > _largest(seen, found, {0: np.log(0.02)})[1] + 10
    estimate = _most_likely(seen, found)
    shrunk = torch.linalg.inv(torch.diag(torch.as_tensor([0.03, 0.03, 0.03, 0.4, 0.4]) ** -2.0) + J)
    expected = float(shrunk.diagonal(dim1=1, dim2=2).mean(0)[3])
    assert float((estimate - e)[:, 3].square().mean()) == pytest.approx(expected, rel=0.15)
