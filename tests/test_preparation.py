"""Prepared stacks: cropping, whitening without downstream effect, interruptions, and the report."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import mrcfile
import numpy as np
import pytest
import starfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cryotwin_nb as ct
from cryotwin_nb import simulate
from cryotwin_nb.cli.main import main
from cryotwin_nb.errors import InputError
from cryotwin_nb.formats import partial
from cryotwin_nb.imaging.fourier import crop_images, fft2, fft3, filter_images, n_shells
from cryotwin_nb.imaging.masks import spherical_mask
from cryotwin_nb.particles.formation import ImageFormation
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.whitening import Whitening
from cryotwin_nb.preparation import stack as preparing
from cryotwin_nb.preparation.cropping import cropped
from cryotwin_nb.preparation.report import suspicious_images, view_evenness
from cryotwin_nb.reconstruction import eigenvolumes as subspace
from cryotwin_nb.simulate import images as images_module
from cryotwin_nb.truth.truth import Truth, atom_transform

matplotlib.use("agg")
pytestmark = pytest.mark.usefixtures("one_thread")
QUIET = {"progress": False, "workers": 2}


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Particles:
    """Images of 32 x 32 pixels on disk."""
    path = tmp_path_factory.mktemp("raw") / "raw.star"
    simulate.assembly(300, 32, seed=2, progress=False).write(path, progress=False)
    return Particles.read(path, contrast="dark")


def read(path: Path) -> Particles:
    """Read a file that declares its contrast, hence without a warning."""
    return Particles.read(path)


# ------------------------------------------------------------------------------------------------------------ cropping


def test_a_cropped_image_is_the_one_simulated_on_the_coarse_grid(monkeypatch):
    particles = simulate.assembly(6, 32, seed=3, images=False, progress=False)
    positions, masses = particles.truth.structure(torch.as_tensor(particles.truth.coordinates))
    positions = positions.expand(6, -1, -1)
    views = torch.as_tensor(particles.rotations), particles.ctf, torch.as_tensor(particles.shifts)
    fine = torch.as_tensor(images_module._project(positions, masses, *views, 32, 10.0))
    monkeypatch.setattr(images_module, "atom_transform", lambda size: atom_transform(size, 0.6 * 16 / 32))
    coarse = torch.as_tensor(images_module._project(positions, masses, *views, 16, 20.0))
    found, expected = fft2(crop_images(fine, 16))[:, 1:, 1:], fft2(coarse)[:, 1:, 1:]  # without the Nyquist lines
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


@given(st.integers(4, 20), st.integers(-7, 7), st.integers(-7, 7), st.floats(0, 6.2))
@settings(deadline=None, max_examples=30)
def test_waves_below_the_new_nyquist_are_the_same_at_the_same_places(half, kx, ky, phase):
    size, small = 2 * half + 16, 16
    x, X = (torch.arange(-(s // 2), s // 2) / s for s in (size, small))

    def wave(axis):
        return torch.cos(2 * torch.pi * (kx * axis + ky * axis[:, None]) + phase)

    torch.testing.assert_close(crop_images(wave(x), small), wave(X), rtol=0, atol=1e-4)


def test_the_truth_follows_on_the_coarse_grid():
    truth = simulate.hinge(2, 32, images=False, progress=False).truth
    fine, coarse = fft3(truth.volume(1)) * 32**-1.5, fft3(truth.on_grid(16).volume(1)) * 16**-1.5
    inside = slice(32 // 2 - 7, 32 // 2 + 8)
    torch.testing.assert_close(coarse[1:, 1:, 1:], fine[inside, inside, inside], rtol=1e-4, atol=1e-10)
    assert truth.on_grid(16).pixel_size == 2 * truth.pixel_size


def test_a_truth_without_atom_width_is_read(tmp_path):
    truth = simulate.hinge(2, 16, images=False, progress=False).truth
    old = {name: value for name, value in vars(truth).items() if name != "atom_width"}
    np.savez(tmp_path / "old.npz", **old)
    torch.testing.assert_close(Truth.load(tmp_path / "old.npz").volume(0), truth.volume(0))


def test_cropping_is_lazy_and_keeps_the_metadata(raw):
    small = cropped(raw, 16)[[5, 3]]
    assert (small.box_size, small.pixel_size) == (16, 2 * raw.pixel_size)
    np.testing.assert_array_equal(small.shifts, raw.shifts[[5, 3]])
    np.testing.assert_allclose(small.images([1]), crop_images(torch.as_tensor(raw.images([3])), 16), atol=1e-6)
    assert "image 4 of" in small.image_name(1)
    assert cropped(raw, 32) is raw
    for box in (15, 64):
        with pytest.raises(InputError, match="box"):
            cropped(raw, box)


# ----------------------------------------------------------------------------------------------------------- whitening


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("whiten", [True, False])
def test_nothing_changes_downstream(raw, tmp_path, dtype, whiten):
    report = ct.prepare(raw, tmp_path / "new" / "p.star", 16, dtype=dtype, whiten=whiten, **QUIET)
    prepared, small = read(report.path), cropped(raw, 16)
    with mrcfile.open(tmp_path / "new" / "p.mrcs", permissive=False) as file:
        assert file.data.shape == (300, 16, 16)
        assert file.data.dtype == dtype
        assert float(file.voxel_size.x) == pytest.approx(20.0)
        assert float(file.header.dmax) == pytest.approx(float(file.data.max()), rel=1e-3)
        assert float(file.header.rms) == pytest.approx(float(file.data.astype(np.float32).std()), rel=1e-3)
    before, after = ImageFormation(16), ImageFormation(16)
    before.measure(small)
    after.measure(prepared)
    torch.testing.assert_close(after.noise, before.noise, rtol=2e-4, atol=0)
    a, b = (imaging.batch(p, np.arange(300)) for imaging, p in ((before, small), (after, prepared)))
    error = (a.data - b.data).abs().square().mean().sqrt()
    assert error < (6e-4 if dtype == "float16" else 3e-6)  # relative to noise of unit power
    torch.testing.assert_close(a.transfer, b.transfer, rtol=1e-4, atol=1e-6)
    assert prepared.truth is not None
    torch.testing.assert_close(prepared.truth.volume(7), small.truth.volume(7))


def test_the_same_map_comes_of_whitened_images(raw, tmp_path):
    ct.prepare(raw, tmp_path / "p.star", 16, **QUIET)
    maps = []
    for particles in (cropped(raw, 16), read(tmp_path / "p.star")):
        imaging = ImageFormation(16, windowed=False, margin=subspace.MARGIN)
        imaging.measure(particles)
        batch = imaging.batch(particles, np.arange(300))
        maps.append(subspace.begin(imaging, [batch], spherical_mask(16, 6.4, 1), 1).mean)
    assert (maps[0] - maps[1]).norm() < 1e-3 * maps[0].norm()


def test_stored_images_are_white_in_each_optics_group(tmp_path):
    size, n = 16, 1100
    colour = torch.linspace(3.0, 0.5, n_shells(size))
    noise = torch.randn(2 * n, size, size, generator=torch.Generator().manual_seed(0))
    gains = torch.cat([colour.expand(n, -1), 20 * colour.flip(0).expand(n, -1)])
    images = filter_images(noise, gains).numpy()
    particles = Particles(images, pixel_size=2.0, optics_group=np.repeat([0, 1], n))  # neither poses nor CTF
    report = ct.prepare(particles, tmp_path / "p.star", **QUIET)
    stored = read(report.path)
    for rows in (np.arange(n), np.arange(n, 2 * n)):
        power = fft2(torch.as_tensor(stored.images(rows))).abs().square().mean(0) * size
        assert 0.8 < power[1:, 1:].flatten().quantile(0.02) < power[1:, 1:].flatten().quantile(0.98) < 1.2
    difference = stored.unwhitened([3, n + 3]).numpy() - images[[3, n + 3]]
    spread = images[[3, n + 3]].std(axis=(1, 2))
    assert (np.ptp(difference, axis=(1, 2)) < 5e-3 * spread).all()  # except for the level
    assert report.noise_power is not None


def test_half_precision_cannot_overflow(tmp_path):
    images = simulate.hinge(40, 16, progress=False).images(slice(None)).copy()
    images[7] *= 1e12
    report = ct.prepare(Particles(images, pixel_size=2.0), tmp_path / "p.star", **QUIET)
    stored = read(report.path)
    assert np.isfinite(stored.images(slice(None))).all()
    assert np.ptp(stored.unwhitened([7]).numpy()) == pytest.approx(np.ptp(images[7]), rel=2e-3)
    assert "noise level" in report.suspicious[7]


def test_whitening_stays_with_subsets_and_copies(raw, tmp_path):
    ct.prepare(raw, tmp_path / "p.star", **QUIET)
    subset = read(tmp_path / "p.star")[[4, 2]]
    subset.write(tmp_path / "copy.star", progress=False)
    copy = Particles.read(tmp_path / "copy.star", contrast="dark")
    np.testing.assert_allclose(copy.unwhitened([0, 1]), subset.unwhitened([0, 1]), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(copy.whitening.scale, subset.whitening.scale)
    again = ct.prepare(copy, tmp_path / "again.star", 16, whiten=False, dtype="float32", **QUIET)
    level = Particles.read(again.path, contrast="dark").images([0]) - cropped(raw, 16).images([4])
    assert np.ptp(level) < 2e-3 * raw.images([4]).std()


def test_whitened_images_are_not_read_without_their_spectrum(raw, tmp_path):
    ct.prepare(raw, tmp_path / "p.star", **QUIET)
    (tmp_path / "p.whitening.npz").rename(tmp_path / "elsewhere.npz")
    with pytest.raises(InputError, match=r"p\.whitening\.npz"):
        Particles.read(tmp_path / "p.star")
    (tmp_path / "p.whitening.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"p\.whitening\.npz is damaged"):
        Particles.read(tmp_path / "p.star", contrast="dark")
    assert len(Whitening.load(tmp_path / "elsewhere.npz")) == 300


def test_light_particles_are_written_dark(raw, tmp_path):
    images = -raw.images(slice(None))
    light = Particles(images, raw.rotations, raw.shifts, raw.ctf, pixel_size=10.0, contrast="light")
    report = ct.prepare(light, tmp_path / "p.star", whiten=False, dtype="float32", **QUIET)
    np.testing.assert_array_equal(read(report.path).images([9]), raw.images([9]))
    assert report.contrast == "light"
    assert "inverted" in report.summary()
    optics = starfile.read(report.path, always_dict=True)["optics"]
    assert np.asarray(optics["cryotwinContrastSign"]).tolist() == [-1]


def test_a_whitened_stack_is_not_whitened_twice(raw, tmp_path):
    once = read(ct.prepare(raw, tmp_path / "once.star", **QUIET).path)
    twice = read(ct.prepare(once, tmp_path / "twice.star", **QUIET).path)
    grey = read(ct.prepare(once, tmp_path / "grey.star", whiten=False, dtype="float32", **QUIET).path)
    for particles in (twice, grey):
        difference = particles.unwhitened([3, 250]).numpy() - raw.images([3, 250])
        assert np.ptp(difference, axis=(1, 2)).max() < 5e-3 * raw.images([3]).std()  # except for the level


# ---------------------------------------------------------------------------------------------------------- for RELION


def test_a_stack_for_relion_has_light_particles_on_a_normalised_background(raw, tmp_path):
    report = ct.prepare(raw, tmp_path / "p.star", for_relion=True, **QUIET)
    assert "cryotwin" not in report.path.read_text()
    with mrcfile.open(tmp_path / "p.mrcs") as file:
        assert int(file.header.mode) == 2
        stored = file.data.copy()
    background = stored[:, np.hypot(*(np.indices((32, 32)) - 16)) > 15]
    assert np.abs(background.mean(1)).max() < 0.1
    assert np.abs(background.std(1) - 1).max() < 0.1
    with pytest.warns(UserWarning, match="light on dark .measured"):
        back = Particles.read(report.path)
    np.testing.assert_allclose(back.rotations, raw.rotations, atol=1e-6)
    np.testing.assert_allclose(back.shifts, raw.shifts, atol=1e-5)
    np.testing.assert_allclose(back.ctf.defocus_u, raw.ctf.defocus_u)
    for image, original in zip(back.images(slice(None)), raw.images(slice(None))):
        assert np.corrcoef(image.ravel(), original.ravel())[0, 1] > 1 - 1e-9
    assert report.for_relion and report.contrast == "dark" and not report.whitened
    assert "float32, normalised for RELION, light (recorded as dark, inverted)" in report.summary()


@pytest.mark.parametrize("origin", ["light", "whitened"])
def test_a_stack_for_relion_is_the_same_from_light_or_whitened_images(raw, tmp_path, origin):
    if origin == "light":
        parts = (-raw.images(slice(None)), raw.rotations, raw.shifts, raw.ctf)
        source = Particles(*parts, pixel_size=10.0, contrast="light")
    else:
        source = read(ct.prepare(raw, tmp_path / "whitened.star", **QUIET).path)
    with mrcfile.open(ct.prepare(raw, tmp_path / "a.star", for_relion=True, **QUIET).path.with_suffix(".mrcs")) as file:
        expected = file.data.copy()
    with mrcfile.open(
        ct.prepare(source, tmp_path / "b.star", for_relion=True, **QUIET).path.with_suffix(".mrcs")
    ) as file:
        np.testing.assert_allclose(file.data, expected, atol=1e-5 if origin == "light" else 0.02)


@pytest.mark.parametrize(
    ("options", "wrong"), [({"dtype": "float16"}, "float16"), ({"whiten": True}, "whitening")], ids=str
)
def test_float16_and_whitening_contradict_a_stack_for_relion(raw, tmp_path, options, wrong):
    with pytest.raises(InputError, match=f"cannot be combined with {wrong}"):
        ct.prepare(raw, tmp_path / "p.star", for_relion=True, **options, **QUIET)
    assert files(tmp_path) == []


@pytest.mark.parametrize("words", [[], ["--no-whiten", "--dtype", "float32"], ["--dtype", "float16"]], ids=" ".join)
def test_the_command_writes_a_stack_for_relion(raw, tmp_path, capsys, words):
    arguments = ["prepare", str(raw.where), "--output", str(tmp_path / "p.star"), "--contrast", "dark", "--for-relion"]
    if "float16" in words:
        assert main([*arguments, *words]) == 2
        assert "cannot be combined with float16" in capsys.readouterr().err
    else:
        assert main([*arguments, *words]) == 0
        assert "normalised for RELION" in capsys.readouterr().out


def test_images_with_a_constant_background_keep_their_scale_for_relion(raw, tmp_path):
    images = raw.images(slice(0, 20)).copy()
    masked = images[5] * (np.hypot(*(np.indices((32, 32)) - 16)) < 10)
    images[3], images[4], images[5] = 0, 0.3, masked
    report = ct.prepare(Particles(images, pixel_size=10.0), tmp_path / "p.star", for_relion=True, **QUIET)
    with mrcfile.open(tmp_path / "p.mrcs") as file:
        assert np.abs(file.data[[3, 4]]).max() < 1e-6
        np.testing.assert_allclose(file.data[5], -masked, atol=1e-6)
        assert np.isfinite(file.data).all()
    assert "nearly constant" in report.suspicious[4]


# ------------------------------------------------------------------------------------------------------- interruptions


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(preparing, "_CHUNK", 50)


def interrupted_after(monkeypatch, count: int) -> None:
    """Interrupt the work, as by Ctrl-C, after the given number of chunks."""
    work, calls = preparing._chunk, []

    def limited(*arguments):
        calls.append(1)
        if len(calls) > count:
            raise KeyboardInterrupt
        return work(*arguments)

    monkeypatch.setattr(preparing, "_chunk", limited)


def test_a_killed_preparation_goes_on(raw, tmp_path, monkeypatch, small_chunks):
    program = f"""
