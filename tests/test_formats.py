"""File formats: round trips, conventions against independent sources, and real files."""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats import chimerax, cryodrgn
from cryotwin_nb.formats.cryosparc import read_cs
from cryotwin_nb.formats.files import _candidates, atomic, find_stack, locate_stacks
from cryotwin_nb.formats.mrc import read_header, read_map, read_stack_header
from cryotwin_nb.formats.mrc_writing import map_bytes, write_map, write_stack
from cryotwin_nb.formats.poses import euler_from_rotations, rotations_from_euler, rotations_from_vectors
from cryotwin_nb.formats.star import read_star
from cryotwin_nb.imaging.optics import CTF

DATA = Path(__file__).parents[2] / "shared/data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the real files are not in the repository")
degrees = st.floats(-360, 360)
relaxed = settings(deadline=None, max_examples=50)  # no deadline: first calls import modules, machines are shared


def some_ctf(n: int) -> CTF:
    columns = (15000.0, 14500.0, 30.0, 300.0, 2.7, 0.1, 0.0)
    return CTF(*(np.full(n, value, dtype=np.float32) + np.arange(n, dtype=np.float32) * 0.01 for value in columns))


# ---------------------------------------------------------------------------------------------------------------- MRC


@pytest.mark.parametrize("voxel_size", [0.415, 1.0, 1.31, 2.806, 12.5])
def test_a_map_comes_back_with_its_values_and_voxel_size(tmp_path, voxel_size):
    volume = np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32)
    write_map(tmp_path / "map.mrc", volume, voxel_size)
    again, size = read_map(tmp_path / "map.mrc")
    np.testing.assert_array_equal(again, volume)
    assert size == pytest.approx(voxel_size, rel=1e-6)
    with mrcfile.open(tmp_path / "map.mrc") as file:
        assert (int(file.header.mode), int(file.header.ispg)) == (2, 1)
        assert file.header.origin.tolist() == (0, 0, 0)
        assert file.header.dmean == pytest.approx(volume.mean(), abs=1e-6)
    assert mrcfile.validate(tmp_path / "map.mrc", print_file=io.StringIO())


def test_a_map_stored_with_other_axes_is_turned_to_zyx(tmp_path):
    volume = np.random.default_rng(1).normal(size=(8, 8, 8)).astype(np.float32)
    with mrcfile.new(tmp_path / "xyz.mrc", volume.transpose(2, 0, 1)) as file:  # sections x, rows z, columns y
        file.header.mapc, file.header.mapr, file.header.maps = 2, 3, 1
        file.voxel_size = 2.0
    np.testing.assert_array_equal(read_map(tmp_path / "xyz.mrc")[0], volume)


def test_a_stack_written_in_chunks_is_a_valid_mrc_file_with_correct_statistics(tmp_path):
    images = np.random.default_rng(2).normal(3, 2, size=(7, 10, 10)).astype(np.float32)
    write_stack(tmp_path / "a.mrcs", [images[:3], images[3:]], 7, 10, 1.5)
    assert mrcfile.validate(tmp_path / "a.mrcs", print_file=io.StringIO())
    with mrcfile.open(tmp_path / "a.mrcs") as file:
        np.testing.assert_array_equal(file.data, images)
        assert int(file.header.ispg) == 0
        assert file.header.rms == pytest.approx(images.std(), rel=1e-4)
        assert (file.header.dmin, file.header.dmax) == (images.min(), images.max())
    assert read_stack_header(tmp_path / "a.mrcs").voxel_size == pytest.approx(1.5)


@pytest.mark.parametrize("dtype", ["i1", "<i2", ">i2", "<f4", ">f4", "<u2", "<f2"])
def test_modes_byte_orders_and_extended_headers_are_read(tmp_path, dtype):
    images = np.arange(3 * 8 * 8).reshape(3, 8, 8) % 100
    with mrcfile.new(tmp_path / "a.mrcs") as file:
        file.set_extended_header(np.zeros(256, dtype="V1"))
        file.set_data(images.astype(dtype))
    header = read_stack_header(tmp_path / "a.mrcs")
    assert header.offset == 1280
    np.testing.assert_array_equal(header.read(np.arange(3)), images)


def test_a_single_image_is_a_stack_of_one(tmp_path):
    with mrcfile.new(tmp_path / "one.mrc", np.ones((8, 8), np.float32)):
        pass
    assert read_header(tmp_path / "one.mrc").shape == (1, 8, 8)


