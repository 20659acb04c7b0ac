"""Commands replace the output of an earlier run only with --overwrite, and wait for other writers only with --wait."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.formats import leftovers
from cryotwin_nb.runtime import writers
from cryotwin_nb.runtime.locks import lock_path, writing

pytestmark = pytest.mark.usefixtures("one_thread")
TRAIN = ["train", "raw.star", "--contrast", "dark", "--device", "cpu", "--latent-dim", "2", "--n-components", "2"]
TRAIN += ["--epochs", "1", "--output", "run"]
READ, MODEL = ["raw.star", "--contrast", "dark"], "run/model.safetensors"
LATENTS = ["--latents", "run/latents.npy"]
COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "prepare": (["prepare", *READ, "--output", "small.star"], ["small.star", "small.mrcs"]),
    "look": (["look", *READ, "--n-images", "20", "--output", "look"], ["look/map.mrc"]),
    "train": (TRAIN, [MODEL, "run/latents.npy", "run/checkpoint.pt"]),
    "embed": (["embed", MODEL, *READ, "--output", "z.npy"], ["z.npy"]),
    "pathway": (["pathway", MODEL, "--start", "0", "--end", "1", "--output", "path"], ["path/path.json"]),
    "routes": (["routes", MODEL, "--start", "0", "--end", "1", "--output", "all"], ["all/route_01/path.json"]),
    "select": (["select", MODEL, *READ, *LATENTS, "--state", "0", "--output", "s.star"], ["s.star"]),
    "all states": (["select", MODEL, *READ, *LATENTS, "--all-states", "--output", "states"], ["states/S1.star"]),
    "support": (["support", MODEL, *READ, *LATENTS, "--path", "path", "--output", "s.json"], ["s.json"]),
    "demo": (["demo", "--output", "demo"], ["demo/table.json"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory, one_thread) -> Path:
    """Particles and a run."""
    folder = tmp_path_factory.mktemp("made")
    ct.simulate.hinge(60, 16, progress=False).write(folder / "raw.star", progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(TRAIN) == 0
    return folder


@pytest.fixture
def work(made, tmp_path, monkeypatch) -> Path:
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_earlier_output_is_refused_before_any_work(name, work, monkeypatch, capsys):
    words, files = COMMANDS[name]
    for work_of in ("cli.looking.read_particles", "cli.training.read_particles", "cli.exploring.load_model",
                    "cli.selecting.load_model", "cli.supporting.load_model", "cli.training.load_model",
                    "preparation.grids.read_on_one_grid", "demo.run"):  # fmt: skip
        monkeypatch.setattr(f"cryotwin_nb.{work_of}", lambda *_, **__: pytest.fail("the work has begun"))
    for file in files:
        for other in files:  # each of them alone suffices
            (work / other).unlink(missing_ok=True)
        (work / file).parent.mkdir(parents=True, exist_ok=True)
        (work / file).write_text("of an earlier run")
        before = contents(work)
        assert main(words) == 2
        error = capsys.readouterr().err
        assert f"error: {file}: written by an earlier run.\n" in error and "--overwrite" in error
        assert ("--resume" in error) == (name == "train")
        assert contents(work) == before


def test_a_training_that_replaces_another_leaves_it_until_the_end(work, monkeypatch):
    before = contents(work / "run")
    with monkeypatch.context() as stopped:
        stopped.setattr(ct.CryoTwin, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main([*TRAIN, "--seed", "1", "--overwrite"]) == 130
    after = contents(work / "run")
    assert after.pop("checkpoint.unfinished.pt") and after == before
    assert main([*TRAIN, "--seed", "1", "--resume"]) == 0
    assert set(contents(work / "run")) == set(before)
    assert main([*TRAIN, "--seed", "1", "--overwrite"]) == 0
    first, again = (ct.CryoTwin.load(work / "run" / name) for name in ("model.safetensors", "checkpoint.pt"))
    assert all(
        torch.equal(value, again.state_dict()[key])
        for key, value in first.networks.state_dict(prefix="networks.").items()
    )
    assert contents(work / "run")["latents.npy"] != before["latents.npy"]


def test_an_unfinished_stack_of_other_options_is_only_replaced_if_asked_for(work, monkeypatch, capsys):
    words = ["prepare", *READ, "--output", "small.star"]
    with monkeypatch.context() as stopped:
        stopped.setattr("cryotwin_nb.preparation.stack._publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(words) == 130
    unfinished = {name: value for name, value in contents(work).items() if "unfinished" in name}
    assert len(unfinished) == 2
    assert main([*words, "--dtype", "float32"]) == 2
    assert "cannot be resumed with type float32" in capsys.readouterr().err
    assert unfinished.items() <= contents(work).items()
    assert main([*words, "--dtype", "float32", "--overwrite"]) == 0
    assert not [name for name in contents(work) if "unfinished" in name]
    assert main(words) == 2 and main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize("name", ["prepare", "train", "pathway", "embed", "select", "all states"])
def test_a_command_holds_its_output_from_before_the_first_work(name, work, capsys):
    words, files = COMMANDS[name]
    for file in files:
        (work / file).unlink(missing_ok=True)
    place = work / {"all states": "states/states.star"}.get(name, files[0])
    place.parent.mkdir(exist_ok=True)
    if name in ("embed", "pathway", "select", "all states"):
        (work / MODEL).unlink()  # not read before
    lock_path(place).write_text(json.dumps(writers.this_process()._asdict() | {"machine": "other", "host": "node7"}))
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "is being written by process" in error and "on node7" in error and error.count("\n") == 2
    assert lock_path(place).exists() and leftovers.HOST


@pytest.mark.filterwarnings("default:Waiting until")
def test_a_command_waits_for_another_writer(work):
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with writing(work / "run/model.safetensors"):
            held.set()
            done.wait(60)

    writer = threading.Thread(target=hold)
    writer.start()
    held.wait(60)
    threading.Timer(0.5, done.set).start()
    before = np.load("run/latents.npy")
    assert main([*TRAIN, "--resume", "--wait", "60"]) == 0
    writer.join()
    np.testing.assert_array_equal(np.load("run/latents.npy"), before)


def test_a_refused_command_leaves_no_folder(work):
    assert main(["embed", "missing.safetensors", *READ, "--output", "new/folder/z.npy"]) == 2
    assert not (work / "new").exists()


def test_a_second_command_is_refused_before_pytorch_is_imported(work):
    with writing(work / "run"):
        program = "import sys; from cryotwin_nb.cli.main import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
        environment = os.environ | {"PYTHONPATH": f"{Path(ct.__file__).parents[1]}"}
        done = subprocess.run([sys.executable, "-c", program, *TRAIN], env=environment, capture_output=True, text=True)
    assert done.stdout == "2 False\n" and f"run is being written by process {os.getpid()}" in done.stderr
