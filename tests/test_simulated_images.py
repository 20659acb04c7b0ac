"""Images simulated with the decoder, from which the encoder of the coordinate networks also learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.training import trainer
from cryotwin_nb.training.objective import simulated_error

N = 64
SMALL = {"architecture": "coordinate", "latent_dim": 2, "n_components": 4, "width": 32, "depth": 1, "n_features": 32}


@pytest.fixture(scope="module")
def particles():
    return ct.simulate.assembly(256, 16, pixel_size=20.0, snr=3.0, seed=5, progress=False)


@pytest.fixture
def started(particles):
    """Networks with measured scales whose maps differ between latents, and a batch."""
    model = ct.CryoTwin(16, **SMALL)
    model.imaging.measure(particles)
    batch, networks = model.imaging.batch(particles, np.arange(N)), model.networks
    list(networks.passes(lambda n=None: [batch], beta=2.0))
    return networks, batch


def error_of(networks, batch, z, n=60):
    return simulated_error(networks, batch, z, n, len(z), torch.Generator().manual_seed(0)).detach()


def test_they_are_images_of_other_structures_at_the_same_poses_with_white_noise(started, monkeypatch):
    networks, batch = started
    z, n, seen = torch.tensor([[3.0, -1.0]]).repeat(N, 1), 60, []
    monkeypatch.setattr(networks, "encode", lambda images: seen.append(images) or (torch.zeros(len(images.data), 2), 0))
    error_of(networks, batch, z, n)
    images = seen[0]
    assert len(images.data) == N // 2 * 8
    assert torch.equal(images.rotations[::8], batch.rotations[::2]) and torch.equal(images.group[::8], batch.group[::2])
    with torch.no_grad():
        expected = networks.slices(images.rotations, z[:1].expand(len(images.data), 2))
        average = networks.average.slices(networks.imaging.frequencies, images.rotations)
    noise = images.data - torch.cat([expected[:, :n], average[:, n:]], dim=1) * images.transfer
    power = noise.abs().square().mean(0)
    assert float(power.mean()) == pytest.approx(1, abs=0.02) and float(power.std()) < 0.15
    assert float(noise.mean().abs()) < 0.02


def test_without_information_the_error_is_the_variance_of_the_structures(started, monkeypatch):
    networks, batch = started
    z = torch.randn(N, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([3.0, 0.5])
    monkeypatch.setattr(networks, "encode", lambda images: (torch.zeros(len(images.data), 2), 0))
    assert float(error_of(networks, batch, z).sum()) / N == pytest.approx(float(z.var(0).sum()), rel=0.1)


def test_the_scale_of_the_latents_is_left_to_rate_and_distortion(started, monkeypatch):
    networks, batch = started
    z, encode = torch.randn(N, 2, generator=torch.Generator().manual_seed(1)), networks.encode
    error = error_of(networks, batch, z)
    turned = torch.tensor([[0.0, 3.0], [-1.0, 0.5]])
    monkeypatch.setattr(networks, "encode", lambda images: (encode(images)[0] @ turned + 5, 0))
    torch.testing.assert_close(error_of(networks, batch, z), error, rtol=0.01, atol=1e-3)


def test_no_gradient_reaches_the_decoder(started):
    networks, batch = started
    z = torch.randn(N, 2, requires_grad=True)
    simulated_error(networks, batch, z, 60, N, torch.Generator()).sum().backward()
    assert z.grad is None
    assert all(p.grad is None for p in (*networks.decoder.parameters(), *networks.factors.parameters()))
    assert all(
        p.grad is not None and bool(p.grad.abs().sum() > 0) for p in networks.encoder.product_by_view.parameters()
    )


@pytest.mark.parametrize(("plain", "weight", "calls"), [(False, 1.0, 10), (False, 0.0, 0), (True, 1.0, 0)])
def test_they_are_used_after_the_warmup_unless_switched_off_or_plain(particles, monkeypatch, plain, weight, calls):
    used = []
    monkeypatch.setattr(trainer, "simulated_error", lambda *given: used.append(given) or simulated_error(*given))
    settings = ct.TrainingConfig(epochs=2, batch_size=32, warmup=0.4, simulated=weight, final_em=False, device="cpu")
    ct.fit(ct.CryoTwin(16, **SMALL, plain=plain), particles, settings, progress=False)
    assert len(used) == pytest.approx(calls, abs=1)  # 16 steps, of which 0.6 are after the warmup


def test_they_improve_the_latents_of_images_with_other_noise(particles):
    """The same structures, poses and CTFs with noise that training has not seen."""
    errors = []
    for weight in (0.0, 1.0):
        model = ct.CryoTwin(16, **SMALL | {"width": 64})
        settings = ct.TrainingConfig(epochs=12, learning_rate=3e-3, simulated=weight, final_em=False, device="cpu")
        ct.fit(model, particles, settings, progress=False)
        networks, z = model.networks, model.embed(particles)
        batch = model.imaging.batch(particles, np.arange(len(particles)))
        noise = torch.randn(2, *batch.data.shape, generator=torch.Generator().manual_seed(1)) / 2**0.5
        with torch.no_grad():
            data = networks.slices(batch.rotations, z) * batch.transfer + torch.complex(*noise)
            found = networks.encode(batch._replace(data=data))[0]
        errors.append(float((found - z).square().sum() / (z - z.mean(0)).square().sum()))
    assert errors[1] < 0.8 * errors[0], errors


def test_layers_of_the_encoder_depend_on_the_view_unless_the_networks_are_plain():
    with pytest.raises(ct.InputError, match="view_width"):
        ct.CryoTwin(16, **SMALL, view_width=0)
    ct.CryoTwin(16, **SMALL, view_width=0, plain=True)
