"""Several pixel or box sizes in one file: refused when read, brought to one grid by `prepare`; optics groups."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import starfile
import torch

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.mrc_writing import write_stack
from cryotwin_nb.formats.poses import euler_from_rotations, rotations_from_vectors
from cryotwin_nb.imaging.fourier import crop_images, fft2, grid, resampling
from cryotwin_nb.imaging.optics import CTF, shift_phases
from cryotwin_nb.preparation import stack as preparing
from cryotwin_nb.preparation.cropping import cropped
from cryotwin_nb.preparation.grids import read_on_one_grid
from cryotwin_nb.simulate.images import random_rotations
from cryotwin_nb.truth.truth import Truth, atom_transform, waves

pytestmark = pytest.mark.usefixtures("one_thread")
N = 240
TWO, BOXES, THREE = [(3.0, 32), (2.9, 34)], [(3.0, 32), (3.0, 36)], [(2.9, 34), (3.0, 36), (2.0, 50)]
ATOM = 3.0  # standard deviation of an atom, Å
ATOMS = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * 11
RNG = np.random.default_rng(1)
ROTATIONS, SHIFTS = random_rotations(N, RNG), RNG.normal(0, 2, (N, 2)).astype(np.float32)
DEFOCUS = RNG.uniform(300, 900, N)
COLUMNS = (DEFOCUS, DEFOCUS - 20, RNG.uniform(0, 180, N), *(np.full(N, v) for v in (300.0, 0.01, 0.1, 0.0)))
TRANSFER = CTF(*(values.astype(np.float32) for values in COLUMNS))
QUIET = {"progress": False, "workers": 1, "whiten": False, "dtype": "float32"}


def imaged(pixel: float, box: int, rows: np.ndarray) -> np.ndarray:
    """Return exact images (m, D, D) of the molecule on some grid."""
    x, y = waves((ATOMS @ torch.as_tensor(ROTATIONS[rows]))[..., :2], box, pixel)
    half, fall = slice(0, box // 2 + 1), atom_transform(box, ATOM / pixel)
    frequencies = torch.fft.ifftshift(grid(box, 2), dim=(0, 1))[:, half].reshape(-1, 2) / (box * pixel)
    frequencies[:, 0].abs_()
    filters = TRANSFER[rows](frequencies) * shift_phases(frequencies, torch.as_tensor(SHIFTS[rows]))
    spectrum = y.transpose(1, 2) @ x[..., half] * (fall[:, None] * fall[half])
    return torch.fft.irfft2(spectrum * filters.view_as(spectrum), s=(box, box)).numpy() / pixel**2


def density(pixel: float, box: int) -> torch.Tensor:
    x, y, z = (wave[0] for wave in waves(ATOMS[None], box, pixel))
    fall = atom_transform(box, ATOM / pixel)
    spectrum = torch.einsum("jz,jy,jx->zyx", z, y, x) * fall[:, None, None] * fall[:, None] * fall
    return torch.fft.ifftn(spectrum).real / pixel**3


def sized(sizes: list) -> np.ndarray:
    """Return the number of the size of each particle: mixed, as in a file sorted by micrograph."""
    return np.random.default_rng(2).permutation(np.arange(N) % len(sizes))


def stacks(folder: Path, sizes: list, signs: tuple = (1, 1, 1)) -> tuple[list[str], np.ndarray]:
    """Write a stack for each size; return each particle's stack and its position there."""
    number, position = sized(sizes), np.zeros(N, np.int64)
    for i, (pixel, box) in enumerate(sizes):
        rows = np.flatnonzero(number == i)
        position[rows] = np.arange(len(rows))
        write_stack(folder / f"{i}.mrcs", [signs[i] * imaged(pixel, box, rows)], len(rows), box, pixel)
    return [f"{i}.mrcs" for i in number], position


