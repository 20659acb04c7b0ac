"""Selections in latent space, written for other programs: the same particles, byte for byte."""

from __future__ import annotations

import pickle
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.mrc_writing import write_stack
from cryotwin_nb.formats.poses import mirrored_rotations
from cryotwin_nb.formats.subsets import write_star_subset
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.pathways import assign, find_states
from cryotwin_nb.pathways.ridgeline import pathway_from_knots

N, BOX = 12, 16
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
coordinates = arrays(np.float64, (20, 2), elements=st.integers(-9, 9).map(float))


def mixture() -> ct.GaussianMixture:
    means = torch.tensor([[0.0, 0.0], [0.6, 0.0], [8.0, 0.0]])
    return ct.GaussianMixture([0.3, 0.3, 0.4], means, torch.eye(2).expand(3, 2, 2))


# ------------------------------------------------------------------------------------------------------------ selecting


@given(coordinates, arrays(np.float64, (3, 2), elements=st.integers(-9, 9).map(float)), st.integers(1, 30))
@relaxed
def test_the_nearest_and_those_within_a_radius_agree_with_brute_force(z, points, n):
    distance = np.linalg.norm(z[:, None] - points, axis=-1).min(1)
    rows = ct.select_near(z, points, n=n)
    assert len(set(rows.tolist())) == len(rows) == min(n, len(z))
    np.testing.assert_allclose(distance[rows], np.sort(distance)[:n])
    within = ct.select_near(torch.as_tensor(z), points, radius=4.0)
    np.testing.assert_array_equal(np.sort(within), np.flatnonzero(distance <= 4.0))
    np.testing.assert_array_equal(ct.select_near(z, points, n=n, radius=4.0), within[:n])
    np.testing.assert_array_equal(ct.select_near(z, points[0], n=5), ct.select_near(z, points[:1], n=5))


def test_near_a_path_means_near_its_whole_curve():
    """The middle of a path of two decoded points is far from both of them."""
    path = pathway_from_knots(mixture(), torch.tensor([[0.0, 0.0], [8.0, 0.0]]), n_steps=1)
    z = np.array([[4.0, 0.3], [0.0, 0.5], [9.0, 0.0], [4.0, 3.0]])
    assert ct.select_near(z, path, radius=0.6).tolist() == [0, 1]
    assert ct.select_near(z, path.latents, radius=0.6).tolist() == [1]