import time, torch
torch.set_num_threads(1)
import cryotwin_nb as ct
from cryotwin_nb.preparation import stack as preparing
preparing._CHUNK, work = 50, preparing._chunk
def slow(*arguments):
    time.sleep(0.3)
    return work(*arguments)
preparing._chunk = slow
particles = ct.Particles.read({str(raw.where)!r}, contrast="dark")
ct.prepare(particles, {str(tmp_path / "p.star")!r}, 16, workers=1, progress=False)
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=Path(ct.__file__).parents[1])
    journal = tmp_path / ".p.unfinished.jsonl"
    while not (journal.exists() and len(journal.read_text().splitlines()) > 2):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert files(tmp_path) == [".p.star.lock", ".p.unfinished.jsonl", ".p.unfinished.mrcs"]
    finished = len([line for line in journal.read_text().splitlines() if line]) - 1
    with open(journal, "a") as file:
        file.write('{"chunk": 5, "mea')  # cut off by the crash
    interrupted_after(monkeypatch, 6 - finished)  # only the missing chunks are repeated
    ct.prepare(raw, tmp_path / "p.star", 16, **QUIET)
    assert files(tmp_path) == ["p.mrcs", "p.star", "p.star.origin.npz", "p.truth.npz", "p.whitening.npz"]
    monkeypatch.undo()
    whole = ct.prepare(raw, tmp_path / "whole" / "p.star", 16, **QUIET)
    assert (tmp_path / "p.mrcs").read_bytes()[1024:] == whole.path.with_suffix(".mrcs").read_bytes()[1024:]


