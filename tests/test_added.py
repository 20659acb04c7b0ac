"""Poses and CTF from other .cs and .star files: matched by uid or image name, in any order of rows."""

from __future__ import annotations

import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.errors import InputError
from cryotwin_nb.formats import matching
from cryotwin_nb.formats.matching import pair_stacks
from cryotwin_nb.formats.mrc_writing import write_stack

N, BOX, PIXEL = 12, 16, 2.0
STACK = np.arange(N) // 4  # three stacks of four images
NAMES = [f"s{k}.mrcs" for k in range(3)]
rng = np.random.default_rng(7)
UID = rng.permutation(10**6)[:N].astype("u8") + 2**63  # beyond int64 and the exact integers of float64
VECTORS = rng.uniform(-1, 1, (N, 3))
ROTATIONS = Rotation.from_rotvec(VECTORS).as_matrix()
ANGLES = Rotation.from_matrix(ROTATIONS).as_euler("ZYZ", degrees=True)
SHIFTS = rng.normal(0, 3, (N, 2))  # Å
DEFOCUS = rng.uniform(8000, 20000, N)


@pytest.fixture
def folder(tmp_path):
    images = np.random.default_rng(0).normal(size=(3, 4, BOX, BOX)).astype(np.float32)
    for name, part in zip(NAMES, images, strict=True):
        write_stack(tmp_path / name, [part], 4, BOX, PIXEL)
    return tmp_path


def write_cs(path: Path, rows=range(N), parts=("images", "poses", "ctf"), names=NAMES, pixel=PIXEL, uid=UID) -> Path:
    """Write some particles; shifts are in pixels of `pixel`."""
    fields = {"uid": ("u8", uid)} if uid is not None else {}
    if "images" in parts:
        fields["blob/path"] = ("S60", np.array(names, "S60")[STACK])
        fields |= {"blob/idx": ("u4", np.arange(N) % 4), "blob/psize_A": ("f4", np.full(N, PIXEL))}
    if "poses" in parts:
        fields["alignments3D/pose"] = ("3f4", VECTORS)
        fields["alignments3D/shift"] = ("2f4", SHIFTS / pixel)
    if "poses" in parts and "psize" not in parts:
        fields["alignments3D/psize_A"] = ("f4", np.full(N, pixel))
    if "ctf" in parts:
        given = {"df1_A": DEFOCUS, "df2_A": DEFOCUS - 100, "df_angle_rad": 0.5, "accel_kv": 300, "cs_mm": 2.7}
        fields |= {f"ctf/{k}": ("f4", np.full(N, v)) for k, v in (given | {"amp_contrast": 0.1}).items()}
    table = np.zeros(N, [(name, kind) for name, (kind, _) in fields.items()])
    for name, (_, values) in fields.items():
        table[name] = values
    with open(path, "wb") as file:
        np.save(file, table[list(rows)])
    return path


def write_star(path: Path, rows=range(N), parts=("poses", "ctf"), names=NAMES, pixel=PIXEL, unit="Å") -> Path:
    origins = ["_rlnOriginXAngst", "_rlnOriginYAngst"] if unit == "Å" else ["_rlnOriginX", "_rlnOriginY"]
    labels = ["_rlnImageName", "_rlnOpticsGroup"]
    labels += ["_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi", *origins] if "poses" in parts else []
    labels += ["_rlnDefocusU", "_rlnDefocusV", "_rlnDefocusAngle"] if "ctf" in parts else []
    lines = ["data_optics", "", "loop_", "_rlnOpticsGroup", "_rlnVoltage", "_rlnSphericalAberration"]
    lines += ["_rlnAmplitudeContrast", "_rlnImagePixelSize" if pixel else "_rlnSome", f"1 300 2.7 0.1 {pixel}", ""]
    lines += ["data_particles", "", "loop_", *labels]
    for i in rows:
        values: list = [f"{i % 4 + 1:06d}@{names[STACK[i]]}", 1]
        values += [*ANGLES[i], *(SHIFTS[i] if unit == "Å" else SHIFTS[i] / pixel)] if "poses" in parts else []
        values += [DEFOCUS[i], DEFOCUS[i] - 100, np.rad2deg(0.5)] if "ctf" in parts else []
        lines.append(" ".join(map(str, values)))
    path.write_text("\n".join(lines) + "\n")
    return path


