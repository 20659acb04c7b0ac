"""Inputs are never outputs, files of the user are kept, and an unwritable place is found before the work."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import write_labels
from cryotwin_nb.explorer import saving
from cryotwin_nb.explorer.saving import write_snapshot
from cryotwin_nb.formats import leftovers, outputs
from cryotwin_nb.formats.files import atomic, require_writable
from cryotwin_nb.formats.leftovers import partial_path
from cryotwin_nb.formats.mrc_writing import write_map
from cryotwin_nb.pathways.ridgeline import pathway_from_knots

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory, one_thread) -> Path:
    """Particles, a model, latents, a pathway, poses, CTF and indices, each in a file of its own."""
    folder = tmp_path_factory.mktemp("made")
    ct.simulate.hinge(120, 16, progress=False).write(folder / "raw.star", progress=False)
    particles, model = ct.Particles.read(folder / "raw.star", contrast="dark"), ct.CryoTwin(16, latent_dim=2)
    ct.fit(model, particles, ct.TrainingConfig(epochs=1, device="cpu", final_em=False), progress=False)
    means = torch.tensor([[-2.0, 0.0], [2.0, 0.0]])
    model.prior = ct.GaussianMixture([0.5, 0.5], means, 0.3 * torch.eye(2).expand(2, 2, 2))
    model.save(folder / "run/model.safetensors")
    np.save(folder / "run/latents.npy", model.prior.sample(120, seed=0))
    ends = "--start 0 --end 1 --n-steps 2"
    assert (
        main(["pathway", f"{folder / 'run/model.safetensors'}", "--output", f"{folder / 'path'}", *ends.split()]) == 0
    )
    assert (
        main(["prepare", f"{folder / 'raw.star'}", "--contrast", "dark", "--output", f"{folder / 'small.star'}"]) == 0
    )
    ct.write_selection(folder / "ind.pkl", particles, range(50))
    return folder


@pytest.fixture
def work(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "work"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


DARK = ["--contrast", "dark"]
READ = ["raw.star", *DARK]
ENDS = ["--start", "0", "--end", "1"]
MODEL = "run/model.safetensors"
COMMANDS: dict[str, list[str]] = {
    "prepare its own input": ["prepare", *READ, "--output", "raw.star"],
    "prepare for RELION over its input": ["prepare", *READ, "--for-relion", "--output", "raw.star"],
    "prepare over the original of its input": ["prepare", "small.star", "--output", "raw.star"],
    "prepare over its stack": ["prepare", "raw.mrcs", *DARK, "--no-whiten", "--output", "raw.star"],
    "prepare, by another spelling": ["prepare", *READ, "--output", "run/../raw.star"],
    "a picture over the particles' stack": ["prepare", *READ, "--output", "new.star", "--picture", "raw.mrcs"],
    "a checkpoint over the particles": ["train", *READ, "--output", "new", "--checkpoint", "raw.star"],
    "a checkpoint over the indices": [
        "train",
        *READ,
        "--indices",
        "ind.pt",
        "--output",
        "new",
        "--checkpoint",
        "ind.pt",
    ],
    "train over its indices": ["train", *READ, "--indices", "new/latents.npy", "--output", "new", "--epochs", "1"],
    "a picture over a stack, by a link": ["prepare", *READ, "--output", "new.star", "--picture", "raw.png"],
    "embed over the particles": ["embed", MODEL, *READ, "--output", "raw.star"],
    "embed over the stack": ["embed", MODEL, *READ, "--output", "raw.mrcs"],
    "embed over the model": ["embed", MODEL, *READ, "--output", MODEL],
    "embed over the indices": ["embed", MODEL, *READ, "--indices", "new/latents.npy", "--output", "new/latents.npy"],
    "select its own input": ["select", MODEL, *READ, "--state", "0", "--output", "raw.star"],
    "select the original": ["select", MODEL, "small.star", "--state", "0", "--output", "raw.star"],
    "select the prepared": ["select", MODEL, "small.star", "--state", "0", "--output", "small.star"],
    "select the indices": ["select", MODEL, *READ, "--indices", "ind.pkl", "--state", "0", "--output", "ind.pkl"],
    "select the points": ["select", MODEL, *READ, "--near", "ind.pkl", "--output", "ind.pkl"],
    "select another format": ["select", MODEL, *READ, "--state", "0", "--output", "new.cs"],
    "all states over one": ["select", MODEL, "states/S1.star", *DARK, "--all-states", "--output", "states"],
    "pathway over the model": ["pathway", "new/latents.npy", *ENDS, "--output", "new"],
    "routes over the latents": ["routes", MODEL, *ENDS, "--latents", "new/route_01/latents.npy", "--output", "new"],
    "routes over a stack of the particles": [
        *("routes", MODEL, *ENDS, "--latents", "run/latents.npy", "--particles", "route.txt", "--output", "new"),
    ],
    "support over the path": ["support", MODEL, *READ, "--path", "path", "--output", "path/path.json"],
    "support over the latents": ["support", MODEL, *READ, "--path", "path", "--output", "path/latents.npy"],
    "look over a listed stack": ["look", "list.txt", *DARK, "--output", "new"],
    "look over a stack": ["look", "new/map.mrc", *DARK, "--output", "new"],
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_never_overwrites_what_it_reads(case, work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    for name in ("new", "new/route_01", "states"):
        (work / name).mkdir()
    shutil.copy("raw.mrcs", "new/map.mrc")
    (work / "list.txt").write_text("new/map.mrc\n")
    shutil.copy("raw.mrcs", "new/route_01/map_000.mrc")
    (work / "route.txt").write_text("new/route_01/map_000.mrc\n")
    os.link("raw.mrcs", "raw.png")
    shutil.copy("run/model.safetensors", "new/latents.npy")
    shutil.copy("run/latents.npy", "new/route_01/latents.npy")
    shutil.copy("raw.star", "states/S1.star")
    shutil.copy("ind.pkl", "ind.pt")
    if "indices" in case:
        shutil.copy("ind.pkl", "new/latents.npy")
    words, before = COMMANDS[case], contents(work)
    no_work = "cryotwin_nb.models.cryotwin.CryoTwin.embed", "cryotwin_nb.models.cryotwin.CryoTwin.volumes"
    for name in (*no_work, "cryotwin_nb.training.trainer.Trainer.closed_form"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("the work has begun"))
    assert main([*words, "--overwrite"]) == 2
    error = capsys.readouterr().err
    assert "overwrite an input" in error or "the suffix" in error or "needs particles read from" in error, error
    assert contents(work) == before


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "symbolic": lambda link, file: link.symlink_to(file),
    "hard": lambda link, file: os.link(file, link),
    "relative": lambda link, file: link.symlink_to(os.path.relpath(file, link.parent)),
}


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("stack", [False, True])
def test_a_link_to_an_input_is_the_input(kind, stack, work):
    particles = ct.Particles.read(work / "raw.star", contrast="dark")
    (work / "other").mkdir()
    LINKS[kind](work / "other" / f"linked.{'mrcs' if stack else 'star'}", work / f"raw.{'mrcs' if stack else 'star'}")
    before, output = contents(work), work / "other/linked.star"
    with pytest.raises(InputError, match="would overwrite an input"):
        particles.write(output, progress=False)
    with pytest.raises(InputError, match="would overwrite an input"):
        ct.prepare(particles, output, progress=False)
    if not stack:
        with pytest.raises(InputError, match="would overwrite an input"):
            ct.write_selection(output, particles, [0])
    assert contents(work) == before


def test_the_files_given_with_the_particles_are_inputs_too(work, tmp_path):
    os.link(work / "ind.pkl", tmp_path / "again.pkl")
    particles = ct.Particles.read(work / "raw.star", contrast="dark", indices=str(work / "ind.pkl"))[:9]
    with pytest.raises(InputError, match=r"overwrite an input of this call \(by the name .*ind\.pkl\)"):
        ct.write_selection(tmp_path / "again.pkl", particles)
    with pytest.raises(InputError, match="overwrite an input"):
        ct.fit(ct.CryoTwin(16), particles, ct.TrainingConfig(checkpoint=_hard_link(work / "ind.pkl", work / "c.pt")))
    with pytest.raises(InputError, match=r"suffix '\.star', expected \.pt"):
        ct.fit(ct.CryoTwin(16), particles, ct.TrainingConfig(checkpoint=work / "raw.star"))


def _hard_link(file: Path, link: Path) -> Path:
    os.link(file, link)
    return link


def test_states_are_not_written_over_the_file_they_come_from(work, monkeypatch):
    monkeypatch.chdir(work)
    (work / "S2.star").symlink_to("raw.star")
    prior, z = ct.CryoTwin.load(MODEL).prior, np.load("run/latents.npy")
    before = contents(work)
    with pytest.raises(InputError, match=r"S2\.star would overwrite an input"):
        ct.write_states(work, ct.Particles.read("raw.star", contrast="dark"), z, prior, least=0.5)
    assert contents(work) == before


@pytest.mark.parametrize("suffix", [".star", ".mrcs", ".pt", "", ".npy"])
def test_a_suffix_that_does_not_belong_is_refused(suffix, tmp_path):
    with pytest.raises(InputError, match="the suffix"):
        write_map(tmp_path / f"m{suffix}", np.zeros((4, 4, 4)), 1.0)
    with pytest.raises(InputError, match="the suffix"):
        write_labels(tmp_path / f"l{suffix}", {0: "B"})
    prior = ct.GaussianMixture([1.0], torch.zeros(1, 2), torch.eye(2)[None])
    with pytest.raises(InputError, match="the suffix"):
        ct.name_components(prior, lambda z: pytest.fail("the work has begun"), tmp_path / f"l{suffix}")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------- files of the user


def a_path(n_steps: int):
    prior = ct.GaussianMixture([0.5, 0.5], torch.tensor([[0.0, 0.0], [4.0, 1.0]]), torch.eye(2).expand(2, 2, 2))
    return pathway_from_knots(prior, prior.means, n_steps, method="line")


def write(folder: Path, n_steps: int, box_size: int | None = None) -> None:
    ct.write_pathway(folder, a_path(n_steps), torch.randn(n_steps + 1, 8, 8, 8), 1.0, box_size=box_size)


def test_only_maps_that_path_json_lists_are_removed(tmp_path):
    own = ["map_ref.mrc", "map_005.mrc", "difference_abc.mrc", "difference_005.mrc", "map_004.mrc.bak", "notes.txt"]
    write(tmp_path, 4)
    for name in own:
        (tmp_path / name).write_text("mine")
    listed = json.loads((tmp_path / "path.json").read_text())["files"]
    assert set(listed) == set(contents(tmp_path)) - set(own)
    write(tmp_path, 2)
    assert set(contents(tmp_path)) == set(json.loads((tmp_path / "path.json").read_text())["files"]) | set(own)
    assert not (tmp_path / "map_004.mrc").exists()
    assert all((tmp_path / name).read_text() == "mine" for name in own)


@pytest.mark.parametrize("summary", ["[1", "[]", '{"files": 3}', '{"log_prob": "x"}', '{"files": null}'])
def test_without_a_list_nothing_is_replaced_or_removed(tmp_path, summary):
    (tmp_path / "path.json").write_text(summary)
    (tmp_path / "map_009.mrc").write_text("mine")
    with pytest.raises(InputError, match=r"path\.json would be replaced"):
        write(tmp_path, 2)
    (tmp_path / "path.json").unlink()
    write(tmp_path, 2)
    assert (tmp_path / "map_009.mrc").read_text() == "mine"


def test_a_list_reaches_no_other_files(tmp_path):
    names = ["../outside.mrc", "../map_009.mrc", "/etc/map_009.mrc", "raw.star", "map_009.mrc/x", 7, ["map_008.mrc"]]
    names.append("path.json")
    (tmp_path / "path").mkdir()
    (tmp_path / "path/path.json").write_text(json.dumps({"files": names}))
    for name in ("outside.mrc", "map_009.mrc", "path/raw.star"):
        (tmp_path / name).write_text("mine")
    write(tmp_path / "path", 2)
    assert all((tmp_path / name).read_text() == "mine" for name in ("outside.mrc", "map_009.mrc", "path/raw.star"))


def test_maps_of_an_earlier_build_are_removed_as_far_as_its_path_went(tmp_path):
    write(tmp_path, 5)
    summary = json.loads((tmp_path / "path.json").read_text())
    (tmp_path / "path.json").write_text(json.dumps({k: v for k, v in summary.items() if k != "files"}))
    for name in ("map_006.mrc", "map_0005.mrc", "difference_000.mrc"):
        (tmp_path / name).write_text("mine")
    write(tmp_path, 2)
    assert {path.name for path in tmp_path.glob("*_*.mrc")} == {
        *(f"map_00{k}.mrc" for k in (0, 1, 2, 6)), "difference_001.mrc", "difference_002.mrc", "difference_000.mrc",
        "map_0005.mrc",
    }  # fmt: skip


RECORDS: dict[str, tuple[str, list[str]]] = {
    "train": ("new/latents.npy", ["train", *READ, "--output", "new"]),
    "embed": ("new/z.npy", ["embed", MODEL, *READ, "--output", "new/z.npy"]),
    "select": ("new/S1.star", ["select", MODEL, *READ, "--state", "0", "--output", "new/S1.star"]),
    "select all": ("new/S1.star", ["select", MODEL, *READ, "--all-states", "--output", "new"]),
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_record_is_replaced_only_if_it_is_ours(case, work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    name, words = RECORDS[case]
    (work / "new").mkdir()
    np.savez(work / f"{name}.origin.npz", mine=np.arange(3))
    before = contents(work)
    with monkeypatch.context() as patch:
        for work_of in ("models.cryotwin.CryoTwin.embed", "training.trainer.Trainer.closed_form"):
            patch.setattr(f"cryotwin_nb.{work_of}", lambda *_, **__: pytest.fail("the work has begun"))
        assert main(words) == 2
    assert f"{name}.origin.npz would be replaced, but was not written by cryotwin_nb" in capsys.readouterr().err
    assert contents(work) == before
    shutil.copy(work / "small.star.origin.npz", work / f"{name}.origin.npz")
    small = ["--epochs", "1", "--no-final-em", "--n-components", "2", "--latent-dim", "2"] if case == "train" else []
    assert main([*words, *small]) == 0
    assert (work / f"{name}.origin.npz").read_bytes() != before[f"new/{Path(name).name}.origin.npz"]


def test_states_and_selections_keep_a_record_of_the_user(work, tmp_path):
    particles = ct.Particles.read(work / "raw.star", contrast="dark")
    prior = ct.CryoTwin.load(work / MODEL).prior
    np.savez(tmp_path / "S2.star.origin.npz", mine=np.arange(3))
    before = contents(tmp_path)
    with pytest.raises(InputError, match="would be replaced, but was not written by cryotwin_nb"):
        ct.write_states(tmp_path, particles, np.load(work / "run/latents.npy"), prior)
    with pytest.raises(InputError, match="would be replaced, but was not written by cryotwin_nb"):
        ct.write_selection(tmp_path / "S2.star", particles, range(3))
    assert contents(tmp_path) == before


def test_files_beside_a_star_file_are_replaced_only_if_they_are_ours(work, tmp_path):
    particles = ct.Particles.read(work / "raw.star", contrast="dark")
    particles.truth = None
    for name in ("new.truth.npz", "new.whitening.npz", "new.star.origin.npz"):
        np.savez(tmp_path / name, mine=np.arange(3))
        with pytest.raises(InputError, match=f"{name} would be replaced, but was not written by cryotwin_nb"):
            particles.write(tmp_path / "new.star", progress=False)
        (tmp_path / name).write_text("not an archive")
        with pytest.raises(InputError, match="or is damaged"):
            ct.prepare(particles, tmp_path / "new.star", progress=False)
        (tmp_path / name).unlink()
    shutil.copy(work / "small.whitening.npz", tmp_path / "new.whitening.npz")
    shutil.copy(work / "raw.truth.npz", tmp_path / "new.truth.npz")
    particles.write(tmp_path / "new.star", progress=False)
    assert set(contents(tmp_path)) - {f"work/{name}" for name in contents(work)} == {"new.star", "new.mrcs"}


def test_snapshots_of_the_user_and_of_another_session_are_told_apart(tmp_path, monkeypatch):
    (tmp_path / "snapshot_008.png").write_text("mine")
    write_snapshot(tmp_path, 9, b"png")  # before the first export
    assert saving._former(tmp_path) == {"snapshot_009.png"}
    note = {"kind": "PathwayExplorer", "files": ["explorer.json", "snapshot_007.png"]}
    (tmp_path / "explorer.json").write_text(json.dumps(note))
    write_snapshot(tmp_path, 6, b"png")  # after an export: it is listed for later sessions
    monkeypatch.setattr(saving, "_SNAPSHOTS", set())
    assert saving._former(tmp_path) == {"explorer.json", "snapshot_006.png", "snapshot_007.png"}
    (tmp_path / "explorer.json").write_text(json.dumps({"kind": "PathwayExplorer", "latents": [[0.0], [1.0]]}))
    pictures = {"pathway.gif", "pathway.png", "snapshot_000.png", "snapshot_001.png"}
    assert saving._former(tmp_path) == {"explorer.json", "support.csv", *pictures}
    (tmp_path / "explorer.json").write_text(json.dumps({"kind": "mine", "files": ["support.csv"]}))
    assert saving._former(tmp_path) == set()
    with pytest.raises(InputError, match=r"snapshot_008\.png would be replaced, but explorer\.json does not list it"):
        write_snapshot(tmp_path, 8, b"png")
    assert (tmp_path / "snapshot_008.png").read_text() == "mine"


# -------------------------------------------------------------------------------------------------- before the work

PLACES: dict[str, list[str]] = {
    "prepare": ["prepare", *READ, "--output", "{}/p.star"],
    "its picture": ["prepare", *READ, "--output", "p.star", "--picture", "{}/p.png"],
    "look": ["look", *READ, "--output", "{}"],
    "train": ["train", *READ, "--output", "{}", "--epochs", "1"],
    "embed": ["embed", MODEL, *READ, "--output", "{}/z.npy"],
    "select": ["select", MODEL, *READ, "--state", "0", "--output", "{}/s.star"],
    "all states": ["select", MODEL, *READ, "--all-states", "--output", "{}"],
    "pathway": ["pathway", MODEL, *ENDS, "--output", "{}"],
    "routes": ["routes", MODEL, *ENDS, "--output", "{}"],
    "support": ["support", MODEL, *READ, "--path", "path", "--output", "{}/s.json"],
    "demo": ["demo", "--dataset", "assembly-small", "--output", "{}"],
}
WORK = (
    *(f"cryotwin_nb.models.cryotwin.CryoTwin.{name}" for name in ("embed", "volumes")),
    "cryotwin_nb.training.trainer.Trainer.closed_form",
    "cryotwin_nb.preparation.stack._amplitude",
    "cryotwin_nb.preparation.first_look",
    "cryotwin_nb.pathways.find_routes",
    "cryotwin_nb.evaluation.pathway_support",
    "cryotwin_nb.data.fetch",
)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("case", PLACES)
def test_a_place_that_is_read_only_or_full_is_found_before_the_work(case, full, work, monkeypatch, capsys):
    """Root can write everywhere, so the file system's answer is replaced."""
    monkeypatch.chdir(work)
    (work / "place").mkdir()
    real, before = outputs.shutil.disk_usage, contents(work)

    class Refuses:
        def __init__(self, dir: Path) -> None:
            self.fails = Path(dir).resolve().is_relative_to(work / "place")
            if self.fails and not full:
                raise OSError(errno.EROFS, "Read-only file system")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, _):
            if self.fails:
                raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", Refuses)
    for name in WORK:
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("the work has begun"))
    assert main([word.format("place") for word in PLACES[case]]) == 2
    error = capsys.readouterr().err
    assert "place cannot be written to" in error.replace("/particles", "") and error.count("error: ") == 1
    assert ("Read-only" in error) != full and real is outputs.shutil.disk_usage
    assert {k: v for k, v in contents(work).items() if "unfinished" not in k} == before