def test_other_options_or_input_do_not_go_on(raw, tmp_path, monkeypatch, small_chunks):
    with monkeypatch.context() as patch:
        interrupted_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            ct.prepare(raw, tmp_path / "p.star", 16, workers=1, progress=False)
    with pytest.raises(InputError, match="box size 32 instead of 16"):
        ct.prepare(raw, tmp_path / "p.star", **QUIET)
    with pytest.raises(InputError, match="for RELION True instead of False"):
        ct.prepare(raw, tmp_path / "p.star", 16, for_relion=True, **QUIET)
    with pytest.raises(InputError, match=r"(?s)input .* instead of"):
        ct.prepare(raw[:250], tmp_path / "p.star", 16, **QUIET)
    assert not (tmp_path / "p.star").exists()
    assert ct.prepare(raw, tmp_path / "p.star", resume=False, **QUIET).box_size == 32
    assert files(tmp_path) == ["p.mrcs", "p.star", "p.star.origin.npz", "p.truth.npz", "p.whitening.npz"]


def test_a_full_disk_is_told_before_and_survived_after(raw, tmp_path, monkeypatch, small_chunks):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 10**5))
        with pytest.raises(InputError, match=r"found 97\.7 KiB free, expected at least 612\.2 KiB for 300 images"):
            ct.prepare(raw, tmp_path / "p.star", **QUIET)
    assert files(tmp_path) == []
    with monkeypatch.context() as patch:
        work = partial.PartialStack._one

        def full(self, number, function):
            if number == 3:
                raise OSError(28, "No space left on device")
            return work(self, number, function)

        patch.setattr(partial.PartialStack, "_one", full)
        with pytest.raises(InputError, match=r"(?s)No space left.*finished images are kept"):
            ct.prepare(raw, tmp_path / "p.star", **QUIET)
    assert ct.prepare(raw, tmp_path / "p.star", **QUIET).n == 300


