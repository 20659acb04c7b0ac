"""The images choose directions, dimensions of the latents and whether contrasts vary."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsRegressor

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import coordinate_r2
from cryotwin_nb.models import closed_form
from cryotwin_nb.particles.streaming import batches
from cryotwin_nb.reconstruction.spectrum import gains
from cryotwin_nb.reconstruction.statistics import Statistics, posterior, with_contrast
from cryotwin_nb.training.fitting import found_directions

N, SIZE = 1500, 24


def images(kind: str = "assembly", n: int = N, **options) -> ct.Particles:
    return getattr(ct.simulate, kind)(n, SIZE, seed=1, progress=False, **{"snr": 2.0, **options})


def fitted(particles: ct.Particles, epochs: int = 2, **options) -> ct.CryoTwin:
    model = ct.CryoTwin(particles.box_size, n_components=10, **options)
    ct.fit(model, particles, ct.TrainingConfig(epochs=epochs, device="cpu"), progress=False)
    return model


@pytest.fixture(scope="module")
def even() -> ct.Particles:
    return images()


@pytest.fixture(scope="module")
def uneven() -> ct.Particles:
    return images(contrast_std=0.2)


@pytest.fixture(scope="module")
def chosen(even) -> ct.CryoTwin:
    return fitted(even)


@pytest.fixture(scope="module")
def with_contrasts(uneven) -> ct.CryoTwin:
    return fitted(uneven, latent_dim=8)  # more directions than the molecule has


def true_contrasts() -> np.ndarray:
    clean, scaled = (
        images(snr=1e9, contrast_std=spread).images(np.arange(N)).reshape(N, -1).astype(np.float64)
        for spread in (0.0, 0.2)
    )
    return (scaled * clean).sum(1) / (clean**2).sum(1)


# Dimensions


def test_five_independent_blocks_give_five_dimensions(even, chosen):
    assert chosen.latent_dim == chosen.config["n_basis"] == chosen.spectrum.n_live == 5
    assert chosen.embed(even[:3]).shape == (3, 5)
    assert min(coordinate_r2(chosen.embed(even), even.truth).values()) > 0.9
    assert "support 5 directions" in found_directions(chosen) and "contrasts do not vary" in found_directions(chosen)


def test_a_model_without_its_dimension_says_that_it_must_be_fitted(tmp_path):
    model = ct.CryoTwin(SIZE)
    assert model.latent_dim is None
    for use in (
        lambda: model.prior,
        lambda: model.volumes(torch.zeros(1, 8)),
        lambda: model.save(tmp_path / "m.safetensors"),
    ):
        with pytest.raises(InputError, match="Call fit first"):
            use()
    assert not list(tmp_path.iterdir())


def test_a_chosen_dimension_comes_back_from_disk(even, chosen, tmp_path):
    chosen.save(tmp_path / "m.safetensors")
    back = ct.CryoTwin.load(tmp_path / "m.safetensors")
    assert back.latent_dim == 5 and back.spectrum == chosen.spectrum
    assert torch.equal(back.embed(even[:20]), chosen.embed(even[:20]))


@pytest.mark.parametrize("stop", [2, 5, 8, 11, "epoch 1"])
def test_a_choice_is_resumed_to_the_bit(stop, even, chosen, tmp_path, monkeypatch):
    particles = even
    path, plain, calls = tmp_path / "c.pt", closed_form.iterate, []

    def iterate(*arguments):
        calls.append(None)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return plain(*arguments)

    def after(history, model):
        if stop == "epoch 1":
            raise KeyboardInterrupt

    model, config = ct.CryoTwin(SIZE, n_components=10), ct.TrainingConfig(epochs=2, device="cpu", checkpoint=path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(closed_form, "iterate", iterate)
        ct.fit(model, particles, config, callbacks=[after], progress=False)
    again = ct.CryoTwin(SIZE, n_components=10)
    ct.fit(again, particles, config, resume=path, progress=False)
    assert again.config == chosen.config and again.spectrum == chosen.spectrum
    for name, value in chosen.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_checkpoint_of_another_choice_is_refused(even, tmp_path):
    path = tmp_path / "c.pt"
    config = ct.TrainingConfig(epochs=1, device="cpu", checkpoint=path)
    ct.fit(ct.CryoTwin(SIZE, n_components=10), even[:300], config, progress=False)
    with pytest.raises(InputError, match="latent_dim was 'auto' and is now 4"):
        ct.fit(ct.CryoTwin(SIZE, latent_dim=4, n_components=10), even[:300], config, resume=path, progress=False)


def test_an_explicit_dimension_says_what_it_leaves_out_or_leaves_empty(even):
    assert "carry nothing" in found_directions(fitted(even, 1, latent_dim=7))
    few = fitted(even, 1, latent_dim=2)
    assert few.config["n_basis"] == 5 and "curved surface in 5 directions" in found_directions(few)


def test_noise_alone_supports_no_direction():
    particles = images(n=400)
    noise = np.random.default_rng(0).normal(size=(400, SIZE, SIZE)).astype(np.float32)
    lone = ct.Particles(noise, particles.rotations, particles.shifts, particles.ctf, pixel_size=particles.pixel_size)
    model = fitted(lone, 1)
    assert model.spectrum.n_live == 0 and "support no direction" in found_directions(model)
    assert float(model.networks.contrast_spread) == 0
    assert model.latent_dim == 1 and bool(model.volumes(model.embed(lone[:2])).isfinite().all())


def test_contrasts_that_depend_on_the_optics_group_are_fitted_and_reported(even, tmp_path, capsys):
    group = np.arange(N) % 2
    clean = images(snr=1e9).images(np.arange(N))
    changed = even.images(np.arange(N)) + np.where(group, 0.25, -0.25).astype(np.float32)[:, None, None] * clean
    views = even.rotations, even.shifts, even.ctf
    ct.Particles(changed, *views, pixel_size=even.pixel_size, optics_group=group).write(tmp_path / "p.star")
    options = ["--contrast", "dark", "--n-components", "10", "--epochs", "1", "--device", "cpu"]
    assert main(["train", f"{tmp_path / 'p.star'}", "--output", f"{tmp_path / 'run'}", *options]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "differs between optics groups" in line)
    low, high = (float(part.split()[0]) for part in line.split(": ")[1].split(", "))
    shrunk = 0.25 * (1 - 0.25**2)  # by the prior: its deviation is 0.25, that of an estimate is 0.06
    assert low == pytest.approx(1 - shrunk, abs=0.03) and high == pytest.approx(1 + shrunk, abs=0.03)


def test_groups_of_equal_contrasts_are_not_reported(with_contrasts, uneven):
    assert with_contrasts.contrasts(uneven).of_groups(np.arange(N) % 3) == {}


def test_a_direction_along_the_average_map_is_reported(uneven):
    model = fitted(uneven, 1, latent_dim=6, contrast=False)
    flat, average = model.networks.basis.flatten(1), model.networks.mean.flatten()
    cosines = flat @ average / average.norm()
    found = found_directions(model)
    assert float(cosines.abs().max()) > 0.7
    number = int(cosines.abs().argmax()) + 1
    assert f"Direction {number} is nearly parallel to the average map" in found and found.count("parallel") == 1


def test_the_coordinate_networks_keep_the_dimension_of_the_paper():
    assert ct.CryoTwin(16, "coordinate").latent_dim == 8


def test_the_coordinate_networks_report_live_dimensions_and_that_they_fit_no_contrasts(even, capsys):
    model = ct.CryoTwin(SIZE, "coordinate", latent_dim=3, n_components=4, width=16, depth=1, n_features=16)
    ct.fit(model, even[:300], ct.TrainingConfig(epochs=1, device="cpu"))
    shown = capsys.readouterr().out
    assert "of 3 dimensions. The coordinate architecture does not fit contrasts" in shown
    cigar = torch.diag(torch.tensor([4.0, 1.0, 1e-6])).double()
    model.prior = ct.GaussianMixture([1.0], torch.zeros(1, 3), cigar[None])
    assert "vary in 2 of 3 dimensions" in found_directions(model)
    with pytest.raises(InputError, match="contrast"):
        ct.CryoTwin(SIZE, "coordinate", contrast=True)


def test_gains_are_differences_of_log_evidence():
    """Against the evidence of nested models by `posterior`, with and without contrasts."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 7, 4, dtype=torch.float64, generator=generator)
    b, G = torch.randn(5, 4, dtype=torch.float64, generator=generator), root.mT @ root
    full, variances = Statistics(b, G, torch.zeros(5)), torch.tensor([2.0, 0.7, 0.1]).double()

    def gaussian(some: torch.Tensor) -> ct.GaussianMixture:
        return ct.GaussianMixture([1.0], torch.zeros(1, len(some)).double(), some.diag()[None])

    for spread in (0.0, 0.3):
        evidence = []
        for k in range(4):
            kept = torch.cat([variances[:k], torch.full((3 - k,), 1e-12).double()])
            if spread:
                evidence.append(posterior(full.b, full.G, with_contrast(gaussian(kept), spread)).log_evidence)
            else:
                given = full.given(torch.ones(5))
                evidence.append(posterior(given.b, given.G, gaussian(kept)).log_evidence)
        torch.testing.assert_close(
            gains(full, variances, spread), torch.stack(evidence, 1).diff(dim=1), rtol=1e-6, atol=1e-6
        )


