"""Picks close together are counted from the coordinates in the particle file, and reported by the first look."""

from __future__ import annotations

import numpy as np
import pytest

import cryotwin_nb as ct
from cryotwin_nb.preparation import look
from cryotwin_nb.preparation.listing import listed, read_picks

BOX, PIXEL = 16, 2.5  # a diameter of 32 Å: picks closer than 6.4 Å are reported
PLACES = [  # micrograph, x and y in Å: two pairs and a triple of close picks on three of the four micrographs
    ("a.mrc", 10, 10),
    ("a.mrc", 16, 10),  # 6.0 Å from the first
    ("a.mrc", 40, 40),
    ("b.mrc", 10, 10),
    ("b.mrc", 14, 14),  # 5.7 Å
    ("b.mrc", 90, 10),
    ("b.mrc", 96.5, 10),  # 6.5 Å: not close
    ("c.mrc", 50, 50),
    ("c.mrc", 50, 50),  # the same place, other images
    ("c.mrc", 52, 50),
    ("d.mrc", 10, 10),
    ("d.mrc", 10, 60),
]
CLOSE = "7 of 12 picks, on 3 of 4 micrographs, are closer than 6.4 Å to another, a fifth of the diameter (32 Å"


def star(path, columns: dict[str, list], optics: dict[str, float] | None = None, images=None):
    """Write a RELION 3.1 STAR file of particles with further columns."""
    n = len(next(iter(columns.values())))
    optics = {"rlnOpticsGroup": 1, "rlnImagePixelSize": PIXEL, "rlnImageSize": BOX} | (optics or {})
    images = range(1, n + 1) if images is None else images
    columns = {"rlnImageName": [f"{i}@s.mrcs" for i in images], "rlnOpticsGroup": [1] * n} | columns
    lines = ["data_optics", "", "loop_", *(f"_{name}" for name in optics), " ".join(map(str, optics.values())), ""]
    lines += ["data_particles", "", "loop_", *(f"_{name}" for name in columns)]
    lines += [" ".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def coordinates(pixel: float, places=PLACES) -> dict[str, list]:
    names, x, y = zip(*places, strict=True)
    return {
        "rlnMicrographName": names,
        "rlnCoordinateX": [v / pixel for v in x],
        "rlnCoordinateY": [v / pixel for v in y],
    }


def read(path, **options) -> ct.Particles:
    return ct.Particles.read(path, images=False, contrast="dark", **options)


@pytest.mark.parametrize(
    ("optics", "pixel", "told"),
    [
        ({"rlnMicrographPixelSize": 0.8, "rlnMicrographOriginalPixelSize": 0.4}, 0.8, "0.8 Å per pixel (rlnMicrogr"),
        ({"rlnMicrographOriginalPixelSize": 0.4}, 0.4, "0.4 Å per pixel (rlnMicrographOriginalPixelSize, that of"),
        ({"rlnDetectorPixelSize": 5.0, "rlnMagnification": 50_000}, 1.0, "1 Å per pixel (rlnDetectorPixelSize and"),
        ({"rlnMicrographPixelSize": 0, "rlnDetectorPixelSize": 5.0}, PIXEL, "2.5 Å per pixel (assumed"),
        ({}, PIXEL, "2.5 Å per pixel (assumed: the images are not binned)"),
    ],
)
def test_close_picks_are_counted_at_the_pixel_size_of_the_micrographs(tmp_path, optics, pixel, told):
    (finding,) = listed(read(star(tmp_path / "p.star", coordinates(pixel), optics)))
    assert finding.name == "picks close together" and finding.level == "warning"
    assert finding.evidence.startswith(CLOSE) and told in finding.evidence


def test_a_relion_30_file_and_optics_groups_with_their_own_pixel_size(tmp_path):
    table = coordinates(0.5)
    old = {"rlnImageName": [f"{i}@s.mrcs" for i in range(1, 13)], "rlnDetectorPixelSize": [5.0] * 12}
    old |= {"rlnMagnification": [20_000] * 12, "rlnImageSize": [BOX] * 12} | coordinates(2.5)
    lines = ["data_", "loop_", *(f"_{name}" for name in old), *(" ".join(map(str, r)) for r in zip(*old.values()))]
    (tmp_path / "old.star").write_text("\n".join(lines) + "\n")
    assert listed(read(tmp_path / "old.star"))[0].evidence.startswith(CLOSE)

    path = star(tmp_path / "p.star", table | {"rlnMicrographPixelSize": [0.5] * 6 + [1.0] * 6})
    picks = read_picks(read(path))
    np.testing.assert_allclose(picks.position[:6], np.array([p[1:] for p in PLACES[:6]]), rtol=1e-5)
    np.testing.assert_allclose(picks.position[6:], 2 * np.array([p[1:] for p in PLACES[6:]]), rtol=1e-5)
    assert picks.pixel.startswith("0.5 to 1 Å per pixel (rlnMicrographPixelSize")


def test_a_subset_has_the_picks_of_its_rows(tmp_path):
    path = star(tmp_path / "p.star", coordinates(1.0), {"rlnMicrographPixelSize": 1.0})
    for some in (read(path, indices=np.array([11, 4, 3, 2])), read(path)[[11, 4, 3, 2]]):
        (finding,) = listed(some)
        assert finding.evidence.startswith("2 of 4 picks, on 1 of 3 micrographs")
    assert listed(read(path)[[0, 2, 11]]) == ()


def test_copies_of_an_image_are_one_pick(tmp_path):
    """A set expanded by symmetry lists each pick several times, at the same place."""
    columns = coordinates(1.0, PLACES[2:4] + PLACES[10:]) | {"rlnMicrographPixelSize": [1.0] * 4}
    thrice = {name: [*values] * 3 for name, values in columns.items()}
    with pytest.warns(UserWarning, match="8 rows are duplicates"):
        particles = read(star(tmp_path / "p.star", thrice, images=[1, 2, 3, 4] * 3))
    assert [finding.name for finding in listed(particles)] == ["duplicates"]


@pytest.mark.parametrize("missing", ["rlnMicrographName", "rlnCoordinateX", "all", "zeros", "nothing"])
def test_without_coordinates_nothing_is_said(tmp_path, missing):
    columns = coordinates(1.0)
    columns = {name: values for name, values in columns.items() if missing not in (name, "all")}
    columns |= {name: [0] * 12 for name in ("rlnCoordinateX", "rlnCoordinateY") if missing == "zeros"}
    columns |= {"rlnPhaseShift": [0] * 12}
    found = listed(read(star(tmp_path / "p.star", columns, {"rlnMicrographPixelSize": 1.0})))
    assert len(found) == (missing == "nothing")
    images = ct.Particles(np.zeros((3, BOX, BOX), np.float32), pixel_size=PIXEL)
    assert read_picks(images) is None


def test_unreadable_coordinates_are_left_out(tmp_path):
    columns = coordinates(1.0)
    columns["rlnCoordinateX"][:2] = ["nan", "none"]
    (finding,) = listed(read(star(tmp_path / "p.star", columns, {"rlnMicrographPixelSize": 1.0})))
    assert finding.evidence.startswith("5 of 10 picks, on 2 of 4 micrographs")


@pytest.mark.parametrize("stated", [True, False])
def test_close_picks_in_a_cs_file(tmp_path, stated):
    """Fractions of the micrograph along x and y; its shape is (rows, columns)."""
    pixel = 0.5 if stated else PIXEL
    rows, columns = 4000, 5000
    fields = [("blob/path", "S8"), ("blob/idx", "u4"), ("blob/psize_A", "f4"), ("blob/shape", "u4", (2,))]
    fields += [("location/micrograph_uid", "u8"), ("location/micrograph_shape", "u4", (2,))]
    fields += [("location/center_x_frac", "f8"), ("location/center_y_frac", "f8")]
    table = np.zeros(12, fields + ([("location/micrograph_psize_A", "f4")] if stated else []))
    table["blob/path"], table["blob/idx"], table["blob/psize_A"], table["blob/shape"] = b"s.mrc", range(12), PIXEL, BOX
    table["location/micrograph_uid"] = [ord(name[0]) + 2**60 for name, _, _ in PLACES]
    table["location/micrograph_shape"] = rows, columns
    table["location/center_x_frac"] = [x / pixel / columns for _, x, _ in PLACES]
    table["location/center_y_frac"] = [y / pixel / rows for _, _, y in PLACES]
    if stated:
        table["location/micrograph_psize_A"] = pixel
    with open(tmp_path / "p.cs", "wb") as file:
        np.save(file, table)
    (finding,) = listed(read(tmp_path / "p.cs"))
    assert finding.evidence.startswith(CLOSE)
    assert ("0.5 Å per pixel (location/micrograph_psize_A)" if stated else "assumed") in finding.evidence


def test_the_first_look_reports_close_picks_and_the_command_tells_problems(tmp_path, monkeypatch, capsys):
    from cryotwin_nb.cli.main import main

    made = ct.simulate.assembly(100, BOX, progress=False)
    made.write(tmp_path / "p.star", progress=False)
    text = (tmp_path / "p.star").read_text().splitlines()
    first = max(i for i, line in enumerate(text) if line.startswith("_rln")) + 1
    names = [line.split()[0] for line in text if line.startswith("_rln")]
    text[first:first] = [f"_{name} #{len(names) + k}" for k, name in enumerate(coordinates(1.0))]
    spread = [(f"{i}.mrc", 10, 10 + 100 * (i % 2)) for i in range(99)] + [("0.mrc", 10, 11)]
    rows = iter(zip(*coordinates(1.0, spread).values(), strict=True))
    text = [f"{line} {' '.join(map(str, next(rows)))}" if "@" in line else line for line in text]
    (tmp_path / "p.star").write_text("\n".join(text) + "\n")
    found = ct.first_look(ct.Particles.read(tmp_path / "p.star", contrast="dark"))
    assert "- warning: picks close together: 2 of 100 picks, on 1 of 99 micrographs" in found.summary()
    arguments = ["look", f"{tmp_path / 'p.star'}", "--contrast", "dark", "--json"]
    for level, status in (("note", 0), ("warning", 0), ("must be mended", 1)):
        monkeypatch.setattr(look, "listed", lambda particles, level=level: (ct.Finding("a", "b", "c", level),))
        assert main(arguments) == status
    assert '"is_problem": false' in capsys.readouterr().out