def read(path, **options):
    """Return the particles and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        particles = ct.Particles.read(path, **({"contrast": "dark"} | options))
    return particles, [str(w.message) for w in caught]


def number(particles) -> np.ndarray:
    """Return which of the N particles each is, by its stack and its position there."""
    stack = [Path(particles.image_name(i).rpartition(" of ")[2].split()[0]).name for i in range(len(particles))]
    return np.array([NAMES.index(s) for s in stack]) * 4 + particles.identity % 2**40


def require_right(particles, rows, poses=True, ctf=True):
    """Compare all values with those of the given particles."""
    if poses:
        np.testing.assert_allclose(particles.rotations, ROTATIONS[rows], atol=1e-5)
        np.testing.assert_allclose(particles.shifts, SHIFTS[rows], atol=1e-5)
    if ctf:
        np.testing.assert_allclose(particles.ctf.defocus_u, DEFOCUS[rows], rtol=1e-6)
        np.testing.assert_allclose(particles.ctf.defocus_angle, np.rad2deg(0.5), rtol=1e-6)


ORDER, OTHER = rng.permutation(N), rng.permutation(N)
WRITERS = {
    ".cs": lambda path, *a, parts=(), **k: write_cs(path, *a, parts=("images", *parts), **k),
    ".star": write_star,
}


@pytest.mark.parametrize("own", [".cs", ".star"])
@pytest.mark.parametrize("other", [".cs", ".star"])
def test_rows_are_matched_in_any_order(folder, own, other):
    path = WRITERS[own](folder / f"own{own}", ORDER, parts=())
    given = WRITERS[other](folder / f"other{other}", OTHER, parts=("poses", "ctf"), pixel=1.25)
    particles, notes = read(path, poses=given, ctf=given)
    assert notes == []
    require_right(particles, ORDER)
    assert number(particles).tolist() == ORDER.tolist() and particles.source_rows.tolist() == list(range(N))
    assert particles.pixel_size == PIXEL  # of the images; the shifts were in pixels of 1.25 Å
    alone, _ = read(path, ctf=given)
    require_right(alone, ORDER, poses=False)
    assert alone.rotations is None


def test_a_passthrough_file_needs_neither_images_nor_poses(folder):
    path = write_cs(folder / "own.cs", ORDER, parts=("images",))
    poses = write_cs(folder / "poses.cs", OTHER, parts=("poses",))
    ctf = write_cs(folder / "ctf.cs", OTHER[::-1], parts=("ctf",))
    particles, notes = read(path, poses=poses, ctf=ctf)
    assert notes == []
    require_right(particles, ORDER)
    joined, _ = read([path, write_cs(folder / "some.cs", OTHER[OTHER != 4], parts=("poses",))], ctf=ctf)
    require_right(joined, ORDER[ORDER != 4])
    assert ORDER[joined.source_rows].tolist() == ORDER[ORDER != 4].tolist()
    star = write_star(folder / "own.star", ORDER, parts=())
    with pytest.raises(InputError, match=r"(?s)poses\.cs: found no blob/path"):
        read(star, poses=poses)
    with pytest.raises(InputError, match=r"(?s)ctf\.cs: found no poses, expected alignments3D/pose"):
        read(path, poses=ctf)
    with pytest.raises(InputError, match=r"(?s)poses\.cs: found no CTF parameters"):
        read(path, ctf=poses)
    with pytest.raises(InputError, match=r"(?s)own\.star: found no poses"):
        read(path, poses=star)


@pytest.mark.parametrize("kind", [".cs", ".star"])
def test_particles_in_one_file_only_are_left_out_and_both_counts_reported(folder, kind):
    """The rows of the particle file stay right, with and without a selection."""
    own, theirs = ORDER[ORDER != 3], OTHER[(OTHER != 5) & (OTHER != 8)]
    path = WRITERS[kind](folder / f"own{kind}", own, parts=())
    given = WRITERS[kind](folder / f"other{kind}", theirs, parts=("poses", "ctf"))
    particles, notes = read(path, poses=given)
    kept = own[(own != 5) & (own != 8)]
    assert len(notes) == 1 and f"own{kind} (11 rows) and " in notes[0] and "(10 rows) have 9 rows in common" in notes[0]
    require_right(particles, kept, ctf=False)
    assert own[particles.source_rows].tolist() == kept.tolist() == number(particles).tolist()

    rows = np.array([9, 0, *np.flatnonzero(own == 5), 4])  # of the particle file
    some, notes = read(path, poses=given, ctf=given, indices=rows)
    wanted = [row for row in rows if own[row] not in (5, 8)]
    assert f"reading {len(wanted)} of the 4 selected particles" in notes[1] and len(notes) == 2
    require_right(some, own[wanted])
    assert some.source_rows.tolist() == wanted
    written = ct.write_selection(folder / f"some{kind}", some)
    assert number(read(written, poses=given)[0]).tolist() == own[np.sort(wanted)].tolist()
    with pytest.raises(InputError, match="none of the 1 selected particles"):
        read(path, poses=given, indices=np.flatnonzero(own == 5))


def test_poses_and_ctf_files_that_lack_different_particles(folder):
    path = write_star(folder / "own.star", ORDER, parts=())
    poses = write_star(folder / "poses.star", OTHER[OTHER != 1])
    ctf = write_cs(folder / "ctf.cs", OTHER[OTHER != 2])
    particles, notes = read(path, poses=poses, ctf=ctf)
    require_right(particles, ORDER[(ORDER != 1) & (ORDER != 2)])
    assert len(notes) == 2 and len(particles) == N - 2
    selected = np.roll(np.arange(N), -np.flatnonzero(ORDER == 2)[0])[:4]
    z = rng.normal(size=(4, 3, 3))
    turned = np.linalg.qr(z)[0] * np.linalg.det(np.linalg.qr(z)[0])[:, None, None]
    mixed, _ = read(path, poses=(turned, np.zeros((4, 2))), ctf=ctf, indices=selected)  # poses of the selection
    there = ORDER[selected] != 2
    np.testing.assert_allclose(mixed.rotations, turned.swapaxes(1, 2)[there], atol=1e-5)
    require_right(mixed, ORDER[selected][there], poses=False)


@pytest.mark.parametrize(
    ("kind", "message"), [(".cs", r"other\.cs: found the uid \d+ 2 times"), (".star", "image 2 of s1.mrcs 2 times")]
)
def test_a_particle_listed_twice_is_refused(folder, kind, message):
    path = WRITERS[kind](folder / f"own{kind}", parts=())
    given = WRITERS[kind](folder / f"other{kind}", [*range(N), 5], parts=("poses",))
    with pytest.raises(InputError, match=message):
        read(path, poses=given)


def test_copies_in_the_particle_file_get_the_pose_of_their_image(folder):
    rows = [*ORDER, 4, 4]
    particles, _ = read(write_star(folder / "own.star", rows, parts=()), poses=write_star(folder / "poses.star", OTHER))
    require_right(particles, rows, ctf=False)


def test_files_without_particles_in_common_are_refused(folder):
    own = write_cs(folder / "own.cs", parts=("images",))
    with pytest.raises(InputError, match=r"poses\.cs: found no row of .*own\.cs"):
        read(own, poses=write_cs(folder / "poses.cs", parts=("poses",), uid=UID + np.uint64(10**7)))
    with pytest.raises(InputError, match=r"poses\.star: found no stack of .*own.cs \(here 'a.mrcs', there 's0.mrcs'\)"):
        read(own, poses=write_star(folder / "poses.star", names=["a.mrcs", "b.mrcs", "c.mrcs"]))
    with pytest.raises(InputError, match=r"poses\.cs: found no uid field"):
        read(own, poses=write_cs(folder / "poses.cs", parts=("images", "poses"), uid=None))
    with pytest.raises(InputError, match=r"poses\.star: found no row of"):
        read(write_cs(folder / "own.cs", [1, 2], parts=("images",)), poses=write_star(folder / "poses.star", [0, 3, 7]))
    with pytest.raises(InputError, match=r"none\.star does not exist"):
        read(own, poses=folder / "none.star")


def test_a_bare_stack_takes_poses_from_a_file_that_lists_it(folder):
    given = write_star(folder / "poses.star", OTHER, pixel=1.25, unit="pixels")
    particles, notes = read(folder / "s1.mrcs", poses=given, ctf=given)
    require_right(particles, range(4, 8))
    assert any("assuming that 's1.mrcs' is" in note for note in notes)
    assert any("poses.star (12 rows) have 4 rows in common" in note for note in notes)
    uidless = write_cs(folder / "poses.cs", OTHER, uid=None)
    require_right(read(folder / "s1.mrcs", poses=uidless, ctf=uidless)[0], range(4, 8))


def test_shifts_in_pixels_of_an_unknown_size_are_those_of_the_images(folder):
    path = write_cs(folder / "own.cs", ORDER, parts=("images",))
    particles, notes = read(path, poses=write_cs(folder / "poses.cs", OTHER, parts=("poses", "psize")))
    require_right(particles, ORDER, ctf=False)
    assert len(notes) == 1 and "poses.cs: no pixel size; reading the shifts in pixels of 2 Å" in notes[0]
    in_pixels = write_star(folder / "pixels.star", OTHER, unit="pixels")
    in_pixels.write_text(in_pixels.read_text().replace("_rlnImagePixelSize", "_rlnSome"))
    particles, notes = read(path, poses=in_pixels)
    require_right(particles, ORDER, ctf=False)
    assert any("pixels.star: no pixel size; reading the shifts in pixels of 2 Å" in note for note in notes)
    with mrcfile.open(folder / "s1.mrcs", "r+") as file:
        file.voxel_size = 0
    with pytest.raises(InputError, match=r"pixels\.star: found shifts in pixels without a pixel size"):
        read(folder / "s1.mrcs", poses=in_pixels)
    require_right(read(folder / "s1.mrcs", poses=in_pixels, pixel_size=PIXEL)[0], range(4, 8), ctf=False)
    star = write_star(folder / "poses.star", OTHER, pixel=0)
    assert read(path, poses=star)[1] == []  # shifts in Å need none
    require_right(read(path, poses=star, images=False)[0], ORDER, ctf=False)  # nor the box size


def test_of_the_ctf_file_what_is_not_used_is_named(folder):
    path = write_star(folder / "own.star", parts=())
    given = write_star(folder / "ctf.star")
    given.write_text(
        given.read_text().replace("_rlnSome", "_rlnBeamTiltX").replace("_rlnImagePixelSize", "_rlnBeamTiltX")
    )
    assert any("ctf.star contains beam tilt" in note for note in read(path, ctf=given)[1])
    given.write_text(given.read_text().replace("_rlnBeamTiltX", "_rlnCtfDataArePhaseFlipped"))
    with pytest.raises(InputError, match="already corrected for the CTF"):
        read(path, ctf=given)
    assert read(path, poses=given)[0].rotations is not None


# Names of stacks


@pytest.mark.parametrize(
    "theirs",
    [
        ["J12/extract/s0.mrcs", "J12/extract/s1.mrcs", "J12/extract/s2.mrcs"],
        ["J12/extract/s0.mrc", "J12/extract/s1.mrc", "J12/extract/s2.mrc"],
        ["J5/imported/000123_s0.mrcs", "J5/imported/000122_s1.mrcs", "J5/imported/000007_s2.mrcs"],
    ],
)
def test_names_that_differ_by_folder_suffix_or_uid_are_matched(folder, theirs):
    star = write_star(folder / "own.star", ORDER, parts=())
    cs = write_cs(folder / "poses.cs", OTHER, names=theirs)
    particles, notes = read(star, poses=cs, ctf=cs)
    require_right(particles, ORDER)
    assert len(notes) == 1 and "name the stacks differently" in notes[0]
    assert any(f"assuming that {a!r} is {b!r}" in notes[0] for a, b in zip(theirs, NAMES, strict=True))
    own = write_cs(folder / "own.cs", ORDER, parts=("images",), names=theirs)
    require_right(read(own, poses=write_star(folder / "poses.star", OTHER), images=False)[0], ORDER, ctf=False)


def pairs(ours, theirs):
    found = pair_stacks(ours, theirs, Path("own.star"), Path("poses.star"), [])
    return {theirs[k]: ours[v] for k, v in found.items()}


def test_the_longest_common_tail_decides():
    sessions = ["Extract/g1/001.mrcs", "Extract/g2/001.mrcs"]
    assert pairs(sessions, ["new/g2/001.mrcs", "new/g1/001.mrcs"]) == {
        "new/g2/001.mrcs": "Extract/g2/001.mrcs",
        "new/g1/001.mrcs": "Extract/g1/001.mrcs",
    }
    same = {"g1/001.mrcs": "g1/001.mrcs"}  # where names agree in full, others are other stacks
    assert pairs(["g1/001.mrcs", "g2/001.mrcs"], ["g1/001.mrcs", "g3/001.mrcs"]) == same
    assert pairs(["20240101_a.mrcs"], ["J1/000123_20240101_a.mrc"]) == {"J1/000123_20240101_a.mrc": "20240101_a.mrcs"}
    assert pairs(["J1/000123_20240101_a.mrc"], ["20240101_a.mrcs"]) == {"20240101_a.mrcs": "J1/000123_20240101_a.mrc"}
    assert pairs(["J9/0456_a.mrc"], ["J1/0123_a.mrc"]) == {"J1/0123_a.mrc": "J9/0456_a.mrc"}
    assert pairs(["a.mrcs"], ["b.mrcs"]) == {}


def test_names_with_thousands_of_folders_are_compared_by_the_last_ones_only(monkeypatch):
    seen = []
    monkeypatch.setattr(matching, "_tail", lambda name, length: seen.append(length) or name)
    assert pairs(["x/" * 3000 + "a.mrcs"], ["y/" * 3000 + "b.mrcs"]) == {}
    assert len(seen) < 200 and max(seen) < 100
    monkeypatch.undo()
    assert len(pairs(["x/" * 3000 + "g1/a.mrcs"], ["y/" * 3000 + "g1/a.mrcs"])) == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "where"),
    [
        (["g1/001.mrcs", "g2/001.mrcs"], ["x/001.mrcs"], "own"),
        (["x/001.mrcs"], ["g1/001.mrcs", "g2/001.mrcs"], "poses"),
        (["001.mrcs"], ["J1/0123_001.mrc", "J1/0456_001.mrc"], "poses"),
    ],
)
def test_names_that_could_be_several_stacks_are_refused(ours, theirs, where):
    with pytest.raises(InputError, match=rf"(?s){where}\.star: found the stacks .* and .*same names in both files"):
        pairs(ours, theirs)


@pytest.mark.filterwarnings("ignore:.*rows in common")
def test_the_command_line_takes_such_files(folder):
    star, cs = write_star(folder / "own.star", ORDER, parts=()), write_cs(folder / "poses.cs", OTHER[OTHER != 5])
    arguments = ["prepare", f"{star}", "--poses", f"{cs}", "--ctf", f"{star.with_name('ctf.star')}"]
    write_star(folder / "ctf.star", OTHER)
    assert main([*arguments, "--contrast", "dark", "--output", f"{folder / 'prepared.star'}"]) == 0
    require_right(read(folder / "prepared.star")[0], ORDER[ORDER != 5])
