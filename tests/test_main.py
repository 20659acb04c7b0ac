import json

import numpy as np
import pytest

import cryotwin_nb as ct
from cryotwin_nb import demo
from cryotwin_nb.__main__ import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run on disk, made by the command itself."""
    folder = tmp_path_factory.mktemp("run")
    ct.simulate.hinge(60, 16, progress=False).write(folder / "p.star", progress=False)
    arguments = ["train", f"{folder / 'p.star'}", "--output", f"{folder / 'out'}", "--contrast", "dark"]
    arguments += ["--latent-dim", "2", "--components", "3", "--epochs", "1", "--batch-size", "20", "--device", "cpu"]
    assert main(arguments) == 0
    return folder, arguments


def test_train_leaves_model_checkpoint_and_latents(run):
    folder, _ = run
    assert {p.name for p in (folder / "out").iterdir()} == {"model.safetensors", "checkpoint.pt", "latents.npy"}
    assert np.load(folder / "out" / "latents.npy").shape == (60, 2)
    assert ct.CryoTwin.load(folder / "out" / "model.safetensors").history.epochs == 1


def test_train_options_reach_the_model(run, tmp_path):
    folder, arguments = run
    arguments = [*arguments, "--n-basis", "4", "--fit-contrast", "--output", f"{tmp_path / 'out'}"]
    assert main(arguments) == 0
    model = ct.CryoTwin.load(tmp_path / "out" / "model.safetensors")
    assert len(model.networks.variances) == 4
    assert model.config["contrast"] is True
    assert float(model.networks.contrast_spread) > 0
    default = ct.CryoTwin.load(folder / "out" / "model.safetensors").config
    assert default["n_basis"] == 12 and default["contrast"] is False


def test_the_other_architecture_can_be_asked_for(run, tmp_path, capsys):
    arguments = [*run[1], "--architecture", "coordinate", "--output", f"{tmp_path / 'out'}"]
    assert main(arguments) == 0
    assert ct.CryoTwin.load(tmp_path / "out" / "model.safetensors").config["architecture"] == "coordinate"
    assert main([*arguments, "--n-basis", "4"]) == 2
    assert "Leave these options out" in capsys.readouterr().err


def test_demo_options_reach_the_demo(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(demo, "run", lambda *arguments: calls.append(arguments))
    assert main(["demo", "--output", f"{tmp_path}"]) == 0
    assert main(["demo", "--output", f"{tmp_path}", "--dataset", "assembly-small", "--architecture", "coordinate"]) == 0
    assert calls[0] == (tmp_path, "assembly", "subspace", None, 0)
    assert calls[1] == (tmp_path, "assembly-small", "coordinate", None, 0)


def test_resume_of_a_finished_run_changes_nothing(run):
    folder, arguments = run
    before = np.load(folder / "out" / "latents.npy")
    assert main([*arguments, "--resume"]) == 0
    np.testing.assert_array_equal(np.load(folder / "out" / "latents.npy"), before)


def test_embed_gives_the_same_latents(run):
    folder, _ = run
    output = folder / "z.npy"
    model, star = f"{folder / 'out' / 'model.safetensors'}", f"{folder / 'p.star'}"
    assert main(["embed", model, star, "--output", f"{output}", "--contrast", "dark"]) == 0
    np.testing.assert_allclose(np.load(output), np.load(folder / "out" / "latents.npy"), atol=1e-5)


def test_pathway_lists_components_and_writes_maps(run, tmp_path, capsys):
    model = run[0] / "out" / "model.safetensors"
    loaded = ct.CryoTwin.load(model)
    loaded.prior = ct.GaussianMixture([0.6, 0.4], [[0.0, 0.0], [2.0, 1.0]], np.stack([np.eye(2)] * 2))
    loaded.save(tmp_path / "two.safetensors")
    assert main(["pathway", f"{tmp_path / 'two.safetensors'}", "--list"]) == 0
    assert "weight 0.600" in capsys.readouterr().out
    command = ["pathway", f"{tmp_path / 'two.safetensors'}", "--start", "0", "--end", "1", "--steps", "3"]
    assert main([*command, "--output", f"{tmp_path / 'path'}"]) == 0
    names = ["latents.npy", "latents.txt", "path.json", "pathway.cxc"]
    names += [f"map_00{k}.mrc" for k in range(4)] + [f"difference_00{k}.mrc" for k in range(1, 4)]
    assert sorted(p.name for p in (tmp_path / "path").iterdir()) == sorted(names)
    volume, voxel = ct.read_map(tmp_path / "path" / "map_001.mrc")
    assert volume.shape == (16, 16, 16) and voxel == pytest.approx(20.0)
    summary = json.loads((tmp_path / "path" / "path.json").read_text())
    assert summary["start"] == 0 and len(summary["log_prob"]) == 4 and summary["barrier"] > 0
    assert "map_003.mrc" in (tmp_path / "path" / "pathway.cxc").read_text()


def test_select_writes_the_particles_of_a_state_and_those_near_points(run, tmp_path, capsys):
    folder, _ = run
    model = ct.CryoTwin.load(folder / "out/model.safetensors")
    z = np.load(folder / "out/latents.npy")
    centre = np.median(z, axis=0)
    model.prior = ct.GaussianMixture([0.6, 0.4], [z[0], centre + 100], np.stack([np.eye(2)] * 2))
    model.save(tmp_path / "two.safetensors")
    np.save(tmp_path / "points.npy", z[[7]])
    (tmp_path / "names.json").write_text('{"0": "open", "1": "closed"}')
    command = ["select", f"{tmp_path / 'two.safetensors'}", f"{folder / 'p.star'}", "--contrast", "dark", "--output"]
    given = ["--latents", f"{folder / 'out/latents.npy'}"]
    for name, options, rows in (
        ("near.star", [*given, "--near", f"{tmp_path / 'points.npy'}", "--number", "5"], ct.select_near(z, z[7], n=5)),
        ("state.star", [*given, "--state", "S1"], np.arange(60)),
        ("index.star", ["--state", "0"], np.arange(60)),
        ("named.star", [*given, "--state", "open", "--labels", f"{tmp_path / 'names.json'}"], np.arange(60)),
    ):
        assert main([*command, f"{folder / name}", *options]) == 0
        assert f"{name}: {len(rows)} of 60 particles" in capsys.readouterr().out
        subset = ct.Particles.read(folder / name, contrast="dark")
        expected = ct.Particles.read(folder / "p.star", contrast="dark").images(np.sort(rows))
        np.testing.assert_array_equal(subset.images(slice(None)), expected)
    for options, said in (
        (["--state", "S1", "--latents", f"{tmp_path / 'points.npy'}"], "1 latents, expected 60"),
        (["--state", "shut", *given], "'shut', expected one of 0, 1, S1, S2"),
        (["--state", "S1", "--latents", f"{tmp_path / 'names.json'}"], "no readable array"),
    ):
        assert main([*command, f"{tmp_path / 'x.star'}", *options]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "x.star").exists()


def test_a_shorter_path_replaces_a_longer_one_and_a_chain_can_be_asked_for(run, tmp_path):
    model = ct.CryoTwin.load(run[0] / "out" / "model.safetensors")
    model.prior = ct.GaussianMixture([0.4, 0.3, 0.3], [[0.0, 0.0], [2.0, 1.0], [4.0, 0.0]], np.stack([np.eye(2)] * 3))
    model.save(tmp_path / "three.safetensors")
    command = [
        "pathway",
        f"{tmp_path / 'three.safetensors'}",
        "--start",
        "0",
        "--end",
        "2",
        "--output",
        f"{tmp_path / 'path'}",
    ]
    assert main([*command, "--steps", "6"]) == 0
    assert main([*command, "--steps", "3", "--chain"]) == 0
    assert len(list((tmp_path / "path").glob("map_*.mrc"))) == 4
    assert json.loads((tmp_path / "path" / "path.json").read_text())["method"] == "ridgeline chain"


def test_mistakes_are_told_in_one_line_and_what_to_do_in_the_next(run, tmp_path, capsys):
    model = f"{run[0] / 'out' / 'model.safetensors'}"
    assert main(["pathway", model, "--start", "1"]) == 2
    assert "Choose two of the components" in capsys.readouterr().err
    assert main(["embed", f"{tmp_path / 'none.safetensors'}", "x.star", "--output", "z.npy"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "none.safetensors" in error and error.count("\n") == 2


@pytest.mark.parametrize("command", [[], ["train"], ["embed"], ["pathway"], ["select"], ["demo"]])
def test_help_explains(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0 and len(capsys.readouterr().out) > 300


TRAIN_OPTIONS = {
    "latent-dim": ("3", "latent_dim", 3),
    "components": ("4", "n_components", 4),
    "n-basis": ("12", "n_basis", 12),
    "noise-width": ("2.5", "noise_width", 2.5),
    "weighting": ("paper", "weighting", "paper"),
    "particle-radius": ("0.35", "particle_radius", 0.35),
    "seed": ("7", "seed", 7),
    "epochs": ("3", "epochs", 3),
    "beta": ("1.5", "beta", 1.5),
    "batch-size": ("11", "batch_size", 11),
    "learning-rate": ("0.002", "learning_rate", 0.002),
    "precision": ("float32", "precision", "float32"),
    "device": ("cpu", "device", "cpu"),
    "checkpoint-minutes": ("3", "checkpoint_minutes", 3.0),
    "cache-gib": ("0.5", "cache_gib", 0.5),
}


@pytest.mark.parametrize("option", TRAIN_OPTIONS)
def test_each_option_of_train_reaches_what_it_sets(option, run, tmp_path, monkeypatch):
    value, name, expected = TRAIN_OPTIONS[option]
    seen = {}

    def fit(model, particles, config, resume=None):
        seen.update(vars(config) | model.config)
        seen.update({"seed of the run": config.seed})
        raise KeyboardInterrupt

    monkeypatch.setattr("cryotwin_nb.training.fit", fit)
    arguments = ["train", f"{run[0] / 'p.star'}", "--output", f"{tmp_path}", "--contrast", "dark", f"--{option}", value]
    assert main(arguments) == 130
    assert seen[name] == expected
    if name == "seed":
        assert seen["seed of the run"] == expected


@pytest.fixture
def far_apart(run, tmp_path):
    """A model of two narrow components far apart, and one between them off the straight line."""
    model = ct.CryoTwin.load(run[0] / "out" / "model.safetensors")
    means = [[0.0, 0.0], [40.0, 0.0], [20.0, 12.0]]
    model.prior = ct.GaussianMixture([0.4, 0.3, 0.3], means, np.stack([np.eye(2)] * 3))
    model.save(tmp_path / "far.safetensors")
    files = (f"{tmp_path / 'far.safetensors'}", "--output", f"{tmp_path / 'path'}")
    return ["pathway", *files, "--start", "0", "--end", "1"]


@pytest.mark.parametrize(("options", "method"), [([], "ridgeline"), (["--max-flux"], "MaxFlux")])
def test_the_method_asked_for_is_used(far_apart, tmp_path, options, method):
    assert main([*far_apart, *options]) == 0
    assert json.loads((tmp_path / "path" / "path.json").read_text())["method"] == method


def test_a_high_barrier_is_noted_and_a_low_one_is_not(far_apart, run, tmp_path, capsys):
    assert main(far_apart) == 0
    assert "note: the density falls to e^-" in capsys.readouterr().err
    model = ct.CryoTwin.load(run[0] / "out" / "model.safetensors")
    model.prior = ct.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [2.0, 0.0]], np.stack([np.eye(2)] * 2))
    model.save(tmp_path / "far.safetensors")
    assert main(far_apart) == 0
    assert "note: the density" not in capsys.readouterr().err
