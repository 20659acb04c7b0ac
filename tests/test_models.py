import math
import pickle

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import fft3, grid
from cryotwin_nb.imaging.optics import slice_coordinates
from cryotwin_nb.models.average import AverageMap
from cryotwin_nb.models.storage import write_model
from cryotwin_nb.models.views import canonical_view, lattice_points, placed_images, turned_images
from cryotwin_nb.truth.molecules import axis_rotation

SMALL = dict(architecture="coordinate", latent_dim=3, n_components=5, width=24, depth=2, n_features=20)


@pytest.fixture(scope="module")
def particles():
    return ct.simulate.assembly(40, 16, progress=False)


@pytest.fixture(scope="module", params=[False, True], ids=["default", "plain"])
def model(request, particles):
    model = ct.CryoTwin(16, **SMALL, plain=request.param)
    model.imaging.measure(particles)
    assert not list(model.networks.passes(lambda n=None: [model.imaging.batch(particles, np.arange(40))], beta=2.0))
    return model


def test_decoder_is_hermitian_everywhere(model):
    positions, z = 6 * torch.randn(1, 50, 3), torch.randn(2, 3)
    with torch.no_grad():
        there, back = model.networks.density(positions, z), model.networks.density(-positions, z)
    assert torch.allclose(there, back.conj(), atol=1e-5 * float(there.abs().max()))


@pytest.fixture
def unmasked(monkeypatch):
    monkeypatch.setattr(AverageMap, "mask", lambda self, imaging: torch.ones_like(self.map))


def test_volumes_and_slices_show_the_same_density(model, unmasked):
    z = torch.randn(1, 3)
    rotation = torch.eye(3)[[1, 2, 0]][None]  # an axis permutation: slices fall on the lattice
    with torch.no_grad():
        slices = model.networks.slices(rotation, z)[0]
    slices = slices[model.imaging.frequencies.norm(dim=1) < 8]
    v = slice_coordinates(model.imaging.frequencies[: len(slices)], rotation)[0].long() + 8
    on_lattice = fft3(model.volumes(z)[0])[v[:, 2], v[:, 1], v[:, 0]]
    near = 1e-4 if model.networks.plain else 0.03  # slices of the average map are interpolated
    assert torch.allclose(slices[1:], on_lattice[1:], atol=near * float(slices.abs().max()))  # except the mean


def test_volumes_are_real_maps_zero_beyond_nyquist(model, unmasked):
    maps = model.volumes(torch.randn(2, 3))
    maps = maps if model.networks.plain else maps[:1] - maps[1:]  # the average map has a mask
    assert maps.shape[1:] == (16, 16, 16) and maps.dtype == torch.float32 and not maps.requires_grad
    outside = grid(16, 3).double().norm(dim=-1) >= (8 if model.networks.plain else 8.5)
    spectrum = fft3(maps[0].double()).abs()
    assert spectrum[outside].max() < 1e-5 * spectrum.max()


def test_volumes_are_zero_outside_the_particle_except_in_plain_networks(model):
    outside = grid(16, 3).float().norm(dim=-1) > 0.4 * 16 + 1
    maps = model.networks.volumes(torch.randn(2, 3))
    share = float(maps[:, outside].norm() / maps.norm())
    assert share > 0.05 if model.networks.plain else share == 0