def test_a_disk_too_small_for_the_maps_is_found_before_they_are_decoded(work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    few = [*ENDS, "--n-steps", "2"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 90_000))
    assert main(["pathway", MODEL, *few, "--output", "path", "--overwrite"]) == 0  # beside the former maps
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 80_000))
    monkeypatch.setattr(WORK[1], lambda *_, **__: pytest.fail("the work has begun"))
    capsys.readouterr()
    assert main(["pathway", MODEL, *few, "--output", "new"]) == 2
    found = "found 78.1 KiB free, expected at least 81.6 KiB for 3 maps and their differences"
    assert found in capsys.readouterr().err
    with pytest.raises(InputError, match="for 12 maps"):
        write(work / "new", 11, box_size=16)
    assert not list((work / "new").iterdir())
    with pytest.raises(InputError, match="for 120 images"):
        particles = ct.Particles.read("raw.star", contrast="dark")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 50_000))
        particles.write("new.star", progress=False)
    assert not list(work.glob("new.*"))


@pytest.mark.parametrize("free", [0, 1, 611, 1000, 1024, 10**6, 2**30 - 1, 2**30, 3.0e13])
@pytest.mark.parametrize("needed", [1, 1024, 1000.5, 2**30, 2**30 + 2**20, 3.1e13])
def test_sizes_never_read_the_same(free, needed, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, free, free))
    if needed <= 0.98 * free:
        outputs.require_room(".", needed, "maps")
        return
    with pytest.raises(InputError) as told:
        outputs.require_room(".", needed, "maps")
    assert told.value.found.removesuffix(" free") != told.value.expected.removeprefix("at least ").split(" for")[0]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_folder_that_also_forbids_cleaning_up_gives_the_one_error(number, tmp_path, monkeypatch):
    def refused(self, **_):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "unlink", refused)
    with (
        pytest.raises(InputError, match=rf"z\.npy cannot be written: .*{os.strerror(number)}"),
        atomic(tmp_path / "z.npy"),
    ):
        raise OSError(number, os.strerror(number))
    for wrong in ("", ".", "/"):
        with pytest.raises(InputError, match="is a folder"), atomic(wrong):
            pytest.fail("a folder was taken as a file")