def test_a_state_takes_the_particles_that_most_likely_belong_to_it():
    prior = mixture()
    z = prior.sample(2000, seed=1)
    states = find_states(prior)
    assert [len(s.components) for s in states] == [2, 1]
    chosen = [ct.select_state(z, prior, state) for state in states]
    owner = assign(prior, states, z)
    for number, rows in enumerate(chosen):
        np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(owner == number))
    share = prior.responsibilities(z)
    np.testing.assert_array_equal(
        ct.select_state(z, prior, 2), np.argsort(-share[:, 2].numpy(), kind="stable")[: len(chosen[1])]
    )
    np.testing.assert_array_equal(ct.select_state(z, prior, states[0].components), chosen[0])
    sure = ct.select_state(z, prior, 0, least=0.6)
    np.testing.assert_array_equal(np.sort(sure), np.flatnonzero(share[:, 0] > 0.6))


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda z: ct.select_near(z, z[0]), "needs n, radius or both"),
        (lambda z: ct.select_near(z, z[0], n=0), "n: found 0"),
        (lambda z: ct.select_near(z, z[0], radius=float("nan")), "radius: found nan"),
        (lambda z: ct.select_near(z, z[0, :1], n=1), r"place: found shape \(1, 1\), expected \(n, 2\)"),
        (lambda z: ct.select_near(z[:0], z[0], n=1), r"shape \(0, 2\)"),
        (lambda z: ct.select_state(z, mixture(), 3), "components from 0 to 2"),
        (lambda z: ct.select_state(z, mixture(), -1), "components from 0 to 2"),
        (lambda z: ct.select_state(z, mixture(), []), "components from 0 to 2"),
        (lambda z: ct.select_state(z, mixture(), 0, least=1.0), "least"),
    ],
)
def test_what_selects_nothing_definite_is_refused(choose, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        choose(torch.zeros(20, 2))


# --------------------------------------------------------------------------------------------------------- STAR files

OPTICS = """
# version 50001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnMtfFileName #8
one            1   300.000000     2.700000     0.100000     2.500000           16 "mtf k2.star"
two            2   300.000000     2.700000     0.100000     2.500000           16 mtf.star

"""
COLUMNS = (
    *("rlnCoordinateX", "rlnImageName", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"),
    *("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "someUnknownLabel", "rlnMicrographName"),
)


def table(name: str, extra: tuple[tuple[str, str], ...]) -> str:
    """Return a table of particles with numbers in a format that no program would reproduce."""
    names = [*COLUMNS, *(label for label, _ in extra)]
    head = "".join(f"_{label} #{i}\n" for i, label in enumerate(names, 1))
    stacks = ["Extract/job001/a.mrcs", "Extract/job001/b.mrcs"]
    lines = [
        f" {1e3 + i:.6f} {i // 2 + 1:06d}@{stacks[i % 2]}  {i * 7.123456789012:.12f} {i * 3.5:.3e} -0{i}.50 "
        f"{15000 + i}.10 {14000 + i} +45.000  x{i} Micrographs/m_{i:02d}.mrc {' '.join(v for _, v in extra)} \n"
        for i in range(N)
    ]
    return f"data_{name}\n\nloop_ \n{head}{''.join(lines)}"


RELION = shutil.which("relion_star_handler")
FLAVOURS = {
    "RELION 3.0": "\n"
    + table(
        "images",
        tuple(
            {"rlnVoltage": "300", "rlnSphericalAberration": "2.7", "rlnAmplitudeContrast": "0.1"}.items()
            | {"rlnDetectorPixelSize": "5.0", "rlnMagnification": "20000"}.items()
        ),
    )
    + "\n",
    "RELION 3.1": OPTICS + "\n# version 30001\n\n" + table("particles", (("rlnOpticsGroup", "2"),)) + " \n",
    "RELION 5, particles first": "# version 50001\n\n"
    + table("particles", (("rlnOpticsGroup", "1"),))
    + "\n"
    + OPTICS
    + 'data_general\n\n_rlnTomoSubTomosAre2DStacks  1\n_rlnSomething  "two words"\n',
    "no line end at the end": OPTICS + table("particles", (("rlnOpticsGroup", "2"),)).rstrip(),
    "other line ends": (OPTICS + table("particles", (("rlnOpticsGroup", "2"),))).replace("\n", "\r\n"),
    "comments and empty lines": OPTICS
    + table("particles", (("rlnOpticsGroup", "2"),))
    .replace("@Extract/job001/b.mrcs", "@Extract/job001/b.mrcs")
    .replace(" 1003.000000", "\n# a comment\n 1003.000000"),
}


@pytest.fixture(scope="module")
def stacks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "Extract/job001").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in "ab":
        images = rng.normal(size=(N // 2, BOX, BOX)).astype(np.float32)
        write_stack(folder / f"Extract/job001/{name}.mrcs", [images], N // 2, BOX, 2.5)
    return folder


@pytest.fixture
def project(stacks, tmp_path) -> Path:
    """A RELION project folder with Extract/job001/*.mrcs and a job folder for the STAR files."""
    shutil.copytree(stacks, tmp_path / "project")
    (tmp_path / "project/Refine3D").mkdir()
    return tmp_path / "project"


def write_flavour(project: Path, flavour: str) -> Path:
    path = project / "Refine3D/run_data.star"
    path.write_bytes(FLAVOURS[flavour].encode())
    return path


def tables(path: Path) -> dict:
    return starfile.read(path, always_dict=True, parse_as_string=[*COLUMNS, "rlnOpticsGroup"])


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_subset_keeps_lines_tables_and_images_as_they_are(project, flavour):
    path = write_flavour(project, flavour)
    particles = Particles.read(path, contrast="dark")
    rows = np.array([7, 0, 3, 8])
    subset = ct.write_selection(project / "Refine3D/subset.star", particles, rows)
    before, after = path.read_bytes().splitlines(True), subset.read_bytes().splitlines(True)
    left_out = [line for line in before if b"Micrographs/" in line and not any(b" x%d " % r in line for r in rows)]
    assert len(left_out) == N - len(rows)
    kept = [line.replace(b"\r\n", b"\n") for line in before if line not in left_out]  # RELION reads no carriage return
    if "comments" in flavour:  # and ends a table at a blank line
        at = kept.index(b"# a comment\n")
        del kept[at - 1 : at + 1]
    assert after == [*kept[:-1], kept[-1].rstrip(b"\n") + b"\n"]

    old, new = tables(path), tables(subset)
    name = "images" if "3.0" in flavour else "particles"
    assert list(new) == list(old)
    assert (new[name].to_numpy() == old[name].iloc[np.sort(rows)].to_numpy()).all()
    for other in set(old) - {name}:
        assert str(new[other]) == str(old[other])

    again = Particles.read(subset, contrast="dark")
    np.testing.assert_array_equal(again.images(slice(None)), particles.images(np.sort(rows)))
    np.testing.assert_array_equal(again.rotations, particles.rotations[np.sort(rows)])
    np.testing.assert_array_equal(again.ctf.defocus_u, particles.ctf.defocus_u[np.sort(rows)])


DISTURBED = {
    "blank lines": lambda row: f"\n{row}\n\n",
    "comments": lambda row: f"# comment\n{row}\n#\n",
    "comments behind rows": lambda row: f"{row.rstrip()} # refined twice\n",
    "carriage returns": lambda row: row.rstrip() + "\r\n",
    "tabs": lambda row: "\t".join(row.split()) + "\t\n",
}


@pytest.mark.parametrize("kind", DISTURBED)
def test_a_subset_has_all_its_rows_for_relion_too(project, kind):
    """RELION 3.1.3 takes such files without an error and with 2 of 4 particles, or none."""
    lines = FLAVOURS["RELION 3.1"].splitlines(True)
    path = project / "Refine3D/run_data.star"
    path.write_text("".join(DISTURBED[kind](line) if "Micrographs/" in line else line for line in lines), newline="")
    particles = Particles.read(path, images=False)
    assert len(particles) == N
    rows = np.arange(0, N, 2)
    subset = ct.write_selection(project / "subset.star", particles, rows, {"score": rows})
    assert tables(subset)["particles"]["someUnknownLabel"].tolist() == [f"x{i}" for i in rows]
    text = subset.read_bytes().decode()
    assert "\r" not in text
    body = text[text.index("_cryotwinScore") :].splitlines()[1 : 1 + len(rows)]
    assert all(len(line.split()) == len(COLUMNS) + 2 and "#" not in line for line in body)
    if RELION:
        command = [RELION, "--i", "subset.star", "--o", "copy.star", "--select", "rlnDefocusU", "--minval", "0"]
        subprocess.run(command, cwd=project, check=True, capture_output=True)
        assert len(tables(project / "copy.star")["particles"]) == len(rows)


PIXEL_ORIGINS = (("rlnOriginX", "1.5"), ("rlnOriginY", "-2.25"), ("rlnOpticsGroup", "1"))


def with_pixel_origins(path: Path, optics: str = OPTICS.replace("2.500000           16 mtf", "4.0 16 mtf")) -> Path:
    """Write what cryoDRGN 4.3 writes: origins in pixels (x: of each row its own) beside data_optics; group 2: 4 Å."""
    lines = table("particles", PIXEL_ORIGINS if optics else (*PIXEL_ORIGINS, ("rlnImagePixelSize", "2.5"))).splitlines(
        True
    )
    first = next(i for i, line in enumerate(lines) if "Micrographs/" in line)
    for i in range(first, first + N):
        lines[i] = lines[i].replace(" 1.5 -2.25 1", f" {i - first}.5 -2.25 {1 + (i - first) % 2}")
    path.write_text(optics + "".join(lines))
    return path


def test_origins_in_pixels_beside_data_optics_are_also_written_in_angstrom(project):
    """RELION 3.1 would take the shifts as 0; each optics group has its own pixel size."""
    source = with_pixel_origins(project / "Refine3D/run_data.star")
    rows, subset = np.array([0, 3, 6]), project / "Refine3D/subset.star"
    with pytest.warns(UserWarning, match=r"rlnOriginXAngst and rlnOriginYAngst are added"):
        write_star_subset(subset, source, rows, {"score": rows})
    written = tables(subset)["particles"]
    np.testing.assert_allclose(written["rlnOriginXAngst"].astype(float), [0.5 * 2.5, 3.5 * 4, 6.5 * 2.5])
    np.testing.assert_allclose(written["rlnOriginYAngst"].astype(float), [-2.25 * 2.5, -2.25 * 4, -2.25 * 2.5])
    assert written["cryotwinScore"].astype(int).tolist() == rows.tolist()
    kept = [*COLUMNS, "rlnOriginX", "rlnOpticsGroup"]
    assert (written[kept].to_numpy() == tables(source)["particles"][kept].iloc[rows].to_numpy()).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Particles.read(subset, images=False, indices=[0, 2])  # neither unclear nor contradictory now
        write_star_subset(project / "Refine3D/again.star", subset, np.array([0, 2]), {})
    np.testing.assert_allclose(again.shifts, [[1.25, -5.625], [16.25, -5.625]])
    assert tables(project / "Refine3D/again.star")["particles"].shape[1] == written.shape[1]


@pytest.mark.parametrize("flavour", ["no pixel size", "no data_optics"])
def test_nothing_is_added_where_relion_reads_pixels_or_cannot_read_the_file(project, flavour):
    unknown = OPTICS.replace("rlnImagePixelSize", "rlnMicrographOriginalPixelSize")
    source = with_pixel_origins(project / "Refine3D/run_data.star", unknown if flavour == "no pixel size" else "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_star_subset(project / "Refine3D/subset.star", source, np.arange(3), {})
    assert "Angst" not in (project / "Refine3D/subset.star").read_text()


def test_the_table_that_was_read_is_the_one_that_is_selected_from(project):
    rejected = table("rejected", (("rlnOpticsGroup", "2"),)).replace(" x", " rejected")
    path = project / "Refine3D/run_data.star"
    path.write_text(OPTICS + rejected + "\n" + table("particles", (("rlnOpticsGroup", "2"),)))
    with pytest.warns(UserWarning, match="data_particles, not those of data_rejected"):
        particles = Particles.read(path, images=False)
    subset = tables(ct.write_selection(project / "subset.star", particles, [2, 4]))
    assert subset["particles"]["someUnknownLabel"].tolist() == ["x2", "x4"]
    assert len(subset["rejected"]) == N


@given(st.data())
@relaxed
def test_selections_compose_with_those_before(project, data):
    path = write_flavour(project, "RELION 3.1")
    names = tables(path)["particles"]["rlnImageName"].tolist()
    kept = data.draw(st.lists(st.integers(0, N - 1), min_size=1, unique=True))
    sliced = data.draw(st.lists(st.integers(0, len(kept) - 1), min_size=1, unique=True))
    chosen = data.draw(st.lists(st.integers(0, len(sliced) - 1), min_size=1, unique=True))
    particles = Particles.read(path, indices=np.array(kept), images=False)[sliced]
    expected = sorted(kept[sliced[c]] for c in chosen)
    subset = ct.write_selection(project / "subset.star", particles, chosen)
    assert tables(subset)["particles"]["rlnImageName"].tolist() == [names[i] for i in expected]
    ct.write_selection(project / "ind.pkl", particles, np.isin(np.arange(len(sliced)), chosen))
    assert pickle.loads((project / "ind.pkl").read_bytes()).tolist() == expected


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_columns_are_added_in_the_order_of_their_rows(project, flavour):
    path = write_flavour(project, flavour)
    particles = Particles.read(path, images=False)
    rows = [8, 1, 5]
    score = np.float32([8.25, 1.1, -5e-7])
    columns = {"outlier_score": score, "step": torch.tensor([8, 1, 5]), "state": ["S 8", "#one", ""]}
    subset = ct.write_selection(project / "subset.star", particles, rows, columns)
    new = tables(subset)["images" if "3.0" in flavour else "particles"]
    assert new["someUnknownLabel"].tolist() == ["x1", "x5", "x8"]
    np.testing.assert_array_equal(new["cryotwinOutlierScore"].to_numpy(np.float32), score[[1, 2, 0]])
    assert new["cryotwinStep"].tolist() == [1, 5, 8]
    assert new["cryotwinState"].tolist() == ["_one", "none", "S_8"]
    labels = [line.split() for line in subset.read_text().splitlines() if line.startswith("_cryotwin")]
    width = len(new.columns)
    assert [number for _, number in labels] == [f"#{width - 2}", f"#{width - 1}", f"#{width}"]
    np.testing.assert_array_equal(Particles.read(subset, images=False).rotations, particles[[1, 5, 8]].rotations)
    again = {"step": [77, 76], "rlnClassNumber": [3, 4]}
    ct.write_selection(project / "third.star", Particles.read(subset, images=False), [2, 0], again)
    third = tables(project / "third.star")["images" if "3.0" in flavour else "particles"]
    assert third["cryotwinStep"].tolist() == [76, 77] and third["rlnClassNumber"].tolist() == [4, 3]
    pd.testing.assert_frame_equal(
        third.drop(columns=["cryotwinStep", "rlnClassNumber"]),
        new.iloc[[0, 2]].drop(columns="cryotwinStep").reset_index(drop=True),
    )


def test_a_file_that_was_sorted_since_it_was_read_is_refused(project):
    path = write_flavour(project, "RELION 3.1")
    particles = Particles.read(path, images=False)
    lines = path.read_text().splitlines(True)
    at = [number for number, line in enumerate(lines) if "@" in line]
    path.write_text("".join([*lines[: at[0]], *sorted(lines[at[0] : at[-1] + 1])[::-1], *lines[at[-1] + 1 :]]))
    with pytest.raises(InputError, match=r"(?s)run_data\.star has changed since it was read"):
        ct.write_selection(project / "subset.star", particles, [1, 11])
    assert not (project / "subset.star").exists()


def test_names_of_stacks_that_lose_their_folder_are_kept_and_said(project, tmp_path):
    particles = Particles.read(write_flavour(project, "RELION 3.1"), contrast="dark")
    (tmp_path / "elsewhere").mkdir()
    with pytest.warns(UserWarning, match=r"Extract/job001/a\.mrcs.*datadir="):
        subset = ct.write_selection(tmp_path / "elsewhere/subset.star", particles, [4])
    again = Particles.read(subset, datadir=project, contrast="dark")
    np.testing.assert_array_equal(again.images([0]), particles.images([4]))


def test_a_file_that_lost_particles_since_it_was_read_is_refused(project):
    path = write_flavour(project, "RELION 3.1")
    particles = Particles.read(path, images=False)
    path.write_text("".join(path.read_text().splitlines(True)[:-3]))
    with pytest.raises(InputError, match=r"(?s)run_data\.star.*row 11 .from 0. is missing"):
        ct.write_selection(project / "subset.star", particles, [1, 11])
    assert not (project / "subset.star").exists()


# --------------------------------------------------------------------------------------------------- cryoSPARC, lists


def cs_table() -> np.ndarray:
    fields = [("uid", "<u8"), ("blob/path", "S40"), ("blob/idx", "<u4"), ("blob/psize_A", "<f4"), ("odd", ">i2", (2,))]
    rows = np.zeros(N, fields)
    rows["uid"], rows["blob/idx"], rows["blob/psize_A"] = (
        np.arange(N, dtype=np.uint64) + np.uint64(2**63),
        np.arange(N) // 2,
        2.5,
    )
    rows["blob/path"] = [b">Extract/job001/a.mrcs", b"Extract/job001/b.mrcs"] * (N // 2)
    rows["odd"] = np.arange(2 * N).reshape(N, 2)
    return rows


def test_a_subset_of_a_cs_file_is_its_rows(project):
    with open(project / "particles.cs", "wb") as file:
        np.save(file, cs_table())
    particles = Particles.read(project / "particles.cs", contrast="dark")
    rows = [9, 2, 6]
    subset = ct.write_selection(project / "subset.cs", particles, rows)
    np.testing.assert_array_equal(np.load(subset), cs_table()[[2, 6, 9]])
    assert np.load(subset).dtype == cs_table().dtype
    np.testing.assert_array_equal(
        Particles.read(subset, contrast="dark").images(slice(None)), particles.images([2, 6, 9])
    )
    ct.write_selection(project / "more.cs", particles, rows, {"score": np.float32(rows), "state": ["é", "b", "c"]})
    more = np.load(project / "more.cs")
    assert more["cryotwin/score"].tolist() == [2, 6, 9]
    assert [word.decode() for word in more["cryotwin/state"]] == ["b", "c", "é"]
    np.testing.assert_array_equal(more[list(cs_table().dtype.names)], cs_table()[[2, 6, 9]])
    ct.write_selection(project / "x.cs", Particles.read(project / "more.cs", images=False), [2, 1], {"score": [7, 8]})
    third = np.load(project / "x.cs")
    assert third["cryotwin/score"].tolist() == [8, 7]
    for name in more.dtype.names:
        assert name == "cryotwin/score" or (third[name] == more[[1, 2]][name]).all()


def test_particles_of_bare_stacks_and_of_memory_give_a_list(project):
    bare = Particles.read(project / "Extract/job001/a.mrcs", contrast="dark")
    ct.write_selection(project / "ind.pkl", bare[[4, 5, 1]], [0, 2])
    kept = pickle.loads((project / "ind.pkl").read_bytes())
    assert (type(kept), kept.dtype, kept.tolist()) == (np.ndarray, np.int64, [1, 4])
    again = Particles.read(project / "Extract/job001/a.mrcs", indices=project / "ind.pkl", contrast="dark")
    np.testing.assert_array_equal(again.images(slice(None)), bare.images([1, 4]))
    memory = Particles(np.zeros((5, 8, 8)), pixel_size=1.0)
    ct.write_selection(project / "all.pkl", memory[[3, 4]])
    assert pickle.loads((project / "all.pkl").read_bytes()).tolist() == [3, 4]


@pytest.mark.parametrize(
    ("name", "rows", "columns", "message"),
    [
        ("subset.cs", [0], None, r"needs particles read from a \.cs file, not .*run_data\.star"),
        ("subset.mrcs", [0], None, r"\.star or \.cs or \.pkl"),
        ("Refine3D/run_data.star", [0], None, "would overwrite an input"),
        ("subset.star", [0, 0], None, "twice"),
        ("subset.star", [N], None, "indices from 12 to 12"),
        ("subset.star", [], None, "empty"),
        ("subset.star", [0, 1], {"score": [1.0]}, r"score.*\(2,\)"),
        ("subset.star", [0], {"score": [None]}, "object"),
        ("subset.star", [0], {"two words": [1]}, "'two words'"),
        ("ind.pkl", [0], {"score": [1]}, r"cannot hold columns: a \.pkl file is a list of row numbers"),
        ("none/subset.star", [0], None, "the folder .*none does not exist"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(project, name, rows, columns, message):
    particles = Particles.read(write_flavour(project, "RELION 3.1"), images=False)
    before = sorted(project.rglob("*"))
    with pytest.raises(InputError, match=f"(?s){message}"):
        ct.write_selection(project / name, particles, rows, columns)
    assert sorted(project.rglob("*")) == before


def test_a_particle_that_slicing_repeated_is_refused(project):
    particles = Particles.read(write_flavour(project, "RELION 3.1"), images=False)[[3, 3, 4]]
    with pytest.raises(InputError, match="twice"):
        ct.write_selection(project / "subset.star", particles)


# -------------------------------------------------------------------------------------------------- the real program


@pytest.mark.skipif(shutil.which("cryodrgn") is None, reason="cryoDRGN is not installed")
def test_cryodrgn_reads_the_subset_as_it_reads_those_particles(project):
    """Poses and CTF of the subset are those of its particles; its images are those of the whole file with --ind."""
    path = write_flavour(project, "RELION 3.1")
    path.write_text(path.read_text().replace('"mtf k2.star"', "mtf.star"))  # cryoDRGN does not accept quoted words
    particles, rows = Particles.read(path, contrast="dark"), [10, 3, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        subset = ct.write_selection(project / "subset.star", particles, rows, {"score": [1.5, 2.5, 3.5]})
        ct.write_selection(project / "ind.pkl", particles, rows)

    def run(*arguments: object) -> None:
        subprocess.run(["cryodrgn", *map(str, arguments)], cwd=project, check=True, capture_output=True)

    run("parse_pose_star", subset, "-D", BOX, "--Apix", 2.5, "-o", "poses.pkl")
    run("parse_ctf_star", subset, "-D", BOX, "--Apix", 2.5, "--ps", 0, "-o", "ctf.pkl")
    ours = Particles.read(subset, contrast="dark", poses=project / "poses.pkl", ctf=project / "ctf.pkl")
    np.testing.assert_allclose(ours.rotations, particles.rotations[[3, 4, 10]], atol=1e-5)
    np.testing.assert_allclose(ours.ctf.defocus_u, particles.ctf.defocus_u[[3, 4, 10]])
    run("downsample", subset, "-D", 8, "-o", "subset.mrcs", "--datadir", project, "--max-threads", 1)
    options = ("--ind", "ind.pkl", "--datadir", project, "--max-threads", 1)
    run("downsample", path, "-D", 8, "-o", "whole.mrcs", *options)
    small, expected = (
        Particles.read(project / f"{n}.mrcs", contrast="dark").images(slice(None)) for n in ("subset", "whole")
    )
    assert small.shape == (3, 8, 8) and small.std() > 0
    np.testing.assert_array_equal(small, expected)


def test_equally_sure_particles_keep_their_order():
    prior = ct.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], np.stack([np.eye(2)] * 2))
    z = np.tile([[0.5, 0.0], [1.5, 0.0], [-2.0, 0.0]], (200, 1))
    rows = ct.select_state(z, prior, 1)
    np.testing.assert_array_equal(rows, np.concatenate([np.arange(1, 600, 3), np.arange(0, 600, 3)]))


# ------------------------------------------------------------------------------------------- states, and the other hand


@pytest.mark.parametrize("flavour", ["RELION 3.0", "RELION 3.1"])
def test_states_are_class_numbers_and_one_file_each(project, flavour):
    particles = Particles.read(write_flavour(project, flavour), images=False)
    prior = mixture()
    z = torch.tensor([[0.3, 0.0], [8.0, 0.0]])[torch.arange(N) % 3 // 2]
    files = ct.write_states(project / "Refine3D/states", particles, z, prior)
    assert [file.name for file in files] == ["states.star", "S1.star", "S2.star"]
    listed = [Particles.read(file, images=False).columns for file in files]
    assert [len(table) for table in listed] == [N, N - N // 3, N // 3]
    for number, table in enumerate(listed[1:], 1):
        assert (table["rlnClassNumber"] == number).all()
    merged = pd.concat(listed[1:]).sort_values("rlnCoordinateX", ignore_index=True)
    pd.testing.assert_frame_equal(merged, listed[0])
    expected = [2 if i % 3 == 2 else 1 for i in range(N)]
    assert listed[0]["rlnClassNumber"].tolist() == expected
    with pytest.raises(InputError, match=r"0\.5 to below 1"):
        ct.write_states(project / "none", particles, z, prior, least=0.4)
    (only,) = [f for f in ct.write_states(project / "two", particles[::3], z[::3], prior) if f.stem != "states"]
    assert only.name == "S1.star"  # no file without particles


def test_states_of_a_cs_file(project):
    with open(project / "particles.cs", "wb") as file:
        np.save(file, cs_table())
    particles = Particles.read(project / "particles.cs", images=False)
    z = torch.tensor([[0.3, 0.0], [8.0, 0.0]])[torch.arange(len(particles)) % 2]
    files = ct.write_states(project / "states", particles, z, mixture())
    assert [file.name for file in files] == ["states.cs", "S1.cs", "S2.cs"]
    assert np.load(files[0])["cryotwin/class_number"].tolist() == [1 + i % 2 for i in range(len(particles))]
    np.testing.assert_array_equal(np.load(files[2])["blob/idx"], cs_table()["blob/idx"][1::2])


@pytest.mark.parametrize("flavour", ["RELION 3.0", "RELION 3.1", "RELION 5, particles first"])
def test_poses_of_the_other_hand(project, flavour):
    particles = Particles.read(write_flavour(project, flavour), images=False)
    rows = [9, 2, 6]
    flipped = ct.write_selection(project / "Refine3D/flipped.star", particles, rows, flip_hand=True)
    again = Particles.read(flipped, images=False)
    np.testing.assert_allclose(again.rotations, mirrored_rotations(particles.rotations[[2, 6, 9]]), atol=1e-6)
    before = ct.write_selection(project / "Refine3D/plain.star", particles, rows)
    old, new = Particles.read(before, images=False).columns, again.columns
    turned = ["rlnAngleRot", "rlnAnglePsi"]
    pd.testing.assert_frame_equal(old.drop(columns=turned), new.drop(columns=turned))
    assert (new[turned].abs() <= 180).all(axis=None)
    back = ct.write_selection(project / "Refine3D/back.star", again, flip_hand=True)
    np.testing.assert_allclose(Particles.read(back, images=False).rotations, particles.rotations[[2, 6, 9]], atol=1e-6)


def test_poses_of_the_other_hand_in_a_cs_file(project):
    fields = [("blob/path", "S24"), ("blob/idx", "<u4"), ("blob/psize_A", "<f4"), ("alignments3D/pose", "<f4", (3,))]
    table = np.zeros(6, [*fields, ("alignments2D/pose", "<f4")])
    table["blob/path"], table["blob/idx"], table["blob/psize_A"] = b">Extract/job001/a.mrcs", np.arange(6), 2.5
    table["alignments3D/pose"] = np.random.default_rng(0).normal(size=(6, 3))
    table["alignments2D/pose"] = 1.5
    with open(project / "p.cs", "wb") as file:
        np.save(file, table)
    particles = Particles.read(project / "p.cs", images=False)
    flipped = ct.write_selection(project / "flipped.cs", particles, [1, 4], flip_hand=True)
    again = Particles.read(flipped, images=False)
    np.testing.assert_allclose(again.rotations, mirrored_rotations(particles.rotations[[1, 4]]), atol=1e-6)
    assert np.load(flipped)["alignments2D/pose"].tolist() == [1.5, 1.5]
    assert set(np.load(flipped).dtype.names) == set(table.dtype.names)


def test_there_is_no_other_hand_without_poses(project):
    bare = Particles.read(project / "Extract/job001/a.mrcs", contrast="dark")
    with pytest.raises(InputError, match="cannot hold columns"):
        ct.write_selection(project / "a.pkl", bare, flip_hand=True)
    path = write_flavour(project, "RELION 3.1")
    path.write_text(re.sub("rlnAngle(Rot|Tilt|Psi)", r"other\1", path.read_text()))
    with pytest.raises(InputError, match="no poses"):
        ct.write_selection(project / "b.star", Particles.read(path, images=False), flip_hand=True)