# Contrasts


def test_contrasts_are_found_with_more_directions_than_motions(with_contrasts):
    assert float(with_contrasts.networks.contrast_spread) == pytest.approx(0.2, rel=0.1)


def test_latents_are_free_of_the_contrasts(uneven, with_contrasts):
    z, contrast = with_contrasts.embed(uneven).numpy(), true_contrasts()
    centred = np.column_stack([np.ones(N), z])
    rest = contrast - centred @ np.linalg.lstsq(centred, contrast, rcond=None)[0]
    half = N // 2
    near = KNeighborsRegressor(10).fit(z[:half], contrast[:half]).predict(z[half:])
    assert 1 - rest.var() / contrast.var() < 0.1
    assert 1 - ((contrast[half:] - near) ** 2).mean() / contrast[half:].var() < 0.1
    assert min(coordinate_r2(with_contrasts.embed(uneven), uneven.truth).values()) > 0.9


def test_directions_that_carry_nothing_do_not_enter_the_latents(uneven, with_contrasts):
    """Posterior means in dead directions are tiny, but scaled to unit variance they reveal the contrast."""
    dead = [k for k, live in enumerate(with_contrasts.spectrum.live) if not live]
    assert len(dead) == 3
    batch = next(iter(batches(with_contrasts.imaging, uneven, 100, None)))
    records = with_contrasts.networks.prepare(batch)
    changed = records.expected.clone()
    changed[:, dead] += torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(with_contrasts.encode(records)[0], with_contrasts.encode(records._replace(expected=changed))[0])