def test_encoder_sees_past_in_plane_turns_and_mirror_images(particles):
    """One structure seen from one direction, rotated in the plane, and from behind: the same canonical image."""
    source = ct.simulate.assembly(4, 64, snr=1e6, shift_std=0, progress=False)
    turn = axis_rotation(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 0.9, 2.5, 4.0])).numpy()
    base = source.rotations[0]
    rotations = base @ turn
    rotations[3] = rotations[3] @ np.diag([1.0, -1.0, -1.0]).astype(np.float32)
    truth = source.truth[np.zeros(4, dtype=int)]
    ctf = source.ctf[np.zeros(4, dtype=int)]
    ctf.defocus_v[:] = ctf.defocus_u  # astigmatism would rotate with the camera, not with the particle
    from cryotwin_nb.simulate.images import _project

    positions, masses = truth.structure(torch.as_tensor(truth.coordinates))
    images = _project(
        positions.expand(4, -1, -1), masses, torch.as_tensor(rotations), ctf, torch.zeros(4, 2), 64, truth.pixel_size
    )
    images += 1e-6 * np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    seen = ct.Particles(
        images=images, rotations=rotations, shifts=np.zeros((4, 2)), ctf=ctf, pixel_size=truth.pixel_size
    )
    model = ct.CryoTwin(64, **SMALL, plain=True)
    model.imaging.pixel_size.fill_(truth.pixel_size)
    batch = model.imaging.batch(seen, np.arange(4))
    images = model.networks.filtered(batch)
    canonical, direction = turned_images(images, batch.rotations)
    flat = canonical.flatten(1)
    flat = flat / flat.norm(dim=1, keepdim=True)
    assert (flat @ flat[0]).min() > 0.97  # bilinear resampling
    assert torch.allclose(direction, direction[:1].expand(4, 3), atol=1e-5) and (direction[:, 2] >= 0).all()
    placed, views = placed_images(images, batch.rotations, lattice_points(25.6, 2.56))
    placed = placed / placed.norm(dim=1, keepdim=True)
    assert (placed @ placed[0]).min() > 0.97 and torch.allclose(views, views[:1].expand(4, 6), atol=1e-5)


def test_canonical_view_of_the_pole_is_finite():
    turn, direction = canonical_view(torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, -1.0]))]))
    assert torch.isfinite(turn).all() and torch.equal(direction, torch.tensor([[0.0, 0, 1], [0, 0, 1]]))


def test_noise_width_is_a_gauge_of_the_networks(particles):
    narrow, wide = (ct.CryoTwin(16, **SMALL, noise_width=t) for t in (1.0, 3.0))
    for model in (narrow, wide):
        model.imaging.measure(particles)
    z = narrow.embed(particles)
    assert torch.allclose(3 * z, wide.embed(particles), rtol=1e-4, atol=1e-5)
    maps = narrow.volumes(z[:2])
    assert torch.allclose(maps, wide.volumes(3 * z[:2]), atol=1e-5 * float(maps.abs().max()))


def test_save_and_load_round_trip(model, particles, tmp_path):
    model.prior = ct.GaussianMixture([0.25, 0.75], torch.randn(2, 3), torch.eye(3).expand(2, 3, 3))
    path = tmp_path / "deep" / "model.safetensors"
    model.save(path)
    back = ct.CryoTwin.load(path)
    assert back.config == model.config
    assert torch.equal(back.embed(particles), model.embed(particles))
    assert torch.equal(back.prior.means, model.prior.means) and back.prior.n_components == 2
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_embed_has_the_promised_form_and_order(model, particles):
    z = model.embed(particles)
    assert z.shape == (40, 3) and z.dtype == torch.float32 and z.device.type == "cpu"
    assert torch.allclose(model.embed(particles[[5, 2]]), z[[5, 2]], atol=1e-5)
    assert torch.allclose(model.embed(particles, batch_size=7), z, atol=1e-5)


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def damaged(kind: str, path, model) -> None:
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        model.save(path) if path.suffix == ".safetensors" else torch.save(model.payload(), path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "text":
        path.write_text("not a model")
    elif kind == "hostile":
        torch.save({"format": "cryotwin_nb model 1", "config": Hostile()}, path)
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps(Hostile()))
    elif kind == "another program's":
        torch.save({"state_dict": {}}, path)
    elif kind == "other box":
        other = ct.CryoTwin(32, **SMALL)
        payload = other.payload() | {"config": model.config}
        write_model(payload, path) if path.suffix == ".safetensors" else torch.save(payload, path)
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize(
    "kind",
    ["missing", "empty", "truncated", "text", "hostile", "plain pickle", "another program's", "other box", "folder"],
)
@pytest.mark.parametrize("name", ["checkpoint.pt", "model.safetensors"])
def test_files_that_are_no_models_are_refused(kind, name, model, tmp_path):
    path = tmp_path / name
    damaged(kind, path, model)
    with pytest.raises(
        InputError, match=f"(?s){name} (does not exist|is a|is not a|cannot be read as|holds no weights)"
    ):
        ct.CryoTwin.load(path)


