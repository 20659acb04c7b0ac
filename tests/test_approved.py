"""What must not change unnoticed: signatures, tuned settings, help texts, files, and the numbers of a small analysis.

Independent checks of these numbers are in the other test modules; this one shows any change of them.
`approval` says how approved values are stored and replaced.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from approval import describe
from test_documentation import callables

import cryotwin_nb as ct
from cryotwin_nb import evaluation, pathways
from cryotwin_nb.cli.main import COMMANDS, parser_of

pytestmark = pytest.mark.usefixtures("one_thread")
STATES = {0: "first", 1: "second"}


def test_signatures(approved):
    approved([f"{name}{inspect.signature(item)}" for name, item in callables() if not inspect.isclass(item)])


def settings() -> list[str]:
    """Return the numbers that modules define at their top level: thresholds, sizes and limits that were tuned."""
    lines = []
    for module in pkgutil.walk_packages(ct.__path__, "cryotwin_nb."):
        if module.name.endswith("__main__"):
            continue
        own = importlib.import_module(module.name)
        for name, value in vars(own).items():
            if name in getattr(own, "__all__", ()) and own.__name__ == own.__package__:
                continue  # loaded from one of its modules when first used
            if name != "TYPE_CHECKING" and name.strip("_").isupper() and isinstance(value, (int, float, tuple, dict)):
                lines += describe(f"{module.name}.{name}", value)
    return sorted(line for line in lines if " at 0x" not in line and "<" not in line)


def test_settings(approved):
    approved(settings())


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, approved, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    approved(parser_of(command).format_help().splitlines())


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    """Return 300 images of two optics groups, read from disk."""
    made = ct.simulate.assembly(300, 32, snr=2.0, contrast_std=0.1, progress=False)
    groups = np.arange(300) % 2
    parts = {name: getattr(made, name) for name in ("rotations", "shifts", "ctf", "pixel_size", "truth")}
    path = tmp_path_factory.mktemp("approved") / "particles.star"
    ct.Particles(made.images(np.arange(300)), **parts, optics_group=groups).write(path, progress=False)
    return ct.Particles.read(path, contrast="dark")


@pytest.fixture(scope="module", params=["subspace", "subspace with contrast", "coordinate"])
def trained(request, particles):
    small = {"latent_dim": 4, "n_components": 8, "width": 16}
    options = {
        "subspace": {"tight_mask": True},
        "subspace with contrast": {"contrast": True, "n_basis": 6},
        "coordinate": {"architecture": "coordinate", "depth": 1, "n_features": 24},
    }[request.param]
    model = ct.CryoTwin(32, **small, **options)
    config = ct.TrainingConfig(epochs=10, batch_size=30, learning_rate=0.01, precision="float32")
    return model, ct.fit(model, particles, config, progress=False)


@pytest.fixture(scope="module")
def mixture():
    """Return a mixture along a bent ridge, and latents drawn from it."""
    means = torch.tensor([[0, 0, 0], [3, 1, 0], [6, 0, 1], [8, 3, 2], [4, 4, -1.0]])
    spread = torch.tensor([0.5, 0.8, 0.4, 0.6, 0.9])[:, None, None] * torch.eye(3)
    prior = ct.GaussianMixture([0.3, 0.25, 0.2, 0.15, 0.1], means, spread + 0.1)
    return prior, prior.sample(1000, seed=1)


def true_maps(particles, n: int) -> torch.Tensor:
    return torch.stack([particles.truth.volume(i) for i in range(n)])


def star_lines(path) -> list[str]:
    """Return the lines of a STAR file without its date."""
    text = re.sub(r"mrc:\w{16}", "mrc:<stamp>", path.read_text())  # depends on the last bits of the grey values
    return [line for line in text.splitlines() if not line.startswith("#")]


def without_times(history: ct.History) -> ct.History:
    return replace(history, seconds=[], pass_seconds=[])


def test_simulation_and_files(particles, approved):
    approved(
        [
            *star_lines(particles.source)[:30],
            *describe("images", particles.images(np.arange(300))),
            *describe("shifts", particles.shifts),
            *describe("rotations", particles.rotations),
            *describe("truth", particles.truth.coordinates),
            *describe("maps", true_maps(particles, 3)),
            *describe("hinge", ct.simulate.hinge(20, 32, junk=0.2, pose_error=3, progress=False).images(np.arange(20))),
        ]
    )


def test_training(trained, particles, approved):
    model, history = trained
    z = model.embed(particles)
    lines = [*describe("history", without_times(history)), *describe("z", z), *describe("prior", model.prior)]
    lines += describe("maps", model.volumes(z[:3]))
    for name in ("noise", "ctf_power", "kappa", "multiplicity", "window"):
        lines += describe(name, getattr(model.imaging, name))
    lines += sorted(f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items())
    if model.networks.makes_records:
        likelihood = model.likelihood(particles)
        lines += describe("log likelihood", likelihood(z[:5]))
        lines += describe("deconvolved", model.deconvolved_prior)
    lines += describe("outliers", ct.outlier_scores(model, particles))
    lines += describe("isometry", ct.isometry(model, z, n_pairs=20))
    approved(lines, 5e-3, anywhere=False)


def test_support(trained, particles, approved):
    model, _ = trained
    z = model.embed(particles)
    path = ct.max_flux(model.prior, 0, 1, n_steps=3)
    support = ct.pathway_support(model, particles, path, latents=z)
    approved([*describe("support", support), *support.summary().splitlines()], 5e-3, anywhere=False)


def test_warm_start(particles, approved):
    source, model = (ct.CryoTwin(32, kind, 4, 8, width=16) for kind in ("subspace", "coordinate"))
    ct.fit(source, particles, ct.TrainingConfig(epochs=2), progress=False)
    ct.warm_start(model, source, particles, epochs=1, progress=False)
    approved(
        [*describe("z", model.embed(particles)), *describe("maps", model.volumes(torch.zeros(1, 4)))],
        5e-3,
        anywhere=False,
    )


def test_mixtures(mixture, approved):
    prior, z = mixture
    noise = 0.2 * torch.eye(3).expand(len(z), 3, 3)
    value, score = prior.log_prob_and_score(z[:10])
    approved(
        [
            *describe("fit", ct.GaussianMixture.fit(z, 12)),
            *describe("fit, without noise", ct.GaussianMixture.fit(z, 6, noise, seed=1)),
            *describe("fit, weighted", ct.GaussianMixture.fit(z, 5, weights=z[:, 0].abs(), select=False)),
            *describe("modes", prior.modes()),
            *describe("value", value),
            *describe("score", score),
            *describe("window mass", prior.log_window_mass(z[:10], 1.5)),
            *describe("responsibilities", prior.responsibilities(z[:10])),
            *describe("sample", z),
        ]
    )


def test_pathways(mixture, approved):
    prior, z = mixture
    paths = {
        "ridgeline": ct.ridgeline(prior, 0, 3),
        "chain": ct.ridgeline_chain(prior, 0, 3),
        "max_flux": ct.max_flux(prior, 0, 3),
        "max_flux, flux": ct.max_flux(prior, 0, 3, spacing="flux", exponent=0.5),
    }
    lines = [line for name, path in paths.items() for line in describe(name, path)]
    lines += describe("states", ct.find_states(prior))
    for name, evidence in (("samples", None), ("latents", z), ("tube", pathways.tube(z, 0.3))):
        lines += describe(f"routes, {name}", ct.find_routes(prior, 0, 3, evidence=evidence, n_draws=3))
    path = paths["max_flux"]
    lines += describe("bootstrap", ct.bootstrap_path(prior, z, path, n_draws=4))
    lines += describe(
        "bootstrap with noise", ct.bootstrap_path(prior, z, path, 3, 1, 0.1 * torch.eye(3).expand(1000, 3, 3))
    )
    lines += describe("profile", pathways.profile(path, prior, z))
    lines += describe("waypoints", pathways.waypoints(prior, 0, 3))
    lines += describe("straight", pathways.straight_resistances(prior))
    approved(lines)


def test_scores(mixture, particles, approved):
    prior, z = mixture
    labels = prior.responsibilities(z).argmax(1).numpy().astype(str)
    truth = particles.truth
    rng = np.random.default_rng(0)
    latents = torch.as_tensor(truth.coordinates @ rng.normal(size=(truth.coordinates.shape[1], 4))).float()
    named = evaluation.label_components(prior, z, labels)
    approved(
        [
            *describe("kl", [ct.kl_divergence(z, prior), evaluation.kl_neighbours(z, prior)]),
            *describe("bound", evaluation.kl_lower_bound(z, prior)),
            *describe("held out", evaluation.held_out_log_likelihood(z)),
            *describe("r2", evaluation.coordinate_r2(latents, truth)),
            *describe("interval", evaluation.r2_interval(latents, truth)),
            *describe("axes", evaluation.principal_axes(z)),
            *describe("named", named),
            *describe("confusion", evaluation.confusion(prior, z, named, labels)),
            *describe("fsc", evaluation.fsc_to_truth(lambda rows: true_maps(particles, len(rows)), latents, truth, 3)),
        ]
    )


def test_maps(particles, approved):
    volume = true_maps(particles, 2)
    approved(
        [
            *describe("reconstruction", ct.reconstruct(particles)),
            *describe("weighted", ct.reconstruct(particles, np.linspace(0, 1, 300), seed=2)),
            *describe("fsc", ct.fsc(volume[0], volume[1], particles.pixel_size)),
        ]
    )


def test_preparation_and_first_look(particles, tmp_path, approved):
    report = ct.prepare(particles, tmp_path / "small.star", box_size=24, progress=False)
    look = ct.first_look(particles)
    prepared = ct.Particles.read(tmp_path / "small.star")
    approved(
        [
            *describe("report", replace(report, path="", seconds=0.0)),
            *re.sub(r"[\d.]+ s\b", "", report.summary().replace(str(tmp_path), "")).splitlines(),
            *describe("images", prepared.images([0, 1])),
            *describe("look", look),
            *look.summary().splitlines(),
        ],
        5e-3,
    )


def test_exchange(particles, mixture, tmp_path, approved):
    prior, z = mixture
    path = ct.max_flux(prior, 0, 3, n_steps=2)
    maps = true_maps(particles, 3)
    lines = []
    for file in ct.write_pathway(tmp_path / "path", path, maps, 10.0):
        lines.append(f"== {file.name}")
        if file.suffix == ".mrc":
            lines += describe("map", ct.read_map(file))
        elif file.suffix != ".npy":
            lines += file.read_text().splitlines()
    lines += describe("near", ct.select_near(z, path, n=12))
    lines += describe("state", ct.select_state(z, prior, [0, 1], least=0.7)[:20])
    selected = ct.write_selection(
        particles.source.with_name("selected.star"), particles, [3, 5], {"outlier_score": [0.5, 0.25]}
    )
    approved([*lines, *star_lines(selected)])
