"""The subspace architecture: training, gauge and storage, and the predictions of theory."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import coordinate_r2, fsc_of_images, isometry
from cryotwin_nb.imaging.fsc import fsc
from cryotwin_nb.imaging.masks import spherical_mask
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.models import closed_form
from cryotwin_nb.models import records as records_module
from cryotwin_nb.models.likelihood import ImageLikelihood
from cryotwin_nb.models.records import Curve, Records, deconvolved, pack, transformed, unpack
from cryotwin_nb.models.subspace import SubspaceNetworks
from cryotwin_nb.reconstruction.statistics import posterior
from cryotwin_nb.training import TrainingConfig, fit

N_IMAGES = 400
BETA = 2.0
KINDS = {
    "straight": ("assembly", {"latent_dim": 5, "n_components": 8}),
    "bent": ("hinge", {"latent_dim": 2, "n_basis": 8, "n_components": 8}),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def config(**changes) -> TrainingConfig:
    settings = {"epochs": 6, "batch_size": 64, "beta": BETA, "device": "cpu", "precision": "float32"}
    return TrainingConfig(**(settings | changes))


class Trained:
    """A model, its particles, and their records and latents."""

    def __init__(self, kind: str, **options) -> None:
        name, self.options = KINDS[kind][0], KINDS[kind][1] | options
        self.particles = getattr(ct.simulate, name)(N_IMAGES, 16, pixel_size=20.0, snr=30.0, progress=False)
        self.model = ct.CryoTwin(16, **self.options)
        self.networks: SubspaceNetworks = self.model.networks
        self.history = fit(self.model, self.particles, config(), progress=False)
        self.batch = self.model.imaging.batch(self.particles, np.arange(N_IMAGES))
        with torch.no_grad():
            self.records = self.networks.prepare(self.batch)
            self.z = self.networks.encode(self.records)[0]


@pytest.fixture(scope="module")
def runs():
    return {kind: Trained(kind) for kind in KINDS}


@pytest.fixture(params=list(KINDS))
def trained(request, runs) -> Trained:
    return runs[request.param]


@pytest.fixture(scope="module")
def few():
    return ct.simulate.hinge(120, 16, pixel_size=20.0, snr=20.0, progress=False)


FEW = {"latent_dim": 2, "n_basis": 4, "n_components": 4, "width": 16}


def networks_of(latent_dim: int, n_basis: int, seed: int = 0, **options) -> SubspaceNetworks:
    """Return untrained networks with random maps, scale and curvature."""
    model = ct.CryoTwin(16, latent_dim=latent_dim, n_basis=n_basis, n_components=3, seed=seed, **options)
    networks, generator = model.networks, torch.Generator().manual_seed(seed)
    maps = torch.randn(n_basis, 16**3, generator=generator)
    basis = torch.linalg.qr(maps.T).Q.T.reshape(-1, 16, 16, 16)
    mean = torch.randn(16, 16, 16, generator=generator)
    networks.eigenvolumes = replace(networks.eigenvolumes, mean=mean, basis=basis)
    networks.scale.fill_(0.7)
    if networks.curve is not None:
        torch.nn.init.normal_(networks.curve.last.weight, std=0.1, generator=generator)
    return networks


# Isometry


def test_steps_between_latents_are_steps_between_maps(trained):
    assert isometry(trained.model, trained.z).correlation > 0.98


def test_as_many_directions_as_latents_are_an_exact_isometry(runs):
    networks, z = runs["straight"].networks, runs["straight"].z
    assert networks.curve is None
    assert float(networks.anisometry(z)) == 0
    jacobian = networks.coefficients(z)[1] / networks.scale.float()
    torch.testing.assert_close(jacobian.mT @ jacobian, torch.eye(5).expand(N_IMAGES, 5, 5), rtol=0, atol=1e-3)


def test_the_decoder_is_an_isometry_on_average_where_it_is_bent(runs):
    networks, z = runs["bent"].networks, runs["bent"].z
    with torch.no_grad():
        jacobian = networks.coefficients(z)[1]
        bend = networks.curve(z / 3.0)[0]
        departure = float(networks.anisometry(z))
    jacobian = jacobian / networks.scale.float()
    torch.testing.assert_close((jacobian.mT @ jacobian).mean(0), torch.eye(2), rtol=0, atol=5e-3)
    assert 0 < departure < 0.01
    assert bend.abs().max() > 1e-3  # the curvature, initially zero, was learnt


def test_anisometry_is_the_departure_from_an_isometry_of_the_scale():
    networks = networks_of(2, 4)
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    expected = []
    for point in z:
        jacobian = torch.func.jacrev(lambda x: networks.coefficients(x[None])[0][0])(point) / 0.7
        expected.append((jacobian.T @ jacobian - torch.eye(2)).square().sum())
    torch.testing.assert_close(networks.anisometry(z), torch.stack(expected).mean())


# Decoder


def test_volumes_are_the_mean_and_the_coefficients_times_the_basis(trained):
    networks, z = trained.networks, trained.z[:3]
    c = networks.coefficients(z)[0].detach()
    expected = networks.mean + (c[..., None, None, None] * networks.basis).sum(1)
    torch.testing.assert_close(networks.volumes(z), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    shown = trained.model.volumes(z)
    outside = trained.model.imaging.solvent
    assert shown[:, outside].mean(1).abs().max() < 1e-5 * shown.abs().max()
    shift = shown - expected
    assert (shift - shift[:, :1, :1, :1]).abs().max() < 1e-5 * shown.abs().max()


def test_maps_of_single_images_are_the_true_ones(runs):
    particles, model = runs["straight"].particles, runs["straight"].model
    for row in range(0, N_IMAGES, 60):
        curve = fsc(model.volumes(runs["straight"].z[row : row + 1])[0], particles.truth.volume(row), 20.0)
        assert curve.correlation[:6].min() > 0.9


@pytest.mark.parametrize(("latent_dim", "n_basis"), [(3, 3), (2, 5)])
def test_the_jacobian_is_that_of_finite_differences(latent_dim, n_basis):
    networks = networks_of(latent_dim, n_basis)
    z = torch.randn(4, latent_dim, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        jacobian = networks.coefficients(z)[1]
        for k, direction in enumerate(0.01 * torch.eye(latent_dim)):
            change = networks.coefficients(z + direction)[0] - networks.coefficients(z - direction)[0]
            torch.testing.assert_close(jacobian[..., k], change / 0.02, rtol=1e-3, atol=1e-3)


def test_the_curve_begins_flat_and_knows_its_jacobian():
    curve = Curve(2, 8, 3).double()
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(3)).double()
    assert all(part.abs().max() == 0 for part in curve(x))
    torch.nn.init.normal_(curve.last.weight)
    for point, jacobian in zip(x, curve(x)[1], strict=True):
        expected = torch.func.jacrev(lambda p: curve(p[None])[0][0])(point)
        torch.testing.assert_close(jacobian, expected)


def test_predictions_are_slices_of_the_volumes(trained):
    """Compared with the slice read from the lattice of the decoded map at z."""
    networks, imaging = trained.networks, trained.model.imaging
    rows, ball = torch.arange(5), trained.networks.eigenvolumes.ball(trained.model.imaging.plane.radius)
    found = networks.slices(trained.batch.rotations[rows], trained.z[rows])
    for row in rows.tolist():
        lattice = ball.from_volumes(networks.volumes(trained.z[row : row + 1]))
        slices = ball.slices(lattice, imaging.frequencies, trained.batch.rotations[row : row + 1])
        expected = torch.complex(*slices[0].T)
        torch.testing.assert_close(found[row], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    some = networks.slices(trained.batch.rotations[rows], trained.z[rows], 20)
    torch.testing.assert_close(some, found[:, :20])


def test_distortion_from_records_is_that_of_the_images(trained):
    model, z = trained.model, trained.z + torch.randn(trained.z.shape, generator=torch.Generator().manual_seed(4))
    expected = model.imaging.distortion(trained.batch, model.predict(trained.batch, z))
    torch.testing.assert_close(model.networks.distortion(trained.records, z), expected, rtol=2e-3, atol=0.1)


# Encoder


def test_images_and_their_records_have_the_same_latents(trained):
    z = trained.model.embed(trained.particles)
    assert z.shape == (N_IMAGES, trained.options["latent_dim"]) and z.dtype == torch.float32
    torch.testing.assert_close(z, trained.z, rtol=1e-4, atol=1e-4)
    rows = torch.tensor([5, 2, 200])
    for batch in (trained.batch.take(rows), trained.records.take(rows)):
        torch.testing.assert_close(trained.model.encode(batch)[0], trained.z[rows], rtol=1e-4, atol=1e-4)


def test_latents_tell_the_true_coordinates(trained):
    r2 = coordinate_r2(trained.z, trained.particles.truth)
    assert min(r2.values()) > 0.93


def test_an_encoder_without_training_gives_the_posterior_mean_in_units_of_the_scale():
    networks = networks_of(2, 4)
    expected = torch.randn(6, 4, generator=torch.Generator().manual_seed(5))
    records = Records(expected, *[torch.zeros(0)] * 9)
    torch.testing.assert_close(networks.encode(records)[0], expected[:, :2] / 0.7)


@pytest.mark.parametrize(("n_basis", "most"), [(8, 400), (16, 1500)])
def test_records_are_small(n_basis, most, few):
    networks = ct.CryoTwin(16, latent_dim=8, n_basis=n_basis).networks
    networks.imaging.measure(few)
    records = networks.prepare(networks.imaging.batch(few, np.arange(10)))
    assert {len(field) for field in records} == {10}
    assert sum(field.element_size() * field.numel() for field in records) / 10 <= most
    packed = records.precision
    square = unpack(packed)
    assert square.shape == (10, n_basis, n_basis) and torch.equal(square, square.mT)
    assert torch.equal(pack(square), packed)


# Gauges


def test_noise_width_is_a_gauge_of_the_whole_training(runs):
    wide = runs["bent"]
    narrow = Trained("bent", noise_width=1.0)
    torch.testing.assert_close(3 * narrow.z, wide.z, rtol=1e-3, atol=1e-3 * float(wide.z.std()))
    maps = wide.model.volumes(wide.z[:3])
    torch.testing.assert_close(narrow.model.volumes(wide.z[:3] / 3), maps, rtol=0, atol=1e-3 * float(maps.abs().max()))
    np.testing.assert_allclose(narrow.history.rate, wide.history.rate, atol=0.01)
    np.testing.assert_allclose(narrow.history.distortion, wide.history.distortion, rtol=1e-3)
    means = narrow.model.deconvolved_prior.means
    torch.testing.assert_close(3 * means, wide.model.deconvolved_prior.means, rtol=0.05, atol=0.3)


# Theory


def test_latent_noise_costs_half_beta_per_dimension(trained):
    width, generator = trained.model.noise_width, torch.Generator().manual_seed(7)
    extra = []
    with torch.no_grad():
        clean = trained.model.networks.distortion(trained.records, trained.z)
        for _ in range(40):
            noise = (torch.rand(trained.z.shape, generator=generator) - 0.5) * width
            extra.append((trained.model.networks.distortion(trained.records, trained.z + noise) - clean).mean())
    each = float(torch.stack(extra).mean()) / trained.options["latent_dim"]
    assert each == pytest.approx(BETA / 2, rel=0.2 if trained.networks.curve else 0.1)


def test_the_scale_is_that_of_rate_distortion_theory(trained):
    """J^T J times the distortion of a unit step in the space of maps is 6 beta / T^2."""
    jacobian = trained.networks.coefficients(trained.z)[1]
    predicted = 6 * BETA / trained.model.noise_width**2
    batch, imaging = trained.batch, trained.model.imaging
    ball = trained.networks.eigenvolumes.ball(imaging.plane.radius)
    slices = ball.slices(ball.from_volumes(trained.networks.basis), imaging.frequencies, batch.rotations)
    weights = imaging.weights(batch.group) * batch.transfer.square()
    power = (weights[..., None] * torch.complex(*slices.chunk(2, dim=-1)).abs().square()).sum(1)
    power = power[:, : trained.model.config["latent_dim"]]  # in the leading directions, those of the latents
    product = (jacobian.mT @ jacobian).mean(0) * power.mean()
    expected = predicted * torch.eye(len(product))
    torch.testing.assert_close(product, expected, rtol=0, atol=0.05 * predicted)
    # With weights that undo whitening and CTF the distortion of any step is kappa/2, except in the lowest shells.
    assert 0.5 < float(power.mean() / (imaging.kappa / 2)) < 1.05


# Passes and training


def test_history_tells_of_the_passes_and_of_the_epochs(trained):
    history, n_passes = trained.history, trained.networks.n_passes
    assert len(history.log_evidence) == len(history.pass_radius) == len(history.pass_seconds) == n_passes
    assert math.isnan(history.log_evidence[0]) and np.isfinite(history.log_evidence[1:]).all()
    assert history.pass_radius[-1] == 9.0 and (np.diff(history.pass_radius[1:]) >= 0).all()
    assert all(after > before for before, after in pairwise(history.log_evidence[-3:]))
    assert history.epochs == 6 and history.n_components == trained.model.prior.n_components


class Stop(Exception):
    pass


def interrupted_fit(when: str, particles, checkpoint, monkeypatch, options=FEW) -> None:
    """Run training with an interruption before a closed-form pass (1 to 10), or after the second epoch."""
    calls = 0

    def iterate(*arguments, plain=closed_form.iterate):
        nonlocal calls
        calls += 1
        if when == f"pass {calls}":
            raise Stop
        return plain(*arguments)

    def callback(history, model):
        if when == f"epoch {history.epochs}":
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(closed_form, "iterate", iterate)
        with pytest.raises(Stop):
            settings = config(epochs=3, checkpoint=checkpoint)
            fit(ct.CryoTwin(16, **options), particles, settings, callbacks=[callback], progress=False)


@pytest.fixture(scope="module")
def whole(few):
    model = ct.CryoTwin(16, **FEW)
    fit(model, few, config(epochs=3), progress=False)
    return model


@pytest.mark.parametrize("when", ["pass 1", "pass 4", "pass 10", "epoch 2"])
def test_resume_equals_an_uninterrupted_run_to_the_bit(when, whole, few, tmp_path, monkeypatch):
    interrupted_fit(when, few, tmp_path / "c.pt", monkeypatch)
    model = ct.CryoTwin(16, **FEW)
    history = fit(model, few, config(epochs=3), resume=tmp_path / "c.pt", progress=False)
    assert history.distortion == whole.history.distortion and history.rate == whole.history.rate
    assert history.log_evidence[1:] == whole.history.log_evidence[1:]
    assert len(history.log_evidence) == model.networks.n_passes
    state = model.state_dict()
    assert state.keys() == whole.state_dict().keys()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert torch.equal(model.embed(few), whole.embed(few))


def test_save_and_load_round_trip(whole, few, tmp_path):
    whole.save(tmp_path / "model.safetensors")
    back = ct.CryoTwin.load(tmp_path / "model.safetensors")
    assert back.config == whole.config
    assert torch.equal(back.embed(few), whole.embed(few))
    z = whole.embed(few)[:2]
    assert torch.equal(back.volumes(z), whole.volumes(z))
    for prior in ("prior", "deconvolved_prior"):
        for part in ("weights", "means", "covariances"):
            assert torch.equal(getattr(getattr(back, prior), part), getattr(getattr(whole, prior), part))
    assert not torch.equal(whole.prior.covariances, whole.deconvolved_prior.covariances)


def test_the_number_of_directions_can_be_left_out():
    assert len(ct.CryoTwin(16, latent_dim=5).networks.basis) == 5
    assert len(ct.CryoTwin(16, latent_dim=2).networks.basis) == 12
    assert ct.CryoTwin(16).config["architecture"] == "subspace"


def test_maps_on_the_lattice_follow_the_basis(few):
    networks = ct.CryoTwin(16, **FEW).networks
    networks.imaging.measure(few)
    batch = networks.imaging.batch(few, np.arange(5))
    energies = []
    for size in (1.0, 2.0):
        networks.eigenvolumes = replace(networks.eigenvolumes, basis=size * torch.ones_like(networks.basis))
        energies.append(networks.prepare(batch).G_weighted)
    torch.testing.assert_close(energies[1], 4 * energies[0])


def test_maps_at_the_address_of_earlier_ones_are_not_taken_for_them(few):
    networks = ct.CryoTwin(16, **FEW).networks
    networks.imaging.measure(few)
    batch = networks.imaging.batch(few, np.arange(5))
    memory, energies = np.ones((4, 16, 16, 16), dtype=np.float32), []
    for size in (1.0, 2.0):
        memory[:] = size
        networks.eigenvolumes = replace(networks.eigenvolumes, basis=torch.from_numpy(memory))
        energies.append(networks.prepare(batch).G_weighted)
    torch.testing.assert_close(energies[1], 4 * energies[0])


# Tight mask


@pytest.fixture(scope="module")
def noisy():
    return ct.simulate.hinge(80, 24, snr=1.0, progress=False)


@pytest.fixture(scope="module")
def loose_and_tight(noisy):
    models = [ct.CryoTwin(24, **FEW, tight_mask=tight) for tight in (0, 1)]
    for model in models:
        fit(model, noisy, config(epochs=1), progress=False)
    return models


def sphere(model: ct.CryoTwin) -> Tensor:
    size = model.config["box_size"]
    return spherical_mask(size, model.imaging.particle_radius, size / 16)


def test_a_tight_mask_lies_in_the_sphere_and_holds_the_density(loose_and_tight, noisy):
    loose, tight = loose_and_tight
    assert torch.equal(loose.networks.mask, sphere(loose))
    mask = tight.networks.mask
    assert (mask <= sphere(tight)).all() and mask.min() >= 0
    assert mask.sum() < 0.8 * sphere(tight).sum()
    dense = torch.stack([noisy.truth.volume(row) for row in range(0, 80, 8)]).amax(0)
    assert mask[dense > 0.1 * dense.max()].min() > 0.5
    for maps in (tight.networks.mean, tight.networks.basis):
        assert maps[..., mask == 0].abs().max() < 1e-5 * maps.abs().max()


def test_a_tight_mask_keeps_noise_out_of_the_maps(loose_and_tight, noisy):
    loose, tight = (fsc_of_images(m.volumes, m.embed(noisy), noisy.truth, 30).mean(0) for m in loose_and_tight)
    assert tight.mean() > loose.mean() + 0.01 and (tight > loose - 0.005).all()


def masks_of_passes(model: ct.CryoTwin, particles, monkeypatch) -> list[Tensor]:
    """Return the mask of each closed-form pass except the first."""
    masks: list[Tensor] = []

    def iterate(subspace, *arguments, plain=closed_form.iterate):
        masks.append(subspace.mask.clone())
        return plain(subspace, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(closed_form, "iterate", iterate)
        fit(model, particles, config(epochs=1), progress=False)
    return masks


def test_a_tight_mask_begins_as_the_sphere_in_every_training(few, monkeypatch):
    model = ct.CryoTwin(16, **FEW, tight_mask=1)
    whole = sphere(model)
    for _ in range(2):
        masks = masks_of_passes(model, few, monkeypatch)
        assert len(masks) == model.networks.n_passes - 1
        assert all(torch.equal(mask, whole) for mask in masks[:6])
        assert all(torch.equal(mask, model.networks.mask) for mask in masks[6:])
        assert model.networks.mask.sum() < 0.95 * whole.sum()


def test_a_tight_mask_is_kept_with_the_model(few, tmp_path, monkeypatch):
    options = FEW | {"tight_mask": 1}
    whole, resumed = (ct.CryoTwin(16, **options) for _ in range(2))
    fit(whole, few, config(epochs=3), progress=False)
    interrupted_fit("pass 9", few, tmp_path / "c.pt", monkeypatch, options)
    fit(resumed, few, config(epochs=3), resume=tmp_path / "c.pt", progress=False)
    whole.save(tmp_path / "model.safetensors")
    loaded = ct.CryoTwin.load(tmp_path / "model.safetensors")
    assert loaded.config["tight_mask"] == 1
    for model in (resumed, loaded):
        assert torch.equal(model.networks.mask, whole.networks.mask)
        assert torch.equal(model.embed(few), whole.embed(few))


# Density


TRUTH = GaussianMixture([0.6, 0.4], [[0.0, 0.0], [3.0, 1.0]], [[[0.5, 0.2], [0.2, 0.3]], [[0.1, 0.0], [0.0, 0.6]]])


def sample(n: int = 2000, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return b = G x + noise of covariance G with x from `TRUTH`, for G of many sizes and shapes."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, 2, 3)) * rng.uniform(0.5, 2.0, (n, 1, 1))
    noise = (factors @ rng.normal(size=(n, 3, 1)))[..., 0]
    G = torch.as_tensor(factors @ factors.transpose(0, 2, 1))
    x = TRUTH.sample(n, seed).double()
    return (G @ x[..., None])[..., 0] + torch.as_tensor(noise), G


def divergence(truth: GaussianMixture, mixture: GaussianMixture) -> float:
    points = truth.sample(20_000, seed=9).double()
    return float((truth.log_prob(points) - mixture.log_prob(points)).mean())


def overall(mixture: GaussianMixture) -> tuple[Tensor, Tensor]:
    mean = mixture.weights @ mixture.means
    away = mixture.means - mean
    return mean, (mixture.weights[:, None, None] * (mixture.covariances + away[:, :, None] * away[:, None])).sum(0)


def test_deconvolution_recovers_the_density_of_the_structures():
    b, G = sample()
    mean, covariance = overall(TRUTH)
    gaussian = GaussianMixture([1.0], mean[None], covariance[None])
    shrunken = posterior(b, G, gaussian).mean
    noisy = torch.linalg.solve(G + 1e-3 * torch.eye(2), b)
    start = GaussianMixture.fit(shrunken, 3, seed=0)
    found = deconvolved(b, G, covariance.diagonal(), start)
    assert divergence(TRUTH, found) < 0.04
    for points in (shrunken, noisy):
        assert divergence(TRUTH, found) < 0.25 * divergence(TRUTH, GaussianMixture.fit(points, 3, seed=0))
    two = deconvolved(b, G, covariance.diagonal(), GaussianMixture.fit(shrunken, 2, select=False))
    order = two.means[:, 0].argsort()
    torch.testing.assert_close(two.means[order], TRUTH.means, rtol=0, atol=0.1)
    torch.testing.assert_close(two.weights[order], TRUTH.weights, rtol=0, atol=0.03)
    torch.testing.assert_close(two.covariances[order], TRUTH.covariances, rtol=0.2, atol=0.1)


def test_images_that_say_nothing_of_a_direction_do_not_spoil_the_density():
    b, G = sample()
    blind = torch.arange(2000) % 4 == 0
    G[blind, 1], G[blind, :, 1], b[blind, 1] = 0, 0, 0
    rng = np.random.default_rng(1)
    x = TRUTH.sample(2000, 1).double()
    root = G[blind, 0, 0].sqrt()
    b[blind, 0] = G[blind, 0, 0] * x[blind, 0] + root * torch.as_tensor(rng.normal(size=int(blind.sum())))
    covariance = overall(TRUTH)[1]
    found = deconvolved(b, G, covariance.diagonal(), GaussianMixture.fit(x[:500] + 0.5, 3, seed=0))
    assert divergence(TRUTH, found) < 0.03


def test_the_density_of_latents_follows_the_scale():
    """Density of z = c / s, from records of random networks without curvature."""
    networks = networks_of(2, 2)
    b, G = sample()
    networks.density.set(GaussianMixture([1.0], *(part[None] for part in overall(TRUTH))))
    expected = posterior(b, G, networks.density.mixture).mean.float()
    packed = pack(G).float()
    one, zero = torch.ones(2000), torch.zeros(2000)
    records = Records(expected, one, zero, b.float(), packed, *[zero[:, None]] * 2, b.float(), packed, zero)
    z = networks.encode(records)[0].detach()
    found = networks.deconvolve(records, GaussianMixture.fit(z, 3, seed=0), seed=0)
    matrix = torch.eye(2).double() / 0.7
    assert divergence(transformed(TRUTH, matrix), found) < 0.04
    assert divergence(transformed(TRUTH, matrix), GaussianMixture.fit(z, 3, seed=0)) > 0.1


def test_a_transformed_mixture_is_the_density_of_the_transformed_points():
    matrix, average = torch.tensor([[2.0, 0.3], [-0.5, 0.7]]).double(), torch.tensor([1.0, -2.0]).double()
    points = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    moved = transformed(TRUTH, matrix, average).log_prob((points - average) @ matrix.T)
    torch.testing.assert_close(moved, TRUTH.log_prob(points) - torch.logdet(matrix))


@pytest.mark.parametrize(("latent_dim", "n_basis"), [(2, 2), (2, 5)])
def test_the_likelihood_of_latents_is_that_of_their_coefficients(latent_dim, n_basis):
    """Exact for a linear decoder; for a curved one, exact in value and slope at the latent."""
    networks, generator = networks_of(latent_dim, n_basis), torch.Generator().manual_seed(10)
    z = torch.randn(4, latent_dim, generator=generator)
    root = torch.randn(4, n_basis, n_basis, generator=generator)
    b, G = torch.randn(4, n_basis, generator=generator), root @ root.mT

    def log_likelihood(points: Tensor) -> Tensor:
        c = networks.coefficients(points)[0]
        return (b * c).sum(-1) - (c[:, None] @ G @ c[..., None])[:, 0, 0] / 2

    of_z = records_module.linearised(b, G, z, *networks.coefficients(z))

    def linearised(points: Tensor) -> Tensor:
        points = points.double()
        return (of_z[0] * points).sum(-1) - (points[:, None] @ of_z[1] @ points[..., None])[:, 0, 0] / 2

    step = (1.0 if networks.curve is None else 1e-2) * torch.randn(4, latent_dim, generator=generator)
    with torch.no_grad():
        expected = log_likelihood(z + step) - log_likelihood(z - step)
    tolerance = 1e-3 * float(expected.abs().max())
    torch.testing.assert_close(linearised(z + step) - linearised(z - step), expected.double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("options", [FEW, {"latent_dim": 4, "n_components": 4}])
def test_the_likelihood_of_images_is_their_change_of_residual(options, few):
    """Minus half of the whitened residual plus the power contributed by the uncertainty of the maps.

    The residual's first coefficient, the mean of the image, is excluded, and so are constants of each image.
    """
    model = ct.CryoTwin(16, contrast=False, **options)
    fit(model, few, config(epochs=2), progress=False)
    networks, imaging, z = model.networks, model.imaging, model.embed(few)
    points = torch.cat([z[:5], 3 * torch.randn(5, z.shape[1], generator=torch.Generator().manual_seed(11))])
    points = points * networks.live[: z.shape[1]]  # images are no evidence of latents in directions that they ignore
    batch = imaging.batch(few, np.arange(len(few)))
    with torch.no_grad():
        a, uncertainty = networks.prepare(batch).contrast[:, None], networks.uncertainty
        expected = []
        for point in points:
            residual = (batch.data - a * model.predict(batch, point.expand(len(few), -1)))[:, 1:].abs().square()
            with_mean = torch.cat([torch.ones(1), networks.coefficients(point[None])[0][0]]).double()
            spread = (a * batch.transfer)[:, 1:].square() * (with_mean @ uncertainty @ with_mean)[imaging.shell[1:]]
            expected.append(-((residual + spread) * imaging.multiplicity[1:]).sum(1) / 2)
    expected = torch.stack(expected, dim=1).double()
    likelihood = model.likelihood(few, batch_size=50)
    found = likelihood(points)
    assert len(likelihood) == len(few) and found.shape == (len(few), 10) and found.dtype == torch.float64
    change = expected - expected[:, :1]
    tolerance = 1e-3 * float(change.abs().max())
    torch.testing.assert_close(found - found[:, :1], change, rtol=0, atol=tolerance)
    assert float(found.max()) <= 1e-3 and float(found[:, :5].max(1).values.median()) > float(found.median())


def test_the_best_of_an_image_has_likelihood_one():
    """At the image's optimal coefficients the log-likelihood is 0; it is lower everywhere around them."""
    networks, generator = networks_of(3, 3), torch.Generator().manual_seed(12)
    root = torch.randn(6, 3, 3, generator=generator)
    G = root @ root.mT + torch.eye(3)
    best = torch.randn(6, 3, generator=generator)
    b = (G @ best[..., None])[..., 0]
    none = torch.zeros(6, 0)
    records = Records(none, none, none, b, pack(G), none, none, none, none, none)
    likelihood = ImageLikelihood(networks.coefficients, networks.variances, [records])
    at_best = likelihood(best / networks.scale.float())
    torch.testing.assert_close(at_best.diagonal(), torch.zeros(6).double(), rtol=0, atol=1e-3)
    assert (likelihood(3 * torch.randn(200, 3, generator=generator)) < 1e-3).all()


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_the_likelihood_is_integrated_over_the_contrast(spread):
    """As by numerical integration, except for structures that would need a negative contrast."""
    networks, generator = networks_of(3, 3), torch.Generator().manual_seed(13)
    root = torch.randn(5, 4, 4, generator=generator)
    G, c = 20 * (root @ root.mT + torch.eye(4)), torch.randn(7, 3, generator=generator)
    a = torch.tensor([0.4, 0.8, 1.0, 1.3, 1.8])
    b = a[:, None] * (G @ torch.cat([torch.ones(5, 1), c[:5]], dim=1)[..., None])[..., 0]
    none = torch.zeros(5, 0)
    records = Records(none, none, none, none, none, b, pack(G), none, none, none)
    found = ImageLikelihood(networks.coefficients, networks.variances, [records], spread)(c / networks.scale.float())
    grid = torch.linspace(-3, 5, 40_001).double()
    tilde = torch.cat([torch.ones(7, 1), c], dim=1).double()
    linear, square = b.double() @ tilde.T, torch.einsum("kp,npq,kq->nk", tilde, G.double(), tilde)
    exponent = linear[..., None] * grid - square[..., None] * grid**2 / 2 - ((grid - 1) / spread) ** 2 / 2
    expected = exponent.logsumexp(-1)
    plain = linear > -(spread**-2)
    for i in range(5):
        rows = plain[i]
        torch.testing.assert_close(
            (found[i] - found[i, i])[rows], (expected[i] - expected[i, i])[rows], rtol=0, atol=0.02
        )
    assert (found.argmax(1) == torch.arange(5)).all()


