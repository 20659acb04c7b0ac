"""Support of a pathway by images: high with particles, none without, and false detail is detected."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation.information import distances, information
from cryotwin_nb.evaluation.support import choose_bandwidth, pathway_support
from cryotwin_nb.evaluation.support_result import PathwaySupport
from cryotwin_nb.imaging.fourier import fft3, grid, ifft3
from cryotwin_nb.imaging.lattice import half_ball
from cryotwin_nb.pathways.ridgeline import equidistant
from cryotwin_nb.reconstruction.halves import back_project, density_power, measured, require_halves
from cryotwin_nb.reconstruction.homogeneous import reconstruct
from cryotwin_nb.reconstruction.statistics import projections
from cryotwin_nb.truth.molecules import STATES

SIZE, PIXEL, N_IMAGES = 32, 10.0, 3000
ROUTE = ("B", "C2", "E1")
UNBRIDGED = ("D1", "E1")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def particles() -> ct.Particles:
    return ct.simulate.assembly(N_IMAGES, SIZE, edge_fraction=0.4, progress=False)


class TrueDecoder:
    """The true decoder; latents are occupancies, scaled such that the error of one image is about 1."""

    def __init__(self, truth) -> None:
        self.truth = truth
        self.core = truth.volume_at(np.zeros(5))
        self.blocks = torch.stack([truth.volume_at(row) - self.core for row in np.eye(5, dtype=np.float32)])

    def __call__(self, z: Tensor) -> Tensor:
        return self.core + torch.tensordot(torch.as_tensor(z).float() / 10, self.blocks, 1)


@pytest.fixture(scope="module")
def decode(particles) -> TrueDecoder:
    return TrueDecoder(particles.truth)


@pytest.fixture(scope="module")
def latents(particles) -> Tensor:
    noise = torch.randn(N_IMAGES, 5, generator=torch.Generator().manual_seed(0))
    return 10 * torch.as_tensor(particles.truth.coordinates) + 0.4 * noise


@pytest.fixture(scope="module")
def imaging(particles):
    return measured(particles, 0.4)


def way(*states: str, n: int = 5) -> Tensor:
    """Return points on straight lines between states."""
    return equidistant(10 * torch.tensor([STATES[s] for s in states]).double(), n).float()


@pytest.fixture(scope="module")
def route(decode, particles, latents, imaging) -> PathwaySupport:
    return pathway_support(decode, particles, way(*ROUTE), latents=latents, imaging=imaging)


@pytest.fixture(scope="module")
def gap(decode, particles, latents, imaging) -> PathwaySupport:
    return pathway_support(decode, particles, way(*UNBRIDGED, n=3), latents=latents, imaging=imaging)


def blob() -> Tensor:
    """Return a ball of 20 Å, 90 Å below the centre, where no particle has density."""
    return torch.exp(-(grid(SIZE, 3) - torch.tensor([0.0, 0.0, -9.0])).square().sum(-1) / 8)


def ripple(volume: Tensor) -> Tensor:
    """Return noise between 40 and 27 Å, as strong as the map in this band."""
    radius = grid(SIZE, 3).float().norm(dim=-1)
    band = (radius > 8) & (radius < 12)
    noise = ifft3(fft3(torch.randn(SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(1))) * band).real
    return noise * (fft3(volume).abs().square()[band].sum() / fft3(noise).abs().square()[band].sum()).sqrt()


# Points with images


def test_an_honest_path_through_particles_is_supported(route):
    assert route.flagged == () and "support every decoded map" in route.summary()
    assert route.n_effective.min() > 20 and route.resolution.max() < 45
    assert (route.shell_error[::2, :8] < 0.05).all()
    assert (np.abs(route.shell_support - 1) < np.maximum(0.1, 5 * route.shell_error)).all()
    np.testing.assert_allclose(route.scale, 1, atol=0.06)
    assert (np.abs(route.decoded_fsc - route.expected_fsc)[::2, :8] < 0.1).all()


def test_support_drops_where_no_route_passes(route, gap):
    assert gap.n_effective[1] < 2 < 100 < gap.n_effective[[0, 2]].min()
    assert gap.resolution[1] > 100 and gap.resolution[[0, 2]].max() < 30
    assert gap.flagged == (1,) and "hardly any images" in gap.summary()


def test_points_without_any_image_nearby_are_flagged(decode, particles, latents, imaging):
    support = pathway_support(decode, particles, torch.full((2, 5), 100.0), latents=latents, imaging=imaging)
    assert (np.asarray(support.n_effective) < 1e-3).all() and support.flagged == (0, 1)


def test_maps_are_those_of_the_images_near_a_point(route, decode, particles, latents, imaging):
    metric = information(decode, route.latents[:1], 0.1, imaging)
    distance = distances(metric, route.latents[:1], latents)[0].numpy()
    weights = (1 - (distance / route.bandwidth[0]) ** 2).clip(0)
    own = reconstruct(particles, weights, imaging=imaging)
    assert route.n_effective[0] == pytest.approx(own.n_effective, rel=0.05)  # the fitted grey value is not quite 1
    assert ct.fsc(own.map, route.maps[0], PIXEL).correlation[:10].min() > 0.98
    assert route.resolution[0] == pytest.approx(own.resolution, rel=0.15)
    occupancies = ct.evaluation.block_occupancies(route.maps[[0, 2, 4]], particles.truth)
    np.testing.assert_allclose(occupancies, [STATES[s] for s in ROUTE], atol=0.2)


def test_distances_are_in_standard_errors_of_an_image(decode, particles, imaging):
    """The expected information is the mean of G over images, each with its pose."""
    points = torch.full((1, 5), 5.0)
    metric = information(decode, points, 0.1, imaging)
    away = distances(metric, points, points + torch.cat([torch.eye(5), torch.zeros(1, 5)]))[0]
    batch = imaging.batch(particles, np.arange(300))
    maps = torch.cat([decode.core[None], decode.blocks / 10])
    ball = half_ball(SIZE, float(imaging.plane.radius), 2.5)
    seen = projections(ball, ball.from_volumes(maps), batch, imaging.frequencies, imaging.multiplicity)
    G = seen.statistics().G[:, 1:, 1:].mean(0)
    np.testing.assert_allclose(metric[0], G, rtol=0.3, atol=0.1 * float(G.diagonal().mean()))
    np.testing.assert_allclose(away[:5], metric[0].diagonal().sqrt(), rtol=1e-6)
    assert away[5] == 0


# False detail


@pytest.mark.parametrize("strength", [0.3, 0.6])
def test_a_false_blob_is_flagged_where_it_is(decode, particles, latents, imaging, strength):
    def false(z):
        maps = decode(z)
        return maps + strength * maps.max() * blob()

    found = pathway_support(false, particles, way(*ROUTE, n=3), latents=latents, imaging=imaging)
    assert set(found.flagged) >= {0, 2}
    assert "density around" in found.summary()
    for k in (0, 2):
        assert found.local_support[k, 7, 16, 16] < 0.6 and 0.85 < found.local_support[k, 20, 15, 16] < 1.15


def test_noise_in_a_band_is_flagged_in_its_shells(decode, particles, latents, imaging):
    extra = 2 * ripple(decode(way(*ROUTE, n=3)[2:])[0])
    found = pathway_support(lambda z: decode(z) + extra, particles, way(*ROUTE, n=3), latents=latents, imaging=imaging)
    assert set(found.flagged) >= {0, 2}
    assert found.beyond_images[[0, 2]][:, 9:11].all() and not found.beyond_images[:, :5].any()
    assert "detail from" in " ".join(found.reasons(0))


def test_a_decoder_of_something_else_is_flagged(decode, particles, latents, imaging):
    other = pathway_support(lambda z: decode(z).flip(2), particles, way(*ROUTE, n=3), latents=latents, imaging=imaging)
    assert other.flagged == (0, 1, 2) and "agrees with the images only to" in other.summary()
    assert (other.departure > 1.5 * other.resolution).all()


def test_a_decoder_in_other_units_is_judged_alike(decode, particles, latents, imaging, gap):
    scaled = pathway_support(
        lambda z: -40 * decode(z), particles, way(*UNBRIDGED, n=3), latents=latents, imaging=imaging
    )
    np.testing.assert_allclose(scaled.scale[[0, 2]], -gap.scale[[0, 2]] / 40, rtol=1e-3)
    np.testing.assert_allclose(scaled.shell_support, gap.shell_support, rtol=1e-2)
    assert scaled.flagged == gap.flagged


# A trained model, settings, invalid input


def test_a_model_brings_its_latents_and_its_noise():
    particles = ct.simulate.assembly(400, 16, pixel_size=20.0, progress=False)
    model = ct.CryoTwin(16, latent_dim=5, n_components=8)
    ct.fit(model, particles, ct.TrainingConfig(epochs=2), progress=False)
    z = model.embed(particles)
    path = ct.ridgeline(model.prior, 0, 1, n_steps=3)
    one, same = (
        pathway_support(model, particles, path),
        pathway_support(model.volumes, particles, path.latents, latents=z, imaging=model.imaging),
    )
    for name in ("n_effective", "resolution", "shell_support"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert one.maps.shape == (4, 16, 16, 16) and one.half_map_fsc.shape == one.decoded_fsc.shape == (4, 8)


def test_memory_is_bounded_by_taking_fewer_points_at_once(decode, particles, latents, imaging, gap, monkeypatch):
    monkeypatch.setattr("cryotwin_nb.evaluation.support._MEMORY", 1)
    again = pathway_support(decode, particles, way(*UNBRIDGED, n=3), latents=latents, imaging=imaging)
    torch.testing.assert_close(again.maps, gap.maps)


def test_in_a_state_the_widest_bandwidth_is_chosen(decode, particles, latents, imaging):
    """Within a state, a wider kernel only adds images."""
    state = pathway_support(decode, particles, way(*ROUTE, n=3)[:1], latents=latents, imaging=imaging)
    assert state.bandwidth[0] == 2.0
    narrow = pathway_support(decode, particles, way(*ROUTE, n=3)[:1], latents=latents, imaging=imaging, bandwidth=0.7)
    assert narrow.bandwidth[0] == 0.7 and narrow.n_effective[0] < state.n_effective[0]


@pytest.mark.parametrize(("wrong", "best"), [(False, 1), (True, 0)])
def test_a_bandwidth_that_takes_in_other_particles_predicts_worse(particles, imaging, wrong, best):
    """The wider one adds images of the same density, or images that do not belong because of their poses."""
    rotations, n = particles.rotations[:800].copy(), 300
    if wrong:
        rotations[n:] = rotations[n:][::-1]
    some = ct.Particles(
        particles.images(np.arange(800)), rotations, particles.shifts[:800], particles.ctf[:800], pixel_size=PIXEL
    )
    weights = np.array([np.arange(800) < n, np.ones(800)], dtype=float)
    pairs = back_project(some, weights, require_halves(None, some, 0), imaging)
    assert choose_bandwidth(pairs, weights, density_power(some, np.arange(n), imaging)) == best


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"path": torch.zeros(3)}, "path: found shape"),
        ({"path": torch.full((2, 5), torch.nan)}, "path"),
        ({"latents": torch.zeros(7, 5)}, "latents"),
        ({"latents": None}, "latents"),
        ({"bandwidth": 0.0}, "bandwidth"),
    ],
)
def test_wrong_input_is_refused(decode, particles, latents, imaging, change, found):
    arguments = {"path": way(*UNBRIDGED, n=3), "latents": latents, "imaging": imaging} | change
    with pytest.raises(InputError, match=f"(?s){found}"):
        pathway_support(decode, particles, **arguments)