def test_an_image_with_nan_is_named_and_nothing_is_left(raw, tmp_path):
    images = raw.images(slice(None)).copy()
    images[33, 2, 2] = np.nan
    broken = Particles(images, pixel_size=10.0)
    with pytest.raises(InputError, match="image 33 of the array: found NaN"):
        ct.prepare(broken, tmp_path / "p.star", whiten=False, dtype="float32", **QUIET)
    assert files(tmp_path) == []


def test_the_input_is_not_overwritten(raw):
    before = raw.where.with_suffix(".mrcs").read_bytes()
    with pytest.raises(InputError, match="would overwrite an input"):
        ct.prepare(raw, raw.where, **QUIET)
    assert raw.where.with_suffix(".mrcs").read_bytes() == before


# -------------------------------------------------------------------------------------------------------------- report


def test_suspicious_images_are_found_and_others_are_not(raw, tmp_path):
    images = raw.images(slice(None)).copy()
    clean = ct.prepare(Particles(images, pixel_size=10.0), tmp_path / "clean.star", **QUIET)
    assert clean.suspicious == {}
    images[5], images[17], images[40], images[80] = 0.25, images[16], images[40] * 6, images[80] + 50
    report = ct.prepare(Particles(images, pixel_size=10.0), tmp_path / "p.star", **QUIET)
    assert set(report.suspicious) == {5, 17, 40, 80}
    assert "nearly constant" in report.suspicious[5]
    assert report.suspicious[17] == "duplicate of image 16"
    assert "noise level" in report.suspicious[40]
    assert "mean" in report.suspicious[80]
    assert "suspicious images: 4" in report.summary()
    assert {5, 17, 40, 80} <= set(report.examples)


