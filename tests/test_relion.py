"""RELION as a witness: it reads the same values as this package, reads what is written, and reconstructs the same map.

The programs of RELION (tested: 3.1.3) must be on the path; otherwise, these tests are skipped. Their output is parsed
here, not by the readers under test.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cryotwin_nb as ct
from cryotwin_nb.imaging.masks import spherical_mask

pytestmark = [
    pytest.mark.skipif(not shutil.which("relion_star_handler"), reason="RELION is not installed"),
    pytest.mark.usefixtures("one_thread"),
]
QUIET = {"progress": False, "workers": 1}
BOX, PIXEL, N = 64, 5.0, 300


def relion(program: str, *words: str, cwd: Path) -> str:
    """Run a program of RELION and return what it printed."""
    command = [f"relion_{program}", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def tables(path: Path) -> dict[str, list[dict[str, str]]]:
    """Return the tables of a STAR file that RELION wrote, as rows of words."""
    found: dict[str, list[dict[str, str]]] = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        if line.startswith("data_"):
            rows, labels = found.setdefault(line.strip()[5:], []), []
        elif line.startswith("_"):
            label, value = line[1:].split()[:2]
            labels.append(label)
            if value[0] != "#":  # a table of one row, without loop_
                rows[:] = [{**(rows[0] if rows else {}), label: value}]
        elif line.strip() and line[0] != "#" and not line.startswith("loop_"):
            rows.append(dict(zip(labels, re.findall(r'"[^"]*"|\S+', line), strict=True)))
    return found


def read_by_relion(path: Path) -> tuple[dict[str, list[dict[str, str]]], str]:
    """Return the tables as RELION reads them, from the file that it writes, and what it printed."""
    copy = path.with_name("relion_" + path.name)
    select = ("--select", "rlnDefocusU", "--minval", "-1e30", "--maxval", "1e30")
    text = relion("star_handler", "--i", path.name, "--o", copy.name, *select, cwd=path.parent)
    return tables(copy), text


def require_equal(particles: ct.Particles, found: dict[str, list[dict[str, str]]]) -> None:
    """Fail unless RELION has the same number of particles, pixel size, poses and CTF."""
    rows, optics = found["particles"], {row["rlnOpticsGroup"]: row for row in found["optics"]}
    assert len(rows) == len(particles)

    def column(*labels: str) -> np.ndarray:
        return np.array([[float((optics[row["rlnOpticsGroup"]] | row)[label]) for label in labels] for row in rows])

    angles = Rotation.from_euler("ZYZ", column("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), degrees=True)
    apart = angles.inv() * Rotation.from_matrix(particles.rotations)
    assert np.rad2deg(apart.magnitude()).max() < 1e-3
    np.testing.assert_allclose(particles.shifts, column("rlnOriginXAngst", "rlnOriginYAngst"), atol=1e-4)
    np.testing.assert_allclose(particles.pixel_size, column("rlnImagePixelSize"), atol=1e-4)
    for labels, attribute in (
        ("rlnDefocusU", "defocus_u"),
        ("rlnDefocusV", "defocus_v"),
        ("rlnDefocusAngle", "defocus_angle"),
        ("rlnVoltage", "voltage"),
        ("rlnSphericalAberration", "spherical_aberration"),
        ("rlnAmplitudeContrast", "amplitude_contrast"),
    ):
        np.testing.assert_allclose(
            getattr(particles.ctf, attribute), column(labels)[:, 0], atol=0.1 if "D" in labels else 1e-5
        )


# ------------------------------------------------------------------------------------------------------------- reading

OPTICS = {
    "rlnOpticsGroup": "12",
    "rlnOpticsGroupName": ("first", "second"),
    "rlnVoltage": ("300", "200"),
    "rlnSphericalAberration": ("2.7", "1.4"),
    "rlnAmplitudeContrast": ("0.1", "0.07"),
    "rlnImagePixelSize": ("1.5", "1.5"),
    "rlnImageSize": ("16", "16"),
    "rlnImageDimensionality": "22",
}
POSES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")


def particle_columns(form: str = "{:.6f}", name: str = "stack.mrcs", n: int = 12) -> dict[str, list[str]]:
    """Return columns of random particles, numbers written in the given form."""
    rng = np.random.default_rng(3)
    low, high = [-180, 0, -180, -9, -9, 9e3, 9e3, -90], [180, 180, 180, 9, 9, 2e4, 2e4, 90]
    columns = {
        label: [form.format(v) for v in rng.uniform(*ends, n)] for label, *ends in zip(POSES + DEFOCUS, low, high)
    }
    columns |= {"rlnOpticsGroup": [str(1 + i % 2) for i in range(n)]}
    return columns | {
        "rlnImageName": [name.format(f"{i + 1:06d}@") if "{" in name else f"{i + 1:06d}@{name}" for i in range(n)]
    }


def table(name: str, columns, row: str = "{}\n", label: str = "_{} #{}\n") -> str:
    head = "".join(label.format(name, i) for i, name in enumerate(columns, 1))
    return (
        f"data_{name}\n\nloop_\n{head}"
        + "".join(row.format(" ".join(words)) for words in zip(*columns.values()))
        + "\n"
    )


def relion_3_0() -> str:
    """Return a file with origins in pixels and the pixel size by magnification: 5 µm / 33,333 = 1.50 Å."""
    columns = {label.replace("Angst", ""): words for label, words in particle_columns().items()}
    del columns["rlnOpticsGroup"]
    microscope = {"rlnVoltage": "300", "rlnSphericalAberration": "2.7", "rlnAmplitudeContrast": "0.1"}
    microscope |= {"rlnMagnification": "33333.333333", "rlnDetectorPixelSize": "5.0"}
    return "\n" + table("images", columns | {label: [value] * 12 for label, value in microscope.items()})


def one_group_as_list() -> str:
    particles = particle_columns() | {"rlnOpticsGroup": ["1"] * 12}
    lines = "".join(f"_{label}  {values[0]}\n" for label, values in OPTICS.items())
    return f"data_optics\n\n{lines}\n\n" + table("particles", particles)


def two(**form) -> str:
    return table("optics", OPTICS) + table("particles", particle_columns(**form))


stale = {"rlnOriginX": ["4.5"] * 12, "rlnOriginY": ["0"] * 12}
FILES = {
    "RELION 3.1": two(),
    "RELION 3.0": relion_3_0(),
    "exponents": two(form="{:.9e}"),
    "long numbers": two(form="{:+.12f}"),
    "a name with #": two(name="grid#2/stack.mrcs"),
    "a name with an apostrophe": two(name="O'Neill/stack.mrcs"),
    "a quoted name": two(name='"{}my stacks/stack.mrcs"'),
    "mrcs after a colon": two(name="stack.mrc:mrcs"),
    "latin-1": two(name="K\xfchlbrandt/stack.mrcs"),
    "particles first": table("particles", particle_columns()) + table("optics", OPTICS),
    "optics as a list": one_group_as_list(),
    "labels without numbers": table("optics", OPTICS, label="_{}\n")
    + table("particles", particle_columns(), label="_{}\n"),
    "tabs and spaces around": two().replace(" 1", "\t\t1").replace("\n0", " \n\t0"),
    "comments behind rows": table("optics", OPTICS) + table("particles", particle_columns(), row="{} # refined\n"),
    "no newline at the end": two().rstrip(),
    "two origins": table("optics", OPTICS) + table("particles", particle_columns() | stale),
    "an unknown column": table("optics", OPTICS) + table("particles", particle_columns() | {"myScore": ["0.5"] * 12}),
    "a table before": table("rejected", particle_columns()) + two(),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings("ignore:.*(disagree for|data_rejected)")
def test_values_are_those_that_relion_reads(tmp_path, kind):
    """Also of what is written: all rows of a selection, and of every second."""
    path = tmp_path / "p.star"
    path.write_text(FILES[kind], encoding="latin-1")
    particles = ct.Particles.read(path, images=False)
    require_equal(particles, read_by_relion(path)[0])
    for rows in (slice(None), slice(1, None, 2)):
        selection = ct.write_selection(tmp_path / "selection.star", particles, rows, {"score": np.zeros(12)[rows]})
        require_equal(particles[rows], read_by_relion(selection)[0])


def test_the_conversion_of_relion_has_the_shifts_of_its_origin(tmp_path):
    """relion_convert_star turns pixels of 3.0 into Å."""
    (tmp_path / "p.star").write_text(relion_3_0())
    relion("convert_star", "--i", "p.star", "--o", "new.star", cwd=tmp_path)
    particles = ct.Particles.read(tmp_path / "p.star", images=False)
    require_equal(particles, tables(tmp_path / "new.star"))
    require_equal(ct.Particles.read(tmp_path / "new.star", images=False), tables(tmp_path / "new.star"))


# ------------------------------------------------------------------------------------------------------------ symmetry


@pytest.mark.parametrize("group", ["C3", "D2", "T", "O"])
def test_what_relion_expands_is_recognised_as_a_set_of_that_group(tmp_path, group):
    (tmp_path / "p.star").write_text(two())
    relion("particle_symmetry_expand", "--i", "p.star", "--o", "expanded.star", "--sym", group, cwd=tmp_path)
    with pytest.warns(UserWarning, match=rf"list 12 images: a symmetry-expanded set \({group}\)"):
        particles = ct.Particles.read(tmp_path / "expanded.star", images=False)
    assert len(particles) == 12 * {"C3": 3, "D2": 4, "T": 12, "O": 24}[group]


# -------------------------------------------------------------------------------------------------------------- images


@pytest.fixture(scope="module")
def dark() -> ct.Particles:
    """Dark particles in memory, without ground truth."""
    simulated = ct.simulate.assembly(N, BOX, pixel_size=PIXEL, snr=2.0, progress=False)
    parts = (simulated.rotations, simulated.shifts, simulated.ctf)
    return ct.Particles(simulated.images(slice(None)), *parts, pixel_size=PIXEL)


def light_stack(dark: ct.Particles, folder: Path) -> Path:
    """Write what RELION expects: light particles."""
    parts = (dark.rotations, dark.shifts, dark.ctf)
    light = ct.Particles(-dark.images(slice(None)), *parts, pixel_size=PIXEL, contrast="light")
    light.write(folder / "light.star", progress=False)
    return folder / "light.star"


def reconstructed(path: Path, *options: str) -> np.ndarray:
    """Return RELION's map (D, D, D)."""
    relion("reconstruct", "--i", path.name, "--o", path.stem + ".mrc", "--ctf", *options, cwd=path.parent)
    with mrcfile.open(path.with_suffix(".mrc")) as file:
        return file.data.astype(np.float64)


