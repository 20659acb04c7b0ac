"""Copies of an image are recognised and stay together: noise listed twice has no resolution."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.formats.copies import describe_copies, effective_copies, point_group, split_in_halves
from cryotwin_nb.formats.mrc_writing import write_stack
from cryotwin_nb.imaging.fsc import noise_deviation
from cryotwin_nb.imaging.masks import spherical_mask
from cryotwin_nb.preparation.alternatives import Alternatives
from cryotwin_nb.preparation.hypotheses import Sample
from cryotwin_nb.reconstruction.halves import measured

pytestmark = pytest.mark.usefixtures("one_thread")
GROUPS = ["C2", "C3", "C4", "C7", "D2", "D3", "D4", "D6", "D7", "T", "O", "I", "D12", "D30"]


def expanded(group: Rotation, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return identities and poses of n images, each once per element of a group, in random order."""
    poses, order = Rotation.random(n, rng=seed), np.random.default_rng(seed).permutation(n * len(group))
    rotations = np.stack([(g * pose).as_matrix() for pose in poses for g in group])
    rounded = rotations + np.random.default_rng(seed).normal(0, 1e-5, rotations.shape)  # as angles in files are
    return np.repeat(np.arange(n), len(group))[order], rounded[order]


@pytest.mark.parametrize("name", GROUPS)
def test_a_symmetry_expanded_set_is_named_by_its_group(name):
    """Groups of SciPy, in a frame of their own."""
    frame = Rotation.random(rng=3)
    text = describe_copies(*expanded(frame * Rotation.create_group(name) * frame.inv(), 20))
    assert f"list 20 images: a symmetry-expanded set ({name})" in text


def test_other_copies_are_described():
    poses = Rotation.random(6, rng=1).as_matrix()
    once, twice = np.arange(6), np.repeat(np.arange(3), 2)
    assert describe_copies(once, poses) is None
    assert "6 rows list 3 images: 3 rows are duplicates, with the same pose" in describe_copies(twice, poses[twice])
    assert "3 rows are duplicates" in describe_copies(twice, None)
    assert "two refinements" in describe_copies(twice, poses)
    assert point_group(Rotation.from_rotvec([[0, 0, 0.3]])) is None  # one rotation that closes to no group


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_in_one_half_set_and_the_halves_are_equal(seed):
    identity = np.random.default_rng(seed).integers(0, 50, 200)
    half = split_in_halves(identity, seed)
    for image in np.unique(identity):
        assert len(set(half[identity == image])) == 1
    images = {image: half[identity == image][0] for image in identity}
    assert abs(sum(images.values()) - len(images) / 2) <= 0.5
    once = split_in_halves(np.arange(99), seed)
    assert (once == np.random.default_rng(seed).permutation(99) % 2).all()


def star_of(folder, rows: list[tuple[int, np.ndarray]], images: np.ndarray, name="p.star", stack="s.mrcs"):
    """Write a STAR file that lists images with poses."""
    write_stack(folder / stack, [images], len(images), images.shape[1], 4.0)
    n = len(rows)
    columns = [np.full(n, value, np.float32) for value in (15000, 15000, 0, 300, 2.7, 0.1, 0)]
    listed, poses = images[[i for i, _ in rows]], np.stack([r for _, r in rows])
    single = ct.Particles(listed, poses, ctf=ct.CTF(*columns), pixel_size=4.0)
    single.write(folder / name, progress=False)
    text = (folder / name).read_text()
    for number, (image, _) in enumerate(rows, 1):
        text = text.replace(f"{number:06d}@{name.replace('.star', '.mrcs')}", f"{image + 1:06d}@{stack} ", 1)
    (folder / name).write_text(text)
    return folder / name


def noise(folder, kind: str, seed: int):
    images = np.random.default_rng(seed).normal(size=(300, 32, 32)).astype(np.float32)
    poses = Rotation.random(300, rng=seed)
    group = {"twice": Rotation.identity(2), "C3": Rotation.create_group("C3"), "once": Rotation.identity(1)}[kind]
    rows = [(i, (g * poses[i]).as_matrix()) for g in group for i in range(300)]
    return star_of(folder, rows, images)


