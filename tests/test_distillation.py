"""Warm start of the coordinate networks from a subspace solution: what they learn, and how `fit` continues."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

N = 120
SETTINGS = {"latent_dim": 2, "n_components": 6}
SOURCE = SETTINGS | {"n_basis": 4, "width": 16}
SMALL = SETTINGS | {"architecture": "coordinate", "n_components": 8, "width": 32, "depth": 1, "n_features": 32}
ENOUGH = {"epochs": 40, "learning_rate": 0.03, "progress": False}


def config(**changes) -> ct.TrainingConfig:
    return ct.TrainingConfig(**({"epochs": 1, "batch_size": 16, "device": "cpu", "precision": "float32"} | changes))


@pytest.fixture(scope="module")
def particles():
    return ct.simulate.hinge(N, 16, pixel_size=20.0, snr=10.0, progress=False)


@pytest.fixture(scope="module")
def source(particles):
    model = ct.CryoTwin(16, **SOURCE)
    ct.fit(model, particles, config(epochs=2, batch_size=64), progress=False)
    return model


@pytest.fixture(scope="module")
def latents(source, particles):
    return source.embed(particles)


@pytest.fixture(scope="module")
def cold(particles):
    """Networks with random weights and a scaled decoder output."""
    model = ct.CryoTwin(16, **SMALL)
    model.imaging.measure(particles)
    model.networks.measure(model.imaging.batch(particles, np.arange(N)))
    return model


@pytest.fixture(scope="module")
def warm(source, particles):
    model = ct.CryoTwin(16, **SMALL)
    ct.warm_start(model, source, particles, **ENOUGH)
    return model


def slice_error(model: ct.CryoTwin, source: ct.CryoTwin, particles: ct.Particles, z: Tensor) -> float:
    """Return the squared difference of central slices relative to the source, at the frequencies of the model."""
    rotations, frequencies = torch.as_tensor(particles.rotations), model.imaging.frequencies
    assert torch.equal(source.imaging.frequencies[: len(frequencies)], frequencies)
    with torch.no_grad():
        given = source.networks.slices(rotations, z)[:, : len(frequencies)]
        return float((model.networks.slices(rotations, z) - given).norm() / given.norm()) ** 2


def test_slices_come_close_to_those_of_the_source(warm, cold, source, particles, latents):
    error = slice_error(warm, source, particles, latents)
    assert error < 0.5 and error < slice_error(cold, source, particles, latents) / 20


def test_maps_are_those_of_the_source_in_every_shell(warm, cold, source, latents):
    """Up to three quarters of Nyquist and beyond, so that fine detail is learnt as well as coarse."""
    curves = []
    for model in (warm, cold):
        pairs = zip(model.volumes(latents[::12]), source.volumes(latents[::12]), strict=True)
        curves.append(np.mean([ct.fsc(a, b, 20.0).correlation for a, b in pairs], axis=0))
    assert curves[0][:7].min() > 0.6 and curves[1].mean() < 0.3


def test_maps_change_with_the_latents_as_those_of_the_source(warm, cold, source):
    ends = source.prior.means[:2].float()
    changes = [(model.volumes(ends)[1] - model.volumes(ends)[0]).flatten() for model in (warm, cold, source)]
    likeness = [float(torch.cosine_similarity(change, changes[-1], dim=0)) for change in changes]
    assert likeness[0] > 0.25 and abs(likeness[1]) < 0.15


def test_latents_are_those_of_the_source(warm, cold, particles, latents):
    z, before = warm.embed(particles), cold.embed(particles)
    for k in range(2):
        assert np.corrcoef(z[:, k], latents[:, k])[0, 1] > 0.98
    width = warm.noise_width
    assert not warm.networks._bfloat16
    assert (z - latents).square().mean().sqrt() < 0.2 * width < (before - latents).square().mean().sqrt() / 5


def test_the_encoder_assigns_images_as_the_prior_does(warm, source, particles, latents):
    with torch.no_grad():
        shares = warm.encode(warm.imaging.batch(particles, np.arange(N)))[1].softmax(-1)
    expected = source.prior.responsibilities(latents)
    used = expected.shape[1]
    assert used > 1 and shares.shape[1] > used
    right = float((shares.argmax(1) == expected.argmax(1)).double().mean())
    most = float(expected.argmax(1).bincount().max()) / N
    assert right > 0.9 > most + 0.2  # better than always naming the largest component
    assert shares[:, used:].mean() < 0.01


def test_the_prior_is_that_of_the_source_and_changes_slowly(warm, source):
    for part in ("weights", "means", "covariances"):
        assert torch.equal(getattr(warm.prior, part), getattr(source.prior, part))
        moving = getattr(warm.moments.mixture(), part)
        torch.testing.assert_close(moving[: source.prior.n_components], getattr(source.prior, part), rtol=1e-3, atol=0)
    assert (warm.moments.mass[source.prior.n_components :] == 0).all()
    before, moments = warm.moments.mass.clone(), warm.moments.state_dict()
    moments = {name: value.clone() for name, value in moments.items()}
    warm.moments.update(torch.zeros(16, 2), 50 * torch.eye(8)[:1].expand(16, 8))  # a batch of one component only
    torch.testing.assert_close(warm.moments.mass, 0.9 * before + 0.1 * torch.eye(8)[0], rtol=1e-3, atol=1e-6)
    warm.moments.load_state_dict(moments)


def test_the_source_is_left_as_it_was(source, particles):
    before = {name: value.clone() for name, value in source.state_dict().items()}
    ct.warm_start(ct.CryoTwin(16, **SMALL), source, particles, epochs=1, progress=False)
    for name, value in source.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_result_follows_from_the_seed(source, particles):
    models = []
    for seed, elsewhere in ((3, 0), (3, 1), (4, 0)):
        torch.manual_seed(elsewhere)
        models.append(ct.CryoTwin(16, **SMALL))
        ct.warm_start(models[-1], source, particles, epochs=1, seed=seed, progress=False)
    first, again, other = (model.state_dict() for model in models)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["networks.encoder.last.weight"], other["networks.encoder.last.weight"])


def test_training_goes_on_from_there(source, particles, latents, warm, tmp_path):
    warm.save(tmp_path / "warm.safetensors")
    models = {"warm": ct.CryoTwin.load(tmp_path / "warm.safetensors"), "cold": ct.CryoTwin(16, **SMALL)}
    models["plain"] = ct.CryoTwin(16, **SMALL, plain=True)  # without the average map
    settings = config(epochs=2, warmup=0, start_radius=1)
    histories = {name: ct.fit(model, particles, settings, progress=False) for name, model in models.items()}
    assert histories["warm"].distortion[0] < 0.2 * histories["plain"].distortion[0]
    assert histories["warm"].distortion[0] < 0.9 * histories["cold"].distortion[0]
    assert histories["warm"].distortion[1] < 1.1 * histories["warm"].distortion[0]
    z = models["warm"].embed(particles)
    assert np.corrcoef(z[:, 0], latents[:, 0])[0, 1] > 0.98
    assert models["warm"].prior.log_prob(z).mean() > models["cold"].prior.log_prob(z).mean()
    assert slice_error(models["warm"], source, particles, latents) < 0.5


# Invalid input


def made(**changes) -> ct.CryoTwin:
    return ct.CryoTwin(**{"box_size": 16, **SMALL, **changes})


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (ct.CryoTwin(16, **SOURCE), None, r"a coordinate model .* not 'subspace' started from 'subspace'"),
        (made(), made(), r"'coordinate' started from 'coordinate'"),
        (ct.CryoTwin(16, **SOURCE), made(), r"'subspace' started from 'coordinate'"),
        (made(box_size=18), None, r"differ in box_size: 18 here, 16 in the source"),
        (made(latent_dim=3), None, r"differ in latent_dim: 3 here, 2 in the source"),
        (made(noise_width=1.0), None, r"differ in noise_width: 1.0 here, 3.0 in the source"),
        (made(n_components=1), None, r"components in the source's prior, expected at most 1"),
        (made(), ct.CryoTwin(16, **SOURCE), r"untrained source"),
    ],
    ids=["two subspaces", "two coordinates", "reverse", "box", "d", "T", "C", "untrained"],
)
def test_models_that_are_no_pair_are_refused(model, given, message, source, particles):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=f"(?s){message}"):
        ct.warm_start(model, given or source, particles, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("box_size", "pixel_size"), [(18, 20.0), (16, 25.0)])
def test_other_particles_are_refused_and_leave_no_trace(box_size, pixel_size, source):
    others, model = ct.simulate.hinge(8, box_size, pixel_size=pixel_size, progress=False), made()
    with pytest.raises(InputError, match="particles"):
        ct.warm_start(model, source, others, progress=False)
    assert not model.imaging.measured