def test_a_failed_write_leaves_the_former_file(tmp_path):
    write_map(tmp_path / "map.mrc", np.zeros((8, 8, 8)), 1.0)
    before = (tmp_path / "map.mrc").read_bytes()

    def fail_half_way() -> None:
        with atomic(tmp_path / "map.mrc") as partial:
            partial.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_half_way()
    assert (tmp_path / "map.mrc").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["map.mrc"]


def test_stacks_are_found_from_the_datadir_the_folder_and_the_project(tmp_path):
    (tmp_path / "job/deep").mkdir(parents=True)
    (tmp_path / "Extract").mkdir()
    (tmp_path / "Extract/a.mrcs").touch()
    star = tmp_path / "job/deep/particles.star"
    expected = (tmp_path / "Extract/a.mrcs").resolve()
    assert find_stack("Extract/a.mrcs", star)[0].resolve() == expected  # the project, two levels up
    assert find_stack("elsewhere/a.mrcs", star, tmp_path / "Extract")[0].resolve() == expected  # datadir/basename
    assert find_stack(str(expected), star)[0].resolve() == expected  # absolute
    with pytest.raises(InputError, match=r"(?s)particles\.star.*missing\.mrcs.*datadir"):
        find_stack("missing.mrcs", star)


def test_ever_shorter_tails_are_tried_below_the_datadir_the_longest_first(tmp_path):
    """Absolute names of another machine, with stacks of the same name in several folders."""
    for folder in ("new/Extract/job7/g1", "new/job7/g1", "new"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "m.mrcs").touch()
    name = "/old/machine/project/Extract/job7/g1/m.mrcs"
    for expected in ("new/Extract/job7/g1/m.mrcs", "new/job7/g1/m.mrcs", "new/m.mrcs"):
        assert find_stack(name, tmp_path / "p.star", tmp_path / "new") == (tmp_path / expected, True)
        (tmp_path / expected).unlink()
    with pytest.raises(InputError, match="not found"):
        find_stack(name, tmp_path / "p.star", tmp_path / "new")


def test_of_a_name_with_thousands_of_folders_only_the_last_ones_are_tried(tmp_path):
    name = "/old/" + "x/" * 3000 + "g1/m.mrcs"
    tried = list(_candidates(name, tmp_path / "p.star", tmp_path))
    assert [path for path, _ in tried[-3:]] == [tmp_path / "g1/m.mrcs", tmp_path / "m.mrcs", Path(name)]
    assert str(tried[0][0]).endswith(name[1:]) and not tried[0][1] and len(tried) < 100


def test_two_names_never_lead_to_one_file(tmp_path):
    """With a datadir one folder too deep, half of the particles had the images of the other half."""
    for folder in ("data/s1/raw", "data/s2/raw"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "001.mrcs").touch()
    names, star = ["s1/raw/001.mrcs", "s2/raw/001.mrcs"], tmp_path / "job" / "p.star"
    found = locate_stacks(names, star, tmp_path / "data")
    assert [found[name] for name in names] == [tmp_path / "data" / name for name in names]
    with pytest.raises(InputError, match=r"(?s)'s1/raw/001.mrcs' and 's2/raw/001.mrcs' both lead to .*datadir="):
        locate_stacks(names, star, tmp_path / "data/s1")
    whole = [str(tmp_path / "data/s1/raw/001.mrcs"), "s1/raw/001.mrcs"]  # one stack, named in full twice
    assert len(set(locate_stacks(whole, tmp_path / "data/p.star").values())) == 1


# ---------------------------------------------------------------------------------------------------------- rotations


@relaxed
@given(degrees, degrees, degrees)
def test_euler_angles_and_rotations_are_inverse(rot, tilt, psi):
    matrix = rotations_from_euler(*np.array([[rot], [tilt], [psi]]))
    angles = euler_from_rotations(matrix)
    assert 0 <= angles[1][0] <= 180
    np.testing.assert_allclose(rotations_from_euler(*angles), matrix, atol=3e-7)


@pytest.mark.parametrize("tilt", [0.0, 1e-5, 1e-3, 179.9999, 180.0])
def test_euler_angles_reproduce_the_matrix_near_the_poles(tilt):
    matrix = rotations_from_euler(*np.array([[40.0], [tilt], [-75.0]]))
    np.testing.assert_allclose(rotations_from_euler(*euler_from_rotations(matrix)), matrix, atol=3e-7)