def test_normalised_images_are_not_suspicious():
    rng = np.random.default_rng(0)
    values = {"outside": 1.0, "inside": 1.2, "slope": 0.1, "hot": 0, "power": 1.0}
    kept = {name: np.full(500, value) for name, value in values.items()}
    kept |= {"mean": rng.normal(0, 1e-7, 500), "digest": np.arange(500)}
    assert suspicious_images(kept, 32, np.zeros(500, np.int64)) == {}


def test_evenness_of_views():
    views = simulate.random_rotations(20_000, np.random.default_rng(0))[:, :, 2]
    assert view_evenness(views) > 0.98
    side = views * [1, 1, 0]
    assert 0.4 < view_evenness(side / np.linalg.norm(side, axis=1, keepdims=True)) < 0.9
    assert view_evenness(np.tile([0.0, 0.0, 1.0], (1000, 1))) < 0.01


def test_the_report_says_what_the_particles_are(raw, tmp_path):
    report = ct.prepare(raw, tmp_path / "p.star", 16, **QUIET)
    assert (report.n, report.box_size, report.pixel_size, report.resolution_limit) == (300, 16, 20.0, 40.0)
    np.testing.assert_allclose(report.defocus, (raw.ctf.defocus_u + raw.ctf.defocus_v) / 2e4, rtol=1e-6)
    assert report.evenness > 0.7
    imaging = ImageFormation(16, windowed=False)
    imaging.measure(cropped(raw, 16))
    np.testing.assert_allclose(report.noise_power, imaging.noise[0, 1:9] * 20.0**2, rtol=1e-4)
    assert (report.image_power[:3] > report.noise_power[:3]).all()
    for part in ("300 images", "box 16 px at 20", "40 Å", "float16, whitened", "median", "evenness"):
        assert part in repr(report)
    figure = ct.plotting.preparation(report)
    texts = [axis.get_xlabel() for axis in figure.axes]
    assert "defocus (µm)" in texts