def star(folder: Path, sizes: list = TWO, **changes) -> Path:
    """Write a STAR file with an optics group of each size: 1 (grid1), 2 (grid2) ..."""
    import pandas as pd

    names, position = stacks(folder, sizes, changes.pop("signs", (1, 1, 1)))
    columns = {"rlnImageName": [f"{i + 1}@{name}" for i, name in zip(position, names, strict=True)]}
    columns |= dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), euler_from_rotations(ROTATIONS), strict=True))
    columns |= {"rlnOriginXAngst": SHIFTS[:, 0], "rlnOriginYAngst": SHIFTS[:, 1], "rlnOpticsGroup": sized(sizes) + 1}
    columns |= dict(zip(("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"), COLUMNS, strict=False))
    groups = np.arange(len(sizes)) + 1
    optics = {"rlnOpticsGroup": groups, "rlnOpticsGroupName": [f"grid{i}" for i in groups], "rlnVoltage": 300.0}
    optics |= {"rlnSphericalAberration": 0.01, "rlnAmplitudeContrast": 0.1}
    optics |= {"rlnImagePixelSize": [pixel for pixel, _ in sizes], "rlnImageSize": [box for _, box in sizes]}
    optics = {name: values for name, values in (optics | changes).items() if values is not None}
    tables = {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(columns)}
    starfile.write(tables, folder / "two.star", float_format="%.9g")
    return folder / "two.star"


def cs(folder: Path, sizes: list = TWO) -> Path:
    names, position = stacks(folder, sizes)
    single = ["blob/psize_A", "ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad", "ctf/accel_kv", "ctf/cs_mm"]
    kinds = [("uid", "u8"), ("blob/path", "S20"), ("blob/idx", "u4"), ("ctf/exp_group_id", "u4")]
    table = np.zeros(N, kinds + [(name, "f4") for name in [*single, "ctf/amp_contrast"]])
    table["uid"], table["blob/path"], table["blob/idx"] = np.arange(N) + 7, names, position
    table["ctf/exp_group_id"] = np.array([4, 9, 11])[sized(sizes)]
    table["blob/psize_A"] = np.array([pixel for pixel, _ in sizes])[sized(sizes)]
    angle = np.deg2rad(COLUMNS[2])
    for name, values in zip(single[1:], (*COLUMNS[:2], angle, *COLUMNS[3:5]), strict=True):
        table[name] = values
    table["ctf/amp_contrast"] = 0.1
    with open(folder / "two.cs", "wb") as file:
        np.save(file, table)
    return folder / "two.cs"


def prepared(path, folder: Path, **options) -> ct.Particles:
    """Prepare a file of several grids, and read the result."""
    with pytest.warns(UserWarning, match="of several grids"):
        ct.prepare(path, folder / "p.star", **{"contrast": "dark"} | QUIET | options)
    return ct.Particles.read(folder / "p.star", contrast="dark")


