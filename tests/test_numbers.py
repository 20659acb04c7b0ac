"""Numbers that no image, latent or argument should have are refused by name: no exception of another package."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError, explained, guarded
from cryotwin_nb.evaluation import kl_lower_bound, kl_neighbours, metric_tensors, principal_axes
from cryotwin_nb.mixture.points import require_points
from cryotwin_nb.training import failures

PRIOR = ct.GaussianMixture([0.4, 0.3, 0.3], torch.tensor([[0.0, 0], [6, 0], [3, 5]]), torch.eye(2).repeat(3, 1, 1))
Z = PRIOR.sample(80)


def decode(z):
    return z[:, :1, None, None] * torch.linspace(0, 1, 512).view(8, 8, 8) + z[:, 1:, None, None]


USES = {
    "fit": lambda z: ct.GaussianMixture.fit(z, 2),
    "log_prob": PRIOR.log_prob,
    "responsibilities": PRIOR.responsibilities,
    "select_near": lambda z: ct.select_near(z, [1.0, 1.0], n=5),
    "place": lambda z: ct.select_near(Z, z, n=5),
    "select_state": lambda z: ct.select_state(z, PRIOR, 0),
    "find_routes": lambda z: ct.find_routes(PRIOR, 0, 1, evidence=z),
    "bootstrap_path": lambda z: ct.bootstrap_path(PRIOR, z, ct.max_flux(PRIOR, 0, 1, n_steps=2), n_draws=1),
    "kl_divergence": lambda z: ct.kl_divergence(z, PRIOR),
    "kl_lower_bound": lambda z: kl_lower_bound(z, PRIOR, 2),
    "kl_neighbours": lambda z: kl_neighbours(z, PRIOR),
    "isometry": lambda z: ct.isometry(decode, z, n_pairs=3),
    "metric_tensors": lambda z: metric_tensors(decode, z, n_points=2),
    "principal_axes": principal_axes,
}


def with_row(value):
    z = Z.clone()
    z[3, 1] = value
    return z


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (with_row(torch.nan), "nan in row 3"),
        (with_row(torch.inf).numpy(), "inf in row 3"),
        (Z.numpy() + 1j, "numbers"),
        (Z.numpy().astype(str), "numbers"),
        (None, "numbers|shape"),
        (Z[:, :, None], "shape"),
    ],
    ids=["NaN", "infinity", "complex", "text", "None", "3-D"],
)
def test_latents_are_refused_by_name(name, latents, message):
    if latents is None and name == "find_routes":
        pytest.skip("None is the default")
    with pytest.raises(InputError, match=message):
        USES[name](latents)


def test_latents_of_any_numeric_type_are_accepted():
    for z in (
        Z.numpy().astype(">f8"),
        Z.numpy()[::-1],
        Z.tolist(),
        Z.half(),
        Z.clone().requires_grad_(),
        Z.round().int(),
    ):
        assert require_points(z).shape == (80, 2)
        assert len(ct.select_near(z, Z[0], n=5)) == 5
        assert PRIOR.log_prob(z).shape == (80,)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ct.select_near(Z, Z[0], n=5.5),
        lambda: ct.select_near(Z, Z[0], radius="5"),
        lambda: ct.GaussianMixture.fit(Z, n_init=0),
        lambda: ct.GaussianMixture.fit(Z, seed=None),
        lambda: ct.GaussianMixture.fit(Z, 2, weights=["a"] * 80),
        lambda: PRIOR.sample(2.5),
        lambda: PRIOR.log_window_mass(Z, "3"),
        lambda: ct.max_flux(PRIOR, 0, 1, n_steps=10**9),
        lambda: ct.max_flux(PRIOR, True, 0),
        lambda: ct.find_routes(PRIOR, 0, 1, n_draws=1.5),
        lambda: ct.find_routes(PRIOR, 0, 1, states="a"),
        lambda: ct.ridgeline(PRIOR, 0, 1, n_samples=None),
        lambda: ct.find_states(PRIOR, threshold="a"),
        lambda: ct.kl_divergence(torch.ones(50, 2), PRIOR),
        lambda: ct.fsc(np.full((8, 8, 8), np.nan), np.ones((8, 8, 8)), 2.0),
        lambda: ct.fsc(np.ones((8, 8, 8)), np.ones((8, 8, 8)), "2"),
        lambda: ct.write_map("m.mrc", "abc", 2.0),
        lambda: ct.CryoTwin(2**20),
        lambda: ct.CryoTwin(16, n_components=2**70),
        lambda: ct.TrainingConfig(seed=2**70),
    ],
)
def test_arguments_are_refused_by_name(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        call()


def test_a_map_of_huge_values_agrees_with_itself():
    volume = 1e300 * np.random.default_rng(0).normal(size=(8, 8, 8))
    assert ct.fsc(volume, volume, 2.0).correlation == pytest.approx(1)


def test_one_latent_dimension_and_equal_latents_have_a_map_or_are_refused():
    line = ct.GaussianMixture([1.0], torch.zeros(1, 1), torch.ones(1, 1, 1))
    assert np.isfinite(ct.embed_tsne(line.sample(40), line).latents).all()
    with pytest.raises(InputError, match="different latents"):
        ct.embed_tsne(torch.ones(40, 2), PRIOR)


def test_memory_and_singular_matrices_become_our_error():
    @guarded(n=(1, 5))
    def function(n: int = 1, size: float | None = None):
        torch.linalg.cholesky(-torch.eye(n))

    assert str(inspect.signature(function)) == "(n: 'int' = 1, size: 'float | None' = None)"
    with pytest.raises(InputError, match="n: found 6, expected an integer from 1 to 5"):
        function(6)
    with pytest.raises(InputError, match="size: found nan"):
        function(size=np.float32("nan"))
    with pytest.raises(InputError, match="a matrix is singular"):
        function(np.int64(2))
    for allocate in (lambda: torch.empty(10**14), lambda: np.empty(10**15), lambda: torch.empty(2**62, 8)):
        with pytest.raises(InputError, match="x: the memory is exhausted"), explained("x"):
            allocate()
    with pytest.raises(RuntimeError, match="anything"), explained("x"):
        raise RuntimeError("anything else")


def test_training_says_what_fits_into_memory(monkeypatch):
    particles = ct.simulate.hinge(10, 32, progress=False)
    model = ct.CryoTwin(32, latent_dim=2, n_components=2)
    monkeypatch.setattr(failures, "available", lambda device: 2e7)
    with pytest.raises(
        InputError, match=r"(?s)box of 32 pixels and 12 directions .* 0.033 GB .* 0.02 GB .*--box-size 16"
    ):
        ct.fit(model, particles, ct.TrainingConfig(device="cpu"))
    assert failures.needed(96, 13) < 1.77e9 and failures.needed(128, 5) < 2.1e9  # measured peaks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: np.full_like(x, 5), "grey values of about 5 that deviate by 0"),
        (lambda x: 1e6 + 0.01 * x / x.std(), "grey values of about 1e.06 that deviate by 0.0"),
        (lambda x: x * np.float32(1e-12), "no noise outside"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*set aside")
def test_images_that_determine_no_map_are_named(change, message):
    base = ct.simulate.hinge(20, 16, progress=False)
    images = change(base.images(slice(None))).astype(np.float32)
    particles = ct.Particles(images, base.rotations, base.shifts, base.ctf, pixel_size=base.pixel_size)
    with pytest.raises(InputError, match=message):
        ct.fit(
            ct.CryoTwin(16, latent_dim=2, n_components=2), particles, ct.TrainingConfig(device="cpu"), progress=False
        )


def test_a_device_that_does_not_exist_is_refused():
    particles = ct.simulate.hinge(10, 16, progress=False)
    with pytest.raises(InputError, match="device: found 'gpu'"):
        ct.fit(ct.CryoTwin(16, latent_dim=2, n_components=2), particles, ct.TrainingConfig(device="gpu"))


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_names_that_a_file_system_refuses_are_refused_first(tmp_path, name):
    with pytest.raises(InputError, match="name of at most 200 bytes"):
        ct.write_map(f"{tmp_path}/{name}.mrc", np.ones((8, 8, 8)), 2.0)


def test_names_that_are_no_text_are_refused_or_shown(tmp_path):
    with pytest.raises(InputError, match="Pass a text for each component"):
        ct.evaluation.write_labels(tmp_path / "labels.json", {0: b"bytes"})
    with pytest.raises(InputError, match=r"labels: found labels of shape \(80, 2\)"):
        ct.plotting.latent_scatter(Z, PRIOR, labels=[("a", "b")] * 80)


def test_a_ctf_without_contrast_and_images_without_content_are_refused():
    base = ct.simulate.hinge(20, 16, progress=False)
    given = {name: getattr(base, name) for name in ("rotations", "shifts", "ctf", "pixel_size")}
    fields = ("amplitude_contrast", "defocus_u", "defocus_v", "spherical_aberration")
    no_ctf = replace(base.ctf, **{name: np.zeros(20) for name in fields})
    with pytest.raises(InputError, match="CTF: found 0 at all frequencies"):
        ct.reconstruct(ct.Particles(base.images(slice(None)), **given | {"ctf": no_ctf}))
    with pytest.raises(InputError, match="no noise outside"):
        ct.reconstruct(ct.Particles(np.zeros((20, 16, 16), np.float32), **given))


def test_equal_latents_do_not_bootstrap_a_path():
    path = ct.max_flux(PRIOR, 0, 1, n_steps=2)
    with pytest.raises(InputError, match="latents: found latents whose density has no finite path"):
        ct.bootstrap_path(PRIOR, torch.ones(20, 2), path, n_draws=1)


def test_no_path_leads_from_a_mean_to_itself():
    twins = ct.GaussianMixture([0.5, 0.5], torch.zeros(2, 2), torch.eye(2).repeat(2, 1, 1))
    for way in (ct.ridgeline, ct.ridgeline_chain, ct.max_flux):
        with pytest.raises(InputError, match="same"):
            way(twins, 0, 1)