def test_euler_angles_follow_the_zyz_convention():
    """R e_z is the viewing direction (sin tilt cos rot, sin tilt sin rot, cos tilt) for any psi."""
    rot, tilt, psi = np.array([[20.0], [70.0], [135.0]])
    direction = rotations_from_euler(rot, tilt, psi)[0] @ [0, 0, 1]
    a, b = np.deg2rad(20), np.deg2rad(70)
    np.testing.assert_allclose(direction, [np.sin(b) * np.cos(a), np.sin(b) * np.sin(a), np.cos(b)], atol=1e-6)
    in_plane = rotations_from_euler(np.zeros(1), np.zeros(1), np.array([90.0]))[0]
    np.testing.assert_allclose(in_plane @ [1, 0, 0], [0, 1, 0], atol=1e-6)


@relaxed
@given(arrays(np.float64, (3,), elements=st.floats(-3, 3)))
def test_rotation_vectors_agree_with_scipy(vector):
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    np.testing.assert_allclose(
        rotations_from_vectors(vector[None])[0], rotation.from_rotvec(vector).as_matrix(), atol=1e-6
    )


# --------------------------------------------------------------------------------------------------------------- STAR

OPTICS = """data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
7 second 200 1.4 0.07 2.5 16
3 first 300 2.7 0.1 2.5 16

"""
PARTICLES = """data_particles

loop_
_rlnImageName #1
_rlnAngleRot #2
_rlnAngleTilt #3
_rlnAnglePsi #4
_rlnOriginXAngst #5
_rlnOriginYAngst #6
_rlnDefocusU #7
_rlnDefocusV #8
_rlnDefocusAngle #9
_rlnOpticsGroup #10
000002@b.mrcs 10 20 30 1.5 -2.5 15000 14000 45 7
000001@a.mrcs 11 21 31 2.5 -3.5 15100 14100 46 3
000001@b.mrcs 12 22 32 3.5 -4.5 15200 14200 47 7

"""
GENERAL = "data_general\n\n_rlnTomoSubTomosAre2DStacks 0\n\n"


@relaxed
@given(
    st.permutations([OPTICS, PARTICLES, GENERAL]), st.sampled_from(["", "# version 30001\n\n", "# version 50001\n\n"])
)
def test_blocks_in_any_order_read_the_same(tmp_path_factory, blocks, comment):
    path = tmp_path_factory.mktemp("star") / "p.star"
    path.write_text(comment + comment.join(blocks))
    table = read_star(path)
    assert table.stacks == ("a.mrcs", "b.mrcs")
    assert table.stack_number.tolist() == [1, 0, 1]
    assert table.image_number.tolist() == [1, 0, 0]
    assert table.optics_group.tolist() == [1, 0, 1]
    assert table.pixel_size.tolist() == [2.5] * 3
    assert table.ctf.voltage.tolist() == [200, 300, 200]
    np.testing.assert_allclose(table.ctf.amplitude_contrast, [0.07, 0.1, 0.07])
    np.testing.assert_allclose(table.shifts, [[1.5, -2.5], [2.5, -3.5], [3.5, -4.5]])


@pytest.mark.parametrize(("optics", "used"), [(OPTICS, [[1.5, -2.5], [2.5, -3.5], [3.5, -4.5]]), ("", [[12, -18]] * 3)])
def test_of_two_origins_those_that_relion_reads_are_used_and_the_contradiction_is_reported(tmp_path, optics, used):
    """Å beside data_optics, pixels (4 and -6 of 3 Å) without: relion_reconstruct 3.1.3, run on such files."""
    text = PARTICLES.replace("_rlnDefocusAngle #9\n", "_rlnDefocusAngle #9\n_rlnOriginX #10\n_rlnOriginY #11\n")
    text = text.replace("_rlnOpticsGroup #10", "_rlnOpticsGroup #12")
    text = re.sub(r" (4[567]) ([37])\n", r" \1 4 -6 \2\n", text)
    (tmp_path / "p.star").write_text(optics.replace("2.5", "3.0") + text if optics else text)
    table = read_star(tmp_path / "p.star", pixel_size=3.0, ctf=bool(optics))
    np.testing.assert_allclose(table.shifts, used)
    assert len(table.notes) == 1 and "disagree for 3 of 3 particles" in table.notes[0]