def assert_imaged_at(particles: ct.Particles, pixel: float, box: int, rows: np.ndarray | None = None) -> None:
    """Compare with images that were made on this grid; they differ at its Nyquist frequency, by aliases."""
    rows = np.arange(N) if rows is None else rows
    assert (particles.pixel_size, particles.box_size) == (pytest.approx(pixel, rel=1e-6), box)
    expected = imaged(pixel, box, rows)
    error = particles.images(slice(None)) - expected
    assert np.square(error).mean() < 3e-4 * np.square(expected).mean()
    for ctf, name in ((particles.ctf, f.name) for f in fields(CTF)):
        np.testing.assert_allclose(getattr(ctf, name), getattr(TRANSFER, name)[rows], rtol=1e-5)
    if particles.rotations is not None:
        np.testing.assert_allclose(particles.rotations, ROTATIONS[rows], atol=1e-5)
        np.testing.assert_allclose(particles.shifts, SHIFTS[rows], atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- resampling


def test_waves_are_continued_to_the_new_pixels():
    """Waves that both grids can show are evaluated exactly; those above the new Nyquist frequency disappear."""
    size, pixel, new_size, new_pixel = 24, 1.0, 16, 1.3
    matrix = resampling(size, pixel, new_size, new_pixel).numpy()
    old, new = (np.arange(n) - n // 2 for n in (size, new_size))
    for wave in range(size // 2):
        angle = 2 * np.pi * wave / (size * pixel)
        expected = np.cos(angle * new * new_pixel + 0.4) * (wave / (size * pixel) < 1 / (2 * new_pixel))
        np.testing.assert_allclose(matrix @ np.cos(angle * old * pixel + 0.4), expected, atol=1e-5)


def test_resampling_to_the_same_extent_is_cropping_in_fourier_space():
    images = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    axis = resampling(32, 1.5, 16, 3.0)
    found, expected = (fft2(image)[:, 1:, 1:] for image in (axis @ images @ axis.T, crop_images(images, 16)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # without the Nyquist lines
    torch.testing.assert_close(resampling(32, 1.5, 32, 1.5), torch.eye(32), rtol=0, atol=1e-6)
    shorter = resampling(32, 1.5, 28, 1.5)
    torch.testing.assert_close(shorter @ images @ shorter.T, images[:, 2:30, 2:30], rtol=0, atol=1e-5)


# --------------------------------------------------------------------------------------------------------- preparation


@pytest.mark.parametrize("sizes", [TWO, BOXES, THREE])
@pytest.mark.parametrize("write", [star, cs])
def test_images_of_several_sizes_become_those_of_one_size(tmp_path, write, sizes):
    path = write(tmp_path, sizes)
    particles = prepared(path, tmp_path)
    assert_imaged_at(particles, 3.0, 32)
    np.testing.assert_array_equal(particles.optics_group, sized(sizes))
    assert particles.columns["rlnImageName"].str.startswith("000010@")[9]


def test_reading_refuses_several_sizes_and_names_prepare(tmp_path):
    for sizes, found in ((TWO, "box sizes from 32 to 34"), (BOXES, "box sizes from 32 to 36")):
        with pytest.raises(InputError, match=rf"(?s){found}.*cryotwin prepare.*ct\.prepare.*optics_groups="):
            ct.Particles.read(star(tmp_path, sizes))
    with pytest.raises(InputError, match=r"(?s)pixel sizes from 2\.9 to 3 .*cryotwin prepare"):
        ct.Particles.read(star(tmp_path, [(2.9, 32), (3.0, 32)]))
    with pytest.raises(InputError, match=r"(?s)box sizes 32 .*cryotwin prepare"):
        ct.Particles.read(star(tmp_path, BOXES, rlnImageSize=None))
    assert_imaged_at(prepared(tmp_path / "two.star", tmp_path), 3.0, 32)


def test_a_map_of_two_sizes_is_as_good_as_one_of_one_size(tmp_path):
    curves = []
    for number, sizes in enumerate((TWO, TWO[:1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = star(folder, sizes)
        particles = prepared(path, folder) if number == 0 else ct.Particles.read(path, contrast="dark")
        curves.append(ct.fsc(ct.reconstruct(particles).map, density(3.0, 32), 3.0).correlation[:14])
    assert curves[1].min() > 0.95
    assert (curves[0] / curves[1]).min() > 0.995


def test_cropping_selection_and_cryodrgn_files_work_as_for_one_size(tmp_path):
    path, rows = star(tmp_path), np.random.default_rng(3).permutation(N)[:90]
    extent = np.array([box * pixel for pixel, box in TWO])[sized(TWO)]
    poses = ROTATIONS.swapaxes(1, 2), SHIFTS / extent[:, None]
    table = np.stack([np.full(N, 32.0), np.full(N, 3.0), *COLUMNS], axis=1)
    several = table.copy()
    several[:, :2] = np.array([(box, pixel) for pixel, box in TWO])[sized(TWO)]
    for name, content in {"ctf": table, "several": several, "poses": poses}.items():
        with open(tmp_path / f"{name}.pkl", "wb") as file:
            pickle.dump(content, file)
    for own in (table, several, several[rows], tmp_path / "ctf.pkl", tmp_path / "several.pkl", TRANSFER):
        particles = prepared(path, tmp_path, indices=rows, ctf=own, poses=tmp_path / "poses.pkl")
        assert_imaged_at(particles, 3.0, 32, rows)
    few = tuple(part[rows] for part in poses)
    assert_imaged_at(prepared(path, tmp_path, indices=rows, poses=few, ctf=TRANSFER[rows]), 3.0, 32, rows)
    small = prepared(path, tmp_path, box_size=16)
    expected = crop_images(torch.as_tensor(imaged(3.0, 32, np.arange(N))), 16)
    np.testing.assert_allclose(small.images(slice(None)), expected, atol=1e-2 * float(expected.abs().max()))
    assert small.pixel_size == pytest.approx(6.0)
    with pytest.raises(InputError, match=r"ctf: found .*sizes from .*as in the particle file"):
        ct.prepare(star(tmp_path, TWO[:1]), tmp_path / "p.star", contrast="dark", ctf=several, **QUIET)


def test_several_cs_files_are_joined_and_keep_their_rows(tmp_path):
    path = cs(tmp_path)
    more = np.zeros(N, [("uid", "u8"), ("alignments3D/shift", "f4", (2,)), ("alignments3D/pose", "f4", (3,))])
    order = np.random.default_rng(4).permutation(N)[: N - 20]
    more["uid"], more["alignments3D/pose"] = np.arange(N) + 7, RNG.normal(0, 0.5, (N, 3))
    with open(tmp_path / "more.cs", "wb") as file:
        np.save(file, more[order])
    files, rows = [path, tmp_path / "more.cs"], np.sort(order)[::3]
    with pytest.warns(UserWarning, match="220 rows in common"):
        particles = prepared(files, tmp_path, indices=rows)
    with pytest.warns(UserWarning, match="of several grids"), pytest.warns(UserWarning, match="220 rows"):
        joined, _ = read_on_one_grid(files, {"indices": rows, "contrast": "dark"})
    np.testing.assert_array_equal(joined.source_rows, rows)
    expected = rotations_from_vectors(more["alignments3D/pose"][rows].astype(np.float64))
    np.testing.assert_allclose(particles.rotations, expected, atol=1e-5)
    particles.rotations = None  # these are not the poses of the images
    assert_imaged_at(particles, 3.0, 32, rows)


def test_the_contrast_is_that_of_each_size(tmp_path):
    path = star(tmp_path, signs=(1, -1))
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        joined, grids = read_on_one_grid(path, {})
    resampled, first, second = sorted(str(note.message) for note in notes)
    assert first.startswith("Images of 32 px at 3 Å: ") and "dark on light (measured" in first
    assert second.startswith("Images of 34 px at 2.9 Å: ") and "light on dark (measured" in second
    assert resampled.endswith("are resampled to one: 32 px at 3 Å.")
    assert joined.contrast == "dark" and grids == "120 of 34 px at 2.9 Å, 120 of 32 px at 3 Å"
    assert_imaged_at(joined, 3.0, 32)
    with pytest.warns(UserWarning, match="of several grids"):
        light, _ = read_on_one_grid(star(tmp_path, signs=(-1, -1)), {"contrast": "light"})
    assert light.contrast == "light"
    assert_imaged_at(light, 3.0, 32)
    number = sized(TWO)
    position = np.sum(number[:5] == number[5]) + 1
    assert light.image_name(5) == f"image {position} of {light.files[f'{number[5]}.mrcs']}"
    assert len(np.unique(light.identity)) == N and light[[7, 5]].image_name(1) == light.image_name(5)


@pytest.mark.filterwarnings("default:.*of several grids:UserWarning")
def test_files_of_several_grids_are_never_overwritten(tmp_path, capsys):
    path, poses = star(tmp_path), tmp_path / "poses.pkl"
    poses.write_bytes(pickle.dumps((ROTATIONS.swapaxes(1, 2), np.zeros((N, 2)))))
    reading = {"poses": poses, "contrast": "dark"}
    with pytest.warns(UserWarning, match="of several grids"):
        joined, grids = read_on_one_grid(path, reading)
    assert joined.inputs == joined[:3].inputs == cropped(joined, 24).inputs == (path, poses)
    assert read_on_one_grid(joined, {}) == (joined, grids)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for name in ("two.star", "0.star", "1.star"):  # 0.mrcs and 1.mrcs are its stacks
        with pytest.warns(UserWarning, match="of several grids"), pytest.raises(InputError, match="overwrite an input"):
            ct.prepare(path, tmp_path / name, **QUIET, **reading)
    words = [
        *(
            "prepare",
            path,
            "--overwrite",
            "--poses",
            poses,
            "--contrast",
            "dark",
            "--output",
            tmp_path / "p.star",
            "--picture",
        )
    ]
    for name, original in {"a.png": poses, "b.png": tmp_path / "1.mrcs"}.items():
        (tmp_path / name).hardlink_to(original)
        assert main([*map(str, words), f"{tmp_path / name}"]) == 2
        assert "overwrite an input" in capsys.readouterr().err
        (tmp_path / name).unlink()
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_interrupted_preparation_resumes_with_the_same_grids_only(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "_CHUNK", 50)
    path, output, options = star(tmp_path), tmp_path / "p.star", QUIET | {"contrast": "dark"}
    work, calls = preparing._chunk, []

    def limited(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return work(*arguments)

    monkeypatch.setattr(preparing, "_chunk", limited)
    with pytest.warns(UserWarning, match="of several grids"), pytest.raises(KeyboardInterrupt):
        ct.prepare(path, output, **options)
    original = path.read_text()
    path.write_text(original.replace("2.9", "2.95", 1))
    with (
        pytest.warns(UserWarning, match="of several grids"),
        pytest.raises(InputError, match=r"grids .*2\.95 Å.* instead of .*2\.9 Å"),
    ):
        ct.prepare(path, output, **options)
    path.write_text(original)
    particles = prepared(path, tmp_path)
    assert len(calls) < 4 + 5  # not all five chunks are repeated
    assert_imaged_at(particles, 3.0, 32)


def test_the_truth_refers_to_the_new_grid(tmp_path):
    path = star(tmp_path)
    simulated = ct.simulate.assembly(N, 40, pixel_size=2.4, images=False, progress=False).require_truth()
    simulated.save(tmp_path / "two.truth.npz")
    particles = prepared(path, tmp_path, indices=np.arange(3, 50))
    assert isinstance(particles.truth, Truth)
    torch.testing.assert_close(particles.truth.volume(4), simulated.on_grid(32).volume(7))


def test_images_without_a_ctf_are_not_joined_with_others(tmp_path):
    path = star(tmp_path)
    unset = np.where(sized(TWO) == 1, 0.0, DEFOCUS).astype(np.float32)
    values = {f.name: getattr(TRANSFER, f.name) for f in fields(CTF)} | {"defocus_u": unset, "defocus_v": unset}
    message = "34 px at 2.9 Å: .* without"
    with (
        pytest.warns(UserWarning, match=message),
        pytest.raises(InputError, match="images of some grids without a CTF"),
    ):
        ct.prepare(path, tmp_path / "p.star", contrast="dark", ctf=CTF(**values), **QUIET)


def test_options_for_reading_need_a_file(tmp_path):
    particles = ct.Particles.read(star(tmp_path, TWO[:1]), contrast="dark")
    with pytest.raises(InputError, match=r"(?s)contrast, indices cannot be applied.*Particles\.read"):
        ct.prepare(particles, tmp_path / "p.star", contrast="dark", indices=[1], **QUIET)


@pytest.mark.filterwarnings("default")  # the command prints them
def test_the_command(tmp_path, capsys):
    arguments = [
        f"{star(tmp_path)}",
        "--output",
        f"{tmp_path / 'p.star'}",
        "--contrast",
        "dark",
        "--no-whiten",
        "--overwrite",
    ]
    assert main(["prepare", *arguments, "--dtype", "float32"]) == 0
    assert "two.star: images of several grids" in capsys.readouterr().err
    assert_imaged_at(ct.Particles.read(tmp_path / "p.star", contrast="dark"), 3.0, 32)
    assert main(["prepare", *arguments, "--optics-groups", "grid2, 1", "--box-size", "16"]) == 0
    assert "240 images, box 16 px at 6 Å" in capsys.readouterr().out
    assert main(["prepare", *arguments, "--optics-groups", "grid2"]) == 0
    assert "120 images, box 34 px at 2.9 Å" in capsys.readouterr().out
    assert main(["look", str(tmp_path / "two.star"), "--contrast", "dark"]) == 2
    assert "`cryotwin prepare`" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- optics groups


@pytest.mark.parametrize("given", [2, "2", "grid2", ["grid2"], [np.int64(2)], ("grid2", 2)])
def test_one_optics_group_is_selected_by_number_or_name(tmp_path, given):
    particles = ct.Particles.read(star(tmp_path), contrast="dark", optics_groups=given)
    rows = np.flatnonzero(sized(TWO) == 1)
    np.testing.assert_array_equal(particles.source_rows, rows)
    assert_imaged_at(particles, 2.9, 34, rows)


def test_optics_groups_are_combined_with_each_other_and_with_indices(tmp_path):
    path, number = star(tmp_path, THREE), sized(THREE)
    rows = np.random.default_rng(5).permutation(N)[:100]
    for given in ([1, "grid2"], "1,2", "grid1, 2"):
        particles = prepared(path, tmp_path, optics_groups=given, indices=rows)
        assert_imaged_at(particles, 3.0, 32, rows[number[rows] < 2])
    group_3 = np.flatnonzero(number == 2)
    assert len(ct.Particles.read(path, contrast="dark", optics_groups=3, indices=group_3[:5])) == 5
    with pytest.raises(InputError, match="none of the selected particles"):
        ct.Particles.read(path, contrast="dark", optics_groups=1, indices=group_3)


def test_a_name_takes_precedence_over_a_number_and_can_contain_a_comma(tmp_path):
    path = star(tmp_path, THREE, rlnOpticsGroupName=["2", "a,b", "c"])
    for given, expected in (("2", 0), (2, 1), ("a,b", 1), ("c", 2)):
        particles = ct.Particles.read(path, contrast="dark", optics_groups=given)
        assert set(particles.optics_group) == {expected}


def test_cs_files_have_numbers_of_optics_groups(tmp_path):
    path = cs(tmp_path)
    for given in (9, "9"):
        particles = ct.Particles.read(path, contrast="dark", optics_groups=given)
        assert_imaged_at(particles, 2.9, 34, np.flatnonzero(sized(TWO) == 1))
    with pytest.raises(InputError, match=r"no optics group '2'; expected one of 4, 9\.\n"):
        ct.Particles.read(path, optics_groups=2)


def test_an_unknown_optics_group_is_refused_with_those_in_the_file(tmp_path):
    path = star(tmp_path)
    for given in ("grid3", ["grid1", "grid3"], "grid1,grid3"):
        with pytest.raises(
            InputError, match=r"two\.star contains no .*'grid3'; expected one of 1 \(grid1\), 2 \(grid2\)"
        ):
            ct.Particles.read(path, optics_groups=given)
    with pytest.raises(InputError, match="expected a file with optics groups"):
        ct.Particles.read(tmp_path / "0.mrcs", contrast="dark", optics_groups=1)
