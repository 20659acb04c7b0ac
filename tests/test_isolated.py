"""Latents far from all others do not decide the number of components; the tails of a density are no such latents."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.mixture.isolated import set_aside

pytestmark = pytest.mark.usefixtures("one_thread")


def clusters(n: int, seed: int = 0, dim: int = 4) -> torch.Tensor:
    """Return n latents of six narrow clusters."""
    generator = torch.Generator().manual_seed(seed)
    centres = 5 * torch.randn(6, dim, generator=generator)
    return centres[torch.randint(6, (n,), generator=generator)] + 0.03 * torch.randn(n, dim, generator=generator)


def far(count: int, distance: float, seed: int = 1, dim: int = 4) -> torch.Tensor:
    directions = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return distance * directions / directions.norm(dim=1, keepdim=True)


@pytest.mark.parametrize(("count", "distance"), [(1, 10.0), (1, 1000.0), (8, 60.0), (20, 300.0)])
def test_the_mixture_is_that_of_the_other_latents(count, distance):
    z = clusters(600)
    alone = ct.GaussianMixture.fit(z, 12)
    rows = np.sort(np.random.default_rng(2).choice(600 + count, count, replace=False))
    mixed = torch.empty(600 + count, 4)
    others = np.setdiff1d(np.arange(600 + count), rows)
    mixed[others], mixed[rows] = z, far(count, distance)
    with pytest.warns(UserWarning, match=rf"{count} of {600 + count} latents lie far from all others") as caught:
        found = ct.GaussianMixture.fit(mixed, 12)
    named = [
        int(number) for number in re.findall(r"\d+", str(caught[0].message).partition("row")[2].partition("and")[0])
    ]
    assert named == rows[:5].tolist()
    assert found.n_components == alone.n_components
    for part in ("weights", "means", "covariances"):
        torch.testing.assert_close(getattr(found, part), getattr(alone, part))


def test_with_errors_groups_and_a_start_but_not_with_weights():
    z = torch.cat([clusters(300), far(2, 200.0)])
    noise = 0.01 * torch.eye(4).expand(302, 4, 4)
    with pytest.warns(UserWarning, match="rows 300, 301"):
        found = ct.GaussianMixture.fit(z, 8, noise, groups=np.arange(302) // 2)
    assert (found.means.norm(dim=1) < 50).all()
    with pytest.warns(UserWarning, match="rows 300, 301"):
        again = ct.GaussianMixture.fit(z, noise_covariances=noise, start=found)
    assert (again.means.norm(dim=1) < 50).all() and again.n_components == found.n_components
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weighted = ct.GaussianMixture.fit(z, weights=torch.ones(302), start=found)
    assert weighted.covariances.abs().max() > 10 * found.covariances.abs().max()  # the user's weights are kept


def test_draws_of_a_path_leave_far_latents_out():
    z = torch.cat([torch.randn(300, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([[400.0, 0.0]])])
    z[:150, 0] += 6
    prior = ct.GaussianMixture.fit(z[:300], 2)
    path = ct.max_flux(prior, start=0, end=1)
    with pytest.warns(UserWarning, match="row 300") as caught:
        far = ct.bootstrap_path(prior, z, path, n_draws=20, progress=False)
    assert len(caught) == 1
    near = ct.bootstrap_path(prior, z[:300], path, n_draws=20, progress=False)
    np.testing.assert_allclose(far.interval("barrier"), near.interval("barrier"), atol=1.5)


@pytest.mark.parametrize(
    "z",
    [
        torch.randn(5000, 1, generator=torch.Generator().manual_seed(0)),
        torch.randn(5000, 2, generator=torch.Generator().manual_seed(0)),
        torch.randn(2000, 8, generator=torch.Generator().manual_seed(0)),
        torch.cat([clusters(500), 0.01 * torch.randn(8, 4) + 40.0]),  # a rare state
        torch.cat([clusters(500), 3 * torch.randn(100, 4)]),  # a broad state among narrow ones
        torch.zeros(50, 3),
        torch.randn(6, 2),
    ],
)
def test_tails_and_rare_states_are_kept(z):
    assert set_aside(z.double(), 20, 0).all()


@pytest.mark.filterwarnings("ignore:The prior uses", "ignore:.*replaced by noise")
def test_bad_images_are_named_and_do_not_leave_a_single_component():
    """An image at ten times its scale, and one with a hot pixel, among 300."""
    particles = ct.simulate.hinge(300, 24, seed=1, progress=False)
    images = particles.images(slice(None)).copy()
    images[7] *= 10
    images[100, 12, 12] = 300 * images.std()

    def trained(images: np.ndarray) -> ct.CryoTwin:
        copy = ct.Particles(images, particles.rotations, particles.shifts, particles.ctf, pixel_size=10.0)
        model = ct.CryoTwin(24, latent_dim=2, n_components=8)
        ct.fit(model, copy, ct.TrainingConfig(epochs=2, device="cpu"), progress=False)
        return model

    with pytest.warns(UserWarning, match="set aside") as caught:
        assert trained(images).prior.n_components > 1
    texts = " ".join(str(w.message) for w in caught)
    assert re.search(r"1 of 300 images are set aside, .*image 7 of", texts)