def correlation(a: np.ndarray, b: np.ndarray, resolution: float = 15.0) -> float:
    """Return the correlation of two maps, both low-passed, inside the particle radius."""
    frequency = np.fft.fftfreq(BOX, PIXEL)
    passed = np.sqrt(sum(f**2 for f in np.meshgrid(*3 * [frequency]))) < 1 / resolution
    inside = spherical_mask(BOX, 0.4 * BOX, 0).numpy() > 0.5
    low = [np.fft.ifftn(np.fft.fftn(volume) * passed).real[inside] for volume in (a, b)]
    return float(np.corrcoef(*low)[0, 1])


@pytest.mark.parametrize("way", ["write", "selection", "prepare"])
def test_relion_reconstructs_the_same_map_with_the_same_sign(dark, tmp_path, way):
    path = light_stack(dark, tmp_path)
    if way == "selection":
        particles = ct.Particles.read(path, contrast="light")
        path = ct.write_selection(tmp_path / "selection.star", particles, np.arange(N)[::-1])
    elif way == "prepare":
        path = ct.prepare(dark, tmp_path / "prepared.star", for_relion=True, **QUIET).path
    assert correlation(reconstructed(path), ct.reconstruct(dark).map.double().numpy()) > 0.99


def test_relion_sees_the_shifts_that_cryodrgn_writes_in_pixels(dark, tmp_path):
    """Shifts of 15 Å: without them the map of RELION differs."""
    parts = (dark.rotations, 3 * dark.shifts, dark.ctf)
    ct.Particles(dark.images(slice(None)), *parts, pixel_size=PIXEL).write(tmp_path / "angstrom.star", progress=False)
    lines = (tmp_path / "angstrom.star").read_text().replace("Angst #", " #").splitlines()
    rows = [line.split() if "@" in line else None for line in lines]
    for i, row in enumerate(rows):
        if row:
            lines[i] = " ".join([*row[:4], *(f"{float(word) / PIXEL:.7f}" for word in row[4:6]), *row[6:]])
    (tmp_path / "pixels.star").write_text("\n".join(lines))
    with pytest.warns(UserWarning, match="ignore them beside data_optics"):
        particles = ct.Particles.read(tmp_path / "pixels.star", contrast="dark")
    with pytest.warns(UserWarning, match="are added to the selection"):
        selection = ct.write_selection(tmp_path / "selection.star", particles)
    expected, ignored, seen = (
        reconstructed(path, "--skip_gridding")
        for path in (tmp_path / "angstrom.star", tmp_path / "pixels.star", selection)
    )
    assert correlation(ignored, expected) < 0.95
    assert correlation(seen, expected) > 0.99999


