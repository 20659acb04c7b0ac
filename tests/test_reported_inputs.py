"""Inputs that users of other programs reported: read as by the program that wrote them, or refused by name."""

from __future__ import annotations

import json
import pickle
import warnings

import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.mrc_writing import write_stack

N, BOX = 12, 16


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, BOX, BOX)).astype(np.float32)


@pytest.fixture
def stack(tmp_path, images):
    write_stack(tmp_path / "s.mrcs", [images], N, BOX, 2.0)
    return tmp_path / "s.mrcs"


STAR = """data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnImagePixelSize #5
{optics_labels}
1 {voltage} 2.7 0.1 2.0 {optics_values}

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnAngleRot #3
_rlnAngleTilt #4
_rlnAnglePsi #5
_rlnDefocusU #6
_rlnDefocusV #7
_rlnDefocusAngle #8
{labels}
"""


def star(
    folder,
    labels="",
    values="",
    optics_labels="",
    optics_values="",
    voltage="300",
    defocus=15000.0,
    turn=20,
    name="{}@s.mrcs",
):
    text = STAR.format(labels=labels, optics_labels=optics_labels, optics_values=optics_values, voltage=voltage)
    text = "\n".join(line for line in text.splitlines() if line.strip() or not line)
    rows = [f"{name.format(i + 1)} 1 {turn * i} {turn * i} 0 {defocus} {defocus} 0 {values}" for i in range(N)]
    path = folder / "p.star"
    path.write_text(text.rstrip() + "\n" + "\n".join(rows) + "\n")
    return path


