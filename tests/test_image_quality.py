"""Bad images among good ones: hot pixels are replaced, images unlike the others are set aside, scales equalised."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main as cryotwin
from cryotwin_nb.errors import InputError
from cryotwin_nb.exchange.latents_record import recorded_status
from cryotwin_nb.formats.origins import chain_of, record_of, save
from cryotwin_nb.imaging.artefacts import Meter, mend, spikes
from cryotwin_nb.particles.quality import cleaned, usable

N, SIZE = 400, 24
GOOD = ct.simulate.hinge(N, SIZE, seed=4, progress=False)
IMAGES = GOOD.images(slice(None))
STD = float(IMAGES.std())
RAMP = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)


def with_images(images: np.ndarray, group: np.ndarray | None = None) -> ct.Particles:
    views = GOOD.rotations, GOOD.shifts, GOOD.ctf
    return ct.Particles(images, *views, pixel_size=GOOD.pixel_size, truth=GOOD.truth, optics_group=group)


def spoiled(**changes) -> ct.Particles:
    """Return the particles with other images in the rows of `changes`, named like r12."""
    images = IMAGES.copy()
    for name, image in changes.items():
        images[int(name[1:])] = image
    return with_images(images)


def hot(row: int, sigma: float, *pixels: tuple[int, int]) -> np.ndarray:
    image = IMAGES[row].copy()
    for pixel in pixels:
        image[pixel] = sigma * STD
    return image


SET_ASIDE = {
    "ten times the scale": (lambda x: 10 * x, "noise level"),
    "a third of the scale": (lambda x: x / 3, "noise level"),
    "negative and large": (lambda x: -1e4 * x, "noise level"),
    "zero": (lambda x: 0 * x, "constant"),
    "one value": (lambda x: 0 * x + 7, "constant"),
    "ramp along y": (lambda x: x + 10 * STD * RAMP[:, None], ""),
    "ramp along x": (lambda x: x - 6 * STD * RAMP, "gradient or edge"),
    "carbon edge": (lambda x: x + 3 * STD * (np.arange(SIZE) < 9), "gradient or edge"),
    "corner": (lambda x: x + 4 * STD * np.outer(np.arange(SIZE) > 15, np.arange(SIZE) > 15), "gradient or edge"),
}


@pytest.mark.parametrize(("change", "reason"), SET_ASIDE.values(), ids=SET_ASIDE)
def test_images_unlike_the_others_are_set_aside_and_named(change, reason):
    particles = spoiled(r31=change(IMAGES[31]).astype(np.float32))
    quality = ct.image_quality(particles)
    assert list(quality.reasons) == [31] and reason in quality.reasons[31]
    assert quality.status[31] == "set aside" and (np.delete(quality.status, 31) == "good").all()
    with pytest.warns(UserWarning, match="1 of 400 images are set aside.*image 31"):
        assert len(usable(particles)) == N - 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        usable(particles)  # told once


@pytest.mark.parametrize("sigma", [40, 100, 1e3, -300, 8e5])
@pytest.mark.parametrize("pixels", [[(12, 12)], [(0, 0)], [(3, 23)], [(9, 9), (9, 10), (10, 9), (10, 10)]])
def test_hot_pixels_are_replaced_by_noise_and_nothing_else_changes(sigma, pixels):
    particles = spoiled(r7=hot(7, sigma, *pixels))
    quality = ct.image_quality(particles)
    assert not quality.reasons and quality.hot_pixels[7] >= len(pixels) and quality.hot_pixels.sum() < 7
    mended = cleaned(particles, np.arange(N)).numpy()
    assert np.abs(mended[7]).max() < 1.2 * np.abs(IMAGES).max()
    changed = mended[7] != IMAGES[7]
    assert changed.sum() <= quality.hot_pixels[7] and all(changed[pixel] for pixel in pixels)
    np.testing.assert_array_equal(np.delete(mended, 7, 0), np.delete(IMAGES, 7, 0))
    assert quality.status[7] == "mended"


def test_a_spot_of_many_pixels_is_not_replaced():
    image = hot(7, 60, *((y, x) for y in range(4, 10) for x in range(4, 10)))
    quality = ct.image_quality(spoiled(r7=image))
    assert list(quality.reasons) == [7]
    np.testing.assert_array_equal(cleaned(spoiled(r7=image), np.array([7]))[0], image)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GOOD,
        lambda: ct.simulate.assembly(1000, 32, seed=3, contrast_std=0.25, progress=False),
        lambda: ct.simulate.hinge(600, 32, snr=1000.0, progress=False),
        lambda: ct.simulate.assembly(600, 32, snr=100.0, progress=False),
        lambda: with_images(IMAGES * np.random.default_rng(0).lognormal(0, 0.3, (N, 1, 1)).astype(np.float32)),
        lambda: with_images(IMAGES + np.random.default_rng(0).normal(0, 1e3, (N, 1, 1)).astype(np.float32)),
    ],
    ids=["hinge", "contrast", "little noise", "less noise", "levels that vary", "means that vary"],
)
def test_good_images_are_kept(make):
    quality = ct.image_quality(make())
    assert not quality.reasons and not quality.hot_pixels.any() and (quality.scale == 1).all() and not quality.scaled


def test_three_in_a_hundred_of_all_kinds_are_named_and_no_others():
    rng = np.random.default_rng(1)
    rows = rng.choice(N, 12, replace=False)
    changes = [change for change, _ in SET_ASIDE.values()]
    new = {f"r{row}": changes[i % len(changes)](IMAGES[row]) for i, row in enumerate(rows[:9].tolist())}
    new |= {f"r{row}": hot(row, 200, (int(rng.integers(SIZE)), 5)) for row in rows[9:].tolist()}
    status = ct.image_quality(spoiled(**new)).status
    assert set(np.flatnonzero(status != "good")) == set(rows.tolist())


def test_training_is_that_without_the_bad_images():
    """To the bit: they have weight 0, but latents."""
    rows = np.array([3, 77, 150])
    particles = spoiled(r3=30 * IMAGES[3], r77=0 * IMAGES[77], r150=IMAGES[150] + 8 * STD * RAMP)[: N // 2]
    without = GOOD[np.setdiff1d(np.arange(N // 2), rows)]

    def trained(on: ct.Particles) -> ct.CryoTwin:
        model = ct.CryoTwin(SIZE, latent_dim=2, n_components=3, n_basis=3)
        ct.fit(model, on, ct.TrainingConfig(epochs=1, device="cpu"), progress=False)
        return model

    with pytest.warns(UserWarning, match="3 of 200 images are set aside"):
        one = trained(particles)
    two = trained(without)
    for name, value in two.state_dict().items():
        torch.testing.assert_close(one.state_dict()[name], value, rtol=0, atol=0, msg=name)
    z = one.embed(particles)
    assert z.shape == (N // 2, 2) and bool(z.isfinite().all())
    torch.testing.assert_close(z[np.setdiff1d(np.arange(N // 2), rows)], two.embed(without), rtol=1e-4, atol=1e-4)


def test_too_many_are_an_error():
    images = IMAGES.copy()
    images[::2] *= 100
    with pytest.raises(InputError, match=r"200 of 400 images unlike the others.*other noise level"):
        ct.fit(
            ct.CryoTwin(SIZE, latent_dim=2, n_components=4),
            with_images(images),
            ct.TrainingConfig(device="cpu"),
            progress=False,
        )
    with pytest.raises(InputError, match="unlike the others"):
        ct.first_look(with_images(images))
    with pytest.raises(InputError, match="unlike the others"):
        ct.reconstruct(with_images(images))


@pytest.mark.parametrize("factor", [0.3, 3.0, 100.0])
def test_optics_groups_are_brought_to_one_scale(factor):
    group = np.arange(N) % 2
    particles = with_images(IMAGES * np.where(group, factor, 1)[:, None, None].astype(np.float32), group)
    quality = ct.image_quality(particles)
    assert not quality.reasons and f"factor of {max(factor, 1 / factor):.2g}" in quality.scaled
    ratio = quality.scale[group == 1].mean() * factor / quality.scale[group == 0].mean()
    assert ratio == pytest.approx(1, abs=0.02)
    spread = cleaned(particles, np.arange(N)).std((1, 2))
    assert float(spread.max() / spread.min()) < 2


def test_micrographs_are_brought_to_one_scale(tmp_path):
    scale = np.where(np.arange(N) // 20 % 3 == 1, 3.0, 1.0)[:, None, None].astype(np.float32)
    with_images(IMAGES * scale).write(tmp_path / "p.star", progress=False)
    lines, row = (tmp_path / "p.star").read_text().splitlines(), 0
    last = max(i for i, line in enumerate(lines) if line.startswith("_rln"))
    for i, line in enumerate(lines):
        if "@" in line:
            lines[i], row = f"{line} m{row // 20}.mrc", row + 1
    lines.insert(last + 1, "_rlnMicrographName #99")
    (tmp_path / "p.star").write_text("\n".join(lines) + "\n")
    particles = ct.Particles.read(tmp_path / "p.star", contrast="dark")
    quality = ct.image_quality(particles)
    assert not quality.reasons and "micrographs differ by up to a factor of 3" in quality.scaled
    np.testing.assert_allclose(cleaned(particles, np.arange(N)), IMAGES, rtol=0.3, atol=0.3 * STD)


def test_subsets_have_the_quality_of_the_whole():
    particles = spoiled(r31=10 * IMAGES[31], r7=hot(7, 500, (3, 3)))
    quality = ct.image_quality(particles)
    few = particles[[7, 31, 40]]
    assert ct.image_quality(few).status.tolist() == ["mended", "set aside", "good"]
    assert ct.image_quality(few).names[1] == quality.names[31]
    assert np.abs(cleaned(few, np.array([0])).numpy()).max() < 20 * STD
    assert ct.image_quality(particles[:10]).reasons == {}


@pytest.mark.filterwarnings("ignore:.*(set aside|hot pixels)")
def test_first_look_names_them_and_finds_nothing_else():
    bad = spoiled(r9=hot(9, 1000, (12, 12)), r31=1000 * IMAGES[31], r40=0 * IMAGES[40])
    found = ct.first_look(bad)
    clean = [f.name for f in ct.first_look(GOOD).findings]
    assert [f.name for f in found.findings] == [*clean, "bad images"] and not found.findings[-1].is_problem
    assert "image 9 " in found.findings[-1].evidence and "image 31 " in found.findings[-1].evidence


def test_reconstructions_leave_them_out():
    particles = spoiled(r31=1e4 * IMAGES[31], r40=0 * IMAGES[40])
    with pytest.warns(UserWarning, match="set aside"):
        found = ct.reconstruct(particles, halves=np.arange(N) % 2)
    weights = np.ones(N)
    weights[[31, 40]] = 0
    expected = ct.reconstruct(GOOD, weights, halves=np.arange(N) % 2)
    assert float((found.map - expected.map).norm() / expected.map.norm()) < 0.02


@pytest.mark.filterwarnings("ignore:.*set aside")
def test_prepare_replaces_hot_pixels_before_cropping(tmp_path):
    particles = spoiled(r9=hot(9, 1000, (12, 12)), r31=20 * IMAGES[31])
    report = ct.prepare(particles, tmp_path / "p.star", 16, whiten=False, dtype="float32", progress=False)
    clean = ct.prepare(GOOD, tmp_path / "q.star", 16, whiten=False, dtype="float32", progress=False)
    assert report.suspicious[9] == "hot pixel" and "noise level" in report.suspicious[31]
    assert set(report.suspicious) - set(clean.suspicious) == {9, 31}
    stored, expected = (ct.Particles.read(r.path, contrast="dark").images(slice(None)) for r in (report, clean))
    assert np.abs(stored[9]).max() < 1.2 * np.abs(expected).max()
    np.testing.assert_allclose(np.delete(stored, [9, 31], 0), np.delete(expected, [9, 31], 0), atol=1e-5 * STD)


@pytest.mark.filterwarnings("default:.*set aside")
def test_the_commands_show_them(tmp_path, capsys):
    spoiled(r31=10 * IMAGES[31], r32=10 * IMAGES[32]).write(tmp_path / "p.star", progress=False)
    run, star = tmp_path / "run", str(tmp_path / "p.star")
    training = ["--contrast", "dark", "--latent-dim", "2", "--n-components", "2", "--epochs", "1", "--device", "cpu"]
    assert cryotwin(["train", star, "--output", str(run), *training]) == 0
    assert "2 of 400 images are set aside" in capsys.readouterr().err
    assert np.flatnonzero(recorded_status(run / "latents.npy", N) == "set aside").tolist() == [31, 32]
    model, latents = str(run / "model.safetensors"), ["--latents", str(run / "latents.npy")]
    assert cryotwin(["states", model, *latents]) == 0
    counts = capsys.readouterr().out
    assert (
        " particles, " in counts and sum(int(line.split()[-3]) for line in counts.splitlines() if "aside" in line) == 2
    )
    out = tmp_path / "s.star"
    everything = ["--near", str(run / "latents.npy"), "--n", str(N)]
    assert cryotwin(["select", model, star, *latents, *everything, "--contrast", "dark", "--output", str(out)]) == 0
    assert "2 of 400 images are set aside" in capsys.readouterr().out
    column = ct.Particles.read(out, contrast="dark", images=False).columns["cryotwinImageStatus"]
    assert np.flatnonzero(column == "set_aside").tolist() == [31, 32]
    listed = tmp_path / "s.pkl"
    assert cryotwin(["select", model, star, *latents, *everything, "--contrast", "dark", "--output", str(listed)]) == 0
    assert len(pickle.loads(listed.read_bytes())) == N


@pytest.mark.parametrize(
    "status", ['{"set aside": [400]}', '{"set aside": "x"}', "[1]", "no JSON", '{"mended": [[1e99]]}']
)
def test_a_record_with_another_status_is_refused(tmp_path, status):
    GOOD.write(tmp_path / "p.star", progress=False)
    particles = ct.Particles.read(tmp_path / "p.star", contrast="dark")
    chain = chain_of(particles.source, particles.source_rows)
    save(record_of(tmp_path / "z.npy"), chain, notes={"status": status})
    with pytest.raises(InputError, match="unreadable status of images"):
        recorded_status(tmp_path / "z.npy", N)


def test_the_explorer_can_colour_by_status():
    from cryotwin_nb.explorer.planes import to_colour_by

    particles = spoiled(r31=10 * IMAGES[31])
    prior, z = ct.GaussianMixture.fit(torch.randn(N, 2), 2), torch.randn(N, 2)
    assert "image status" not in to_colour_by(prior, z, None, particles, None)  # not known yet
    ct.image_quality(particles)
    assert to_colour_by(prior, z, None, particles, None)["image status"][31] == "set aside"


def test_measures_are_those_of_the_noise():
    noise = torch.randn(200, 64, 64, generator=torch.Generator().manual_seed(0)) * 3 + 5
    outside, inside, slope, spike = Meter(64).measure(noise).mean(0).tolist()
    assert outside == pytest.approx(3, rel=0.01) and inside == pytest.approx(3, rel=0.02)
    assert slope < 0.1 and 3 < spike < 5
    tilted = noise[:1] + 3 * torch.linspace(-1, 1, 64)
    assert float(Meter(64).measure(tilted)[0, 2]) > 0.5
    noise[0, 10, 20] = 300
    assert int(spikes(noise[:1])[1]) == 10 * 64 + 20
    assert mend(noise[0], 14.0)[1] == 1 and mend(noise[1], 14.0)[1] == 0