def test_origins_in_pixels_alone_are_used_also_beside_data_optics(tmp_path):
    """cryoDRGN 4.3 writes such files; RELION 3.1 takes their shifts as 0, so the file is named."""
    text = PARTICLES.replace("_rlnOriginXAngst", "_rlnOriginX").replace("_rlnOriginYAngst", "_rlnOriginY")
    (tmp_path / "p.star").write_text(OPTICS + text)
    table = read_star(tmp_path / "p.star")
    np.testing.assert_allclose(table.shifts[0], [1.5 * 2.5, -2.5 * 2.5])
    assert "ignore them beside data_optics" in table.notes[0]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("grid#2/b.mrcs", "grid#2/b.mrcs"),
        ("O'Neill/b.mrcs", "O'Neill/b.mrcs"),
        ("'90s/b.mrcs", "'90s/b.mrcs"),
        ('"two words/b.mrcs"', "two words/b.mrcs"),
        ("'two words/b.mrcs'", "two words/b.mrcs"),
        ("Kühlbrandt/b.mrcs", "Kühlbrandt/b.mrcs"),
        ("b.mrc:mrcs", "b.mrc"),
        ("NA/b.mrcs", "NA/b.mrcs"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_tokens_are_those_that_relion_reads(tmp_path, written, name, encoding):
    """Quotes and # mean something at the start of a token only."""
    token = written if written[0] != '"' and " " not in written else written[0] + "000002@" + written[1:]
    token = token if "@" in token else f"000002@{token}"
    (tmp_path / "p.star").write_text(OPTICS + PARTICLES.replace("000002@b.mrcs", token), encoding=encoding)
    table = read_star(tmp_path / "p.star")
    assert name in table.stacks and table.image_number.tolist() == [1, 0, 0]
    assert table.stacks[table.stack_number[0]] == name


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("000002@b.mrcs 10 20 30 1.5 -2.5 15000 14000 45 7 8", "11 values"),
        ("000002@b.mrcs 10 20 30 1.5 -2.5 15000 14000 45", "9 values"),
        ("9", "1 value"),
        ("<html><body>Not found</body></html>", "3 values|1 value|2 values"),
    ],
)
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_row_of_another_length_is_named_by_its_line(tmp_path, row, found, place):
    lines = (OPTICS + PARTICLES).rstrip().splitlines()
    at = lines.index("_rlnOpticsGroup #10") + 1 if place == "first" else len(lines)
    lines.insert(at, row)
    (tmp_path / "p.star").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=rf"p\.star, line {at + 1}: found ({found}), expected 10"):
        read_star(tmp_path / "p.star")


@pytest.mark.parametrize("first", ["rejected", "particles", "images"])
def test_of_several_tables_the_particles_are_read(tmp_path, first):
    tables = {name: PARTICLES.replace("data_particles", f"data_{name}") for name in ("rejected", "particles")}
    tables["rejected"] = tables["rejected"].replace("a.mrcs", "bad.mrcs")
    order = [first, *(name for name in tables if name != first)]
    text = "\n".join(tables.get(name, tables["rejected"].replace("data_rejected", "data_images")) for name in order)
    (tmp_path / "p.star").write_text(OPTICS + text)
    table = read_star(tmp_path / "p.star")
    assert table.stacks == ("a.mrcs", "b.mrcs") and "data_particles, not those of data_" in table.notes[0]


def test_a_column_of_the_particles_goes_before_that_of_their_optics_group(tmp_path):
    text = PARTICLES.replace("_rlnOpticsGroup #10", "_rlnVoltage #10\n_rlnOpticsGroup #11")
    (tmp_path / "p.star").write_text(OPTICS + re.sub(r" (4[567]) ([37])\n", r" \1 120 \2\n", text))
    assert read_star(tmp_path / "p.star").ctf.voltage.tolist() == [120, 120, 120]


def test_relion_3_0_computes_the_pixel_size_and_has_origins_in_pixels(tmp_path):
    columns = ["ImageName", "DetectorPixelSize", "Magnification", "OriginX", "OriginY"]
    header = "data_\n\nloop_\n" + "".join(f"_rln{name} #{i}\n" for i, name in enumerate(columns, 1))
    (tmp_path / "p.star").write_text(header + "1@a.mrcs 5 38168 2 -1\n1@b.mrcs 5 38168 0 10\n")
    table = read_star(tmp_path / "p.star")
    np.testing.assert_allclose(table.pixel_size, 1.31, atol=1e-4)
    np.testing.assert_allclose(table.shifts, [[2.62, -1.31], [0, 13.1]], atol=1e-3)
    assert table.ctf is None
    assert table.optics_group.tolist() == [0, 0]


