"""Recurring junk forms marked states, single junk is found for the right reason, and true states are never junk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.evaluation.image_fit import searched_poses
from cryotwin_nb.evaluation.junk_states import _halves, apart, judged, shared_part
from cryotwin_nb.evaluation.outliers import CUT, OutlierScores
from cryotwin_nb.simulate.images import random_rotations

pytestmark = pytest.mark.usefixtures("one_thread")
N, WRONG, TURNED = 640, 60, 20


def joined(*sets: ct.Particles) -> ct.Particles:
    """Return the images of several sets as one, without their truth, at the noise level of the first."""
    ctf = ct.CTF(*(np.concatenate(values) for values in zip(*(vars(s.ctf).values() for s in sets), strict=True)))
    parts = (np.concatenate([getattr(s, name) for s in sets]) for name in ("rotations", "shifts"))
    stacks = [s.images(slice(None)) for s in sets]
    images = np.concatenate([stack * (stacks[0][:, :3].std() / stack[:, :3].std()) for stack in stacks])
    return ct.Particles(images, *parts, ctf, pixel_size=sets[0].pixel_size)


@pytest.fixture(scope="module")
def mixed() -> tuple[ct.Particles, np.ndarray]:
    """640 images of a subunit of which 20 have a wrong pose, and 60 of another molecule; 0, 1 and 2 for each image."""
    good = ct.simulate.assembly(N, 32, seed=0, progress=False)
    other = ct.simulate.hinge(WRONG, 32, seed=1, snr=1.0, progress=False)
    particles = joined(good, other)
    particles.rotations[:TURNED] = random_rotations(TURNED, np.random.default_rng(3))
    return particles, np.repeat([1, 0, 2], [TURNED, N - TURNED, WRONG])


@pytest.fixture(scope="module")
def model(mixed) -> ct.CryoTwin:
    model = ct.CryoTwin(32, latent_dim=5, n_components=12)
    ct.fit(model, mixed[0], ct.TrainingConfig(epochs=1), progress=False)
    return model


@pytest.fixture(scope="module")
def scores(mixed, model) -> OutlierScores:
    return ct.outlier_scores(model, mixed[0])


def test_another_molecule_is_a_state_that_looks_like_junk(mixed, model, scores):
    kind = mixed[1]
    assert roc_auc_score(kind[kind != 1] == 2, scores.score[kind != 1]) > 0.99
    own = ct.pathways.states.assign(model.prior, scores.states, model.embed(mixed[0]))
    shares = np.array([[np.mean(kind[own == i] == k) for k in range(3)] for i in range(len(scores.states))])
    assert [state.junk for state in scores.states] == (shares[:, 0] < 0.5).tolist() and (shares[:, 2] > 0.5).any()
    assert all("no part of its map" in why for why, share in zip(scores.state_reasons, shares[:, 2]) if share > 0.5)


def test_images_at_a_wrong_pose_fit_another_one_better(mixed, scores):
    kind = mixed[1]
    assert roc_auc_score(kind[kind != 2] == 1, scores.parts[2][kind != 2]) > 0.95
    assert scores.parts[2][kind == 0].max() < CUT


def test_good_images_are_kept_and_everything_left_out_is_counted(mixed, scores):
    kind, kept = mixed[1], np.isin(np.arange(len(mixed[1])), scores.kept)
    assert kept[kind == 0].mean() > 0.98 and kept[kind == 2].mean() < 0.05
    lines = scores.describe()
    assert lines[0] == f"{kept.sum()} of {N + WRONG} images are kept"
    assert sum(int(line.split()[0]) for line in lines if "left out" in line) == (~kept).sum()
    assert any("looks like junk: no part" in line for line in lines)
    assert len(mixed[0][scores.kept]) == kept.sum()


def test_states_of_these_components_are_marked(model, scores):
    marked = [s for s in ct.find_states(model.prior, junk=scores.junk_components) if s.junk]
    assert marked and {c for s in marked for c in s.components} == set(scores.junk_components)
    assert all(s.title == f"{s.name} (looks like junk)" for s in marked)
    assert not any(s.junk for s in ct.find_states(model.prior))


def test_a_chain_of_similar_states_is_one_molecule():
    alike = np.full((4, 4), 0.1)
    alike[0, 1] = alike[1, 0] = alike[1, 2] = alike[2, 1] = 0.9
    assert apart(alike, np.array([50, 20, 20, 10])) == [3]
    assert apart(alike, np.array([10, 5, 5, 80])) == [0, 1, 2]
    alike[3] = alike[:, 3] = np.nan  # not resolved: no evidence against it
    assert apart(alike, np.array([50, 20, 20, 10])) == []
    assert apart(np.full((3, 3), 0.1), np.array([40, 30, 30])) == []  # no majority to compare with
    assert apart(np.zeros((0, 0)), np.zeros(0)) == []


def test_conformations_share_a_part_but_a_turned_copy_does_not():
    particles = ct.simulate.hinge(1000, 32, seed=2, progress=False)
    coordinates = particles.truth.coordinates.sum(1)
    starts, ends = (particles[np.flatnonzero(rows)] for rows in (coordinates < 0.1, coordinates > 1.9))
    turn = searched_poses(90.0)[5].numpy()
    turned = ct.Particles(starts.images(slice(None)), turn @ starts.rotations, starts.shifts, starts.ctf, pixel_size=10)
    first, second, third = (_halves(ct.reconstruct(part)) for part in (starts, ends, turned))
    assert shared_part(first, second, 0.4) > 0.6
    assert shared_part(first, third, 0.4) < 0.35


def test_the_searched_poses_are_rotations_about_ten_degrees_apart():
    poses = searched_poses()
    identity = poses @ poses.mT
    torch.testing.assert_close(identity, torch.eye(3).expand_as(identity), atol=1e-5, rtol=0)
    some = torch.as_tensor(random_rotations(200, np.random.default_rng(0)))
    trace = torch.einsum("nij,mij->nm", some, poses).amax(1)
    assert torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).acos()).max() < 11


def test_commands_mark_junk_and_leave_it_out(mixed, model, scores, tmp_path, capsys):
    mixed[0].write(tmp_path / "p.star", progress=False)
    model.history.junk = scores.junk_components
    model.save(tmp_path / "m.safetensors")
    assert ct.CryoTwin.load(tmp_path / "m.safetensors").history.junk == scores.junk_components
    assert main(["states", f"{tmp_path / 'm.safetensors'}", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["states"]
    assert [s["name"] for s in listed if s["looks_like_junk"]]
    assert main(["states", f"{tmp_path / 'm.safetensors'}"]) == 0
    assert capsys.readouterr().out.count("looks like junk") == sum(s["looks_like_junk"] for s in listed)
    given = [f"{tmp_path / 'm.safetensors'}", f"{tmp_path / 'p.star'}", "--contrast", "dark"]
    assert main(["select", *given, "--good", "--output", f"{tmp_path / 'good.star'}"]) == 0
    assert f"{len(scores.kept)} of {N + WRONG} images are kept" in capsys.readouterr().out
    assert len(ct.Particles.read(tmp_path / "good.star", contrast="dark")) == len(scores.kept)
    junk = next(s["name"] for s in listed if s["looks_like_junk"])
    main(["pathway", f"{tmp_path / 'm.safetensors'}", "--start", "S1", "--end", junk, "--output", f"{tmp_path / 'o'}"])
    assert f"{junk} looks like junk" in capsys.readouterr().err


def test_good_needs_images(tmp_path, capsys):
    latents = ["--latents", "z.npy", "--output", f"{tmp_path / 'good.star'}"]
    assert main(["select", "m.safetensors", "p.star", "--good", *latents]) == 2
    assert "Omit --latents" in capsys.readouterr().err


def test_stars_and_menus_mark_junk_and_do_not_start_there():
    prior = ct.GaussianMixture([0.5, 0.3, 0.2], torch.tensor([[0.0, 0], [4, 0], [8, 0]]), torch.eye(2).repeat(3, 1, 1))
    explorer = ct.PathwayExplorer(prior, prior.sample(50), lambda z: torch.zeros(len(z), 8, 8, 8), junk=[1])
    drawn = explorer.setup["components"]
    assert [star["junk"] for star in drawn] == [False, True, False]
    assert "looks like junk" in drawn[1]["tip"] and "junk" not in drawn[0]["tip"] + drawn[2]["tip"]
    assert (explorer.card["settings"]["start"], explorer.card["settings"]["end"]) == (0, 2)


def test_a_rare_state_is_judged_by_its_good_images_alone(mixed, model):
    """Most images there are noise, as in the middle of all latents; those that are not stay."""
    good = np.flatnonzero(mixed[1] == 0)
    own, alone = np.zeros(N + WRONG, np.int64), mixed[1] == 0
    own[good[:160]] = 1
    alone[good[50:160]] = False  # 110 images of noise, 50 others
    states = ct.find_states(model.prior)[:2]
    marked, reasons, foreign = judged(model, mixed[0], states, own, alone)
    assert not any(s.junk for s in marked) and not any(reasons) and not foreign
    alone[good[10:160]] = False
    marked, reasons, foreign = judged(model, mixed[0], states, own, alone)
    assert [s.junk for s in marked] == [False, True] and not foreign
    assert reasons[1] == "150 of its 160 images are junk"
