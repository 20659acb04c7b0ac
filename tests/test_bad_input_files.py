"""Every file that cannot be used is refused with a message that names it, and leaves nothing behind."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from scipy.spatial.transform import Rotation

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats import chimerax, cryodrgn
from cryotwin_nb.formats.mrc import read_map
from cryotwin_nb.formats.mrc_writing import write_map
from cryotwin_nb.imaging.optics import CTF
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.truth.truth import Truth

N, BOX = 4, 8
STAR = """data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
1 one 300 2.7 0.1 2.5 8
2 two 300 2.7 0.1 2.5 8

data_particles

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
1@stack.mrcs 10 20 30 1.5 -2.5 15000 14000 45 1
2@stack.mrcs 11 21 31 2.5 -3.5 15001 14100 46 1
3@stack.mrcs 12 22 32 3.5 -4.5 15002 14200 47 2
4@stack.mrcs 13 23 33 4.5 -5.5 15003 14300 48 2
"""

MAGNIFIED = STAR.replace("ImagePixelSize", "DetectorPixelSize").replace("rlnImageSize", "rlnMagnification")
MAGNIFIED = MAGNIFIED.replace("2.5 8\n", "1e10 1e-300\n")


def write_images(path: Path, images: np.ndarray, pixel_size: float = 2.5) -> None:
    with mrcfile.new(path, images.astype(np.float32), overwrite=True) as file:
        file.set_image_stack()
        file.voxel_size = pixel_size


def put(path: Path, position: int, value: float) -> None:
    """Overwrite one pixel of a mode 2 file."""
    with open(path, "r+b") as file:
        file.seek(1024 + 4 * position)
        file.write(np.float32(value).tobytes())


@pytest.fixture
def folder(tmp_path) -> Path:
    """A valid data set in every format; each case corrupts one thing in it."""
    images = np.random.default_rng(0).normal(size=(N, BOX, BOX)) - 5 * np.eye(BOX)
    write_images(tmp_path / "stack.mrcs", images)
    (tmp_path / "stack.star").write_text(STAR)
    (tmp_path / "list.txt").write_text("stack.mrcs\n")
    save(tmp_path / "stack.cs", cs_table())
    dump(tmp_path / "poses.pkl", (TURNS, np.zeros((N, 2))))
    dump(tmp_path / "ctf.pkl", np.tile([BOX, 2.5, 15000, 14000, 45, 300, 2.7, 0.1, 0], (N, 1)).astype(np.float32))
    dump(tmp_path / "ind.pkl", np.array([0, 2]))
    return tmp_path


def cs_table() -> np.ndarray:
    table = np.zeros(
        N,
        dtype=[
            ("blob/path", "S20"),
            ("blob/idx", "<u4"),
            ("blob/psize_A", "<f4"),
            ("blob/sign", "<f4"),
            ("alignments3D/pose", "<f4", (3,)),
            ("alignments3D/shift", "<f4", (2,)),
        ],
    )
    table["blob/path"], table["blob/idx"], table["blob/psize_A"], table["blob/sign"] = "stack.mrcs", range(N), 2.5, -1
    table["alignments3D/pose"][:, 2] = 0.1 * np.arange(N)
    return table


def save(path: Path, table: np.ndarray, **options: Any) -> None:
    with open(path, "wb") as file:
        np.save(file, table, **options)


def dump(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content))


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, size if size >= 0 else (folder / name).stat().st_size + size)


def edit(old: str, new: str, name: str = "stack.star") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def text(content: str, name: str = "stack.star") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def images(shape: tuple[int, ...], pixel_size: float = 2.5, value: float | None = None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        values = np.random.default_rng(1).normal(size=shape) if value is None else np.full(shape, value)
        write_images(folder / "stack.mrcs", values, pixel_size)

    return change


def cs(change: Callable[[np.ndarray], Any]) -> Callable[[Path], None]:
    """Corrupt the .cs file: `change` edits the table in place or returns another."""

    def spoil(folder: Path) -> None:
        table = cs_table()
        result = change(table)
        save(folder / "stack.cs", table if result is None else result)

    return spoil


def content(name: str, value: Any) -> Callable[[Path], None]:
    return lambda folder: dump(folder / name, value)


def without(*names: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda table: np.array(
        table[[n for n in table.dtype.names if n not in names]].tolist(),
        [(n, table.dtype[n]) for n in table.dtype.names if n not in names],
    )


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def nothing(folder: Path) -> None:
    """Leave the data set valid; the request is invalid."""


def two_sizes(folder: Path) -> None:
    write_images(folder / "other.mrcs", np.zeros((N, 10, 10)))
    (folder / "list.txt").write_text("stack.mrcs\nother.mrcs\n")


def mode_4(folder: Path) -> None:
    with mrcfile.new(folder / "stack.mrcs", np.zeros((N, BOX, BOX), np.complex64), overwrite=True):
        pass


def header_field(field: str, value: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with mrcfile.open(folder / "stack.mrcs", "r+") as file:
            setattr(file.header, field, value)

    return change


TURNS = Rotation.from_rotvec([[0, 0, 0.1 * i] for i in range(N)]).as_matrix()
CTF_ROW = [8, 1, 15000, 15000, 1, 300, 1, 0, 0.0]
NAN_CTF = np.tile([BOX, 2.5, 15000, np.nan, 45, 300, 2.7, 0.1, 0], (N, 1))
POSES, PARAMETERS, SELECTION = {"poses": "poses.pkl"}, {"ctf": "ctf.pkl"}, {"indices": "ind.pkl"}
LONE_TABLE = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n1 300\n\n"
NO_ROWS = "data_particles\n\nloop_\n_rlnImageName #1\n_rlnAngleRot #2\n\n"

# case: (function that corrupts the valid data set, file to read, options of read, text expected in the message)
CASES: dict[str, tuple[Callable[[Path], None], str, dict[str, Any], str]] = {
    # stacks
    "truncated stack": (cut("stack.mrcs", -100), "stack.star", {}, r"stack\.mrcs.*ends 100 bytes early"),
    "truncated bare stack": (cut("stack.mrcs", -1), "stack.mrcs", {}, r"stack\.mrcs.*ends 1 bytes early"),
    "zero-byte stack": (cut("stack.mrcs", 0), "stack.star", {}, r"stack\.mrcs.*0 bytes"),
    "truncated header": (cut("stack.mrcs", 500), "stack.mrcs", {}, r"stack\.mrcs.*500 bytes"),
    "text as stack": (text("no MRC file " * 200, "stack.mrcs"), "stack.mrcs", {}, r"stack\.mrcs"),
    "odd box": (images((N, 9, 9)), "stack.mrcs", {}, r"stack\.mrcs.*9 pixels.*even"),
    "tiny box": (images((N, 4, 4)), "stack.mrcs", {}, r"stack\.mrcs.*4 pixels"),
    "non-square box": (images((N, 8, 10)), "stack.mrcs", {}, r"stack\.mrcs.*10 x 8.*square"),
    "constant images": (images((N, 8, 8), value=1.0), "stack.star", {"contrast": "auto"}, r"stack\.star.*constant"),
    "complex stack": (mode_4, "stack.mrcs", {}, r"stack\.mrcs.*mode 4"),
    "unknown mode": (header_field("mode", 77), "stack.mrcs", {}, r"stack\.mrcs.*mode 77"),
    "negative size": (header_field("nz", -3), "stack.mrcs", {}, r"stack\.mrcs.*dimensions"),
    "no pixel size in the header": (images((N, 8, 8), 0.0), "stack.mrcs", {}, r"stack\.mrcs.*pixel_size="),
    "missing stack": (remove("stack.mrcs"), "stack.star", {}, r"stack\.star.*stack\.mrcs.*datadir"),
    "missing bare stack": (remove("stack.mrcs"), "stack.mrcs", {}, r"stack\.mrcs does not exist"),
    "another box than stated": (images((N, 10, 10)), "stack.star", {}, r"stack\.star.*10 pixels.*8"),
    "another box than given": (nothing, "stack.mrcs", {"box_size": 16}, r"stack\.mrcs.*8 pixels.*16"),
    # lists
    "empty list": (text("\n \n", "list.txt"), "list.txt", {}, r"list\.txt.*empty list"),
    "list naming a missing stack": (text("gone.mrcs\n", "list.txt"), "list.txt", {}, r"list\.txt.*gone\.mrcs"),
    "list of two box sizes": (two_sizes, "list.txt", {}, r"list\.txt.*8 .*10 "),
    "list naming a stack twice": (text("stack.mrcs\n./stack.mrcs\n", "list.txt"), "list.txt", {}, r"more than once"),
    "list naming what no file can be called": (text("x" * 5000, "list.txt"), "list.txt", {}, r"list\.txt"),
    "binary list": (lambda f: (f / "list.txt").write_bytes(b"\xff\xfe\x00") and None, "list.txt", {}, r"list\.txt"),
    # STAR files
    "missing STAR": (remove("stack.star"), "stack.star", {}, r"stack\.star does not exist"),
    "folder": (nothing, ".", {}, r"a folder"),
    "unknown extension": (text("x", "stack.xyz"), "stack.xyz", {}, r"stack\.xyz.*'\.xyz'"),
    "empty STAR": (text(""), "stack.star", {}, r"stack\.star.*\(none\)"),
    "binary STAR": (
        lambda f: (f / "stack.star").write_bytes(b"\xff\x00" * 99) and None,
        "stack.star",
        {},
        r"stack\.star",
    ),
    "no particle block": (text(LONE_TABLE), "stack.star", {}, r"stack\.star.*data_optics.*rlnImageName"),
    "no rows": (text(NO_ROWS), "stack.star", {}, r"stack\.star.*no rows"),
    "block without content": (text("data_particles\n"), "stack.star", {}, r"stack\.star"),
    "ragged rows": (edit("15001 14100 46 1", "15001 14100 46 1 99 99"), "stack.star", {}, r"stack\.star"),
    "no image names": (edit("_rlnImageName", "_rlnOther"), "stack.star", {}, r"stack\.star.*rlnImageName"),
    "image number 0": (edit("1@stack", "0@stack"), "stack.star", {}, r"stack\.star.*row 1.*from 1"),
    "image number beyond numbers": (edit("2@stack", "9" * 5000 + "@stack"), "stack.star", {}, r"stack\.star.*row 2"),
    "image size beyond counts": (edit("2.5 8", "2.5 1e30"), "stack.star", {}, r"stack\.star.*rlnImageSize"),
    "angle beyond single precision": (edit("11 21", "1e39 21"), "stack.star", {}, r"stack\.star.*rlnAngleRot"),
    "label twice": (edit("_rlnAngleRot", "_rlnAngleTilt"), "stack.star", {}, r"rlnAngleTilt twice in data_particles"),
    "endless line": (edit("11 21", "11 " * 30_000), "stack.star", {}, r"stack\.star, line \d+.*64 kB"),
    "thousands of labels": (edit("_rlnAngleRot", "_x\n" * 1001), "stack.star", {}, r"stack\.star, line \d+.*1000"),
    "one quotation mark": (edit("1@stack", "'1@stack"), "stack.star", {}, r"stack\.star.*'1@stack"),
    "carriage return": (edit("1@stack", "1@\rstack"), "stack.star", {}, r"stack\.star, line \d+.*carriage"),
    "image number no number": (edit("2@stack", "x@stack"), "stack.star", {}, r"stack\.star.*row 2"),
    "row past the end": (edit("4@stack", "5@stack"), "stack.star", {}, r"stack\.star.*image 5 .*contains 4"),
    "only some angles": (edit("_rlnAngleTilt", "_rlnOther"), "stack.star", {}, r"stack\.star.*without rlnAngleTilt"),
    "half the origins": (edit("_rlnOriginYAngst", "_rlnOther"), "stack.star", {}, r"stack\.star.*rlnOriginYAngst"),
    "half the CTF": (edit("_rlnDefocusV", "_rlnOther"), "stack.star", {}, r"stack\.star.*without rlnDefocusV"),
    "no voltage": (edit("_rlnVoltage", "_rlnOther"), "stack.star", {}, r"stack\.star.*without rlnVoltage"),
    "NaN angle": (edit("11 21", "nan 21"), "stack.star", {}, r"stack\.star.*rlnAngleRot = nan for particle 2"),
    "angle in words": (edit("11 21", "eleven 21"), "stack.star", {}, r"stack\.star.*rlnAngleRot"),
    "infinite defocus": (edit("15002", "inf"), "stack.star", {}, r"stack\.star.*rlnDefocusU = inf for particle 3"),
    "impossible voltage": (edit("300 2.7", "0 2.7"), "stack.star", {}, r"stack\.star.*voltage"),
    "zero pixel size": (edit("2.5 8", "0 8"), "stack.star", {}, r"stack\.star.*pixel_size="),
    "negative pixel size": (edit("2.5 8", "-2.5 8"), "stack.star", {}, r"stack\.star.*-2\.5 Å"),
    "an infinite pixel size": (text(MAGNIFIED), "stack.star", {}, r"stack\.star.*pixel size = inf"),
    "no pixel size": (edit("_rlnImagePixelSize", "_rlnOther"), "stack.star", {}, r"stack\.star.*no pixel size"),
    "mixed pixel sizes": (edit("0.1 2.5 8\n2", "0.1 2.6 8\n2"), "stack.star", {}, r"stack\.star.*2\.5 to 2\.6"),
    "mixed box sizes": (edit("2.5 8\n2", "2.5 10\n2"), "stack.star", {}, r"stack\.star.*8 to 10"),
    "undefined optics group": (edit("48 2", "48 3"), "stack.star", {}, r"stack\.star.*undefined optics groups \['3'\]"),
    "optics group defined twice": (edit("2 two", "1 two"), "stack.star", {}, r"stack\.star"),
    "particles without group": (
        edit("_rlnOpticsGroup #10", "_rlnOther"),
        "stack.star",
        {},
        r"stack\.star.*rlnOpticsGroup",
    ),
    # .cs files
    "objects in .cs": (
        lambda f: save(f / "stack.cs", np.array([{"a": 1}], dtype=object), allow_pickle=True),
        *("stack.cs", {}, r"stack\.cs.*rejected"),
    ),
    "no blob/path": (cs(without("blob/path")), "stack.cs", {}, r"stack\.cs.*blob/path"),
    "plain array as .cs": (cs(lambda _: np.zeros((3, 3))), "stack.cs", {}, r"stack\.cs.*blob/path"),
    "text as .cs": (text("nothing", "stack.cs"), "stack.cs", {}, r"stack\.cs"),
    "truncated .cs": (cut("stack.cs", 300), "stack.cs", {}, r"stack\.cs"),
    "empty .cs": (cs(lambda table: table[:0]), "stack.cs", {}, r"stack\.cs.*no particles"),
    "NaN pose in .cs": (cs(lambda t: t["alignments3D/pose"].fill(np.nan)), "stack.cs", {}, r"stack\.cs.*pose"),
    "no pixel size in .cs": (cs(lambda t: t["blob/psize_A"].fill(0)), "stack.cs", {}, r"stack\.cs.*pixel_size="),
    "image past the end in .cs": (cs(lambda t: t["blob/idx"].fill(9)), "stack.cs", {}, r"stack\.cs.*image 10"),
    "poses of another set": (
        content("poses.pkl", (TURNS[:3], np.zeros((3, 2)))),
        "stack.star",
        POSES,
        r"poses\.pkl.*3 .*4",
    ),
    "translations of another number": (
        content("poses.pkl", (TURNS, np.zeros((3, 2)))),
        "stack.star",
        POSES,
        r"poses\.pkl",
    ),
    "translations in pixels": (
        content("poses.pkl", (TURNS, np.full((N, 2), 3.0))),
        "stack.star",
        POSES,
        r"poses\.pkl.*fract",
    ),
    "no rotation": (
        content("poses.pkl", (2 * TURNS, np.zeros((N, 2)))),
        "stack.star",
        POSES,
        r"poses\.pkl.*particle 0",
    ),
    "huge matrix": (
        content("poses.pkl", (1e38 * TURNS, np.zeros((N, 2)))),
        "stack.star",
        POSES,
        r"poses\.pkl.*particle 0",
    ),
    "mirror": (content("poses.pkl", (-TURNS, np.zeros((N, 2)))), "stack.star", POSES, r"poses\.pkl.*determinant"),
    "NaN rotation": (content("poses.pkl", (np.nan * TURNS, np.zeros((N, 2)))), "stack.star", POSES, r"poses\.pkl"),
    "poses of another kind": (content("poses.pkl", "rot"), "stack.star", POSES, r"poses\.pkl.*found a str"),
    "poses in a dictionary": (content("poses.pkl", {"rot": 1}), "stack.star", POSES, r"poses\.pkl.*EMPTY_DICT"),
    "poses of text": (content("poses.pkl", (np.full((N, 3, 3), "x"),)), "stack.star", POSES, r"poses\.pkl"),
    "missing poses": (remove("poses.pkl"), "stack.star", POSES, r"poses\.pkl does not exist"),
    "truncated poses": (cut("poses.pkl", 100), "stack.star", POSES, r"poses\.pkl"),
    "empty poses": (cut("poses.pkl", 0), "stack.star", POSES, r"poses\.pkl"),
    "ctf of another set": (
        content("ctf.pkl", np.tile(CTF_ROW, (9, 1))),
        "stack.star",
        PARAMETERS,
        r"ctf\.pkl.*9 particles.*4",
    ),
    "ctf too narrow": (content("ctf.pkl", np.ones((N, 8))), "stack.star", PARAMETERS, r"ctf\.pkl.*\(4, 8\).*\(n, 9\)"),
    "NaN in ctf": (content("ctf.pkl", NAN_CTF), "stack.star", PARAMETERS, r"ctf\.pkl.*nan for particle 1"),
    "ctf with box 0": (content("ctf.pkl", np.zeros((N, 9))), "stack.star", PARAMETERS, r"ctf\.pkl.*non-positive"),
    "ctf of mixed pixels": (
        lambda f: dump(
            f / "ctf.pkl",
            np.tile(CTF_ROW, (N, 1)) * np.where(np.eye(9)[1] * np.eye(N)[1][:, None], 2, 1),
        ),
        *("stack.star", PARAMETERS, r"ctf\.pkl.*sizes from"),
    ),
    "index out of range": (content("ind.pkl", np.array([0, N])), "stack.star", SELECTION, r"ind\.pkl.*0 to 3"),
    "negative index": (content("ind.pkl", np.array([-1, 0])), "stack.star", SELECTION, r"ind\.pkl.*-1"),
    "repeated index": (content("ind.pkl", np.array([1, 1])), "stack.star", SELECTION, r"ind\.pkl.*twice"),
    "empty selection": (content("ind.pkl", np.zeros(0, int)), "stack.star", SELECTION, r"ind\.pkl.*empty selection"),
    "fractional index": (content("ind.pkl", np.array([0.5])), "stack.star", SELECTION, r"ind\.pkl"),
    "mask of wrong length": (content("ind.pkl", np.ones(3, bool)), "stack.star", SELECTION, r"ind\.pkl.*mask of 3"),
    "array out of range": (nothing, "stack.star", {"indices": np.array([7])}, r"stack\.star.*7"),
    # options
    "unknown contrast": (nothing, "stack.star", {"contrast": "grey"}, r"'grey'.*'dark'"),
    "odd box_size": (nothing, "stack.star", {"images": False, "box_size": 9}, r"box_size"),
    "negative pixel_size": (nothing, "stack.mrcs", {"pixel_size": -1.0}, r"pixel_size"),
    "impossible amplitude_contrast": (nothing, "stack.star", {"amplitude_contrast": 1.5}, r"amplitude_contrast"),
    "translations without a box": (
        edit("_rlnImageSize", "_rlnOther"),
        *("stack.star", {"images": False, **POSES}, r"stack\.star.*box_size="),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_is_refused_by_name_and_nothing_is_left(folder, case):
    spoil, name, options, message = CASES[case]
    spoil(folder)
    before = sorted(folder.iterdir())
    options = {"contrast": "dark"} | {
        key: folder / value if str(value).endswith(".pkl") else value for key, value in options.items()
    }
    with pytest.raises(InputError) as caught:
        Particles.read(folder / name, **options)
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)
    assert all((caught.value.found, caught.value.expected, caught.value.remedy))
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", ["stack.star", "stack.mrcs", "list.txt", "stack.cs"])
@pytest.mark.parametrize("options", [{}, POSES, PARAMETERS, SELECTION, POSES | PARAMETERS | SELECTION])
def test_the_unspoilt_data_set_is_read(folder, name, options):
    p = Particles.read(folder / name, contrast="dark", **{key: folder / value for key, value in options.items()})
    assert len(p) == (2 if "indices" in options else N)
    assert p.images(slice(None)).shape == (len(p), BOX, BOX)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["stack.star", "stack.mrcs"])
def test_a_non_finite_image_is_named_when_it_is_read(folder, name, value):
    put(folder / "stack.mrcs", 2 * BOX**2 + 28, value)
    p = Particles.read(folder / name, contrast="dark")
    assert p.images([0, 1, 3]).shape == (3, BOX, BOX)
    with pytest.raises(InputError, match=r"(?s)image 3 of .*stack\.mrcs.*NaN"):
        p.images([3, 2])


def test_a_mixed_set_is_read_once_one_group_is_selected(folder):
    edit("0.1 2.5 8\n2", "0.1 2.6 8\n2")(folder)
    assert Particles.read(folder / "stack.star", indices=np.array([2, 3]), contrast="dark").pixel_size == 2.5


# ------------------------------------------------------------------------------------------------------------- pickles


class Bomb:
    """Object whose pickle runs a command when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("wrap", [lambda b: b, lambda b: (TURNS, b), lambda b: np.array([b, None], dtype=object)])