def test_a_file_that_was_rewritten_is_read_anew(tmp_path):
    """starfile caches lines; a file corrected after a failure must not be read from the cache."""
    path = tmp_path / "p.star"
    path.write_text(PARTICLES.replace("20 30", "20 30 40"))
    with pytest.raises(InputError):
        read_star(path)
    path.write_text(OPTICS + PARTICLES)
    assert len(read_star(path)) == 3


@real
@pytest.mark.parametrize(
    ("name", "n", "pixel", "has_poses"),
    [
        ("relion31.star", 5, 2.806, True),
        ("empiar_10076_7.star", 7, 1.31, False),
        ("FinalRefinement-OriginalParticles-PfCRT.star", 5, 1.035, True),
    ],
)
def test_real_star_files(name, n, pixel, has_poses):
    table = read_star(DATA / name)
    assert len(table) == n
    np.testing.assert_allclose(table.pixel_size, pixel, atol=5e-4)
    assert (table.rotations is not None) == has_poses


# ---------------------------------------------------------------------------------------------------------- cryoSPARC


def cs_table(**columns) -> np.ndarray:
    n = 3
    fields = {
        "blob/path": np.array([b">J1/a.mrc", b"J1/b.mrc", b"J1/a.mrc"]),
        "blob/idx": np.array([0, 4, 2], dtype=np.uint32),
        "blob/shape": np.full((n, 2), 16, dtype=np.uint32),
        "blob/psize_A": np.full(n, 2.0, dtype=np.float32),
        "blob/sign": np.full(n, -1.0, dtype=np.float32),
    } | {name.replace("__", "/"): np.asarray(values) for name, values in columns.items()}
    table = np.zeros(n, dtype=[(k, v.dtype, v.shape[1:]) for k, v in fields.items()])
    for name, values in fields.items():
        table[name] = values
    return table


def save_cs(path: Path, table: np.ndarray) -> Path:
    with open(path, "wb") as file:
        np.save(file, table)
    return path


def test_a_refinement_is_read_with_shifts_in_pixels_of_the_alignment(tmp_path):
    poses = np.array([[0, 0, 0], [0, 0, np.pi / 2], [0.1, 0.2, 0.3]], dtype=np.float32)
    path = save_cs(
        tmp_path / "p.cs",
        cs_table(
            alignments3D__pose=poses,
            alignments3D__shift=np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32),
            alignments3D__psize_A=np.full(3, 4.0, dtype=np.float32),
            ctf__df1_A=np.full(3, 15000.0),
            ctf__df2_A=np.full(3, 14000.0),
            ctf__df_angle_rad=np.full(3, np.pi / 4),
            ctf__accel_kv=np.full(3, 300.0),
            ctf__cs_mm=np.full(3, 2.7),
            ctf__amp_contrast=np.full(3, 0.1),
            ctf__phase_shift_rad=np.full(3, np.pi / 2),
            ctf__exp_group_id=np.array([9, 4, 9]),
        ),
    )
    table = read_cs(path)
    assert table.stacks == ("J1/a.mrc", "J1/b.mrc")
    assert table.image_number.tolist() == [0, 4, 2]
    assert table.optics_group.tolist() == [1, 0, 1]
    np.testing.assert_allclose(table.shifts, [[4, 8], [12, 16], [20, 24]])
    np.testing.assert_array_equal(table.rotations[0], np.eye(3))
    np.testing.assert_allclose(table.rotations[1] @ [1, 0, 0], [0, 1, 0], atol=1e-6)  # exp([v]x) itself
    np.testing.assert_allclose(table.ctf.defocus_angle, 45)
    np.testing.assert_allclose(table.ctf.phase_shift, 90)
    assert table.ctf.voltage.dtype == np.float32
    assert table.common("sign") == -1