@pytest.mark.parametrize(
    ("kind", "told"), [("twice", "300 rows are duplicates, with the same pose"), ("C3", "a symmetry-expanded set (C3)")]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pure_noise_has_no_resolution(tmp_path, kind, told, capsys):
    """Without keeping copies together the half maps of noise agree to .3 in every shell; ten seeds: benchmarks."""
    outside, once = 0, noise_deviation(spherical_mask(32, 0.4 * 32, 2))
    for seed in range(2):
        path = noise(tmp_path, kind, seed)
        with pytest.warns(UserWarning, match=re.escape(told)):
            particles = ct.Particles.read(path, contrast="dark")
        made, look = ct.reconstruct(particles, seed=seed), ct.first_look(particles, seed=seed)
        assert made.resolution == look.resolution == np.inf
        assert "agreement of the half maps: none, no better than of noise" in look.summary()
        (finding,) = (finding for finding in look.findings if told in finding.evidence)
        assert finding.evidence.startswith(f"{len(particles)} rows list 300 images")
        assert finding.is_problem == (kind == "twice") == (finding in look.problems)
        assert f"- {'must be mended' if kind == 'twice' else 'note'}: {finding.name}" in look.summary()
        for curve in (made.fsc, look.fsc):
            assert curve.noise == pytest.approx(once * (3**0.5 if kind == "C3" else 1))
            outside += int((np.abs(curve.correlation) > 3 * curve.noise)[3:].sum())
    assert outside <= 1
    assert main(["look", f"{path}", "--contrast", "dark", "--seed", "1", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["resolution_angstrom"] is None and said["findings"][-1]["is_problem"] == (kind == "twice")


def test_support_by_a_symmetry_expanded_set_is_as_uncertain_as_by_its_images():
    """A ball looks the same in every pose, so copies of an image give no new evidence on it."""
    made = ct.simulate.assembly(80, 16, snr=2.0, progress=False)
    made.shifts[:] = 0
    group = Rotation.create_group("C3")
    expanded = made[np.tile(np.arange(80), 3)]
    expanded.rotations = np.concatenate([g.as_matrix() @ made.rotations for g in group]).astype(np.float32)
    ball, z = spherical_mask(16, 2.0, 4.0), torch.randn(80, 2, generator=torch.Generator().manual_seed(0))

    def decode(points):
        return ball * (1 + points[:, :1, None, None] / 10)

    once, thrice = (
        ct.pathway_support(decode, p, z[:1], latents=torch.cat([z] * k), bandwidth=50.0, imaging=imaging)
        for imaging in [measured(made, 0.4)]
        for p, k in ((made, 1), (expanded, 3))
    )
    relative = (thrice.shell_error * thrice.scale) / (once.shell_error * once.scale)
    np.testing.assert_allclose(relative, 1, atol=0.02)
    inside = ball.numpy() > 0.5
    local = (thrice.local_error[0] * abs(thrice.scale[0]) / (once.local_error[0] * abs(once.scale[0])))[inside]
    assert np.median(local) == pytest.approx(1, abs=0.1)


def test_rows_per_image_are_counted_with_their_weights():
    identity = np.array([4, 4, 4, 7, 9, 9])
    assert effective_copies(np.ones(6), np.arange(6)) == 1
    assert effective_copies(np.ones(6), identity) == pytest.approx((9 + 1 + 4) / 6)
    assert effective_copies(np.array([1.0, 0, 0, 1, 0, 1]), identity) == 1
    assert effective_copies(np.array([2.0, 1, 0, 0, 0, 0]), identity) == pytest.approx(9 / 5)
    assert effective_copies(np.zeros(6), identity) == 1


def test_support_counts_an_image_listed_twice_once():
    made = ct.simulate.assembly(80, 16, snr=2.0, progress=False)
    twice = made[np.tile(np.arange(80), 2)]
    z = torch.as_tensor(made.truth.coordinates[:, :2]).float()

    def decode(points):
        return torch.stack([made.truth.volume(0)] * len(points)) * (1 + points[:, :1, None, None] / 10)

    single, double = (
        ct.pathway_support(decode, p, z[:2], latents=torch.cat([z] * k), bandwidth=50.0)
        for k, p in ((1, made), (2, twice))
    )
    assert single.n_effective.max() > 5
    np.testing.assert_allclose(double.n_effective, single.n_effective, rtol=1e-3)
    np.testing.assert_allclose(double.shell_error, single.shell_error, rtol=0.02)
    np.testing.assert_allclose(double.half_map_fsc, single.half_map_fsc, atol=0.01)


def test_a_list_given_twice_has_the_correlation_of_the_list(tmp_path):
    simulated = ct.simulate.assembly(300, 32, snr=2.0, progress=False)
    images, poses = simulated.images(slice(None)), simulated.rotations
    curves = []
    for repeats in (1, 2):
        path = star_of(tmp_path, [(i, poses[i]) for _ in range(repeats) for i in range(300)], images)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            curves.append(ct.reconstruct(ct.Particles.read(path, contrast="dark")).fsc.correlation)
    np.testing.assert_allclose(curves[1], curves[0], atol=0.01)


def test_the_first_look_keeps_copies_in_one_half_set(tmp_path):
    path = noise(tmp_path, "C3", 1)
    with pytest.warns(UserWarning, match="symmetry-expanded"):
        particles = ct.Particles.read(path, contrast="dark")
    sample = Sample(particles, len(particles), 32, seed=0)
    half = sample.half.numpy()
    assert all(len(set(half[particles.identity == image])) == 1 for image in np.unique(particles.identity))
    assert 0 < half.mean() < 1
    gains = torch.arange(900.0)
    assert Alternatives(sample, 0, None)._error(gains) == pytest.approx(float(gains.std()) / 300**0.5)
    assert sample.part(torch.arange(900) < 300).copies == 1


def test_the_share_of_flipped_images_is_not_more_certain_for_copies(monkeypatch):
    made = ct.simulate.assembly(100, 32, snr=2.0, progress=False)
    thrice = Sample(made[np.tile(np.arange(100), 3)], 300, 32, seed=0)
    error = thrice.flips(thrice.stated())[2]
    monkeypatch.setattr(Sample, "copies", 1.0)
    assert error == pytest.approx(3**0.5 * thrice.flips(thrice.stated())[2], rel=1e-4) and error > 0


def test_one_stack_under_two_names_holds_the_same_images(tmp_path):
    path = noise(tmp_path, "twice", 0)
    rows = path.read_text().split("@s.mrcs")
    path.write_text("@s.mrcs".join(rows[:301]) + f"@{tmp_path}/s.mrcs" + f"@{tmp_path}/s.mrcs".join(rows[301:]))
    with pytest.warns(UserWarning, match="300 rows are duplicates"):
        particles = ct.Particles.read(path, contrast="dark")
    assert len(particles.files) == 2 and len(set(particles.files.values())) == 1
    assert (particles.identity[:300] == particles.identity[300:]).all()


def test_copies_keep_their_number_through_subsets_and_metadata(tmp_path):
    path = noise(tmp_path, "twice", 0)
    with pytest.warns(UserWarning, match="duplicates"):
        particles = ct.Particles.read(path, contrast="dark")
    with pytest.warns(UserWarning, match="duplicates"):
        light = ct.Particles.read(path, images=False)
    assert (particles.identity[:300] == particles.identity[300:]).all()
    assert (light.identity[:300] == light.identity[300:]).all()
    some = np.array([3, 303, 7])
    assert (particles[some].identity == particles.identity[some]).all()
    assert (light[some].identity == light.identity[some]).all()
    assert len(np.unique(particles.identity)) == 300