@pytest.mark.parametrize("read", [cryodrgn.read_poses, cryodrgn.read_ctf, cryodrgn.read_indices, cryodrgn.read_latents])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_a_command_is_refused_unrun(folder, read, wrap, protocol):
    target = folder / "executed"
    calls = [(os.system, f"touch {target}"), (eval, f"open({str(target)!r}, 'w')"), (os.mkdir, str(target))]
    for function, argument in calls:
        (folder / "bomb.pkl").write_bytes(pickle.dumps(wrap(Bomb(function, argument)), protocol=protocol))
        with pytest.raises(InputError, match=r"(?s)bomb\.pkl.*No code in this file was run"):
            read(folder / "bomb.pkl")
        assert not target.exists()


def test_the_bomb_would_go_off(tmp_path):
    """Control for the test above: the plain unpickler does run the command."""
    pickle.loads(pickle.dumps(Bomb(os.mkdir, str(tmp_path / "executed"))))
    assert (tmp_path / "executed").exists()


def test_particles_read_refuses_such_a_pickle(folder):
    for option in ("poses", "ctf", "indices"):
        dump(folder / "bomb.pkl", Bomb(os.mkdir, str(folder / "executed")))
        with pytest.raises(InputError, match=r"bomb\.pkl"):
            Particles.read(folder / "stack.star", contrast="dark", **{option: folder / "bomb.pkl"})
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    "text",
    [
        b"cnumpy\nload\n(S'x.npy'\ntR.",
        b"cnumpy\nndarray.tofile\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"ctorch\nload\n.",
    ],
)
def test_other_functions_are_refused(tmp_path, text):
    (tmp_path / "x.pkl").write_bytes(text)
    with pytest.raises(InputError, match=r"x\.pkl"):
        cryodrgn.read_indices(tmp_path / "x.pkl")