def test_the_command(raw, tmp_path, capsys):
    output, picture = tmp_path / "out" / "p.star", tmp_path / "p.png"
    arguments = ["prepare", str(raw.where), "--output", str(output), "--contrast", "dark"]
    assert main([*arguments, "--box-size", "16", "--dtype", "float32", "--no-whiten", "--picture", str(picture)]) == 0
    assert "float32, grey values as recorded" in capsys.readouterr().out
    assert picture.stat().st_size > 10_000
    assert Particles.read(output, contrast="dark").box_size == 16
    assert main([*arguments, "--box-size", "64", "--overwrite"]) == 2
    assert "at most 32 pixels" in capsys.readouterr().err


def test_every_processor_is_used_by_default():
    assert 1 <= preparing._processors() <= (os.cpu_count() or 1)


def test_what_a_crash_cut_off_is_gone_before_more_is_noted(raw, tmp_path, monkeypatch, small_chunks):
    """Otherwise the next line would be appended to it, and a third attempt could read neither."""
    journal = tmp_path / ".p.unfinished.jsonl"
    for count in (2, 1):
        with monkeypatch.context() as patch:
            interrupted_after(patch, count)
            with pytest.raises(KeyboardInterrupt):
                ct.prepare(raw, tmp_path / "p.star", 16, workers=1, progress=False)
        with open(journal, "a") as file:
            file.write('{"chunk": 5, "mea')
    interrupted_after(monkeypatch, 3)
    assert ct.prepare(raw, tmp_path / "p.star", 16, **QUIET).n == 300


def test_the_scale_of_half_precision_is_undone(tmp_path):
    """A spike of 10^6 noise amplitudes is divided by a power of two for storage, and read back at its full height."""
    particles = ct.simulate.assembly(8, 16, snr=0.5, progress=False)
    images = particles.images(slice(None)).copy()
    images[3, 8, 8] = 1e6 * images.std()
    spiked = Particles(images, particles.rotations, particles.shifts, particles.ctf, pixel_size=particles.pixel_size)
    ct.prepare(spiked, tmp_path / "p.star", whiten=False, workers=1, progress=False)
    prepared = read(tmp_path / "p.star")
    assert prepared.whitening.scale[3] > 1
    back = prepared.unwhitened([2, 3]).numpy()
    ratio = np.ptp(back[1]) / np.ptp(back[0])
    assert ratio == pytest.approx(np.ptp(images[3]) / np.ptp(images[2]), rel=0.05)


def test_the_level_outside_the_particle_is_taken_off(tmp_path):
    """A dark disc on a noisy background of 50 is stored with the background, not the image mean, at zero."""
    particles = ct.simulate.assembly(40, 32, pixel_size=10.0, snr=0.5, progress=False)
    radius = np.hypot(*(np.indices((32, 32)) - 16))
    noise = np.random.default_rng(0).normal(size=(40, 32, 32))
    images = (50 - 30 * (radius < 9) + noise).astype(np.float32)
    parts = (particles.rotations, particles.shifts, particles.ctf)
    ct.prepare(Particles(images, *parts, pixel_size=10.0), tmp_path / "p.star", workers=1, progress=False, whiten=False)
    with mrcfile.open(tmp_path / "p.mrcs") as file:
        stored = file.data.astype(np.float64)
    background, particle = stored[:, radius > 15.5].mean(), stored[:, radius < 8].mean()
    assert abs(background) < 0.02 * abs(particle)
