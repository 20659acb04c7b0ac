"""cryoDRGN's run folders: synthetic ones in its layout and, if the program is installed, real ones."""

from __future__ import annotations

import pickle
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.formats import cryodrgn

N, DIM, BOX = 6, 3, 16


def latents(epoch: int) -> tuple[np.ndarray, np.ndarray]:
    mean, log_variance = np.random.default_rng(epoch).normal(size=(2, N, DIM)).astype(np.float32)
    return mean, log_variance


def write_pickles(path: Path, *parts: object) -> None:
    """Write one pickle after the other, as cryoDRGN does."""
    with open(path, "wb") as file:
        for part in parts:
            pickle.dump(part, file)


def write_config(folder: Path, ind: str | None = None) -> None:
    config = {
        "dataset_args": {"ind": ind, "particles": "/data/particles.mrcs", "norm": [0.0, 1.5]},
        "lattice_args": {"D": BOX + 1, "extent": 0.5, "ignore_DC": True},
        "model_args": {"zdim": DIM, "qdim": 256},
        "cmd": ["/opt/bin/cryodrgn", "train_vae"],
    }
    (folder / "config.yaml").write_text(yaml.dump(config))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run of twelve epochs, of which the second, the ninth and the last are stored; no selection."""
    folder = tmp_path / "run of today"
    folder.mkdir()
    for epoch in (2, 9, 12):
        write_pickles(folder / f"z.{epoch}.pkl", *latents(epoch))
        (folder / f"weights.{epoch}.pkl").write_bytes(b"never opened")
    write_config(folder)
    return folder


# Runs


def test_the_last_epoch_is_read_by_default(folder):
    write_pickles(folder / "z.best.pkl", np.zeros((1, 1)))
    run = ct.read_cryodrgn(str(folder))
    assert (run.folder, run.epoch, run.box_size) == (folder, 12, BOX)
    mean, log_variance = latents(12)
    assert torch.equal(run.latents, torch.as_tensor(mean)) and run.latents.dtype == torch.float32
    assert torch.equal(run.log_variances, torch.as_tensor(log_variance))
    assert run.indices.tolist() == list(range(N))


def test_an_epoch_can_be_chosen(folder):
    run = ct.read_cryodrgn(folder, epoch=2)
    assert run.epoch == 2 and torch.equal(run.latents, torch.as_tensor(latents(2)[0]))


def test_latents_without_variances_are_read(folder):
    write_pickles(folder / "z.13.pkl", latents(13)[0])
    run = ct.read_cryodrgn(folder)
    assert run.epoch == 13 and run.log_variances is None


KEPT = np.array([0, 2, 3, 7, 8, 11])


@pytest.mark.parametrize("kept", [KEPT, KEPT.tolist(), np.isin(np.arange(12), KEPT)], ids=["array", "list", "mask"])
@pytest.mark.parametrize("noted", ["absolute", "of the start", "moved", "of the run"])
def test_the_selection_tells_whose_latents_they_are(folder, tmp_path, noted, kept, monkeypatch):
    """The file given by --ind is found relative to the working directory of the run, or in the run folder."""
    monkeypatch.chdir(tmp_path)
    path = (folder if noted in ("moved", "of the run") else tmp_path) / "chosen.pkl"
    path.write_bytes(pickle.dumps(kept))
    write_config(folder, {"absolute": str(path), "moved": "/gone/chosen.pkl"}.get(noted, "chosen.pkl"))
    run = ct.read_cryodrgn(folder)
    assert run.indices.tolist() == KEPT.tolist() and run.indices.dtype == np.int64


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def content(name: str, *parts: object) -> Callable[[Path], None]:
    return lambda folder: write_pickles(folder / name, *parts)


def text(value: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.yaml").write_text(value) and None


def selection(value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        write_config(folder, "/gone/ind.pkl")
        if value is not None:
            write_pickles(folder / "ind.pkl", value)

    return change


def no_latents(folder: Path) -> None:
    for path in folder.glob("z.*.pkl"):
        path.unlink()


def cut_latents(folder: Path) -> None:
    (folder / "z.12.pkl").write_bytes((folder / "z.12.pkl").read_bytes()[:-9])


def no_configuration(folder: Path) -> None:
    (folder / "config.yaml").unlink()


def old_configuration(folder: Path) -> None:
    (folder / "config.yaml").rename(folder / "config.pkl")


MEAN, LOG_VARIANCE = latents(12)

# case: (function that corrupts the valid run, text expected in the message)
CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "hostile mean": (content("z.12.pkl", Hostile()), r"z\.12\.pkl.*No code in this file was run"),
    "hostile variance": (content("z.12.pkl", MEAN, Hostile()), r"z\.12\.pkl.*No code in this file was run"),
    "hostile selection": (selection(Hostile()), r"ind\.pkl.*No code in this file was run"),
    "hostile configuration": (text("!!python/object/apply:os.system ['false']"), r"config\.yaml.*ConstructorError"),
    "two shapes": (content("z.12.pkl", MEAN, LOG_VARIANCE[:, :2]), r"z\.12\.pkl.*\(n, d\)"),
    "one dimension": (content("z.12.pkl", MEAN[:, 0]), r"z\.12\.pkl.*\(n, d\)"),
    "no numbers": (content("z.12.pkl", "latents"), r"z\.12\.pkl.*found an object of type str.*\(n, d\)"),
    "not finite": (content("z.12.pkl", np.full((N, DIM), np.inf)), r"z\.12\.pkl.*latent = inf"),
    "cut latents": (cut_latents, r"z\.12\.pkl.*does not contain plain arrays"),
    "no latents": (no_latents, r"no latents, expected z\.N\.pkl.*train_vae"),
    "no selection": (selection(None), r"config\.yaml names the selection .*/gone/ind\.pkl.*Copy the \.pkl"),
    "another selection": (selection(np.arange(5)), r"ind\.pkl.*5 particles, expected 6"),
    "another mask": (selection(np.arange(12) < 7), r"ind\.pkl.*7 particles, expected 6"),
    "no indices": (selection(np.arange(6.0)), r"ind\.pkl.*is not a list of integers"),
    "no configuration": (no_configuration, r"config\.yaml does not exist"),
    "old configuration": (old_configuration, r"config\.pkl, from an old version.*later version of cryoDRGN"),
    "other yaml": (text("lattice_args: {extent: 0.5}"), r"config\.yaml.*dataset_args, and lattice_args with D"),
    "no lattice": (text("dataset_args: {}"), r"config\.yaml.*is not the configuration of a cryoDRGN run"),
    "empty yaml": (text("# nothing"), r"config\.yaml.*is not the configuration of a cryoDRGN run"),
    "no yaml": (text("a: [1"), r"config\.yaml.*ParserError"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_is_no_run_is_refused(folder, case):
    spoil, message = CASES[case]
    spoil(folder)
    with pytest.raises(InputError, match=f"(?s){message}"):
        ct.read_cryodrgn(folder)


def test_an_epoch_that_is_not_there_is_refused_with_those_that_are(folder):
    with pytest.raises(InputError, match=r"latents of the epochs \[2, 9, 12\], expected z\.5\.pkl"):
        ct.read_cryodrgn(folder, epoch=5)


# The command


def recorded(command: str, folder: Path) -> list[str]:
    """Return the arguments that a program receives from the shell."""
    text = "import json, sys; print(json.dumps(sys.argv[1:]))"
    (folder / "program.py").write_text(text)
    program = f"{shlex.quote(sys.executable)} {shlex.quote(str(folder / 'program.py'))}"
    shell = command.replace("cryodrgn", program, 1)
    return yaml.safe_load(subprocess.run(shell, shell=True, check=True, capture_output=True, text=True).stdout)


def test_the_command_survives_the_shell(folder, tmp_path):
    output = tmp_path / "it's $HOME & (a; path)*"
    run = ct.read_cryodrgn(folder, epoch=9)
    z = run.latents[:4] + 1 / 3
    command = run.decode_command(z, output, voxel_size=1.31)
    assert command.startswith("cryodrgn eval_vol ")
    files = [str(folder / "weights.9.pkl"), "--config", str(folder / "config.yaml"), "--zfile", str(output / "z.txt")]
    assert recorded(command, tmp_path) == ["eval_vol", *files, "-o", str(output), "--Apix", "1.31"]
    assert shlex.split(run.decode_command(z, output, 1.31, program="/opt/my env/cryodrgn"))[0] == "/opt/my env/cryodrgn"
    table = np.loadtxt(output / "z.txt")
    np.testing.assert_array_equal(table.astype(np.float32), z.numpy())


@pytest.mark.parametrize("z", [torch.zeros(3), torch.zeros(2, DIM + 1), torch.zeros(0, DIM)], ids=str)
def test_latents_of_another_shape_are_not_decoded(folder, tmp_path, z):
    with pytest.raises(InputError, match=r"(?s)decode_command.*expected \(m, 3\) with m at least 1"):
        ct.read_cryodrgn(folder).decode_command(z, tmp_path / "maps", 1.0)
    assert not (tmp_path / "maps").exists()


def test_an_epoch_without_weights_cannot_be_decoded(folder, tmp_path):
    (folder / "weights.12.pkl").unlink()
    run = ct.read_cryodrgn(folder)
    with pytest.raises(InputError, match=r"(?s)weights\.12\.pkl does not exist"):
        run.decode_command(run.latents, tmp_path / "maps", 1.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (5, 1), (4, 8)])
def test_latent_tables_come_back_through_numpy(tmp_path, shape):
    """cryoDRGN reads the table with numpy.loadtxt(...).reshape(-1, d)."""
    z = np.random.default_rng(0).normal(size=shape).astype(np.float32) * 1e-3
    cryodrgn.write_latents_table(tmp_path / "z.txt", z)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "z.txt").reshape(-1, shape[1]).astype(np.float32), z)
    assert [path.name for path in tmp_path.iterdir()] == ["z.txt"]
    with pytest.raises(InputError, match=r"the folder .*none does not exist"):
        cryodrgn.write_latents_table(tmp_path / "none" / "z.txt", z)


# The maps


def write_maps(folder: Path, numbers: range, voxel_size: float = 2.5) -> None:
    for number in numbers:
        ct.write_map(folder / f"vol_{number:03d}.mrc", np.full((8, 8, 8), number, np.float32), voxel_size)


@pytest.mark.parametrize("first", [1, 0, 995])
def test_maps_come_in_the_order_of_the_latents(folder, tmp_path, first):
    """Twelve maps, sorted by number, including across the change to four digits; older versions count from 0."""
    run, output = ct.read_cryodrgn(folder), tmp_path / "vol_7"
    run.decode_command(torch.zeros(12, DIM), output, 2.5)
    write_maps(output, range(first, first + 12))
    (output / "vol_mean.mrc").write_bytes(b"another's")
    maps, voxel_size = run.read_maps(output)
    assert maps.shape == (12, 8, 8, 8) and maps.dtype == torch.float32
    assert maps[:, 0, 0, 0].tolist() == list(range(first, first + 12)) and voxel_size == pytest.approx(2.5)


@pytest.mark.parametrize(("m", "written"), [(1, 0), (4, 3), (1, 2)])
def test_another_number_of_maps_is_refused(folder, tmp_path, m, written):
    run = ct.read_cryodrgn(folder)
    run.decode_command(torch.zeros(m, DIM), tmp_path / "maps", 2.5)
    write_maps(tmp_path / "maps", range(1, written + 1))
    with pytest.raises(InputError, match=rf"(?s){written} maps .* expected {m}, one for each latent"):
        run.read_maps(tmp_path / "maps")


def test_maps_without_their_latents_are_refused(folder, tmp_path):
    write_maps(tmp_path, range(1, 3))
    with pytest.raises(InputError, match=r"(?s)z\.txt does not exist"):
        ct.read_cryodrgn(folder).read_maps(tmp_path)


# The real program


@pytest.mark.skipif(shutil.which("cryodrgn") is None, reason="cryoDRGN is not installed")
def test_a_pathway_on_a_run_of_the_program_itself(tmp_path):
    particles = ct.simulate.hinge(64, 16, progress=False)
    stem, folder, kept = tmp_path / "some images", tmp_path / "a run", np.arange(64)[::-1][:48]
    cryodrgn.write_poses(f"{stem}_poses.pkl", particles.rotations, particles.shifts, 16, particles.pixel_size)
    cryodrgn.write_ctf(f"{stem}_ctf.pkl", particles.ctf, 16, particles.pixel_size)
    particles.write(f"{stem}.star", progress=False)
    (tmp_path / "kept.pkl").write_bytes(pickle.dumps(np.sort(kept)))
    command = ["cryodrgn", "train_vae", f"{stem}.mrcs", "--poses", f"{stem}_poses.pkl", "--ctf", f"{stem}_ctf.pkl"]
    command += ["--ind", str(tmp_path / "kept.pkl"), "--zdim", "2", "-n", "1", "--seed", "0", "-o", str(folder)]
    command += ["--no-analysis", "--uninvert-data", "--enc-dim", "32", "--dec-dim", "32", "--max-threads", "1"]
    subprocess.run(command, check=True, capture_output=True)

    run = ct.read_cryodrgn(folder)
    assert (run.epoch, run.box_size, run.latents.shape) == (1, 16, (48, 2))
    assert run.indices.tolist() == list(range(16, 64))
    assert run.log_variances.shape == (48, 2) and torch.isfinite(run.log_variances).all()

    prior = ct.GaussianMixture.fit(run.latents, 2, select=False)
    path = ct.ridgeline(prior, 0, 1)
    command = run.decode_command(path.latents, tmp_path / "the maps", particles.pixel_size)
    subprocess.run(command, shell=True, check=True, capture_output=True)
    maps, voxel_size = run.read_maps(tmp_path / "the maps")
    assert maps.shape == (len(path.latents), 16, 16, 16) and torch.isfinite(maps).all()
    assert voxel_size == pytest.approx(particles.pixel_size)
    assert maps.flatten(1).std(1).min() > 0
    single = run.decode_command(path.latents[-1:], tmp_path / "one", particles.pixel_size)
    subprocess.run(single, shell=True, check=True, capture_output=True)
    torch.testing.assert_close(run.read_maps(tmp_path / "one")[0][0], maps[-1])
