"""Figures from the paper's own images: the files of cryoDRGN's tutorial, written here from simulated particles."""

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.demo.paper import FIGURES, make_figures, published, training
from cryotwin_nb.formats import cryodrgn

N, BOX, SMALL = 400, 32, 16
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*treating the particles as dark on light"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a stack, a list of it, poses, CTF, a selection of 9 in 10 particles, and labels of all particles."""
    place = tmp_path_factory.mktemp("empiar") / "inputs"
    place.mkdir()
    particles = ct.simulate.assembly(N, BOX, pixel_size=10.0, snr=1.0, seed=0, progress=False)
    particles.write(place / f"particles.{BOX}.star", progress=False)
    for file in place.glob("*"):
        if file.suffix != ".mrcs":
            file.unlink()
    (place / f"particles.{BOX}.txt").write_text(f"particles.{BOX}.mrcs\n")
    cryodrgn.write_poses(place / "poses.pkl", particles.rotations, particles.shifts, BOX, particles.pixel_size)
    cryodrgn.write_ctf(place / "ctf.pkl", particles.ctf, BOX, particles.pixel_size)
    cryodrgn.write_indices(place / "ind.pkl", np.flatnonzero(np.arange(N) % 10))
    (place / "published_labels.txt").write_text("\n".join(particles.truth.labels))
    return place.parent


def labels(folder):
    return (folder / "inputs" / "published_labels.txt").read_text().split()


@pytest.fixture(scope="module")
def models(tmp_path_factory, folder):
    """Store untrained models for the particles of the folder."""
    place = tmp_path_factory.mktemp("models")
    few = ct.simulate.assembly(100, SMALL, pixel_size=20.0, snr=1.0, seed=0, progress=False)
    for kind, part, options in (("subspace", "", {}), ("coordinate", "-coordinate", {"width": 8, "depth": 1})):
        model = ct.CryoTwin(SMALL, kind, 2, n_components=13, **options)
        model.imaging.measure(few)
        if kind == "subspace":
            model.networks.basis.normal_(generator=torch.Generator().manual_seed(0))
        model.save(place / f"empiar-10076{part}.safetensors")
    return place


@pytest.fixture
def quick(monkeypatch):
    """Replace the trials of training by a number of minutes for each image."""
    monkeypatch.setattr(published, "minutes_of", lambda model, particles, n: n / 60)


def test_the_figures_are_drawn_from_the_selected_particles_with_the_published_labels(
    folder, models, tmp_path, capsys, quick, monkeypatch
):
    output = tmp_path / "figures"
    gathered = []
    monkeypatch.setitem(FIGURES, "2a", lambda sources, maps: gathered.append(sources))
    arguments = ["figures", "--empiar-10076", str(folder), "--box-size", str(SMALL), "--models", str(models)]
    assert main([*arguments, "--output", str(output), "--only", "1", "2a", "5"]) == 0
    printed = capsys.readouterr().out
    assert f"{N * 9 // 10:,} particles of {BOX} x {BOX}" in printed
    assert "particles.32.txt" in printed
    assert "No checksum is published for poses.pkl, ctf.pkl" in printed
    assert "not run by us" in printed
    assert "Fig. 5 is left out" in printed
    assert {"fig1.svg", "fig1.png", f"empiar-10076.{SMALL}.star"} <= {path.name for path in output.iterdir()}
    assert len(gathered[0].states) == 13
    assert gathered[0].labels.tolist() == [label for i, label in enumerate(labels(folder)) if i % 10]
    before = (output / f"empiar-10076.{SMALL}.mrcs").stat().st_mtime_ns
    make_figures(output, only=["1"], models=models, empiar_10076=folder, box_size=SMALL)
    assert (output / f"empiar-10076.{SMALL}.mrcs").stat().st_mtime_ns == before


def test_a_dry_run_states_space_and_time_and_writes_nothing(folder, tmp_path, capsys, quick):
    output = tmp_path / "figures"
    make_figures(output, empiar_10076=folder, box_size=SMALL, dry_run=True)
    printed = capsys.readouterr().out
    assert "disk: 0.2 GB" in printed
    assert "extrapolated from 120 images" in printed
    assert "subspace 0.1 h, coordinate 0.1 h" in printed
    assert "preparing " in printed
    assert not output.exists()


@pytest.mark.parametrize(("resource", "sentence"), [("disk", "disk of"), ("memory", "memory of")])
def test_too_little_room_stops_before_any_work(folder, tmp_path, monkeypatch, resource, sentence):
    if resource == "disk":
        monkeypatch.setattr(published.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1e6}))
    else:
        monkeypatch.setattr(published, "available", lambda: 1e6)
    with pytest.raises(ct.InputError, match=sentence):
        make_figures(tmp_path / "figures", empiar_10076=folder, dry_run=True)
    assert not (tmp_path / "figures").exists()


def test_missing_files_and_another_selection_are_named(folder, tmp_path):
    with pytest.raises(ct.InputError, match=r"no particles\.\*\.txt, poses\.pkl, ctf\.pkl"):
        make_figures(tmp_path / "figures", empiar_10076=tmp_path, dry_run=True)
    found = published.Published.find(folder)
    assert len(found.labels_of(N * 9 // 10)) == N * 9 // 10
    with pytest.raises(ct.InputError, match="labels"):
        found.labels_of(17)
    (folder / "filtered.ind.pkl").write_bytes((folder / "inputs" / "ind.pkl").read_bytes())
    try:
        with pytest.raises(ct.InputError, match="sha256"):
            found.notes()
    finally:
        (folder / "filtered.ind.pkl").unlink()


def test_the_time_of_closed_form_steps_does_not_grow_with_the_images(monkeypatch):
    few = ct.simulate.assembly(64, SMALL, pixel_size=20.0, snr=1.0, seed=0, progress=False)
    monkeypatch.setattr(training, "_seconds", lambda model, particles, n: 100 + 0.5 * n)
    assert np.isclose(training.minutes_of(ct.CryoTwin(SMALL, "subspace"), few, 6000), (100 + 0.5 * 6000) / 60)
    networks = ct.CryoTwin(SMALL, "coordinate", 2, width=8, depth=1)
    epochs = networks.networks.training_defaults["epochs"]
    assert np.isclose(training.minutes_of(networks, few, 6400), (100 + 32) * epochs * 100 / 60)


def test_a_dry_run_is_for_recorded_images(tmp_path):
    with pytest.raises(ct.InputError, match="empiar-10076"):
        make_figures(tmp_path / "figures", dry_run=True)
