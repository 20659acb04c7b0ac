"""Faults: a kill, a full disk, files that shrink, vanish, change or contain NaN during training; damaged files.

Only progress after the last checkpoint is lost, no file is half-written, and the reason is reported in one line. Files
that are damaged, or belong to another run or stack, are refused.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.particles.whitening import Whitening
from cryotwin_nb.training import TrainingConfig, fit
from cryotwin_nb.truth.truth import Truth

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
    assert main([*command(star, tmp_path / "out", *options[:-1]), "--overwrite"]) == 2
    lines = capfd.readouterr().err.splitlines()
    (told,) = (number for number, line in enumerate(lines) if line.startswith("error: "))
    assert "checkpoint.unfinished.pt" in lines[told] and "Free space" in lines[told + 1]
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


def test_another_number_of_threads_is_reported_on_resumption(star, tmp_path):
    path = tmp_path / "c.pt"
    fit(ct.CryoTwin(16, **SMALL), read(star), config(path, epochs=1), progress=False)
    torch.set_num_threads(2)  # undone by the fixture one_thread
    with pytest.warns(UserWarning, match="written with 1 threads and is resumed with 2"):
        fit(ct.CryoTwin(16, **SMALL), read(star), config(path, epochs=1), resume=path, progress=False)


# ------------------------------------------------------------------------------------------------------- damaged files


def flip(path: Path, *bits: int) -> None:
    content = bytearray(path.read_bytes())
    for bit in bits:
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a prepared set, raw.star and runs of two seeds, a and b."""
    folder = tmp_path_factory.mktemp("trained")
    ct.simulate.hinge(90, 16, progress=False).write(folder / "raw.star", progress=False)
    ct.prepare(read(folder / "raw.star"), folder / "particles.star", progress=False)
    for seed, name in enumerate("ab"):
        assert main([*command(folder / "particles.star", folder / name, "--seed", f"{seed}"), "--epochs", "1"]) == 0
    torch.save(torch.load(folder / "a" / "checkpoint.pt"), folder / "a" / "earlier.pt")  # without a seal
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / "copy")


def select(folder: Path, run: str = "a", latents: str = "a/latents.npy", model: str = "model.safetensors") -> int:
    arguments = [f"{folder / run / model}", f"{folder / 'particles.star'}", "--latents", f"{folder / latents}"]
    return main(["select", *arguments, "--state", "S1", "--output", f"{folder / 'selected.star'}", "--overwrite"])


