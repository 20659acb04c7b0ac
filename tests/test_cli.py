import functools
import json
import os
import pkgutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb import demo
from cryotwin_nb.cli import demonstration, exploring, looking, preparing, reading, supporting, training
from cryotwin_nb.cli import main as commands
from cryotwin_nb.cli.main import main
from cryotwin_nb.cli.options import Option
from cryotwin_nb.imaging.fourier import mirrored


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run on disk, created by the command."""
    folder = tmp_path_factory.mktemp("run")
    ct.simulate.hinge(60, 16, progress=False).write(folder / "p.star", progress=False)
    arguments = ["train", f"{folder / 'p.star'}", "--output", f"{folder / 'out'}", "--contrast", "dark"]
    arguments += ["--latent-dim", "2", "--n-components", "3", "--epochs", "1", "--batch-size", "20", "--device", "cpu"]
    assert main(arguments) == 0
    return folder, arguments


def test_train_leaves_model_checkpoint_and_latents(run):
    folder, _ = run
    expected = {"model.safetensors", "checkpoint.pt", "latents.npy", "latents.npy.origin.npz"}
    assert {p.name for p in (folder / "out").iterdir()} == expected
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
    assert default["n_basis"] == 2 and default["contrast"] == "auto"  # noise: no direction is added
    assert main([*arguments[:-1], f"{tmp_path / 'off'}", "--no-fit-contrast"]) == 0
    assert ct.CryoTwin.load(tmp_path / "off" / "model.safetensors").config["contrast"] is False


def test_the_other_architecture_can_be_asked_for(run, tmp_path, capsys):
    arguments = [*run[1], "--architecture", "coordinate", "--output", f"{tmp_path / 'out'}"]
    assert main(arguments) == 0
    assert ct.CryoTwin.load(tmp_path / "out" / "model.safetensors").config["architecture"] == "coordinate"
    assert main([*arguments, "--n-basis", "4", "--overwrite"]) == 2
    assert "--n-basis does not belong to the coordinate architecture" in capsys.readouterr().err


def test_demo_options_reach_the_demo(tmp_path, monkeypatch):
    calls = []

    @functools.wraps(demo.run)
    def run(*arguments, **keywords):
        calls.append((*arguments, keywords))

    monkeypatch.setattr(demo, "run", run)
    assert main(["demo", "--output", f"{tmp_path}"]) == 0
    assert main(["demo", "--output", f"{tmp_path}", "--dataset", "assembly-small", "--architecture", "coordinate"]) == 0
    first = {"dataset": "assembly", "architecture": "subspace", "epochs": None, "seed": 0}
    assert calls[0] == (tmp_path, first)
    assert calls[1] == (tmp_path, first | {"dataset": "assembly-small", "architecture": "coordinate"})


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
    assert main(["states", f"{tmp_path / 'two.safetensors'}", "--components"]) == 0
    assert "weight  60.0%" in capsys.readouterr().out
    command = ["pathway", f"{tmp_path / 'two.safetensors'}", "--start", "0", "--end", "1", "--n-steps", "3"]
    assert main([*command, "--output", f"{tmp_path / 'path'}"]) == 0
    names = ["latents.npy", "latents.txt", "path.json", "pathway.cxc", "pathway.pml", "pathway.mvsj"]
    names += [f"map_00{k}.mrc" for k in range(4)] + [f"difference_00{k}.mrc" for k in range(1, 4)]
    assert sorted(p.name for p in (tmp_path / "path").iterdir()) == sorted(names)
    volume, voxel = ct.read_map(tmp_path / "path" / "map_001.mrc")
    assert volume.shape == (16, 16, 16) and voxel == pytest.approx(20.0)
    summary = json.loads((tmp_path / "path" / "path.json").read_text())
    assert summary["start"] == 0 and len(summary["log_prob"]) == 4 and summary["barrier"] > 0
    assert "map_003.mrc" in (tmp_path / "path" / "pathway.cxc").read_text()
    assert main([*command, "--output", f"{tmp_path / 'flipped'}", "--flip-hand"]) == 0
    np.testing.assert_allclose(ct.read_map(tmp_path / "flipped" / "map_001.mrc")[0], mirrored(torch.tensor(volume)))


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
        ("near.star", [*given, "--near", f"{tmp_path / 'points.npy'}", "--n", "5"], ct.select_near(z, z[7], n=5)),
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
        (["--state", "S1", "--latents", f"{tmp_path / 'points.npy'}"], "1 latents, expected 60, one for each particle"),
        (["--state", "shut", *given], "'shut', expected one of S1, S2, or a component from 0 to 1"),
        (
            ["--state", "S1", "--latents", f"{tmp_path / 'names.json'}"],
            "names.json: found the suffix '.json', expected .npy or .txt or .pkl or .cs",
        ),
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
    assert main([*command, "--n-steps", "6"]) == 0
    assert main([*command, "--n-steps", "3", "--method", "chain", "--overwrite"]) == 0
    assert len(list((tmp_path / "path").glob("map_*.mrc"))) == 4
    assert json.loads((tmp_path / "path" / "path.json").read_text())["method"] == "ridgeline chain"


def test_mistakes_are_told_in_one_line_and_what_to_do_in_the_next(run, tmp_path, capsys):
    model = f"{run[0] / 'out' / 'model.safetensors'}"
    assert main(["pathway", model, "--start", "1"]) == 2
    assert "The following arguments are required: --output" in capsys.readouterr().err
    assert main(["embed", f"{tmp_path / 'none.safetensors'}", "x.star", "--output", "z.npy"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "none.safetensors" in error and error.count("\n") == 2


@pytest.mark.parametrize("command", [[], ["train"], ["embed"], ["pathway"], ["select"], ["demo"]])
def test_help_explains(command, capsys):
    assert main([*command, "--help"]) == 0 and len(capsys.readouterr().out) > 300


class Reached(KeyboardInterrupt):
    """Raised when an option reaches its function."""


def reached(command: str, folder: Path, tmp_path: Path) -> list[str]:
    """Return the required arguments of a command."""
    star, model = f"{folder / 'p.star'}", f"{folder / 'out' / 'model.safetensors'}"
    np.save(tmp_path / "points.npy", np.zeros((3, 2), np.float32))
    return {
        "demo": [],
        "prepare": [star, "--output", f"{tmp_path / 'new.star'}"],
        "look": [star],
        "train": [star, "--output", f"{tmp_path / 'out'}"],
        "embed": [model, star, "--output", f"{tmp_path / 'z.npy'}"],
        "states": [model],
        "pathway": [model, "--start", "0", "--end", "0", "--output", f"{tmp_path / 'path'}"],
        "routes": [model, "--start", "0", "--end", "0"],
        "support": [model, star, "--path", f"{tmp_path / 'points.npy'}"],
        "select": [model, star, "--state", "0", "--output", f"{tmp_path / 'x.star'}"],
    }[command]


def passing() -> list[tuple[str, str, Option]]:
    """Return every generated option of every command, and the function that it must reach."""
    read = [(name, "cryotwin_nb.particles.particles.Particles.read", reading.reading_options()) for name in READERS]
    path = [
        (f"pathway --method {m}", f"cryotwin_nb.pathways.{f}", exploring._path_options()) for m, f in METHODS.items()
    ]
    groups = [
        *read,
        *((name, where, [o for o in options if o.keyword in PATH_KEYWORDS[name]]) for name, where, options in path),
        ("train", f"{MODEL}.__init__", training.model_options()),
        ("train", f"{MODEL}.__init__", training.network_options()["subspace"]),
        (
            "train --architecture coordinate",
            f"{MODEL}.__init__",
            training.network_options()["coordinate"],
        ),
        ("train", "cryotwin_nb.training.TrainingConfig.__init__", training.training_options()),
        ("prepare", "cryotwin_nb.preparation.prepare", preparing._preparing()),
        ("look", "cryotwin_nb.preparation.first_look", looking._looking()),
        ("embed", f"{MODEL}.embed", training._embedding()),
        ("states", "cryotwin_nb.pathways.find_states", exploring._state_options()),
        ("routes", "cryotwin_nb.pathways.find_routes", exploring._route_options()),
        ("support", "cryotwin_nb.evaluation.pathway_support", supporting._support_options()),
        ("demo", "cryotwin_nb.demo.run", demonstration.demo_options()),
    ]
    return [(command, where, option) for command, where, options in groups for option in options]


MODEL = "cryotwin_nb.models.cryotwin.CryoTwin"
READERS = ("prepare", "look", "train", "embed", "support", "select")
METHODS = {"max_flux": "max_flux", "ridgeline": "ridgeline", "chain": "ridgeline_chain"}
PATH_KEYWORDS = {
    "pathway --method max_flux": {"n_steps", "exponent", "spacing", "seed"},
    "pathway --method ridgeline": {"n_steps", "omega", "n_samples", "seed", "concentration"},
    "pathway --method chain": {"n_steps", "omega", "n_samples", "seed", "concentration"},
}


def another(option: Option, tmp_path: Path) -> tuple[list[str], Any]:
    """Return command-line arguments for a value other than the default, and the value."""
    if option.kind is bool:
        return [option.flag], option.default is not True
    if option.choices:
        value: Any = next(choice for choice in option.choices if choice != option.default)
    else:
        value = {int: 12, float: 0.25, str: "cpu", Path: tmp_path / "given"}[option.kind]
    return [option.flag, f"{value}"], value


@pytest.mark.parametrize(
    ("command", "where", "option"), passing(), ids=lambda part: getattr(part, "flag", str(part).rpartition(".")[2])
)
def test_each_option_of_each_command_reaches_what_it_sets(command, where, option, run, tmp_path, monkeypatch):
    if command == "prepare" and where.endswith("read") and option.keyword == "box_size":
        return  # there it is the box size to crop to
    seen: dict[str, Any] = {}

    place, _, attribute = where.rpartition(".")

    @functools.wraps(getattr(pkgutil.resolve_name(place), attribute))
    def target(*arguments, **keywords):
        seen.update(keywords)
        raise Reached

    name, *more = command.split()
    arguments = [name, *reached(name, run[0], tmp_path), *more]
    if not where.endswith("read") and name in READERS:
        arguments += ["--contrast", "dark"]
    if option.keyword == "n" or option.keyword == "radius":
        return
    monkeypatch.setattr(where, target)
    typed, value = another(option, tmp_path)
    assert main([*arguments, *typed]) == 130
    assert seen[option.keyword] == value


def test_one_seed_is_that_of_the_model_and_of_its_training(run, tmp_path, monkeypatch):
    seen = {}

    def fit(model, particles, config, resume=None):
        seen.update(model=model.config["seed"], run=config.seed)
        raise Reached

    monkeypatch.setattr("cryotwin_nb.training.fit", fit)
    arguments = ["train", *reached("train", run[0], tmp_path), "--contrast", "dark", "--seed", "7"]
    assert main(arguments) == 130 and seen == {"model": 7, "run": 7}


@pytest.mark.parametrize(("option", "keyword"), [("--n", "n"), ("--radius", "radius")])
def test_the_extent_of_a_selection_reaches_it(option, keyword, run, tmp_path, monkeypatch):
    seen = {}

    @functools.wraps(ct.select_near)
    def near(*arguments, **keywords):
        seen.update(keywords)
        return np.arange(3)

    monkeypatch.setattr("cryotwin_nb.exchange.select_near", near)
    arguments = reached("select", run[0], tmp_path)
    arguments[arguments.index("--state") : arguments.index("--state") + 2] = ["--near", f"{tmp_path / 'points.npy'}"]
    latents = ["--latents", f"{run[0] / 'out' / 'latents.npy'}"]
    arguments[-1] = f"{run[0] / 'near.star'}"
    assert main(["select", *arguments, *latents, "--contrast", "dark", option, "5", "--overwrite"]) == 0
    assert seen[keyword] == 5


@pytest.mark.parametrize(
    ("command", "now"), [(c, now) for c, table in commands.RENAMED.items() for now in table.items()], ids=str
)
def test_a_former_spelling_is_answered_with_the_present_one(command, now, capsys):
    assert main([command, now[0]]) == 2
    assert f"{now[0]} has been replaced by {now[1]}." in capsys.readouterr().err


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_every_option_is_explained(command):
    parser = commands.parser_of(command)
    for action in parser._actions:
        text = (action.help or "").split(" (default")[0]
        assert len(text) > 10, action.option_strings
        assert len(action.option_strings) <= 1 or action.option_strings == ["-h", "--help"]


def test_no_value_names_something_to_import():
    """Options are numbers, words and paths; no value is looked up in a module."""
    kinds = {option.kind for _, _, option in passing()}
    assert kinds <= {bool, int, float, str, Path}


def test_exit_statuses(run, tmp_path, monkeypatch, capsys):
    star = f"{run[0] / 'p.star'}"
    assert main(["unknown"]) == 2 and main([]) == 2 and main(["train", "--what"]) == 2
    assert main(["--version"]) == 0 and main(["--help"]) == 0
    for error, status, said in (
        (KeyboardInterrupt(), 130, "Interrupted. `train --resume`"),
        (commands.Terminated(), 143, "Interrupted. `train --resume`"),
        (MemoryError("no memory"), 2, "the memory is exhausted"),
        (ZeroDivisionError("x"), 70, "bug in cryotwin_nb"),
    ):

        def fail(*arguments, error=error, **keywords):
            raise error

        monkeypatch.setattr("cryotwin_nb.preparation.first_look", fail)
        assert main(["look", star, "--contrast", "dark"]) == status
        assert said in capsys.readouterr().err


def test_look_tells_by_its_status_whether_something_must_be_mended(tmp_path, capsys):
    particles = ct.simulate.assembly(400, 32, snr=1.0, seed=3, progress=False)
    particles.write(tmp_path / "good.star", progress=False)
    assert main(["look", f"{tmp_path / 'good.star'}", "--contrast", "dark", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []
    assert main(["look", f"{tmp_path / 'good.star'}", "--contrast", "light", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["name"] == "contrast inverted"


def test_look_writes_its_maps_in_the_other_hand(tmp_path):
    ct.simulate.assembly(100, 16, snr=1.0, seed=3, progress=False).write(tmp_path / "p.star", progress=False)
    command = ["look", f"{tmp_path / 'p.star'}", "--contrast", "dark", "--output"]
    for name, options in (("one", []), ("other", ["--flip-hand"])):
        assert main([*command, f"{tmp_path / name}", *options]) in (0, 1)
    for name in ("map.mrc", "half1.mrc", "half2.mrc"):
        one = torch.as_tensor(ct.read_map(tmp_path / "one" / name)[0])
        np.testing.assert_allclose(ct.read_map(tmp_path / "other" / name)[0], mirrored(one), atol=1e-6)
    assert (tmp_path / "one" / "look.png").read_bytes() != (tmp_path / "other" / "look.png").read_bytes()


def test_a_terminated_training_can_be_resumed(run, tmp_path):
    """SIGTERM, as sent by a batch queue, ends with a distinct status; the next call uses the checkpoint."""
    command = [sys.executable, "-m", "cryotwin_nb", "train", f"{run[0] / 'p.star'}", "--output", f"{tmp_path}"]
    command += ["--contrast", "dark", "--latent-dim", "2", "--n-components", "3", "--epochs", "4000", "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": f"{Path(ct.__file__).parents[1]}", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 143, error
    assert "resume where they stopped" in error
    assert ct.CryoTwin.load(tmp_path / "checkpoint.pt").config["latent_dim"] == 2


def test_routes_draw_the_copies_of_an_image_together(far_apart, run, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr("cryotwin_nb.pathways.find_routes", lambda *_, **options: given.update(options) or [])
    np.save(tmp_path / "z.npy", np.zeros((3, 2)))
    arguments = ["routes", far_apart[1], "--start", "S1", "--end", "S2", "--latents", f"{tmp_path / 'z.npy'}"]
    assert main(arguments) == 0 and "groups" not in given
    assert main([*arguments, "--particles", f"{run[0] / 'p.star'}"]) == 0
    assert (given["groups"] == ct.Particles.read(run[0] / "p.star", images=False).identity).all()


def test_routes_and_support_from_the_shell(far_apart, run, tmp_path, capsys):
    model = far_apart[1]
    assert main(["routes", model, "--start", "S1", "--end", "S2", "--n-steps", "4", "--json"]) == 0
    routes = json.loads(capsys.readouterr().out)["routes"]
    assert routes and sum(route["share"] for route in routes) <= 1.001 and routes[0]["states"][0] == "S1"
    assert main([*far_apart, "--n-steps", "3"]) == 0
    capsys.readouterr()
    arguments = ["support", model, f"{run[0] / 'p.star'}", "--contrast", "dark", "--path", f"{tmp_path / 'path'}"]
    assert main([*arguments, "--json", "--output", f"{tmp_path / 'support.json'}"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert all(point["undecided"] in (True, False) for point in told["points"])
    assert len(told["points"]) == 4 and told == json.loads((tmp_path / "support.json").read_text())


@pytest.fixture
def far_apart(run, tmp_path):
    """A model with two narrow components far apart, and one between them off the straight line."""
    model = ct.CryoTwin.load(run[0] / "out" / "model.safetensors")
    means = [[0.0, 0.0], [40.0, 0.0], [20.0, 12.0]]
    model.prior = ct.GaussianMixture([0.4, 0.3, 0.3], means, np.stack([np.eye(2)] * 3))
    model.save(tmp_path / "far.safetensors")
    files = (f"{tmp_path / 'far.safetensors'}", "--output", f"{tmp_path / 'path'}")
    return ["pathway", *files, "--start", "0", "--end", "1"]


@pytest.mark.parametrize(("options", "method"), [(["--method", "ridgeline"], "ridgeline"), ([], "MaxFlux")])
def test_the_method_asked_for_is_used(far_apart, tmp_path, options, method):
    assert main([*far_apart, *options]) == 0
    assert json.loads((tmp_path / "path" / "path.json").read_text())["method"] == method


def test_a_high_barrier_of_the_mixture_is_noted_and_a_low_one_is_not(far_apart, run, tmp_path, capsys):
    assert main([*far_apart, "--method", "ridgeline"]) == 0
    printed = capsys.readouterr()
    assert "nats in the mixture; no images were counted" in printed.out
    assert "note: no images were counted. Pass --particles or --latents" in printed.err
    model = ct.CryoTwin.load(run[0] / "out" / "model.safetensors")
    model.prior = ct.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [2.0, 0.0]], np.stack([np.eye(2)] * 2))
    model.save(tmp_path / "far.safetensors")
    assert main([*far_apart, "--method", "ridgeline", "--overwrite"]) == 0
    assert "note:" not in capsys.readouterr().err


def test_the_barrier_counts_the_images_that_are_given(far_apart, tmp_path, capsys):
    model = ct.CryoTwin.load(far_apart[1])
    np.save(tmp_path / "z.npy", model.prior.sample(2_000, seed=0))
    assert main([*far_apart, "--method", "ridgeline", "--latents", f"{tmp_path / 'z.npy'}"]) == 0
    printed = capsys.readouterr()
    assert "maps; not measured: no image between" in printed.out
    assert "note: part of the path holds no image. Try --method max_flux." in printed.err
    assert "--latents" not in printed.err
    stored = json.loads((tmp_path / "path" / "path.json").read_text())["measured_barrier"]
    assert stored["nats"] is None and stored["source"] == "images" and len(stored["empty_stretch"]) == 2


def test_barriers_of_routes_and_paths_are_the_same_figure(far_apart, tmp_path, capsys):
    model = ct.CryoTwin.load(far_apart[1])
    model.prior = ct.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [5.0, 0.0]], np.stack([np.eye(2)] * 2))
    model.save(far_apart[1])
    np.save(tmp_path / "z.npy", model.prior.sample(4_000, seed=0))
    given = ["--latents", f"{tmp_path / 'z.npy'}"]
    assert main([*far_apart, "--json", *given]) == 0
    path = json.loads(capsys.readouterr().out)["measured_barrier"]
    expected = 2.5**2 / 2 - np.log(2)
    assert path["nats"] == pytest.approx(expected, abs=0.3) and path["images_on_path"] > 3_900
    assert path["interval"][0] <= path["nats"] <= path["interval"][1] and path["source"] == "images"
    assert main(["routes", far_apart[1], "--start", "0", "--end", "1", "--json", *given]) == 0
    route = json.loads(capsys.readouterr().out)["routes"][0]["measured_barrier"]
    assert route["nats"] == pytest.approx(path["nats"], abs=0.1)
    assert main(["routes", far_apart[1], "--start", "0", "--end", "1", *given]) == 0
    assert "images at its narrowest" in capsys.readouterr().out
    assert main([*far_apart, "--json", "--overwrite"]) == 0
    alone = json.loads(capsys.readouterr().out)["measured_barrier"]
    assert alone["nats"] == pytest.approx(expected, abs=0.05) and alone["source"] == "mixture"


def test_the_images_of_particles_are_counted(run, tmp_path, capsys):
    model, star = f"{run[0] / 'out' / 'model.safetensors'}", f"{run[0] / 'p.star'}"
    trained = ct.CryoTwin.load(model)
    z = trained.embed(ct.Particles.read(star, contrast="dark"))
    low, high = z.quantile(0.3, dim=0), z.quantile(0.7, dim=0)
    trained.prior = ct.GaussianMixture([0.5, 0.5], torch.stack([low, high]), np.stack([np.cov(z.T) / 4] * 2))
    trained.save(tmp_path / "two.safetensors")
    command = ["pathway", f"{tmp_path / 'two.safetensors'}", "--start", "0", "--end", "1"]
    options = ["--output", f"{tmp_path / 'p'}", "--particles", star, "--contrast", "dark", "--json"]
    assert main([*command, *options]) == 0
    assert json.loads(capsys.readouterr().out)["measured_barrier"]["source"] == "images"