def test_a_model_of_an_earlier_build_is_refused_with_the_commit_that_reads_it(model, tmp_path):
    torch.save(model.payload() | {"format": "cryotwin_nb model 3"}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"(?s)model\.pt was written by an earlier build; .* commit 402ee49\.\nTrain"):
        ct.CryoTwin.load(tmp_path / "model.pt")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_flipped_bit_is_noticed(share, model, tmp_path):
    path = tmp_path / "model.safetensors"
    model.save(path)
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged|cannot be read as|holds no weights"):
        ct.CryoTwin.load(path)


def test_a_history_with_nan_comes_back(model, tmp_path):
    model.history.log_evidence, model.history.n_components = [math.nan, -3.5], 4
    model.save(tmp_path / "model.safetensors")
    back = ct.CryoTwin.load(tmp_path / "model.safetensors").history
    assert math.isnan(back.log_evidence[0]) and back.log_evidence[1] == -3.5 and back.n_components == 4
    model.history.log_evidence, model.history.n_components = [], None


@pytest.mark.parametrize("given", [True, False, 1, 0, np.True_, np.int64(1)])
def test_boolean_options_come_back_from_disk_as_they_were(given, tmp_path):
    model = ct.CryoTwin(8, latent_dim=1, n_components=2, n_basis=1, width=2, contrast=given)
    model.save(tmp_path / "model.safetensors")
    assert ct.CryoTwin.load(tmp_path / "model.safetensors").config["contrast"] is bool(given)


@pytest.mark.parametrize("given", [0.5, 2, "yes", None, 1.0, "True"])
def test_boolean_options_take_nothing_else(given):
    with pytest.raises(InputError, match=r"(?s)contrast: found .*, expected True or False"):
        ct.CryoTwin(8, latent_dim=1, contrast=given)
    with pytest.raises(InputError, match=r"(?s)final_em: found .*, expected True or False"):
        ct.TrainingConfig(final_em=given)


def test_a_misspelt_option_is_told_with_those_there_are():
    with pytest.raises(InputError, match=r"The subspace architecture has no option 'n_bases'\.\nUse .* n_basis, width"):
        ct.CryoTwin(8, latent_dim=1, n_bases=4)
    with pytest.raises(InputError, match=r"The coordinate architecture has no option 'contrast'\."):
        ct.CryoTwin(8, "coordinate", latent_dim=1, contrast=True)


