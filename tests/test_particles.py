"""Particles: construction, subsets, lazy reading, contrast, round trips, and real files."""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryotwin_nb import simulate
from cryotwin_nb.errors import InputError
from cryotwin_nb.formats import cryodrgn, mrc
from cryotwin_nb.formats.poses import rotations_from_euler
from cryotwin_nb.imaging.optics import CTF
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.truth.truth import Truth

pytestmark = pytest.mark.filterwarnings("ignore:.*shift beyond half the box")  # of boxes of 8 pixels

DATA = Path(__file__).parents[2] / "shared/data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the real files are not in the repository")
folders = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)


def make(n: int = 6, box_size: int = 16, seed: int = 0, **changes) -> Particles:
    """Return a small set with different values for each particle, dark in the middle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:box_size, :box_size] - box_size // 2
    images = rng.normal(size=(n, box_size, box_size)) - 2 * (np.hypot(x, y) < box_size / 5)
    ranges = ((10_000, 30_000), (10_000, 30_000), (0, 180), (300, 300), (2.7, 2.7), (0.1, 0.1), (0, 90))
    parts = {
        "images": images.astype(np.float32),
        "rotations": rotations_from_euler(*rng.uniform(0, 180, (3, n))),
        "shifts": rng.normal(0, 5, (n, 2)).astype(np.float32),
        "ctf": CTF(*(rng.uniform(*r, n).astype(np.float32) for r in ranges)),
        "pixel_size": 2.5,
        "optics_group": np.arange(n) % 2,
    }
    return Particles(**parts | changes)


def assert_same(a: Particles, b: Particles) -> None:
    np.testing.assert_array_equal(a.images(slice(None)), b.images(slice(None)))
    np.testing.assert_allclose(a.rotations, b.rotations, atol=1e-6)
    np.testing.assert_allclose(a.shifts, b.shifts, atol=1e-4)
    for field in fields(CTF):
        np.testing.assert_allclose(getattr(a.ctf, field.name), getattr(b.ctf, field.name), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(a.optics_group, b.optics_group)
    assert a.pixel_size == pytest.approx(b.pixel_size, rel=1e-6)
    assert (a.box_size, a.contrast) == (b.box_size, b.contrast)


# ------------------------------------------------------------------------------------------------------- construction


def test_types_and_shapes():
    p = make()
    assert len(p) == 6
    assert p.box_size == 16
    assert (p.rotations.dtype, p.rotations.shape) == (np.float32, (6, 3, 3))
    assert (p.shifts.dtype, p.shifts.shape) == (np.float32, (6, 2))
    assert (p.optics_group.dtype, p.optics_group.shape) == (np.int64, (6,))
    assert all(getattr(p.ctf, f.name).dtype == np.float32 for f in fields(CTF))
    assert p.images([1, 1, 0]).shape == (3, 16, 16)
    assert p.images([]).shape == (0, 16, 16)


def test_shifts_default_to_zero_and_the_rest_to_none():
    p = Particles(np.zeros((2, 8, 8)), pixel_size=1.0)
    assert p.rotations is None
    assert p.ctf is None
    np.testing.assert_array_equal(p.shifts, np.zeros((2, 2)))
    assert p.images([0]).dtype == np.float32


@pytest.mark.parametrize("selection", [[4, 1], np.array([4, 1]), slice(1, 4), np.arange(6) % 2 == 0, 3])
def test_a_subset_has_the_rows_of_everything(selection):
    p = make()
    rows = np.atleast_1d(np.arange(6)[selection])
    subset = p[selection]
    np.testing.assert_array_equal(subset.images(slice(None)), p.images(rows))
    np.testing.assert_array_equal(subset.rotations, p.rotations[rows])
    np.testing.assert_array_equal(subset.shifts, p.shifts[rows])
    np.testing.assert_array_equal(subset.ctf.defocus_u, p.ctf.defocus_u[rows])
    np.testing.assert_array_equal(subset[[0]].images([0]), p.images(rows[:1]))


def test_light_images_are_multiplied_by_minus_one():
    np.testing.assert_array_equal(make(contrast="light").images([2]), -make().images([2]))


def test_the_summary_says_what_is_there():
    text = make().summary()
    for part in ("6 particles", "box 16 px", "2.5 Å/px", "dark contrast", "poses: yes", "optics groups: 2"):
        assert part in text
    assert text in repr(make())
    bare = Particles(None, shifts=np.zeros((3, 2)), pixel_size=1.0).summary()
    assert "box unknown" in bare
    assert "poses: none" in bare
    assert "CTF: none" in bare


@pytest.mark.parametrize(
    "changes",
    [
        {"images": np.zeros((6, 15, 15))},
        {"images": np.zeros((6, 16, 8))},
        {"images": np.zeros((16, 16))},
        {"images": np.zeros((0, 16, 16))},
        {"rotations": np.ones((6, 3, 3))},
        {"rotations": -np.broadcast_to(np.eye(3), (6, 3, 3))},
        {"rotations": np.full((6, 3, 3), np.nan)},
        {"rotations": np.broadcast_to(np.eye(3), (5, 3, 3))},
        {"shifts": np.zeros((5, 2))},
        {"shifts": np.full((6, 2), np.inf)},
        {"ctf": make(5).ctf},
        {"pixel_size": 0.0},
        {"pixel_size": float("nan")},
        {"optics_group": np.zeros(4)},
        {"contrast": "auto"},
    ],
    ids=lambda changes: "-".join(f"{k}{np.shape(v)}" for k, v in changes.items()),
)
def test_parts_that_do_not_fit_are_refused(changes):
    with pytest.raises(InputError):
        make(**changes)


@pytest.mark.parametrize("indices", [[6], [-1], [True] * 5, [0.5], np.zeros((2, 2), int)])
def test_impossible_indices_are_refused(indices):
    with pytest.raises(InputError):
        make().images(indices)
    with pytest.raises(InputError):
        make()[indices]


def test_an_empty_subset_is_refused():
    with pytest.raises(InputError, match="empty selection"):
        make()[[]]


# -------------------------------------------------------------------------------------------------------- round trips


@folders
@given(st.integers(1, 9), st.sampled_from([8, 10, 16]), st.sampled_from(["dark", "light"]), st.integers(0, 99))
def test_what_is_written_is_read(tmp_path, n, box_size, contrast, seed):
    p = make(n, box_size, seed, contrast=contrast)
    p.write(tmp_path / "stack.star", progress=False)
    assert_same(Particles.read(tmp_path / "stack.star", contrast=contrast), p)
    with mrcfile.mmap(tmp_path / "stack.mrcs") as file:
        np.testing.assert_array_equal(file.data.reshape(n, box_size, box_size), p._source.read(np.arange(n)))
        assert int(file.header.ispg) == 0


def test_a_written_star_is_read_by_starfile(tmp_path):
    make().write(tmp_path / "stack.star", progress=False)
    blocks = starfile.read(tmp_path / "stack.star")
    assert list(blocks) == ["optics", "particles"]
    assert {
        "rlnOpticsGroup",
        "rlnOpticsGroupName",
        "rlnVoltage",
        "rlnSphericalAberration",
        "rlnAmplitudeContrast",
    } <= set(blocks["optics"])
    assert blocks["optics"]["rlnImagePixelSize"].tolist() == [2.5, 2.5]
    assert blocks["optics"]["rlnImageSize"].tolist() == [16, 16]
    assert blocks["optics"]["rlnImageDimensionality"].tolist() == [2, 2]
    assert blocks["particles"]["rlnImageName"].tolist()[:2] == ["000001@stack.mrcs", "000002@stack.mrcs"]


def test_chunks_and_subsets_of_a_set_on_disk_are_written(tmp_path, monkeypatch):
    p = make(9)
    p.write(tmp_path / "a.star", progress=False)
    again = Particles.read(tmp_path / "a.star", contrast="dark")
    monkeypatch.setattr("cryotwin_nb.particles.writing._CHUNK_BYTES", 4 * 16 * 16 * 2)
    again[[7, 2, 5, 1, 0]].write(tmp_path / "b.star", progress=False)
    assert_same(Particles.read(tmp_path / "b.star", contrast="dark"), p[[7, 2, 5, 1, 0]])


def test_particles_without_poses_and_ctf_are_written(tmp_path):
    Particles(make().images(slice(None)), pixel_size=2.0).write(tmp_path / "s.star", progress=False)
    p = Particles.read(tmp_path / "s.star", contrast="dark")
    assert p.rotations is None
    assert p.ctf is None
    assert p.pixel_size == 2.0
    labels = (tmp_path / "s.star").read_text().split("data_particles")[0].split()
    assert {"_rlnVoltage", "_rlnSphericalAberration"} <= set(labels)  # RELION 3.1 cannot read the file without them


def test_a_group_of_several_voltages_becomes_several(tmp_path):
    p = make(4, optics_group=np.zeros(4, int))
    p.ctf.voltage[2:] = 200
    p.write(tmp_path / "s.star", progress=False)
    again = Particles.read(tmp_path / "s.star", contrast="dark")
    assert again.ctf.voltage.tolist() == [300, 300, 200, 200]
    assert len(set(again.optics_group)) == 2


@pytest.mark.parametrize(
    ("source", "target"), [("s.star", "s.star"), ("s.mrcs", "s.star"), ("other.star", "other.star")]
)
def test_a_set_is_not_written_over_the_files_it_is_read_from(tmp_path, source, target):
    make().write(tmp_path / "s.star", progress=False)
    shutil.copyfile(tmp_path / "s.star", tmp_path / "other.star")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=rf"Writing .*{target[:-5]}\.(star|mrcs) would overwrite an input"):
        Particles.read(tmp_path / source, contrast="dark")[[0]].write(tmp_path / target, progress=False)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_nothing_is_left_when_writing_fails(tmp_path):
    images = make().images(slice(None)).copy()
    images[4] = np.nan
    with pytest.raises(InputError, match="image 4"):
        make(images=images).write(tmp_path / "s.star", progress=False)
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------------- truth


def truth(n: int) -> Truth:
    """Return a ground truth with the particle numbers as labels."""
    return Truth("hinge", np.zeros((n, 2), np.float32), np.arange(n).astype(str), np.zeros(n, bool), 8, 1.0)


def test_the_truth_goes_along_and_comes_back(tmp_path):
    p = make(truth=truth(6))
    p.write(tmp_path / "s.star", progress=False)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["s.mrcs", "s.star", "s.truth.npz"]
    assert Particles.read(tmp_path / "s.star", contrast="dark").truth.labels.tolist() == list("012345")
    subset = Particles.read(tmp_path / "s.star", contrast="dark", indices=np.array([4, 2]))
    assert subset.truth.labels.tolist() == ["4", "2"]
    assert subset[[1]].truth.labels.tolist() == ["2"]


def test_the_truth_of_a_former_set_does_not_survive(tmp_path):
    make(truth=truth(6)).write(tmp_path / "s.star", progress=False)
    make().write(tmp_path / "s.star", progress=False)
    assert not (tmp_path / "s.truth.npz").exists()


def test_a_simulated_set_makes_the_round_trip(tmp_path):
    p = simulate.assembly(40, box_size=16, seed=0, progress=False)
    p.write(tmp_path / "s.star", progress=False)
    with pytest.warns(UserWarning, match="dark on light"):
        again = Particles.read(tmp_path / "s.star", indices=np.arange(5, 25))
    assert_same(again, p[5:25])
    np.testing.assert_array_equal(again.truth.labels, p.truth.labels[5:25])


# ----------------------------------------------------------------------------------------------------- many stacks etc


@pytest.fixture
def stacks(tmp_path) -> Path:
    """Two stacks of 3 and 2 images with identifying values, and a list of the stacks."""
    for name, n, value in (("a", 3, 0), ("b", 2, 100)):
        images = np.random.default_rng(value).normal(0, 0.1, (n, 8, 8)) + value + np.arange(n)[:, None, None]
        with mrcfile.new(tmp_path / f"{name}.mrcs", images.astype(np.float32)) as file:
            file.set_image_stack()
            file.voxel_size = 3.0
    (tmp_path / "all.txt").write_text("a.mrcs\n\nb.mrcs\n")
    return tmp_path


def numbers(p: Particles, indices=slice(None)) -> list[int]:
    return p.images(indices).mean((1, 2)).round().astype(int).tolist()


def test_a_list_of_stacks_is_read_in_order(stacks):
    p = Particles.read(stacks / "all.txt", contrast="dark")
    assert numbers(p) == [0, 1, 2, 100, 101]
    assert numbers(p, [4, 0, 3]) == [101, 0, 100]
    assert p.pixel_size == 3.0
    assert numbers(p[[4, 1]]) == [101, 1]


def test_each_stack_is_opened_once_for_a_batch(stacks, monkeypatch):
    p, opened, original = Particles.read(stacks / "all.txt", contrast="dark"), [], mrc.Header.read
    monkeypatch.setattr(mrc.Header, "read", lambda self, rows: (opened.append(self.path.name), original(self, rows))[1])
    p.images([4, 0, 3, 1, 2])
    assert sorted(opened) == ["a.mrcs", "b.mrcs"]


def test_a_bare_stack_takes_poses_and_ctf_from_cryodrgn(stacks):
    q = make(3)
    cryodrgn.write_poses(stacks / "poses.pkl", q.rotations, q.shifts, 16, 1.5)  # poses of the original, twice as large
    cryodrgn.write_ctf(stacks / "ctf.pkl", q.ctf, 16, 1.5)
    p = Particles.read(stacks / "a.mrcs", poses=stacks / "poses.pkl", ctf=stacks / "ctf.pkl", contrast="dark")
    np.testing.assert_array_equal(p.rotations, q.rotations)
    np.testing.assert_allclose(p.shifts, q.shifts, rtol=1e-5)
    np.testing.assert_array_equal(p.ctf.defocus_v, q.ctf.defocus_v)
    assert p.pixel_size == pytest.approx(3.0)
    arrays = Particles.read(
        stacks / "a.mrcs", poses=(q.rotations.transpose(0, 2, 1), q.shifts / 24), ctf=q.ctf, contrast="dark"
    )
    np.testing.assert_allclose(arrays.shifts, q.shifts, rtol=1e-5)


def test_the_pixel_size_given_wins_and_that_of_the_ctf_parameters_comes_second(tmp_path):
    p = make()
    p.write(tmp_path / "s.star", progress=False)
    assert Particles.read(tmp_path / "s.star", contrast="dark", pixel_size=2.6).pixel_size == 2.6
    cryodrgn.write_ctf(tmp_path / "ctf.pkl", p.ctf, 32, 2.0)
    with pytest.warns(UserWarning, match="states 2.5 Å per pixel, but the CTF parameters state 4 Å; using") as record:
        assert Particles.read(tmp_path / "s.star", contrast="dark", ctf=tmp_path / "ctf.pkl").pixel_size == 4.0
    assert record[0].filename == __file__


@pytest.mark.parametrize("kind", ["array", "mask", "pickle"])
@pytest.mark.parametrize("filtered", [False, True])
def test_a_selection_applies_to_poses_for_all_or_for_the_selected(stacks, kind, filtered):
    rows = np.array([1, 2, 4])
    q = make(5)
    cryodrgn.write_poses(
        stacks / "poses.pkl", *((q.rotations[rows], q.shifts[rows]) if filtered else (q.rotations, q.shifts)), 8, 3.0
    )
    (stacks / "ind.pkl").write_bytes(pickle.dumps(rows))
    indices = {"array": rows, "mask": np.isin(np.arange(5), rows), "pickle": stacks / "ind.pkl"}[kind]
    p = Particles.read(stacks / "all.txt", poses=stacks / "poses.pkl", indices=indices, contrast="dark")
    np.testing.assert_array_equal(p.rotations, q.rotations[rows])
    assert numbers(p) == [1, 2, 101]


# ----------------------------------------------------------------------------------------------------------- contrast


@pytest.mark.parametrize("contrast", ["dark", "light"])
@pytest.mark.parametrize("with_ctf", [False, True])
def test_contrast_is_measured_and_said(tmp_path, contrast, with_ctf):
    p = make(40)
    sign = 1 if contrast == "dark" else -1
    Particles(sign * p.images(slice(None)), ctf=p.ctf if with_ctf else None, pixel_size=2.5).write(
        tmp_path / "s.star", progress=False
    )
    with pytest.warns(
        UserWarning, match=f"s.star: treating the particles as {contrast}.*measured on 40 images"
    ) as record:
        q = Particles.read(tmp_path / "s.star")
    assert len(record) == 1
    assert record[0].filename == __file__
    assert q.contrast == contrast
    np.testing.assert_array_equal(q.images([0]), p.images([0]))


@pytest.mark.parametrize(("sign", "contrast"), [(-1, "dark"), (1, "light")])
def test_a_cs_file_declares_its_contrast_and_doubts_are_said(tmp_path, sign, contrast):
    make(40).write(tmp_path / "s.star", progress=False)
    table = np.zeros(40, [("blob/path", "S8"), ("blob/idx", "u4"), ("blob/psize_A", "f4"), ("blob/sign", "f4")])
    table["blob/path"], table["blob/idx"], table["blob/psize_A"], table["blob/sign"] = "s.mrcs", range(40), 2.5, sign
    with open(tmp_path / "s.cs", "wb") as file:
        np.save(file, table)
    doubt = pytest.warns(UserWarning, match="declared in the file, but the images look dark on light")
    with doubt if contrast == "light" else nullcontext():
        assert Particles.read(tmp_path / "s.cs").contrast == contrast
    against = pytest.warns(UserWarning, match="contradicts the sign")
    with against if contrast == "light" else nullcontext():
        assert Particles.read(tmp_path / "s.cs", contrast="dark").contrast == "dark"


def test_pure_noise_is_assumed_dark_aloud(tmp_path):
    noise = np.random.default_rng(3).normal(size=(20, 16, 16))
    Particles(noise.astype(np.float32), pixel_size=1.0).write(tmp_path / "s.star", progress=False)
    with pytest.warns(UserWarning, match="assumed; inconclusive"):
        assert Particles.read(tmp_path / "s.star").contrast == "dark"


def test_metadata_only_says_nothing_about_contrast(tmp_path):
    make().write(tmp_path / "s.star", progress=False)
    os.remove(tmp_path / "s.mrcs")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = Particles.read(tmp_path / "s.star", images=False)
    assert p.box_size == 16
    with pytest.raises(InputError, match="metadata only"):
        p.images([0])


def test_a_missing_amplitude_contrast_is_assumed_aloud_or_given(tmp_path):
    make().write(tmp_path / "s.star", progress=False)
    text = (tmp_path / "s.star").read_text().replace("_rlnAmplitudeContrast", "_rlnSomethingElse")
    (tmp_path / "s.star").write_text(text)
    with pytest.warns(UserWarning, match="no amplitude contrast in the file; assuming 0.1"):
        p = Particles.read(tmp_path / "s.star", contrast="dark")
    np.testing.assert_allclose(p.ctf.amplitude_contrast, 0.1)
    q = Particles.read(tmp_path / "s.star", contrast="dark", amplitude_contrast=0.07)
    np.testing.assert_allclose(q.ctf.amplitude_contrast, 0.07)


# ---------------------------------------------------------------------------------------------------------- real files


@real
@pytest.mark.parametrize("folder", ["Extract/job133", "elsewhere"])
def test_relion31(tmp_path, folder):
    """Light on dark; 2.806 Å in the STAR file against 1 Å in the header; paths that need the data folder."""
    (tmp_path / folder).mkdir(parents=True)
    shutil.copyfile(DATA / "relion31.mrcs", tmp_path / folder / "relion31.mrcs")
    text = (DATA / "relion31.star").read_text().replace("@relion31.mrcs", "@Extract/job133/relion31.mrcs")
    (tmp_path / "run_data.star").write_text(text)
    datadir = tmp_path / "elsewhere" if folder == "elsewhere" else tmp_path
    with pytest.warns(UserWarning, match="light on dark"):
        p = Particles.read(tmp_path / "run_data.star", datadir=datadir)
    assert p.pixel_size == pytest.approx(2.806)
    assert (len(p), p.box_size, p.contrast) == (5, 256, "light")
    raw = np.fromfile(DATA / "relion31.mrcs", dtype="<f4", offset=1024).reshape(5, 256, 256)
    np.testing.assert_array_equal(p.images([3])[0], -raw[3])


@real
@pytest.mark.parametrize("name", ["empiar_10076_7.star", "empiar_10076_7.cs", "empiar_10076_7.mrc"])
def test_empiar_10076(name):
    """Dark on light, as the .cs file declares; header voxel size 0; pixel size from detector or .cs file; no poses."""
    options = {"pixel_size": 1.31} if name.endswith(".mrc") else {}
    with nullcontext() if name.endswith(".cs") else pytest.warns(UserWarning, match="dark on light"):
        p = Particles.read(DATA / name, **options)
    assert p.pixel_size == pytest.approx(1.31, abs=1e-4)
    assert (len(p), p.box_size, p.contrast) == (7, 320, "dark")
    assert p.rotations is None
    raw = np.fromfile(DATA / "empiar_10076_7.mrc", dtype="<f4", offset=1024).reshape(7, 320, 320)
    np.testing.assert_array_equal(p.images([6])[0], raw[6])


@real
def test_pfcrt_agrees_with_what_cryodrgn_made_of_it():
    p = Particles.read(
        DATA / "FinalRefinement-OriginalParticles-PfCRT.star", images=False, box_size=300, amplitude_contrast=0.1
    )
    assert p.pixel_size == pytest.approx(1.035)
    with open(DATA / "pose.star.pkl", "rb") as file:
        rot, trans = pickle.load(file)
    np.testing.assert_allclose(p.rotations.transpose(0, 2, 1), rot, atol=1e-5)
    np.testing.assert_allclose(p.shifts / (300 * 1.035), trans, atol=1e-5)
    with open(DATA / "ctf1.pkl", "rb") as file:
        table = pickle.load(file)
    np.testing.assert_allclose([getattr(p.ctf, f.name) for f in fields(CTF)], table.T[2:], rtol=1e-5, atol=1e-5)


@real
def test_pfcrt_with_the_pickles_given(tmp_path):
    path = DATA / "FinalRefinement-OriginalParticles-PfCRT.star"
    p = Particles.read(path, images=False, box_size=300, amplitude_contrast=0.1)
    q = Particles.read(path, images=False, poses=DATA / "pose.star.pkl", ctf=DATA / "ctf1.pkl")
    np.testing.assert_allclose(q.rotations, p.rotations, atol=1e-5)
    np.testing.assert_allclose(q.shifts, p.shifts, atol=1e-5)
    assert q.box_size == 300
    cryodrgn.write_poses(tmp_path / "poses.pkl", p.rotations, p.shifts, p.box_size, p.pixel_size)
    again, translations = cryodrgn.read_poses(tmp_path / "poses.pkl")
    expected = cryodrgn.read_poses(DATA / "pose.star.pkl")
    np.testing.assert_allclose(again, expected[0], atol=1e-5)
    np.testing.assert_allclose(translations, expected[1], atol=1e-5)