@pytest.mark.parametrize("prefix", ["alignments_class3D_", "alignments_class_"])
def test_the_best_class_of_each_particle_is_taken_aloud(tmp_path, prefix):
    columns = {}
    for k, posterior in enumerate(([0.9, 0.2, 0.4], [0.1, 0.8, 0.6])):
        columns[f"{prefix}{k}__pose"] = np.full((3, 3), 0.1 * (k + 1))
        columns[f"{prefix}{k}__shift"] = np.full((3, 2), float(k + 1))
        columns[f"{prefix}{k}__class_posterior"] = np.array(posterior)
    path = save_cs(tmp_path / "p.cs", cs_table(**columns))
    table = read_cs(path)
    (note,) = table.notes
    assert "p.cs: no alignments3D" in note and "best class" in note
    np.testing.assert_allclose(table.shifts[:, 0], [2, 4, 4])  # pixels of 2 Å
    np.testing.assert_allclose(table.rotations, rotations_from_vectors(np.full((3, 3), [[0.1], [0.2], [0.2]])))


@real
def test_the_real_cs_file():
    table = read_cs(DATA / "empiar_10076_7.cs")
    np.testing.assert_allclose(table.pixel_size, 1.31, atol=1e-4)
    assert table.rotations is None
    np.testing.assert_allclose(
        table.ctf.defocus_angle, read_star(DATA / "empiar_10076_7.star").ctf.defocus_angle, atol=1e-3
    )
    assert table.common("box_size") == 320


# ----------------------------------------------------------------------------------------------------------- cryoDRGN


def test_poses_and_ctf_written_for_cryodrgn_come_back(tmp_path):
    rotations = rotations_from_euler(*np.random.default_rng(0).uniform(0, 180, (3, 5)))
    shifts = np.random.default_rng(1).normal(0, 5, (5, 2)).astype(np.float32)
    cryodrgn.write_poses(tmp_path / "poses.pkl", rotations, shifts, box_size=64, pixel_size=2.0)
    cryodrgn.write_ctf(tmp_path / "ctf.pkl", some_ctf(5), box_size=64, pixel_size=2.0)
    with open(tmp_path / "poses.pkl", "rb") as file:
        rot, trans = pickle.load(file)
    np.testing.assert_array_equal(rot, rotations.transpose(0, 2, 1))
    np.testing.assert_allclose(trans, shifts / 128, rtol=1e-6)
    with open(tmp_path / "ctf.pkl", "rb") as file:
        table = pickle.load(file)
    assert (table.dtype, table.shape) == (np.float32, (5, 9))
    again, translations = cryodrgn.read_poses(tmp_path / "poses.pkl")
    np.testing.assert_array_equal(again, rotations)
    np.testing.assert_allclose(translations * 128, shifts, rtol=1e-6)
    ctf, box, pixel = cryodrgn.read_ctf(tmp_path / "ctf.pkl")
    np.testing.assert_array_equal(ctf.defocus_u, some_ctf(5).defocus_u)
    assert (set(box), set(pixel)) == ({64.0}, {2.0})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("rename", [False, True], ids=["numpy2", "numpy1"])
def test_pickles_of_all_protocols_and_numpy_versions_are_read(tmp_path, protocol, rename):
    content = (
        [np.arange(6.0).reshape(2, 3), np.float32(2.5)],
        np.arange(6.0).reshape(2, 3).T,
        np.array([True]),
        "text",
    )
    text = pickle.dumps(content, protocol=protocol)
    if rename:
        old, new = b"numpy._core", b"numpy.core"
        text = text.replace(b"\x8c" + bytes([len(old) + 11]) + old, b"\x8c" + bytes([len(new) + 11]) + new)
        text = text.replace(b"c" + old, b"c" + new)
        text = re.sub(rb"\x95........", b"", text, flags=re.DOTALL) if protocol >= 4 else text  # frame lengths
    (tmp_path / "x.pkl").write_bytes(text)
    again, _ = cryodrgn._read(tmp_path / "x.pkl")
    for found, expected in zip(again[1:3], content[1:3]):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(again[0][0], content[0][0])
    assert [*again[0][1:], again[3]] == [2.5, "text"] and len(again) == 4


@pytest.mark.parametrize(
    "content", [np.eye(3)[None], (np.eye(3)[None],), [np.eye(3)[None]]], ids=["bare", "1-tuple", "list"]
)
def test_poses_without_translations_are_read(tmp_path, content):
    (tmp_path / "poses.pkl").write_bytes(pickle.dumps(content))
    rotations, translations = cryodrgn.read_poses(tmp_path / "poses.pkl")
    assert rotations.shape == (1, 3, 3)
    assert translations is None