def test_the_likelihood_needs_a_trained_model_of_this_architecture(few):
    with pytest.raises(InputError, match=r"(?s)likelihood: found an architecture that does not estimate.*embed"):
        ct.CryoTwin(16, "coordinate", latent_dim=2, n_components=2, width=8, depth=1).likelihood(few)
    with pytest.raises(InputError, match="untrained"):
        ct.CryoTwin(16, **FEW).likelihood(few)


def test_the_density_after_training_is_narrower_than_that_of_latents_plus_noise(runs):
    """b and G in units of z: the deconvolved density explains the images better than the density of the latents."""
    trained = runs["bent"]
    with torch.no_grad():
        G = unpack(trained.records.precision)
        b, G = records_module.linearised(trained.records.b, G, trained.z, *trained.networks.coefficients(trained.z))
    scores = [
        float(posterior(b, G, prior).log_evidence.mean())
        for prior in (trained.model.deconvolved_prior, trained.model.prior)
    ]
    assert scores[0] > scores[1]


# Invalid input


def test_fewer_directions_than_latents_are_refused():
    with pytest.raises(InputError, match=r"(?s)n_basis.*found 3 directions"):
        ct.CryoTwin(16, latent_dim=4, n_basis=3)


@pytest.mark.parametrize("options", [{}, {"architecture": "coordinate", "width": 16, "depth": 1, "n_features": 16}])
def test_there_is_no_deconvolved_prior_before_training_nor_of_coordinate_networks(options, few):
    model = ct.CryoTwin(16, latent_dim=2, n_components=4, **options)
    if options:
        model.imaging.measure(few)
    with pytest.raises(InputError, match="deconvolved_prior"):
        _ = model.deconvolved_prior


@pytest.mark.parametrize("box_size", [8, 10])
def test_the_smallest_boxes_can_be_trained(box_size):
    particles = ct.simulate.hinge(300, box_size, progress=False)
    model = ct.CryoTwin(box_size, latent_dim=2, n_components=2)
    ct.fit(model, particles, ct.TrainingConfig(epochs=1, device="cpu"), progress=False)
    assert torch.isfinite(model.volumes(model.embed(particles)[:1])).all()