def test_nothing_is_left_when_saving_fails(model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "m.safetensors").mkdir()
    for path in (tmp_path / "file" / "model.safetensors", tmp_path / "m.safetensors"):
        with pytest.raises(InputError, match=r"cannot be (created|written)"):
            model.save(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "m.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"box_size": 15}, "even box"),
        ({"box_size": 16, "architecture": "transformer"}, "'coordinate'"),
        ({"box_size": 16, "latent_dim": 0}, "latent_dim"),
        ({"box_size": 16, "noise_width": 0.0}, "noise_width"),
        ({"box_size": 16, "weighting": "none"}, "weighting"),
        ({"box_size": 16, "latent_dim": 2.5}, "latent_dim"),
        ({"box_size": 16, "particle_radius": 12}, "fraction of the box"),
        ({"box_size": 16, "particle_radius": 0.0}, "particle_radius"),
    ],
)
def test_impossible_models_are_refused(arguments, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        ct.CryoTwin(**arguments)


def test_particles_that_do_not_fit_are_refused(model, particles):
    with pytest.raises(InputError, match="box"):
        ct.CryoTwin(32, **SMALL).embed(particles)
    with pytest.raises(InputError, match="seen no images"):
        ct.CryoTwin(16, **SMALL).embed(particles)
    with pytest.raises(InputError, match="empty selection"):
        model.embed(particles[[]])
    with pytest.raises(InputError, match="pixel size"):
        model.embed(ct.simulate.assembly(3, 16, pixel_size=7.0, progress=False))
    images = particles.images(np.arange(4))
    with pytest.raises(InputError, match="no poses"):
        model.embed(ct.Particles(images=images, ctf=particles.ctf[np.arange(4)], pixel_size=particles.pixel_size))
    with pytest.raises(InputError, match="no CTF"):
        model.embed(ct.Particles(images=images, rotations=particles.rotations[:4], pixel_size=particles.pixel_size))


def test_latents_of_the_wrong_shape_are_refused(model):
    for z in (torch.zeros(3), torch.zeros(0, 3), torch.full((1, 3), torch.nan)):
        with pytest.raises(InputError, match="volumes"):
            model.volumes(z)


def test_maps_are_zero_outside_the_particle_on_average(model):
    maps = model.volumes(torch.randn(2, 3))
    outside = grid(16, 3).float().norm(dim=-1) >= (0.4 + 1 / 16) * 16
    assert maps[:, outside].mean(1).abs().max() < 1e-5 * maps.abs().max()


def test_foreign_optics_groups_fall_back_on_the_pooled_noise(particles):
    groups = np.arange(40) % 2
    both = ct.Particles(
        images=particles.images(np.arange(40)),
        rotations=particles.rotations,
        shifts=particles.shifts,
        ctf=particles.ctf,
        pixel_size=particles.pixel_size,
        optics_group=groups,
    )
    model = ct.CryoTwin(16, **SMALL)
    model.imaging.measure(both, min_group=10)
    assert model.imaging.batch(both, np.arange(4)).group.tolist() == [1, 2, 1, 2]
    model.embed(both)
    with pytest.warns(UserWarning, match="pooled noise"):
        model.embed(both[np.arange(1, 40, 2)])


def test_the_encoder_sees_what_lies_within_the_window(model):
    inside, n_in = int((model.imaging.window > 0).sum()), model.networks.encoder.first.in_features
    assert inside < 16 * 16
    assert n_in == inside + 3 if model.networks.plain else n_in == len(lattice_points(6.4, 1.0)) + 6


def test_networks_start_near_the_average_map_and_encode_deviations_from_it(particles):
    model = ct.CryoTwin(16, **SMALL)
    model.imaging.measure(particles)
    batch, networks = model.imaging.batch(particles, np.arange(40)), model.networks
    list(networks.passes(lambda n=None: [batch], beta=2.0))
    average, z = networks.average, torch.zeros(40, 3)
    with torch.no_grad():
        expected = average.slices(model.imaging.frequencies, batch.rotations)
        found = networks.slices(batch.rotations, z)
        assert (found - expected).norm() < 0.2 * expected.norm()
        copy = batch._replace(data=expected * batch.transfer)  # images of the average map, without noise
        assert float(average.removed(model.imaging, copy).data.abs().max()) < 1e-6
    exact = model.imaging.distortion(batch, expected * batch.transfer).mean()
    assert float(exact) < 0.9 * float(model.imaging.distortion(batch, 0 * expected).mean())


def test_maps_vary_linearly_with_latents_at_first_and_always_without_a_latent_width(particles):
    z = torch.tensor([[1.0, -2, 0.5]])
    for latent_width, taught, curved in ((8, False, False), (8, True, True), (0, False, False)):
        model = ct.CryoTwin(16, **SMALL, latent_width=latent_width)
        model.imaging.measure(particles)
        if taught:
            torch.nn.init.normal_(model.networks.factors.curved.last.weight)
        ahead, here, behind = model.volumes(torch.cat([z, 0 * z, -z]))
        bend = (ahead + behind - 2 * here).norm() / (ahead - behind).norm()
        assert (float(bend) > 0.01) is curved, (latent_width, taught, float(bend))


def test_terms_are_sums_over_the_coefficients_that_are_drawn(model, particles):
    networks, z = model.networks, torch.randn(40, 3)
    batch, n = model.imaging.batch(particles, np.arange(40)), len(model.imaging.frequencies)
    with torch.no_grad():
        whole, prior = networks.terms(batch, z, n)
        halves = [networks.terms(batch, z, n, torch.arange(start, n, 2)) for start in (0, 1)]
    shares = torch.tensor([(n + 1) // 2, n // 2]) / n
    torch.testing.assert_close(whole, networks.distortion(batch, z), rtol=1e-4, atol=0)
    torch.testing.assert_close(whole, sum(h[0] * s for h, s in zip(halves, shares, strict=True)), rtol=1e-4, atol=0)
    torch.testing.assert_close(prior, sum(h[1] * s for h, s in zip(halves, shares, strict=True)), rtol=1e-4, atol=0)
    assert bool((prior > 0).all()) is not model.networks.plain


def test_the_prior_of_the_maps_is_the_norm_of_their_deviations(particles):
    """Minus twice the log of a Gaussian with the measured power, per image, from slices instead of the volume."""
    model = ct.CryoTwin(16, **SMALL, weighting="paper")
    model.imaging.measure(particles)
    networks, size = model.networks, 16
    list(networks.passes(lambda n=None: [model.imaging.batch(particles, np.arange(40))], beta=2.0))
    networks.signal.fill_(0.5)
    z = torch.randn(1, 3).expand(400, 3)
    batch = model.imaging.batch(particles, np.arange(40)).take(torch.arange(40).repeat(10))
    views = torch.as_tensor(Rotation.random(400, random_state=0).as_matrix()).float()  # 40 views are too few for a mean
    with torch.no_grad():
        prior = networks.terms(batch._replace(rotations=views), z, None)[1].mean()
    axis = torch.arange(-8, 9).float()
    lattice = torch.cartesian_prod(axis, axis, axis)
    radius = lattice.norm(dim=1)
    lattice, radius = lattice[radius < size / 2 + 1], radius[radius < size / 2 + 1]
    with torch.no_grad():
        power = (networks.density(lattice[None], z[:1])[0] / 0.5).abs().square()
    weights = float(model.imaging.kappa) * radius  # of the paper's ramp
    assert float(prior) == pytest.approx(float((weights * power).sum()) / 40, rel=0.15)


def test_models_of_earlier_builds_load_as_the_networks_of_the_paper(model, particles, tmp_path):
    payload = model.payload()
    options = ("plain", "latent_width", "view_width")
    payload["config"] = {k: v for k, v in payload["config"].items() if k not in options}
    write_model(payload, tmp_path / "earlier.safetensors")
    if model.networks.plain:
        back = ct.CryoTwin.load(tmp_path / "earlier.safetensors")
        assert torch.equal(back.embed(particles), model.embed(particles))
    else:
        with pytest.raises(InputError, match="no weights that fit"):
            ct.CryoTwin.load(tmp_path / "earlier.safetensors")


@pytest.mark.parametrize(
    ("missing", "commit"), [(("latent_width", "view_width"), "5fd7360"), (("view_width",), "b40a488")]
)
def test_coordinate_networks_of_two_earlier_builds_are_refused_in_a_sentence(model, tmp_path, missing, commit):
    payload = model.payload()
    payload["config"] = {k: v for k, v in payload["config"].items() if k not in missing} | {"plain": False}
    write_model(payload, tmp_path / "earlier.safetensors")
    with pytest.raises(InputError, match=rf"coordinate networks of an earlier build; the last .* is commit {commit}"):
        ct.CryoTwin.load(tmp_path / "earlier.safetensors")
