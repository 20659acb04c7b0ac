import dataclasses

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.models.history import History
from cryotwin_nb.training import TrainingConfig, fit, has_bfloat16
from cryotwin_nb.training.objective import drawn
from cryotwin_nb.training.trainer import Trainer

SMALL = dict(architecture="coordinate", latent_dim=2, n_components=4, width=16, depth=1, n_features=16)


@pytest.fixture(scope="module")
def particles():
    return ct.simulate.hinge(90, 16, progress=False)


def config(**changes) -> TrainingConfig:
    return TrainingConfig(**({"epochs": 3, "batch_size": 16, "device": "cpu", "precision": "float32"} | changes))


def state(model: ct.CryoTwin) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_resume_equals_an_uninterrupted_run_to_the_bit(particles, tmp_path):
    class Stop(Exception):
        pass

    def stop(history, model):
        if history.epochs == 2:
            raise Stop

    whole = ct.CryoTwin(16, **SMALL)
    history = fit(whole, particles, config(), progress=False)
    with pytest.raises(Stop):
        settings = config(checkpoint=tmp_path / "run" / "c.pt")
        fit(ct.CryoTwin(16, **SMALL), particles, settings, callbacks=[stop], progress=False)
    resumed = ct.CryoTwin(16, **SMALL)
    continued = fit(resumed, particles, config(), resume=tmp_path / "run" / "c.pt", progress=False)
    assert continued.distortion == history.distortion and continued.rate == history.rate
    for name, value in state(whole).items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_steps_draw_coefficients_of_every_resolution_equally_often():
    generator, counts = torch.Generator().manual_seed(0), torch.zeros(50)
    for _ in range(2000):
        rows = drawn(50, 0.3, generator)
        assert len(rows) == 15 and (rows.diff() >= 0).all()
        counts[rows] += 1
    assert (counts / 2000 - 0.3).abs().max() < 0.06


def test_streaming_equals_caching(particles):
    models = [ct.CryoTwin(16, **SMALL) for _ in range(2)]
    for model, cache in zip(models, (4.0, 0.0), strict=True):
        fit(model, particles, config(epochs=1, cache_gib=cache), progress=False)
    for name, value in state(models[0]).items():
        assert torch.allclose(value, models[1].state_dict()[name], atol=1e-4), name


def test_training_lowers_the_objective_and_tells_its_history(particles):
    seen = []
    model = ct.CryoTwin(16, **SMALL, plain=True)  # the others start at the average map
    history = fit(model, particles, config(epochs=12, warmup=0.0, start_radius=1.0, learning_rate=3e-3),
                  callbacks=[lambda h, m: seen.append((h.epochs, m))], progress=False)  # fmt: skip
    assert history.epochs == 12 and [e for e, _ in seen] == list(range(1, 13)) and seen[0][1] is model
    assert history.distortion[-1] < 0.95 * history.distortion[0]
    assert all(len(getattr(history, f)) == 12 for f in ("rate", "beta", "radius", "seconds", "skipped"))
    assert history.n_components == model.prior.n_components <= 4
    assert dataclasses.asdict(model.history) == dataclasses.asdict(history)


def test_final_mixture_fits_the_latents(particles):
    model = ct.CryoTwin(16, **SMALL)
    fit(model, particles, config(), progress=False)
    z = model.embed(particles)
    mean = (model.prior.weights[:, None] * model.prior.means).sum(0)
    assert torch.allclose(mean, z.double().mean(0), atol=0.15 * float(z.std()))


def test_non_finite_steps_are_skipped_and_a_run_of_them_stops(particles, tmp_path):
    model = ct.CryoTwin(16, **SMALL)
    settings = config(checkpoint=tmp_path / "c.pt")
    fit(model, particles, settings, progress=False)
    before = (tmp_path / "c.pt").read_bytes()
    for layer in (model.networks.decoder.last, model.networks.encoder.last):
        with torch.no_grad():
            layer.weight.fill_(float("nan"))
        with pytest.raises(FloatingPointError, match="last checkpoint is untouched"):
            fit(model, particles, settings, progress=False)
    assert (tmp_path / "c.pt").read_bytes() == before


def test_one_bad_batch_does_not_spoil_the_model(particles, monkeypatch):
    monkeypatch.setattr("cryotwin_nb.training.fitting.usable", lambda particles, progress: particles)
    model = ct.CryoTwin(16, **SMALL, plain=True)
    images = particles.images(np.arange(90)).copy()
    images[7] *= 1e25  # finite, but its square overflows
    spoilt = ct.Particles(
        images=images,
        rotations=particles.rotations,
        shifts=particles.shifts,
        ctf=particles.ctf,
        pixel_size=particles.pixel_size,
    )
    model.imaging.measure(particles)
    model.imaging.measure = lambda particles: None
    model.networks.measure = lambda batch: None
    history = fit(model, spoilt, config(final_em=False), progress=False)
    assert history.skipped == [1, 1, 1]
    clean = fit(ct.CryoTwin(16, **SMALL, plain=True), particles, config(final_em=False), progress=False)
    np.testing.assert_allclose(history.rate, clean.rate, atol=1.0)  # the moments of the bad batch were discarded
    assert all(bool(torch.isfinite(v).all()) for v in state(model).values() if v.is_floating_point())