def read(path, **options):
    """Return the particles and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        particles = ct.Particles.read(path, **options)
    return particles, [str(w.message) for w in caught]


# What is in a file and not used


@pytest.mark.parametrize(
    ("labels", "values", "title"),
    [
        ("_rlnBeamTiltX #9\n_rlnBeamTiltY #10", "0.3 0", "beam tilt"),
        ("_rlnOddZernike #9", "[0.1,0,0,2]", "odd aberrations"),
        (
            "_rlnMagMat00 #9\n_rlnMagMat01 #10\n_rlnMagMat10 #11\n_rlnMagMat11 #12",
            "1.01 0 0 0.99",
            "anisotropic magnif",
        ),
        ("_rlnCtfBfactor #9", "40", "B-factors"),
    ],
)
def test_what_is_not_used_is_named_once(stack, labels, values, title):
    _, notes = read(star(stack.parent, labels, values), contrast="dark")
    assert len(notes) == 1 and title in notes[0] and "does not use" in notes[0]


def test_columns_without_effect_are_not_mentioned(stack):
    labels = "_rlnBeamTiltX #9\n_rlnMagMat00 #10\n_rlnMagMat01 #11\n_rlnCtfScalefactor #12\n_rlnOddZernike #13"
    assert read(star(stack.parent, labels, "0 1 0 1 [0,0]"), contrast="dark")[1] == []


# What must not pass as particle images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optics_labels": "_rlnImageDimensionality #6", "optics_values": "3"}, "subtomograms"),
        ({"labels": "_rlnTomoName #9", "values": "TS_1", "name": "s.mrcs"}, "tomograms"),
        ({"name": "s.mrcs"}, f"without an image number, a file of {N} images"),
    ],
)
def test_tomography_is_refused(stack, options, message):
    with pytest.raises(InputError, match=rf"(?s)p\.star.*{message}"):
        ct.Particles.read(star(stack.parent, **options), contrast="dark")


def test_single_images_without_a_number_are_read(tmp_path, images):
    for i in range(N):
        write_stack(tmp_path / f"{i + 1}.mrc", [images[i : i + 1]], 1, BOX, 2.0)
    particles = ct.Particles.read(star(tmp_path, name="{}.mrc"), contrast="dark")
    np.testing.assert_array_equal(particles.images(slice(None)), images)


def test_a_refined_map_is_not_a_stack(tmp_path):
    ct.write_map(tmp_path / "run_class001.mrc", np.ones((BOX, BOX, BOX), np.float32), 2.0)
    with pytest.raises(InputError, match=r"(?s)cubic map.*rename the file to \.mrcs"):
        ct.Particles.read(tmp_path / "run_class001.mrc")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "web page"),
        (b"\n <HTML><head>", "web page"),
    ],
)
@pytest.mark.parametrize("name", ["p.star", "p.cs", "p.mrcs"])
def test_a_stand_in_is_called_what_it_is(tmp_path, content, message, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        ct.Particles.read(tmp_path / name)


def test_where_each_stack_was_found_is_listed_without_reading_images(stack, capsys):
    path = star(stack.parent, name="{}@old/s.mrcs")
    some = ct.Particles.read(path, datadir=stack.parent, contrast="dark")
    assert some.files == {"old/s.mrcs": stack.resolve()}
    assert ct.Particles.read(path, datadir=stack.parent, images=False).files == {"old/s.mrcs": stack.resolve()}
    assert ct.Particles.read(path, images=False).files == {"old/s.mrcs": None}
    assert main(["look", str(path), "--datadir", str(stack.parent), "--paths"]) == 0
    assert f"old/s.mrcs -> {stack.resolve()}" in capsys.readouterr().out
    assert main(["look", str(path), "--paths", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"old/s.mrcs": None}


# Impossible values


@pytest.mark.parametrize(
    ("options", "message"),
    [({"voltage": "200000"}, "from V to kV"), ({"defocus": 1.8}, "from µm to Å"), ({"defocus": -2.5}, "from µm to Å")],
)
def test_wrong_units_are_refused(stack, options, message):
    with pytest.raises(InputError, match=message):
        ct.Particles.read(star(stack.parent, **options), contrast="dark")


def test_a_defocus_of_zero_everywhere_is_no_ctf(stack):
    particles, notes = read(star(stack.parent, defocus=0), contrast="dark")
    assert particles.ctf is None and "never determined" in notes[0]


def test_equal_poses_are_reported(stack):
    assert "the same pose" in read(star(stack.parent, turn=0), contrast="dark")[1][0]


# MRC headers


@pytest.mark.parametrize("kind", ["IMOD", "EMAN", "signed", "IMOD signed"])
def test_bytes_are_unsigned_where_the_header_says_so(tmp_path, kind):
    low, high, dtype = (-128, 127, np.int8) if "signed" in kind else (0, 255, np.uint8)
    values = np.random.default_rng(1).integers(low, high, size=(N, BOX, BOX), endpoint=True).astype(dtype)
    values[0, 0, :2] = low, high
    with mrcfile.new(tmp_path / "b.mrcs") as file:
        file.set_data(values.view(np.int8))
        file.header.dmin, file.header.dmax = (0, 0) if "IMOD" in kind else (low, high)
        file.voxel_size = 2.0
    if "IMOD" in kind:
        with open(tmp_path / "b.mrcs", "r+b") as raw:
            raw.seek(152)
            raw.write(np.array([1146047817, int(kind == "IMOD signed")], "<i4").tobytes())
    particles = ct.Particles.read(tmp_path / "b.mrcs", contrast="dark")
    np.testing.assert_array_equal(particles.images(slice(None)), values)


def test_more_images_than_the_header_states_are_reported(stack):
    with open(stack, "r+b") as raw:
        raw.seek(8)
        raw.write(np.array([1], "<i4").tobytes())
    particles, notes = read(stack, contrast="dark")
    assert len(particles) == N and f"the file contains {N}; reading all" in notes[0]
    with open(stack, "r+b") as raw:
        raw.seek(8)
        raw.write(np.array([N - 2], "<i4").tobytes())
    particles, notes = read(stack, contrast="dark")
    assert len(particles) == N - 2 and f"reading only the first {N - 2}" in notes[0]


def test_a_cell_of_one_interval_is_that_of_the_whole_image(stack):
    with open(stack, "r+b") as raw:
        raw.seek(28)
        raw.write(np.array([1, 1, 1], "<i4").tobytes())
    particles, notes = read(stack, contrast="dark")
    assert particles.pixel_size == 2.0 and "mx = 1" in notes[0]


# cryoSPARC


def cs(path, extra=(), **values):
    fields = [("blob/path", "S20"), ("blob/idx", "u4"), ("blob/psize_A", "f4"), *extra]
    table = np.zeros(N, fields)
    table["blob/path"], table["blob/idx"], table["blob/psize_A"] = b"s.mrcs", np.arange(N), 2.0
    for name, column in values.items():
        table[name.replace("__", "/")] = column
    np.save(path.with_suffix(".npy"), table)
    path.with_suffix(".npy").rename(path)
    return path


def test_a_header_longer_than_numpy_allows_by_default_is_read(stack):
    many = [(f"alignments_class_{k}/class_posterior_with_a_long_name_{k:03d}", "f4") for k in range(300)]
    assert len(ct.Particles.read(cs(stack.parent / "p.cs", many), contrast="dark")) == N


def test_cryosparc_tools_stream_format_is_named(stack):
    (stack.parent / "p.cs").write_bytes(b"\x95CSDAT" + bytes(100))
    with pytest.raises(InputError, match=r"(?s)stream format.*NUMPY_FORMAT"):
        ct.Particles.read(stack.parent / "p.cs")


def test_each_particle_has_the_pose_of_its_best_class(stack):
    rng = np.random.default_rng(2)
    poses, posterior = rng.normal(size=(N, 3, 3)), rng.dirichlet(np.ones(3), N)
    shifts = rng.normal(size=(N, 3, 2))
    name = "alignments3D_multi"
    extra = [(f"{name}/pose", "f8", (3, 3)), (f"{name}/class_posterior", "f8", (3,))]
    extra += [(f"{name}/shift", "f8", (3, 2)), (f"{name}/psize_A", "f4")]
    values = {f"{name}__pose": poses, f"{name}__class_posterior": posterior, f"{name}__shift": shifts}
    multi, notes = read(cs(stack.parent / "m.cs", extra, **values), contrast="dark")
    best = posterior.argmax(1)
    single = [("alignments3D/pose", "f8", (3,)), ("alignments3D/shift", "f8", (2,))]
    chosen = {"alignments3D__pose": poses[range(N), best], "alignments3D__shift": shifts[range(N), best]}
    expected = ct.Particles.read(cs(stack.parent / "s.cs", single, **chosen), contrast="dark")
    np.testing.assert_allclose(multi.rotations, expected.rotations, atol=1e-6)
    np.testing.assert_allclose(multi.shifts, expected.shifts, atol=1e-5)
    assert "best of 3 classes in alignments3D_multi" in notes[0]


@pytest.mark.parametrize("classes", [0, 3])
def test_poses_of_several_classes_need_their_posteriors(stack, classes):
    name = "alignments3D_multi"
    extra = [(f"{name}/pose", "f4", (classes, 3))] + [(f"{name}/class_posterior", "f4", (0,))] * (classes == 0)
    with pytest.raises(InputError, match=f"no {name}/class_posterior"):
        ct.Particles.read(cs(stack.parent / "m.cs", extra), contrast="dark")


@pytest.mark.parametrize("size", [0.0, 4.0])
def test_shifts_are_in_pixels_of_the_alignment_if_its_size_is_set(stack, size):
    fields = [("alignments3D/pose", "f4", (3,)), ("alignments3D/shift", "f4", (2,)), ("alignments3D/psize_A", "f4")]
    turns = np.arange(3 * N).reshape(N, 3) / 50
    path = cs(
        stack.parent / "p.cs", fields, alignments3D__pose=turns, alignments3D__shift=3.0, alignments3D__psize_A=size
    )
    np.testing.assert_allclose(ct.Particles.read(path, contrast="dark").shifts, 3 * (size or 2.0))


def test_an_amplitude_contrast_of_zero_was_never_set(stack):
    fields = {"df1_A": 1e4, "df2_A": 1e4, "df_angle_rad": 0, "accel_kv": 300, "cs_mm": 2.7, "amp_contrast": 0}
    values = {f"ctf__{name}": value for name, value in fields.items()}
    values["ctf__amp_contrast"] = np.where(np.arange(N) % 2, 0.07, 0)
    path = cs(stack.parent / "p.cs", [(f"ctf/{name}", "f4") for name in fields], **values)
    particles, notes = read(path, contrast="dark")
    np.testing.assert_allclose(particles.ctf.amplitude_contrast, np.where(np.arange(N) % 2, 0.07, 0.1))
    assert len(notes) == 1 and "assuming 0.1" in notes[0]
    given = ct.Particles.read(path, contrast="dark", amplitude_contrast=0.0)
    assert not given.ctf.amplitude_contrast.any()


def test_poses_in_degrees_are_refused(stack):
    path = cs(stack.parent / "p.cs", [("alignments3D/pose", "f4", (3,))], alignments3D__pose=[90.0, 10.0, 0.0])
    with pytest.raises(InputError, match="degrees to radians"):
        ct.Particles.read(path)


def test_light_particles_among_dark_ones_are_negated(stack, images):
    signs = np.where(np.arange(N) % 3 == 0, 1.0, -1.0)
    path = cs(stack.parent / "p.cs", [("blob/sign", "f4")], blob__sign=signs)
    particles, notes = read(path)
    assert particles.contrast == "dark" and "4 of 12 particles light on dark" in notes[0]
    np.testing.assert_array_equal(particles.images(slice(None)), -signs[:, None, None] * images)
    np.testing.assert_array_equal(particles[[1, 3]].images([0, 1]), -signs[[1, 3], None, None] * images[[1, 3]])
    _, notes = read(path, contrast="dark")
    assert "contradicts the sign" in notes[0]


def parted(folder, **spoil):
    """Write poses, and images with CTF, in two files with rows in different orders; return the files and the poses."""
    rng = np.random.default_rng(4)
    uid, order = rng.permutation(1000)[:N].astype("u8"), rng.permutation(N)
    poses = rng.normal(size=(N, 3))
    first = np.zeros(N, [("uid", "u8"), ("alignments3D/pose", "f8", (3,))])
    first["uid"], first["alignments3D/pose"] = uid, poses
    second = np.zeros(N, [("uid", "u8"), ("blob/path", "S20"), ("blob/idx", "u4"), ("blob/psize_A", "f4")])
    second["uid"], second["blob/path"], second["blob/psize_A"] = uid[order], b"s.mrcs", 2.0
    second["blob/idx"] = order
    for name, table in {"a": first, "b": second}.items():
        table = spoil.get(name, lambda t: t)(table)
        with open(folder / f"{name}.cs", "wb") as file:
            np.save(file, table)
    return [folder / "a.cs", folder / "b.cs"], poses


def test_particle_and_passthrough_files_are_joined_by_uid(stack, images):
    files, poses = parted(stack.parent)
    for order in (files, files[::-1]):
        particles = ct.Particles.read(order, contrast="dark")
        number = particles.identity % 2**40  # image i has pose i
        expected = Rotation.from_rotvec(poses[number]).as_matrix()
        both = [np.abs(particles.rotations - r).max() for r in (expected, expected.transpose(0, 2, 1))]
        assert min(both) < 1e-5
        np.testing.assert_array_equal(particles.images(slice(None)), images[number])
    with pytest.raises(InputError, match=r"(?s)no blob/path.*passthrough"):
        ct.Particles.read(files[0])


def test_a_uid_in_one_file_only_is_left_out_and_both_numbers_are_reported(stack):
    files, _ = parted(stack.parent, b=lambda t: t[np.arange(N) != 3])
    particles, notes = read(files, contrast="dark")
    assert len(particles) == N - 1 and f"a.cs ({N} rows)" in notes[0] and f"({N - 1} rows) have {N - 1}" in notes[0]
    kept = np.setdiff1d(np.arange(N), particles.source_rows)
    assert len(kept) == 1 and len(np.load(files[0], allow_pickle=False)) == N  # rows are those of the first file


def test_a_selection_from_joined_files_has_the_rows_of_the_first(stack):
    files, _ = parted(stack.parent, b=lambda t: t[np.arange(N) != 3])
    particles, _ = read(files, contrast="dark")
    rows = [5, 1, 8]
    written = np.load(ct.write_selection(stack.parent / "some.cs", particles, rows), allow_pickle=False)
    first = np.load(files[0], allow_pickle=False)
    assert written["uid"].tolist() == first["uid"][np.sort(particles.source_rows[rows])].tolist()
    again, _ = read([stack.parent / "some.cs", files[1]], contrast="dark")
    np.testing.assert_array_equal(np.sort(again.identity), np.sort(particles.identity[rows]))


def test_indices_of_joined_files_are_rows_of_the_first(stack):
    """As in a .pkl file of an earlier selection: not rows of the join, which lacks one."""
    files, _ = parted(stack.parent, b=lambda t: t[np.arange(N) != 3])
    every, _ = read(files, contrast="dark")
    missing = int(np.setdiff1d(np.arange(N), every.source_rows)[0])
    picked = ct.write_selection(stack.parent / "some.pkl", every, [N - 2, 0, 6])
    mask = np.isin(np.arange(N), every.source_rows[[N - 2, 0, 6]])
    for indices in (picked, np.flatnonzero(mask), mask):
        again, _ = read(files, contrast="dark", indices=indices)
        np.testing.assert_array_equal(np.sort(again.source_rows), np.flatnonzero(mask))
        np.testing.assert_array_equal(np.sort(again.identity), np.sort(every.identity[[N - 2, 0, 6]]))
    again, notes = read(files, contrast="dark", indices=[missing, N - 1 if missing < N - 1 else 0])
    assert len(again) == 1 and any("1 of the 2 selected particles" in note for note in notes)
    with pytest.raises(InputError, match="none of the 1 selected rows"):
        ct.Particles.read(files, contrast="dark", indices=[missing])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"a": lambda t: t[[0, *range(N)]]}, "uid .* 2 times"),
        ({"b": lambda t: t[[*range(N), 5]]}, "uid .* 2 times"),
        ({"b": lambda t: t[list(t.dtype.names[1:])].copy()}, "no uid"),
        ({"b": lambda t: t[:0]}, "no rows"),
        ({"a": lambda t: t[:0]}, "no rows"),
    ],
)
def test_a_join_that_is_not_one_to_one_is_refused(stack, spoil, message):
    files, _ = parted(stack.parent, **spoil)
    with pytest.raises(InputError, match=message):
        ct.Particles.read(files, contrast="dark")


# cryoDRGN


def test_the_latents_without_a_number_are_the_last_epoch(tmp_path):
    (tmp_path / "config.yaml").write_text("dataset_args: {ind: null}\nlattice_args: {D: 17}\n")
    for name, value in {"z.1.pkl": 1.0, "z.2.pkl": 2.0, "z.pkl": 3.0}.items():
        with open(tmp_path / name, "wb") as file:
            pickle.dump(np.full((N, 2), value, np.float32), file)
            pickle.dump(np.zeros((N, 2), np.float32), file)
    assert float(ct.read_cryodrgn(tmp_path).latents[0, 0]) == 3 and ct.read_cryodrgn(tmp_path).epoch is None
    assert float(ct.read_cryodrgn(tmp_path, epoch=1).latents[0, 0]) == 1
    (tmp_path / "z.1.pkl").unlink()
    (tmp_path / "z.2.pkl").unlink()
    assert float(ct.read_cryodrgn(tmp_path).latents[0, 0]) == 3
    (tmp_path / "weights.pkl").write_bytes(b"never opened")
    assert "weights.pkl" in ct.read_cryodrgn(tmp_path).decode_command(np.zeros((1, 2)), tmp_path / "out", 2.0)


def test_the_selection_in_the_run_folder_precedes_that_of_the_working_folder(tmp_path, monkeypatch):
    run, work = tmp_path / "run", tmp_path / "work"
    for folder, rows in ((run, [0, 2, 4]), (work, [1, 3, 5])):
        folder.mkdir()
        (folder / "ind.pkl").write_bytes(pickle.dumps(np.array(rows)))
    (run / "config.yaml").write_text("dataset_args: {ind: ind.pkl}\nlattice_args: {D: 17}\n")
    (run / "z.pkl").write_bytes(pickle.dumps(np.zeros((3, 2), np.float32)))
    monkeypatch.chdir(work)
    assert ct.read_cryodrgn(run).indices.tolist() == [0, 2, 4]


@pytest.mark.parametrize("cs", [2.7e7, 2700.0, -2.7e6])
def test_a_spherical_aberration_in_another_unit_is_refused_with_its_row(cs):
    from cryotwin_nb.formats.metadata import make_ctf

    values = {"defocus_u": 15000.0, "defocus_v": 14000.0, "defocus_angle": 0.0, "voltage": 300.0, "phase_shift": 0.0}
    values |= {"spherical_aberration": 2.7, "amplitude_contrast": 0.1}
    columns = {name: np.full(5, value) for name, value in values.items()}
    make_ctf("p.star", **columns)
    columns["spherical_aberration"][[2, 4]] = cs
    with pytest.raises(
        InputError, match=r"p\.star: found spherical aberration = \S+ mm for particle 3 \(and 1 others\)"
    ):
        make_ctf("p.star", **columns)


@pytest.mark.parametrize("pixel", [1e-6, 0.01, 1e6, 131.0])
def test_a_pixel_size_that_no_microscope_has_is_refused(pixel):
    with pytest.raises(InputError, match=r"0\.05 to 100 Å"):
        ct.Particles(np.zeros((2, 8, 8), np.float32), pixel_size=pixel)