READERS = {
    "a/model.safetensors": ct.CryoTwin.load,
    "a/checkpoint.pt": ct.CryoTwin.load,
    "a/earlier.pt": ct.CryoTwin.load,
    "particles.whitening.npz": lambda path: read(path.parent / "particles.star"),
    "particles.truth.npz": lambda path: read(path.parent / "particles.star"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_with_flipped_bits_is_refused(folder, name):
    path, rng = folder / name, np.random.default_rng(0)
    content = path.read_bytes()
    READERS[name](path)
    for _ in range(20):
        flip(path, *rng.choice(8 * len(content), rng.integers(1, 5), replace=False).tolist())
        with pytest.raises(ct.InputError):
            READERS[name](path)
        path.write_bytes(content)


def test_a_seal_that_is_removed_or_cut_is_noticed(folder):
    path = folder / "a" / "checkpoint.pt"
    content = path.read_bytes()
    for changed in (content[:-1], content[:-64], content + b"0", content[: len(content) // 2]):
        path.write_bytes(changed)
        with pytest.raises(ct.InputError, match="do not match its checksum"):
            ct.CryoTwin.load(path)


@pytest.mark.parametrize("name", ["a/latents.npy", "a/latents.npy.origin.npz"])
def test_damaged_latents_are_refused(folder, name, capsys):
    assert select(folder) == 0
    for share in (0.02, 0.5, 0.98):
        content = (folder / name).read_bytes()
        flip(folder / name, int(8 * share * len(content)))
        assert select(folder) == 2
        assert Path(name).name in capsys.readouterr().err
        (folder / name).write_bytes(content)


# ------------------------------------------------------------------------------------------------------ exchanged files


def test_latents_of_another_training_are_refused(folder, capsys):
    np.save(folder / "points.npy", np.load(folder / "a/latents.npy")[:2])
    model, star, latents = folder / "a/model.safetensors", folder / "particles.star", folder / "b/latents.npy"
    given = ["--latents", f"{latents}"]
    for arguments in (
        ["select", f"{model}", f"{star}", *given, "--state", "S1", "--output", f"{folder / 's.star'}"],
        ["support", f"{model}", f"{star}", *given, "--path", f"{folder / 'points.npy'}"],
        ["routes", f"{model}", *given, "--start", "0", "--end", "0"],
    ):
        assert main(arguments) == 2
        expected = f"{latents} holds latents of {folder / 'b/model.safetensors'}, not of {model}."
        assert expected in capsys.readouterr().err
    assert not (folder / "s.star").exists()


def test_a_model_saved_again_keeps_its_latents_and_one_trained_again_does_not(folder, capsys):
    model = ct.CryoTwin.load(folder / "a/model.safetensors")
    model.history.seconds[0] += 1
    model.prior = ct.GaussianMixture.fit(torch.as_tensor(np.load(folder / "a/latents.npy")), 2)
    model.save(folder / "a/model.safetensors")
    assert select(folder) == 0
    assert select(folder, model="checkpoint.pt") == 0  # the same weights
    shutil.copy(folder / "b/model.safetensors", folder / "a/model.safetensors")
    assert select(folder) == 2
    assert "holds latents of an earlier version of" in capsys.readouterr().err


def test_a_record_of_an_earlier_build_is_read(folder):
    record = folder / "a/latents.npy.origin.npz"
    with np.load(record) as stored:
        arrays = {name: stored[name] for name in stored if name != "notes"}
    np.savez(record, **arrays)
    assert select(folder) == 0
    other = ct.CryoTwin.load(folder / "a/model.safetensors")
    with torch.no_grad():
        other.networks.mean[8, 8, 8] += 1e-3
    other.save(folder / "b/model.safetensors")
    assert select(folder, run="b") == 0  # names no model


def test_a_checkpoint_of_another_run_is_refused(folder, capsys):
    resumed = command(folder / "particles.star", folder / "a", "--seed", "1", "--resume", "--epochs", "1")
    assert main(resumed) == 2
    assert "holds a different model: seed was 0 and is now 1." in capsys.readouterr().err


def test_a_whitening_beside_images_that_are_not_whitened_is_refused(folder):
    shutil.copy(folder / "particles.whitening.npz", folder / "raw.whitening.npz")
    with pytest.raises(ct.InputError, match=r"raw\.whitening\.npz is in its folder, but the file does not list"):
        read(folder / "raw.star")


def other(folder: Path) -> Path:
    """Return the name of another prepared set of as many particles, without its suffix."""
    ct.prepare(ct.simulate.hinge(90, 16, seed=1, progress=False), folder / "other/particles.star", progress=False)
    return folder / "other/particles"


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (".mrcs", r"particles\.star was written for another stack than .*particles\.mrcs"),
        (".star", r"particles\.star was written for another stack than .*particles\.mrcs"),
        (".whitening.npz", r"particles\.whitening\.npz belongs to another stack than .*particles\.star"),
        (".truth.npz", r"particles\.truth\.npz belongs to another stack than .*particles\.star"),
    ],
)
def test_files_of_another_preparation_are_refused(folder, suffix, message):
    shutil.copy(f"{other(folder)}{suffix}", f"{folder / 'particles'}{suffix}")
    with pytest.raises(ct.InputError, match=message):
        read(folder / "particles.star")


def test_a_prepared_stack_is_read_alone_and_a_cs_file_of_its_name_is_not_whitened(folder):
    assert ct.Particles.read(folder / "particles.mrcs", contrast="dark").whitening is not None
    (folder / "particles.txt").write_text("raw.mrcs\n")  # the original of the preparation
    assert ct.Particles.read(folder / "particles.txt", contrast="dark").whitening is None
    shutil.copy(folder / "raw.mrcs", folder / "particles.mrcs")
    with pytest.raises(ct.InputError, match="belongs to another stack"):
        ct.Particles.read(folder / "particles.mrcs", contrast="dark")


def test_a_sorted_star_file_is_not_read_with_the_whitening_in_another_order(folder):
    lines = (folder / "particles.star").read_text().splitlines()
    at = [number for number, line in enumerate(lines) if "@" in line]
    lines[at[0]], lines[at[-1]] = lines[at[-1]], lines[at[0]]
    (folder / "particles.star").write_text("\n".join(lines) + "\n")
    with pytest.raises(ct.InputError, match=r"particles\.star was changed since it was written"):
        read(folder / "particles.star")


def test_prepared_sets_of_earlier_builds_are_read(folder):
    """Without stamps and seals."""
    expected = read(folder / "particles.star").unwhitened([0, 89])
    for name, kind in (("truth", Truth), ("whitening", Whitening)):
        kind.load(folder / f"particles.{name}.npz").save(folder / f"particles.{name}.npz")
    lines = (folder / "particles.star").read_text().splitlines()
    label = next(line for line in lines if line.startswith("_cryotwinStack"))
    lines = [re.sub(r"\s+mrc:\w+", "", line) for line in lines if line != label]
    (folder / "particles.star").write_text(re.sub(r"(_cryotwin\w+) #\d+", r"\1", "\n".join(lines) + "\n"))
    earlier = read(folder / "particles.star")
    assert torch.equal(earlier.unwhitened([0, 89]), expected) and earlier.truth is not None
