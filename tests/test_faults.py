"""Faults during long training: a kill, a full disk, files that shrink, vanish, change or contain NaN.

Only progress after the last checkpoint is lost, no file is half-written, and the reason is reported in one line.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.training import TrainingConfig, fit

pytestmark = pytest.mark.usefixtures("one_thread")

FILES = {"model.safetensors", "checkpoint.pt", "latents.npy", "latents.npy.origin.npz"}
SMALL = dict(architecture="coordinate", latent_dim=2, n_components=3, width=16, depth=1, n_features=16)
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{Path(ct.__file__).parents[1]}"}


@pytest.fixture
def star(tmp_path) -> Path:
    """A STAR file of 90 particles and its stack, particles.mrcs."""
    ct.simulate.hinge(90, 16, progress=False).write(tmp_path / "particles.star", progress=False)
    return tmp_path / "particles.star"


def config(checkpoint: Path | None, **changes) -> TrainingConfig:
    settings = {"epochs": 3, "batch_size": 16, "device": "cpu", "precision": "float32", "cache_gib": 0.0}
    return TrainingConfig(checkpoint=checkpoint, **(settings | changes))


def read(star: Path) -> ct.Particles:
    return ct.Particles.read(star, contrast="dark")


def command(star: Path, output: Path, *options: str) -> list[str]:
    settings = "--contrast dark --latent-dim 2 --n-components 3 --epochs 4 --batch-size 16 --device cpu --cache-gib 0"
    return ["train", f"{star}", "--output", f"{output}", *settings.split(), *options]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    latents = torch.as_tensor(np.load(folder / "latents.npy"))
    return ct.CryoTwin.load(folder / "model.safetensors").state_dict() | {"latents": latents}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def test_killed_at_any_moment_a_run_goes_on_to_the_bit(star, tmp_path):
    options = ("--architecture", "coordinate", "--checkpoint-minutes", "1e-6", "--resume")  # after every step
    assert main(command(star, tmp_path / "whole", *options)) == 0
    output, moments = tmp_path / "killed", np.random.default_rng(0).uniform(0, 0.25, 3)
    run = [sys.executable, "-m", "cryotwin_nb", *command(star, output, *options)]
    checkpoint, killed = output / "checkpoint.pt", 0
    for moment in moments:
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = subprocess.Popen(run, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
            time.sleep(0.002)
        time.sleep(moment)
        process.kill()
        killed += process.wait() == -9
    assert killed >= 2  # otherwise the kills came too late
    assert main(command(star, output, *options)) == 0
    assert_same(tensors(tmp_path / "whole"), tensors(output))
    assert {p.name for p in output.iterdir()} == FILES  # no half-written file


def test_a_checkpoint_within_an_epoch_goes_on_to_the_bit(star, tmp_path, monkeypatch):
    def broken(*arguments, plain=torch.optim.RAdam.step):
        steps.append(1)
        if len(steps) == 10:  # the fourth step of the second epoch
            raise KeyboardInterrupt
        return plain(*arguments)

    steps, path, whole = [], tmp_path / "c.pt", ct.CryoTwin(16, **SMALL)
    history = fit(whole, read(star), config(None), progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.RAdam, "step", broken)
        with pytest.raises(KeyboardInterrupt):
            fit(ct.CryoTwin(16, **SMALL), read(star), config(path, checkpoint_minutes=1e-9), progress=False)
    assert torch.load(path)["training"]["interrupted"]["step"] == 3
    resumed = ct.CryoTwin(16, **SMALL)
    continued = fit(resumed, read(star), config(path), resume=path, progress=False)
    assert continued.distortion == history.distortion and continued.rate == history.rate
    assert_same(whole.state_dict(), resumed.state_dict())


class Shrinks:
    """Cuts a stack after the first epoch."""

    def __init__(self, stack: Path) -> None:
        self.stack, self.content = stack, stack.read_bytes()

    def __call__(self, history, model) -> None:
        if history.epochs == 1:
            self.change()

    def change(self) -> None:
        os.truncate(self.stack, len(self.content) - 1000)


class Vanishes(Shrinks):
    """Removes the stack after the first epoch."""

    def change(self) -> None:
        self.stack.unlink()


class Spoilt(Shrinks):
    """Writes NaN into image 78 after the first epoch."""

    def change(self) -> None:
        with open(self.stack, "r+b") as file:
            file.seek(1024 + 77 * 16 * 16 * 4)
            file.write(np.full(5, np.nan, "<f4").tobytes())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Shrinks, r"particles\.mrcs can no longer be read: the file ends \d+ bytes early"),
        (Vanishes, r"particles\.mrcs can no longer be read: .*No such file"),
        (Spoilt, r"image 78 of .*particles\.mrcs: found NaN or infinity"),
    ],
)
def test_a_stack_that_changes_during_training_is_told_and_nothing_is_lost(fault, message, star, tmp_path):
    path, whole, resumed = tmp_path / "c.pt", ct.CryoTwin(16, **SMALL), ct.CryoTwin(16, **SMALL)
    fit(whole, read(star), config(None), progress=False)
    fault = fault(star.with_suffix(".mrcs"))
    with pytest.raises(ct.InputError, match=message):
        fit(ct.CryoTwin(16, **SMALL), read(star), config(path), callbacks=[fault], progress=False)
    fault.stack.write_bytes(fault.content)
    fit(resumed, read(star), config(path), resume=path, progress=False)
    assert_same(whole.state_dict(), resumed.state_dict())


@pytest.fixture
def no_space():
    """Return a function that limits files of this process to 20 kB; undone at the end."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("architecture", ["subspace", "coordinate"])
def test_a_full_disk_is_told_in_one_line_and_the_last_checkpoint_stays(architecture, star, tmp_path, no_space, capfd):
    options = ("--architecture", architecture, "--checkpoint-minutes", "1e-6", "--resume")
    assert main(command(star, tmp_path / "out", *options, "--epochs", "1")) == 0
    before = (tmp_path / "out" / "checkpoint.pt").read_bytes()
    capfd.readouterr()
    no_space()
    assert main([*command(star, tmp_path / "out", *options[:-1])]) == 2
    lines = capfd.readouterr().err.splitlines()
    (told,) = (number for number, line in enumerate(lines) if line.startswith("error: "))
    assert "checkpoint.pt" in lines[told] and "Free space" in lines[told + 1]
    assert (tmp_path / "out" / "checkpoint.pt").read_bytes() == before
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES


def test_a_folder_that_cannot_be_written_to_is_told_before_the_training(star, tmp_path, capsys, monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)  # root can write everywhere
    monkeypatch.setattr(
        "cryotwin_nb.particles.formation.ImageFormation.measure", lambda *_: pytest.fail("the training has begun")
    )
    assert main(command(star, tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert "out cannot be written to: [Errno 13] Permission denied" in error and error.count("\n") == 2


def test_resume_without_a_checkpoint_starts(star, tmp_path):
    assert main(command(star, tmp_path / "out", "--resume", "--epochs", "1")) == 0


def test_resume_refuses_images_that_have_changed(star, tmp_path, capsys):
    options = ("--architecture", "coordinate", "--epochs", "1", "--resume")
    assert main(command(star, tmp_path / "out", *options)) == 0
    stack = star.with_suffix(".mrcs")
    content = bytearray(stack.read_bytes())
    content[1024 + 89 * 1024 + 3] ^= 1  # the last image
    stack.write_bytes(content)
    capsys.readouterr()
    assert main(command(star, tmp_path / "out", *options)) == 2
    assert "images" in capsys.readouterr().err