# --------------------------------------------------------------------------------------------------------------- truth


def test_a_truth_of_another_length_is_refused(folder):
    n = N + 1
    truth = Truth("hinge", np.zeros((n, 2), np.float32), np.full(n, "start"), np.zeros(n, bool), 8, 1.0)
    truth.save(folder / "stack.truth.npz")
    with pytest.raises(InputError, match=r"(?s)stack\.truth\.npz.*5 particles.*4"):
        Particles.read(folder / "stack.star", contrast="dark")


def test_an_unreadable_truth_is_refused(folder):
    (folder / "stack.truth.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"stack\.truth\.npz"):
        Particles.read(folder / "stack.star", contrast="dark")


# ------------------------------------------------------------------------------------------------------------- writing

CTF_ROWS = CTF(*np.ones((7, N), dtype=np.float32))
WRITERS: dict[str, Callable[[Path], None]] = {
    "s.star": lambda path: Particles(np.ones((N, 8, 8)), pixel_size=1.0).write(path, progress=False),
    "m.mrc": lambda path: write_map(path, np.zeros((8, 8, 8)), 1.0),
    "poses.pkl": lambda path: cryodrgn.write_poses(path, TURNS, np.zeros((N, 2)), 8, 1.0),
    "ctf.pkl": lambda path: cryodrgn.write_ctf(path, CTF_ROWS, 8, 1.0),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("parent", ["missing", "a_file", "."])
def test_a_file_that_cannot_be_written_is_refused(tmp_path, name, parent):
    (tmp_path / "a_file").write_text("in the way")
    if parent == ".":
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=re.escape(name)):
        WRITERS[name](tmp_path / parent / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_metadata_alone_is_not_written(folder):
    p = Particles.read(folder / "stack.star", images=False)
    with pytest.raises(InputError, match="metadata only"):
        p.write(folder / "copy.star", progress=False)
    assert not list(folder.glob("*copy*"))


def test_a_full_disk_leaves_nothing(folder, monkeypatch):
    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cryotwin_nb.particles.writing.write_star", no_space)
    before = sorted(folder.iterdir())
    with pytest.raises(InputError, match=r"(?s)copy\.(star|mrcs).*No space left"):
        Particles.read(folder / "stack.star", contrast="dark").write(folder / "copy.star", progress=False)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", ["s.mrcs", "s", "s.txt"])
def test_only_star_files_are_written(tmp_path, name):
    with pytest.raises(InputError, match=r"\.star"):
        WRITERS["s.star"](tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("volume", "voxel_size"),
    [
        (np.zeros((8, 8)), 1.0),
        (np.zeros((8, 8, 10)), 1.0),
        (np.full((8, 8, 8), np.nan), 1.0),
        (np.zeros((8, 8, 8)), 0.0),
        (np.zeros((8, 8, 8)), float("nan")),
    ],
)
def test_bad_maps_are_not_written(tmp_path, volume, voxel_size):
    with pytest.raises(InputError, match=r"map\.mrc"):
        write_map(tmp_path / "map.mrc", volume, voxel_size)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shape", "voxel_size", "value"), [((8, 8, 10), 1, 0), ((8, 8, 8), 0, 0), ((8, 8, 8), 1, np.inf)]
)
def test_bad_maps_are_not_read(tmp_path, shape, voxel_size, value):
    with mrcfile.new(tmp_path / "map.mrc", np.zeros(shape, np.float32)) as file:
        file.voxel_size = voxel_size
    put(tmp_path / "map.mrc", 3, value)
    with pytest.raises(InputError, match=r"map\.mrc"):
        read_map(tmp_path / "map.mrc")


@pytest.mark.parametrize(
    ("maps", "level", "colors"),
    [([], 1.0, None), (["gone.mrc"], 1.0, None), (["m.mrc"], float("nan"), None), (["m.mrc"], 1.0, ["red", "blue"])],
)
def test_bad_sessions_are_not_written(tmp_path, maps, level, colors):
    write_map(tmp_path / "m.mrc", np.zeros((8, 8, 8)), 1.0)
    with pytest.raises(InputError):
        chimerax.write_session(tmp_path / "s.cxc", [tmp_path / name for name in maps], level, colors)
    assert not (tmp_path / "s.cxc").exists()


@pytest.mark.parametrize("name", ["rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped"])
def test_images_whose_ctf_was_dealt_with_are_refused(folder, name):
    text = (folder / "stack.star").read_text()
    tables = starfile.read(folder / "stack.star", always_dict=True)
    tables["optics"] = pd.DataFrame([tables["optics"]]) if isinstance(tables["optics"], dict) else tables["optics"]
    tables["optics"][name] = 1
    starfile.write(tables, folder / "flipped.star")
    assert name not in text
    with pytest.raises(InputError, match=rf"(?s)flipped\.star.*{name}"):
        Particles.read(folder / "flipped.star", contrast="dark")
