"""Sizes of what files contain and is not used: against closed forms, and phases, CTFs and images that RELION writes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import mrcfile
import numpy as np
import pytest
import torch

from cryotwin_nb.formats.cryosparc import read_cs
from cryotwin_nb.formats.mrc_writing import write_stack
from cryotwin_nb.formats.star import read_star
from cryotwin_nb.imaging.optics import electron_wavelength

MODULE = "cryotwin_nb.formats.aberrations"
PIXEL, BOX, CS = 2.0, 64, 2.7  # Å, pixels, mm
NYQUIST = 1 / (2 * PIXEL)
LAMBDA = float(electron_wavelength(torch.tensor(300.0)))
FREQUENCY = np.fft.fftfreq(BOX, PIXEL)
IDENTITY = {"rlnMagMat00": 1, "rlnMagMat01": 0, "rlnMagMat10": 0, "rlnMagMat11": 1}
relion = pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="RELION is not installed")


def star(folder, *groups: dict, **particle):
    """Write a STAR file with one particle in each optics group."""
    common = {"rlnVoltage": 300, "rlnSphericalAberration": CS, "rlnAmplitudeContrast": 1, "rlnImagePixelSize": PIXEL}
    common |= {"rlnImageSize": BOX, "rlnImageDimensionality": 2}
    angles = dict.fromkeys(["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"], 0)
    defocus = dict.fromkeys(["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"], 0)
    optics, particles = [], []
    for number, group in enumerate(groups, start=1):
        optics.append({"rlnOpticsGroup": number, "rlnOpticsGroupName": f"g{number}"} | common | group)
        image = {"rlnImageName": f"{number}@s.mrcs", "rlnMicrographName": "m.mrc", "rlnOpticsGroup": number}
        particles.append(image | angles | defocus | particle)
    text = ""
    for name, rows in (("optics", optics), ("particles", particles)):
        labels = "\n".join(f"_{label} #{i}" for i, label in enumerate(rows[0], start=1))
        text += (
            f"\ndata_{name}\n\nloop_\n{labels}\n" + "\n".join(" ".join(map(str, row.values())) for row in rows) + "\n"
        )
    path = folder / "p.star"
    path.write_text(text)
    return path


def cs(folder, **fields):
    """Write a .cs file of two particles with values of fields of ctf/."""
    names = {"accel_kv": 300.0, "cs_mm": CS} | fields
    kinds = [("uid", "u8"), ("blob/path", "S9"), ("blob/idx", "u4"), ("blob/psize_A", "f4"), ("blob/shape", "u4", (2,))]
    kinds += [(f"ctf/{name}", "f4", np.shape(value)) for name, value in names.items()]
    table = np.zeros(2, dtype=kinds)
    table["blob/path"], table["blob/psize_A"], table["blob/shape"] = b"s.mrcs", PIXEL, BOX
    for name, value in names.items():
        table[f"ctf/{name}"] = value
    path = folder / "p.cs"
    with open(path, "wb") as file:
        np.save(file, table)
    return path


def note(path) -> str:
    reader = read_cs if path.suffix == ".cs" else read_star
    (text,) = reader(path, poses=False, ctf=False).notes
    return text


def degrees(text: str) -> float:
    """Return the phase error at Nyquist that a note states."""
    return float(re.search(r"phase error at Nyquist, 4 Å: ([\d,.]+)°", text)[1].replace(",", ""))


def resolution(text: str) -> float:
    """Return the resolution at which the phase error reaches 45°, as a note states it."""
    return float(re.search(r"°, and 45° at ([\d.]+) Å\)", text)[1])


def rounded(value: float):
    """Return what a note states for a value: two digits below 10, integers above."""
    return pytest.approx(value, abs=0.5 if value > 9.5 else 0.051)


# Against closed forms


def test_beam_tilt_shifts_the_phase_of_the_spherical_aberration(tmp_path):
    """The part of Cs λ³ k⁴ / 4 at k + b / λ that is odd in k, but for the image shift of first order."""
    tilt = np.array([1.2, -0.5])  # mrad
    text = note(star(tmp_path, {"rlnBeamTiltX": tilt[0], "rlnBeamTiltY": tilt[1]}))
    direction, offset = tilt / np.linalg.norm(tilt), tilt * 1e-3 / LAMBDA

    def phase(k):
        return np.pi / 2 * CS * 1e7 * LAMBDA**3 * np.linalg.norm(k) ** 4

    k = NYQUIST * direction
    odd = (phase(k + offset) - phase(offset - k)) / 2
    first_order = 2 * np.pi * CS * 1e7 * LAMBDA**3 * (offset @ offset) * (offset @ k)
    expected = np.degrees(odd - first_order)
    assert degrees(text) == rounded(expected)
    assert resolution(text) == pytest.approx(4 * (expected / 45) ** (1 / 3), rel=0.003)
    assert re.fullmatch(r".*p\.star contains beam tilt \([^()]*\), which cryotwin_nb does not use\.", text)


def test_one_tilt_has_one_size_in_both_programs(tmp_path):
    tilt = np.array([0.4, 0.3])
    relion = note(star(tmp_path, {"rlnBeamTiltX": tilt[0], "rlnBeamTiltY": tilt[1]}))
    cryosparc = note(cs(tmp_path, tilt_A=tilt * 1e-3 * CS * 1e7))
    assert cryosparc.split("contains")[1] == relion.split("contains")[1]


@pytest.mark.parametrize(
    ("fields", "title", "radians"),
    [
        ({"trefoil_A": [3e4, 4e4]}, "trefoil", 2 * np.pi / 3 * LAMBDA**2 * 5e4 * NYQUIST**3),
        ({"tetra_A": [3e6, -4e6, 0, 0]}, "tetrafoil", 2 * np.pi * LAMBDA**3 * 5e6 * NYQUIST**4),
        ({"tetra_A": [0, 0, -3e6, 4e6]}, "tetrafoil", np.pi / 2 * LAMBDA**3 * 5e6 * NYQUIST**4),
        ({"shift_A": [0.3, -0.4]}, "image shift", 2 * np.pi * 0.5 * NYQUIST),
    ],
)
def test_fields_of_cryosparc(tmp_path, fields, title, radians):
    text = note(cs(tmp_path, **fields))
    assert f"contains {title} (" in text
    assert degrees(text) == rounded(np.degrees(radians))


@pytest.mark.parametrize("matrix", [[0.01, 0.004, -0.002, -0.007], [0, 0.02, 0.02, 0]])
def test_magnification_is_the_same_with_and_without_the_identity(tmp_path, matrix):
    """RELION writes it with the identity; cryoSPARC, and STAR files that pyem converted from it, without."""
    stored = dict(zip(IDENTITY, matrix, strict=True))
    notes = [
        note(star(tmp_path, {name: stored[name] + IDENTITY[name] for name in stored})),
        note(star(tmp_path, stored)),
        note(cs(tmp_path, anisomag=matrix)),
    ]
    turns = np.deg2rad(np.arange(0, 360, 0.1))
    share = np.linalg.norm(np.reshape(matrix, (2, 2)) @ [np.cos(turns), np.sin(turns)], axis=0).max()
    size = f"({100 * share:.3g} %, {share * BOX / 2:.2g} pixels at the edge of the box; at 0.4 box sizes "
    for text in notes:
        assert size in text
        assert degrees(text) == rounded(180 * 0.4 * BOX * share)


def test_b_factors_and_scale_factors(tmp_path):
    text = note(star(tmp_path, {}, {}, rlnCtfBfactor=40, rlnCtfScalefactor=0.8))
    assert "B-factors of the CTF (amplitude factor at Nyquist, 4 Å: 0.54)" in text
    assert "scale factors of the CTF (0.8)" in text
    assert note(cs(tmp_path, bfactor=40.0, scale=0.8)).split("contains")[1] == text.split("contains")[1]


def test_the_largest_of_several_optics_groups_is_given(tmp_path):
    groups = [{"rlnBeamTiltX": tilt, "rlnImagePixelSize": pixel} for tilt, pixel in [(0.1, 4), (-0.7, 2), (0.2, 2)]]
    largest = degrees(note(star(tmp_path, groups[1])))
    assert degrees(note(star(tmp_path, *groups))) == largest > 30


def test_large_errors_state_the_resolution_from_which_on_they_matter(tmp_path):
    assert "45°" not in note(star(tmp_path, {"rlnOddZernike": "[0,3,0,0,0,0]"}))  # 3 k: 43° at Nyquist
    text = note(star(tmp_path, {"rlnOddZernike": "[0,0,0,0,0,85]"}))
    assert resolution(text) == pytest.approx((np.deg2rad(45) / 85) ** (-1 / 3), rel=0.003)
    assert "45°" not in note(star(tmp_path, {"rlnEvenZernike": "[0.7]"}))  # the same at all frequencies
    assert "at least 45° from the lowest frequencies on" in note(star(tmp_path, {"rlnEvenZernike": "[-0.8]"}))


@pytest.mark.parametrize("value", ["x1", "[1,two]", "1e400", "[1e308]"])
@pytest.mark.parametrize("name", ["rlnBeamTiltX", "rlnOddZernike", "rlnEvenZernike", "rlnMagMat01", "rlnCtfBfactor"])
def test_values_without_a_size_are_named_only(tmp_path, name, value):
    text = note(star(tmp_path, {name: value}))
    assert re.search(r"contains [-A-Za-z ]+, which cryotwin_nb does not use\.$", text)


def test_files_without_such_columns_do_not_import_the_module(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    assert read_star(star(tmp_path, {})).notes == ()
    assert MODULE not in sys.modules
    assert read_star(star(tmp_path, IDENTITY | {"rlnBeamTiltX": 0, "rlnOddZernike": "[0,0]"})).notes == ()
    assert MODULE in sys.modules


# Against RELION 3.1.3


def run(folder, program: str, **options) -> np.ndarray:
    """Run a program of RELION on p.star and return the image or stack it writes, without axes of length 1."""
    listed = [item for name, value in options.items() for item in (f"--{name}", *[value] * (value != ""))]
    subprocess.run([program, *listed], cwd=folder, check=True, capture_output=True)
    return np.squeeze(mrcfile.read(next(folder.glob("out.mrc*"))))


def transform(image: np.ndarray) -> np.ndarray:
    return np.fft.fft2(np.fft.ifftshift(image))


@relion
@pytest.mark.parametrize(
    ("columns", "shape"),
    [
        ({"rlnBeamTiltX": 1.5, "rlnBeamTiltY": -2}, lambda k, a: k**3 * (0.6 * np.cos(a) - 0.8 * np.sin(a))),
        ({"rlnOddZernike": "[0,0,102,0,0,-136]"}, lambda k, a: k**3 * (0.6 * np.sin(3 * a) - 0.8 * np.cos(3 * a))),
        ({"rlnOddZernike": "[0,-10,0,0,0,0]"}, lambda k, a: k * np.cos(a)),
        ({"rlnOddZernike": "[0,0,0,6,0,0]"}, lambda k, a: (3 * k**3 - 2 * k) * np.sin(a)),
        (
            {"rlnOddZernike": "[-4,3,0,0,0,90]"},
            lambda k, a: k * (3 * np.cos(a) - 4 * np.sin(a)) + 90 * k**3 * np.cos(3 * a),
        ),
        ({"rlnOddZernike": f"[{'0,' * 6}2500,0,0,0,0,0]"}, lambda k, a: k**5 * np.sin(5 * a)),
    ],
)
def test_relion_corrects_the_phases_of_an_image_by_the_size_given(tmp_path, columns, shape):
    """A point, reconstructed in 2-D with and without the columns: their phases differ by the correction."""
    image = np.zeros((1, BOX, BOX), dtype=np.float32)
    image[0, BOX // 2, BOX // 2] = 1
    write_stack(tmp_path / "s.mrcs", [image], 1, BOX, PIXEL)
    options = {"i": "p.star", "o": "out.mrc", "ctf": "", "refdim": "2", "pad": "4"}
    spectra = []
    for group in ({}, columns):
        star(tmp_path, group)
        spectra.append(transform(run(tmp_path, "relion_reconstruct", **options)))
    ky, kx = np.meshgrid(FREQUENCY, FREQUENCY, indexing="ij")
    radius, azimuth = np.hypot(kx, ky), np.arctan2(ky, kx)
    used = (radius > 0) & (radius < 0.9 * NYQUIST)
    phases, form = np.angle(spectra[1] / spectra[0])[used], shape(radius, azimuth)[used]
    coefficient = abs(phases @ form) / (form @ form)
    largest = np.abs(shape(NYQUIST, np.deg2rad(np.arange(360)))).max()
    stated = degrees(note(tmp_path / "p.star"))
    assert 120 < stated < 160
    assert np.degrees(coefficient * largest) == pytest.approx(stated, rel=0.01)


def transfer(folder, group: dict, **particle) -> np.ndarray:
    """Return the CTF that RELION applies, along x from 0 to Nyquist; it is 1 but for `group` and `particle`."""
    volume = np.zeros((BOX, BOX, BOX), dtype=np.float32)
    volume[BOX // 2, BOX // 2, BOX // 2] = 1
    with mrcfile.new(folder / "map.mrc", volume, overwrite=True) as file:
        file.voxel_size = PIXEL
    star(folder, {"rlnSphericalAberration": 0} | group, **particle)
    image = run(folder, "relion_project", i="map.mrc", o="out", ang="p.star", ctf="")
    return transform(image).real[0, : BOX // 2]


@relion
@pytest.mark.parametrize(("vector", "power"), [("[0.4]", 0), ("[0,0,0,0,0,0,0,0,350]", 4), (f"[{'0,' * 15}5000]", 6)])
def test_relion_adds_even_zernikes_to_the_phase_of_the_ctf(tmp_path, vector, power):
    phase = np.arccos(transfer(tmp_path, {"rlnEvenZernike": vector}))[BOX // 2 - 4]
    stated = degrees(note(tmp_path / "p.star"))
    assert np.degrees(phase) * (NYQUIST / FREQUENCY[BOX // 2 - 4]) ** power == pytest.approx(stated, abs=0.5)
    assert stated > 20


@relion
def test_relion_multiplies_the_ctf_by_the_factor_given(tmp_path):
    factor = transfer(tmp_path, {}, rlnCtfBfactor=60)[BOX // 2 - 4] ** ((NYQUIST / FREQUENCY[BOX // 2 - 4]) ** 2)
    assert f"amplitude factor at Nyquist, 4 Å: {factor:.2g})" in note(tmp_path / "p.star")
    assert 0.3 < factor < 0.5


@relion
@pytest.mark.parametrize("changed", [{"rlnMagMat00": 1.05}, {"rlnMagMat01": 0.05}])
def test_relion_displaces_points_by_the_share_given(tmp_path, changed):
    """A blob on the x axis: RELION reads it from Mᵀx of the image."""
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    image = np.exp(-((x - 20) ** 2 + y**2) / 8).astype(np.float32)
    write_stack(tmp_path / "s.mrcs", [image[None]], 1, BOX, PIXEL)
    centres = []
    for group in (IDENTITY, IDENTITY | changed):
        star(tmp_path, group)
        out = run(tmp_path, "relion_reconstruct", i="p.star", o="out.mrc", refdim="2")
        out = np.where(out > 0.1 * out.max(), out, 0)
        centres.append(np.array([(out * axis).sum() / out.sum() for axis in (x, y)]))
    displacement = np.linalg.norm(centres[0] - centres[1]) / np.linalg.norm(centres[1])
    assert 100 * displacement == pytest.approx(5, rel=0.03)
    assert "(5 %" in note(tmp_path / "p.star")