def test_beta_rises_to_its_value_and_the_radius_to_nyquist(particles):
    history = fit(ct.CryoTwin(16, **SMALL), particles, config(epochs=5, warmup=0.6, final_em=False), progress=False)
    assert history.beta == sorted(history.beta) and history.beta[-1] == 2.0 and history.beta[0] < 0.5
    assert history.radius == sorted(history.radius) and history.radius[-1] == 9.0 and history.radius[0] < 6.1


def test_starved_components_are_split_off_the_heaviest(particles):
    model = ct.CryoTwin(16, **SMALL)
    with torch.no_grad():
        model.networks.score_head()[1].copy_(torch.tensor([40.0, 0, 0, 0]))
    fit(model, particles, config(epochs=1, final_em=False), progress=False)
    bias = model.networks.score_head()[1].detach()
    assert float((bias - bias[0]).abs().max()) < 5  # the encoder assigns particles to the others again
    assert model.moments.starved() == []


def test_bfloat16_trains_too(particles):
    model = ct.CryoTwin(16, **SMALL)
    history = fit(model, particles, config(precision="bfloat16", final_em=False), progress=False)
    assert np.isfinite(history.distortion).all()


@pytest.mark.parametrize("units", [(True, False), (False, True), (False, False), (None, None)])
def test_bfloat16_is_chosen_where_the_processor_multiplies_it(units, monkeypatch):
    """Matrix tiles (Intel) and AVX-512 (also AMD) each suffice; None: a PyTorch that cannot report it."""
    for name, there in zip(("_is_amx_tile_supported", "_is_avx512_bf16_supported"), units, strict=True):
        monkeypatch.delattr(torch.cpu, name, raising=False)
        if there is not None:
            monkeypatch.setattr(torch.cpu, name, lambda there=there: there, raising=False)
    assert has_bfloat16("cpu") is any(units)
    assert not has_bfloat16("mps")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"beta": -1.0}, "beta"),
        ({"beta": float("nan")}, "beta"),
        ({"batch_size": 0}, "batch_size"),
        ({"precision": "float16"}, "precision"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        config(**changes)


def test_more_components_than_images_are_refused(particles):
    with pytest.raises(InputError, match="n_components"):
        fit(ct.CryoTwin(16, latent_dim=2, n_components=91), particles, config(), progress=False)


def test_resume_refuses_other_settings_models_and_files(particles, tmp_path):
    path = tmp_path / "c.pt"
    model = ct.CryoTwin(16, **SMALL)
    fit(model, particles, config(checkpoint=path, epochs=1, final_em=False), progress=False)
    with pytest.raises(InputError, match="beta"):
        fit(ct.CryoTwin(16, **SMALL), particles, config(epochs=1, beta=3.0), resume=path, progress=False)
    with pytest.raises(InputError, match="latent_dim"):
        fit(ct.CryoTwin(16, **SMALL | {"latent_dim": 3}), particles, config(epochs=1), resume=path, progress=False)
    with pytest.raises(InputError, match="n_particles"):
        fit(ct.CryoTwin(16, **SMALL), particles[np.arange(50)], config(epochs=1), resume=path, progress=False)
    model.save(tmp_path / "finished.safetensors")
    with pytest.raises(InputError, match="finished model"):
        fit(
            ct.CryoTwin(16, **SMALL),
            particles,
            config(epochs=1),
            resume=tmp_path / "finished.safetensors",
            progress=False,
        )


def test_resume_refuses_other_particles_of_the_same_number(particles, tmp_path):
    path = tmp_path / "c.pt"
    settings = config(checkpoint=path, epochs=1, final_em=False)
    fit(ct.CryoTwin(16, **SMALL), particles, settings, progress=False)
    others = ct.simulate.hinge(90, 16, seed=1, progress=False)
    with pytest.raises(InputError, match="views"):
        fit(ct.CryoTwin(16, **SMALL), others, settings, resume=path, progress=False)


def test_a_checkpoint_has_a_prior_and_numpy_settings_can_be_read_back(particles, tmp_path):
    path = tmp_path / "c.pt"
    model = ct.CryoTwin(16, **SMALL | {"latent_dim": np.int64(2)}, particle_radius=np.float64(0.4))
    fit(model, particles, config(checkpoint=path, beta=np.float32(2), final_em=False), progress=False)
    assert ct.CryoTwin.load(path).prior.n_components == 4


def test_history_starts_empty():
    assert History().epochs == 0


def test_the_schedule_moves_evenly_over_all_steps_of_all_epochs(particles, monkeypatch):
    seen, step = [], Trainer._step
    monkeypatch.setattr(Trainer, "_step", lambda self, b, n, share, g: seen.append(share) or step(self, b, n, share, g))
    fit(ct.CryoTwin(16, **SMALL), particles, config(epochs=3, final_em=False), progress=False)
    assert len(seen) % 3 == 0 and len(seen) > 6
    np.testing.assert_allclose(seen, np.arange(len(seen)) / len(seen))


def test_a_strong_prior_keeps_the_maps_at_the_average(particles):
    """Deviations from the average map shrink with the prior's weight; plain networks have no prior."""
    for plain in (False, True):
        left = []
        for weight in (0.0, 1e4):
            model = ct.CryoTwin(16, **SMALL, plain=plain)
            settings = config(epochs=4, learning_rate=1e-2, map_prior=weight, final_em=False)
            fit(model, particles, settings, progress=False)
            average = 0 if plain else model.networks.average.map
            left.append(float((model.networks.volumes(torch.zeros(1, 2)) - average).norm()))
        assert (left[1] == left[0]) if plain else (left[1] < 0.5 * left[0]), left