def test_relion_reads_particles_without_a_ctf(dark, tmp_path):
    few = dark[:20]
    images = few.images(slice(None))
    ct.Particles(images, few.rotations, few.shifts, pixel_size=PIXEL).write(tmp_path / "p.star", progress=False)
    assert "WARN" not in relion("stack_create", "--i", "p.star", "--o", "copy", cwd=tmp_path)
    with mrcfile.open(tmp_path / "copy.mrcs") as file:
        np.testing.assert_array_equal(file.data, images)
    assert len(tables(tmp_path / "copy.star")["particles"]) == len(few)
    assert ct.Particles.read(tmp_path / "p.star", contrast="dark").ctf is None


def test_a_stack_for_relion_gives_no_warning_and_positive_density(dark, tmp_path):
    few = dark[:60]
    path = ct.prepare(few, tmp_path / "prepared.star", for_relion=True, **QUIET).path
    found, text = read_by_relion(path)
    assert "WARN" not in text and len(found["particles"]) == len(few)
    volume, middle = reconstructed(path, "--skip_gridding"), slice(BOX // 4, -BOX // 4)
    assert volume[middle, middle, middle].mean() > 5 * abs(volume[:2].mean())
    (tmp_path / "run").mkdir()
    search = (
        "--healpix_order 0 --offset_range 1 --offset_step 1 --pad 1 --firstiter_cc --ctf --norm --scale --zero_mask"
    )
    words = ["--o", "run/out", "--ref", "prepared.mrc", "--iter", "1", "--particle_diameter", "250", *search.split()]
    assert "WARN" not in relion("refine", "--i", path.name, *words, cwd=tmp_path)
    as_recorded = light_stack(few, tmp_path).name
    assert "have not been normalised" in relion("refine", "--i", as_recorded, *words, cwd=tmp_path)