def test_indices_and_latents_are_read(tmp_path):
    (tmp_path / "ind.pkl").write_bytes(pickle.dumps(np.array([3, 1, 4])))
    assert cryodrgn.read_indices(tmp_path / "ind.pkl").tolist() == [3, 1, 4]
    mean, variance = np.random.default_rng(0).normal(size=(2, 4, 8)).astype(np.float32)
    (tmp_path / "z.pkl").write_bytes(pickle.dumps(mean) + pickle.dumps(variance))
    again = cryodrgn.read_latents(tmp_path / "z.pkl")
    np.testing.assert_array_equal(again[0], mean)
    np.testing.assert_array_equal(again[1], variance)
    (tmp_path / "z1.pkl").write_bytes(pickle.dumps(mean))
    assert cryodrgn.read_latents(tmp_path / "z1.pkl")[1] is None


# ----------------------------------------------------------------------------------------------------------- ChimeraX


def written_session(folder: Path, *names: str, **options) -> list[str]:
    """Return the lines of a script for maps of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_map(folder / name, np.zeros((8, 8, 8)), 1.0)
    chimerax.write_session(folder / "path.cxc", [folder / name for name in names], level=0.0123, **options)
    return (folder / "path.cxc").read_text().splitlines()


def test_a_session_names_its_maps_relative_to_itself(tmp_path):
    names = ["maps/step 0.mrc", "maps/[1-2] it's.mrc", 'maps/a "b".mrc']
    lines = written_session(tmp_path / "a [b] 'c'", *names)
    assert [line for line in lines if line.startswith("open")] == [
        'open "maps/step 0.mrc" id 9001.1',
        'open "maps/[1-2] it\'s.mrc" id 9001.2',
        "open 'maps/a \"b\".mrc' id 9001.3",
    ]
    assert "volume #9001.1-3 level 0.0123" in lines
    assert 'mseries slider #9001.1-3 title "Pathway" name Map' in lines
    assert str(tmp_path) not in "\n".join(lines)
    assert len(set(re.findall(r"color (#\w{6})", "\n".join(lines)))) == 3


@pytest.mark.parametrize("names", [["a.mrc"], ["a.mrc", "b.mrc", "c.mrc"]])
def test_a_session_script_leaves_other_models_and_settings_alone(tmp_path, names):
    """Each command is about its own models, and no command changes the session."""
    comment, *commands = written_session(tmp_path, *names, number=4711, title='a "new" path')
    assert comment.startswith("# a 'new' path: ") and commands[0] == "close #4711"
    opened = [int(match[1]) for line in commands if (match := re.fullmatch(r"open .* id 4711\.(\d+)", line))]
    assert opened == [*range(1, len(names) + 1)]
    others = [line for line in commands if not line.startswith("open")]
    assert all(re.match(r"(close|volume|rename|view|mseries slider) #4711(\.[1-9](-[1-9])?)?( |$)", x) for x in others)
    assert any(line.startswith("mseries") for line in others) == (len(names) > 1)


def test_path_colors_run_from_blue_to_orange():
    assert chimerax.path_colors(1) == ["#0072b2"]
    assert chimerax.path_colors(3) == ["#0072b2", "#bebebe", "#d55e00"]


def test_a_map_for_the_viewer_has_its_origin_in_the_middle(tmp_path):
    values = np.arange(8**3, dtype=np.int64).reshape(8, 8, 8).astype(np.int8)
    (tmp_path / "map.mrc").write_bytes(map_bytes(values, 2.5))
    with mrcfile.open(tmp_path / "map.mrc") as file:
        assert [int(file.header[name]) for name in ("nxstart", "nystart", "nzstart")] == [-4, -4, -4]
        assert float(file.voxel_size.x) == 2.5
        np.testing.assert_array_equal(file.data, values)


def test_translations_beyond_the_box_are_refused(tmp_path):
    eye = np.broadcast_to(np.eye(3, dtype=np.float32), (2, 3, 3))
    for shift, good in ((1.0, True), (-1.0, True), (1.4, False)):
        (tmp_path / "poses.pkl").write_bytes(pickle.dumps((eye, np.full((2, 2), shift, np.float32))))
        if good:
            cryodrgn.read_poses(tmp_path / "poses.pkl")
        else:
            with pytest.raises(InputError, match=r"a translation of 1\.4, expected fractions of the box"):
                cryodrgn.read_poses(tmp_path / "poses.pkl")