def test_the_evidence_of_images_does_not_depend_on_dead_coordinates(uneven, with_contrasts):
    """A state that lies 0.1 off in a dead direction would otherwise lose its images to passages beside it."""
    z = with_contrasts.embed(uneven[:200])
    dead = ~with_contrasts.networks.live[: z.shape[1]]
    assert int(dead.sum()) == 3
    evidence = with_contrasts.likelihood(uneven[:200])
    torch.testing.assert_close(evidence(z[:5] + 10.0 * dead), evidence(z[:5]), rtol=0, atol=0)
    shares = evidence.points()[1].diagonal(dim1=1, dim2=2) / z.var(0)
    assert float(shares[:, dead].min()) > 999 > 10 > float(shares[:, ~dead].max())  # images do not constrain them


def test_contrasts_have_errors_that_cover(uneven, with_contrasts):
    found, truth = with_contrasts.contrasts(uneven), true_contrasts()
    away = np.abs(found.contrast.numpy() - truth)
    assert 0.6 < (away < found.error.numpy()).mean() < 0.75
    assert np.corrcoef(found.contrast.numpy(), truth)[0, 1] > 0.9


def test_contrasts_that_do_not_vary_are_one(even, chosen):
    """Although the mass of the molecule varies by a factor of five."""
    assert float(chosen.networks.contrast_spread) == 0
    found = chosen.contrasts(even[:10])
    assert bool((found.contrast == 1).all()) and bool((found.error == 0).all())


def test_contrasts_can_be_ignored(uneven):
    model = fitted(uneven, 1, latent_dim=8, contrast=False)
    assert float(model.networks.contrast_spread) == 0
    assert model.spectrum.n_live == 6  # the contrast is taken for a motion


def test_contrasts_are_columns_of_selections(uneven, with_contrasts, tmp_path):
    uneven.write(tmp_path / "p.star", progress=False)
    with_contrasts.save(tmp_path / "m.safetensors")
    command = [f"{tmp_path / 'm.safetensors'}", f"{tmp_path / 'p.star'}", "--contrast", "dark"]
    assert main(["embed", *command, "--output", f"{tmp_path / 'z.npy'}"]) == 0
    command += ["--state", "0"]
    assert main(["select", *command, "--output", f"{tmp_path / 'a.star'}"]) == 0
    assert main(["select", *command, "--latents", f"{tmp_path / 'z.npy'}", "--output", f"{tmp_path / 'b.star'}"]) == 0
    one, other = (ct.Particles.read(tmp_path / name, contrast="dark").columns for name in ("a.star", "b.star"))
    found = with_contrasts.contrasts(ct.Particles.read(tmp_path / "a.star", contrast="dark"))
    for name, values in {"cryotwinContrast": found.contrast, "cryotwinContrastError": found.error}.items():
        np.testing.assert_allclose(np.asarray(one[name], float), values, atol=2e-3)
        np.testing.assert_allclose(np.asarray(other[name], float), values, atol=2e-3)