# ------------------------------------------------------------------------------------------------------- leftovers


def test_partial_files_of_processes_that_are_gone_are_removed(tmp_path, monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = leftovers.HOST
    left = [f".a.{here}-{gone.pid}.partial.npz", f"..b.{here}-1.partial.{here}-{gone.pid}.partial.npz"]
    left += [f".c\nd.{here}-{gone.pid}.partial", f".earlier.build.{gone.pid}.partial.mrc", f".x.{10**30}.partial.npy"]
    kept = [f".a.{here}-{os.getpid()}.partial.npz", f".a.{here}-1.partial.npz", f".a.0123abcd-{gone.pid}.partial.npz"]
    kept += [f".{gone.pid}.partial.txt", ".mine.partial.txt", f"a.{here}-{gone.pid}.partial.npz", ".x.unfinished.jsonl"]
    (tmp_path / f".folder.{gone.pid}.partial.d").mkdir()
    for name in (*left, *kept):
        (tmp_path / name).touch()
    require_writable(tmp_path)
    assert set(contents(tmp_path)) == set(kept) and (tmp_path / f".folder.{gone.pid}.partial.d").is_dir()


@pytest.mark.parametrize("case", [case for case in PLACES if case not in ("its picture", "train", "demo", "routes")])
def test_the_next_command_removes_what_a_killed_one_left(case, work, monkeypatch):
    monkeypatch.chdir(work)
    (work / "place").mkdir()
    write = "from cryotwin_nb.formats.files import atomic\nwith atomic('place/z.npy') as partial:\n partial.touch()\n"
    killed = f"import os, signal\n{write} os.kill(os.getpid(), signal.SIGKILL)"
    environment = os.environ | {"PYTHONPATH": str(Path(ct.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", killed], env=environment).returncode == -9
    (left,) = (work / "place").iterdir()
    assert left.name.startswith(".z.") and left.name.endswith(".partial.npy")
    assert main([word.format("place") for word in PLACES[case]]) in (0, 1)
    assert not left.exists()


def test_the_name_of_a_partial_file_is_recognised():
    for name in ("a.npy", "a b.star.origin.npz", ".hidden", "a", "x.y.z.mrc", "1.2.3"):
        assert leftovers._PARTIAL.fullmatch(partial_path(Path(name)).name)[2] == str(os.getpid())
