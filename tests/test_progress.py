"""Long work shows a bar that says what it does and reaches its end; without `progress` nothing is printed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tqdm.std

import cryotwin_nb as ct

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    path = tmp_path_factory.mktemp("progress") / "particles.star"
    ct.simulate.assembly(120, 16, snr=2.0, progress=False).write(path, progress=False)
    return ct.Particles.read(path, contrast="dark")


@pytest.fixture(scope="module")
def model(particles):
    model = ct.CryoTwin(16, latent_dim=2, n_components=4, width=8)
    ct.fit(model, particles, ct.TrainingConfig(epochs=2), progress=False)
    return model


@pytest.fixture
def bars(monkeypatch):
    """Collect each bar as (what it says, its end), and where it stood when it was closed."""
    closed: list[tuple[str, int | None, int]] = []
    close = tqdm.std.tqdm.close

    def recorded(bar):
        if not bar.disable:
            closed.append((bar.desc.rstrip(": "), bar.total, bar.n))
        close(bar)

    monkeypatch.setattr(tqdm.std.tqdm, "close", recorded)
    return closed


def path_of(model):
    return ct.max_flux(model.prior, 0, 1, n_steps=2)


WORK = {
    "embedding": lambda p, m, folder, on: m.embed(p, progress=on),
    "likelihood": lambda p, m, folder, on: m.likelihood(p, progress=on),
    "simulating": lambda p, m, folder, on: ct.simulate.hinge(30, 16, progress=on),
    "writing": lambda p, m, folder, on: p.write(folder / "copy.star", progress=on),
    "back-projecting": lambda p, m, folder, on: ct.reconstruct(p, progress=on),
    "support": lambda p, m, folder, on: ct.pathway_support(m, p, path_of(m), progress=on),
    "isometry": lambda p, m, folder, on: ct.isometry(m, m.embed(p), n_pairs=5, progress=on),
    "bootstrap": lambda p, m, folder, on: ct.bootstrap_path(m.prior, m.embed(p), path_of(m), 3, progress=on),
    "routes": lambda p, m, folder, on: ct.find_routes(m.prior, 0, 1, n_draws=2, progress=on),
    "outlier scores": lambda p, m, folder, on: ct.outlier_scores(m, p, progress=on),
    "first look": lambda p, m, folder, on: ct.first_look(p, progress=on),
    "preparing": lambda p, m, folder, on: ct.prepare(p, folder / "new.star", box_size=12, progress=on),
    "closed form": lambda p, m, folder, on: ct.fit(
        ct.CryoTwin(16, latent_dim=2, n_components=4, width=8), p, ct.TrainingConfig(epochs=2), progress=on
    ),
    "warm start": lambda p, m, folder, on: ct.warm_start(
        ct.CryoTwin(16, "coordinate", 2, 4, width=8, depth=1, n_features=8), m, p, epochs=1, progress=on
    ),
}


@pytest.mark.parametrize("doing", WORK)
def test_a_bar_says_what_is_done_and_reaches_its_end(doing, particles, model, bars, tmp_path):
    WORK[doing](particles, model, tmp_path, True)
    assert doing in [said for said, _, _ in bars]
    for said, total, reached in bars:
        assert said and reached > 0, said
        assert total == reached or said == "first look"  # how many hypotheses follow depends on the first ones


@pytest.mark.parametrize("doing", WORK)
def test_without_progress_nothing_is_printed(doing, particles, model, bars, tmp_path, capsys):
    WORK[doing](particles, model, tmp_path, False)
    printed = capsys.readouterr()
    assert not bars and not printed.out and not printed.err


def test_by_default_single_calls_are_silent_and_long_work_shows_a_bar(particles, model, bars):
    model.embed(particles)
    ct.reconstruct(particles, np.ones(len(particles)))
    ct.isometry(model, torch.eye(3, 2), n_pairs=2)
    assert not bars
    ct.simulate.assembly(5, 16)
    assert bars
