"""The explorer without a browser: messages are sent to it as by a page, and those to the page are recorded."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer import job, search
from cryotwin_nb.explorer.arguments import first_ends
from cryotwin_nb.explorer.job import Job, Stopped
from cryotwin_nb.explorer.packing import Packing, Stars
from cryotwin_nb.explorer.paths import find_paths
from cryotwin_nb.explorer.request import PathRequest
from cryotwin_nb.plotting.rendering import automatic_sigma, contour_level

SIZE = 16


def prior_of_three() -> ct.GaussianMixture:
    means = torch.tensor([[0.0, 0.0, 0.0], [4.0, 0.5, 0.0], [8.0, 0.0, 1.0]])
    return ct.GaussianMixture([0.5, 0.2, 0.3], means, 0.8 * torch.eye(3).expand(3, 3, 3))


def decode(z) -> torch.Tensor:
    """A ball that moves along x with the first latent and grows with the second."""
    z = torch.as_tensor(z).double()
    x = torch.arange(SIZE).double() - SIZE // 2
    across = (x - (z[:, :1] - 4) / 2)[:, None, None, :]
    away = across**2 + x[:, None, None] ** 2 + x[:, None] ** 2
    return torch.exp(-away / (8 + z[:, 1].abs()[:, None, None, None])).float()


def an_explorer(**options) -> ct.PathwayExplorer:
    prior = prior_of_three()
    return recorded(ct.PathwayExplorer(prior, prior.sample(600), decode, **({"voxel_size": 3.0} | options)))


@pytest.fixture
def explorer():
    return an_explorer()


def recorded(explorer: ct.PathwayExplorer) -> ct.PathwayExplorer:
    """Record the messages to the browser in `explorer.sent`."""
    explorer.sent = []
    explorer.send = lambda content, buffers=None: explorer.sent.append((content, buffers))
    return explorer


def ask(explorer, do: str, *buffers: bytes, wait: bool = True, **message) -> int:
    """Send a message as a page does; return its turn."""
    turn = ask.turn = getattr(ask, "turn", 0) + 1
    explorer._handle_custom_msg({"do": do, "turn": turn, **message}, [memoryview(part) for part in buffers])
    if wait:
        explorer.jobs.wait()
    return turn


def told(explorer, kind: str) -> list[dict]:
    """Return the messages of a kind that the page has received."""
    return [content for content, _ in explorer.sent if content["kind"] == kind]


def settings(explorer, **changes) -> dict:
    return explorer.session.request.as_dict() | changes


def test_one_message_holds_all_settings_and_the_answer_repeats_its_turn(explorer):
    explorer.set(method="Algorithm 1", n_steps=3)  # what code has set does not count
    turn = ask(explorer, "compute", settings=settings(explorer, start=2, end=1, method="MaxFlux", n_steps=4))
    expected = ct.max_flux(explorer.prior, 2, 1, 4)
    torch.testing.assert_close(explorer.path.latents, expected.latents)
    torch.testing.assert_close(explorer.maps, decode(expected.latents))
    kinds = [content["kind"] for content, _ in explorer.sent]
    assert kinds[0] == "begun" and kinds[-1] == "done"
    assert all(content["turn"] == turn for content, _ in explorer.sent if "turn" in content)
    (path,) = told(explorer, "path")
    assert (path["request"]["start"], path["request"]["n_steps"], path["n"]) == (2, 4, 5)
    assert [message["k"] for message in told(explorer, "map")] == [0, 1, 2, 3, 4]
    assert (
        told(explorer, "answer")[0]["profile"]["counts"]
        == ct.pathways.profile(expected, explorer.prior, explorer.latents).counts.tolist()
    )


def test_a_newer_request_replaces_an_older_one_whatever_thread_serves_it(explorer):
    """Fifty clicks from two threads: each answer is to the settings of its click, and the last one is shown."""
    ends = [(0, 2), (2, 0), (1, 2), (2, 1), (0, 1)]

    def click(number: int) -> None:
        start, end = ends[number % 5]
        message = {"do": "compute", "turn": number, "settings": settings(explorer, start=start, end=end, n_steps=2)}
        explorer._handle_custom_msg(message, [])

    for number in range(50):
        thread = threading.Thread(target=click, args=(number,))
        thread.start()
        thread.join()
        if number % 7 == 0:
            explorer.jobs.wait()
    explorer.jobs.wait()
    for content in told(explorer, "path"):
        start, end = ends[content["turn"] % 5]
        assert (content["request"]["start"], content["request"]["end"]) == (start, end)
    assert (explorer.path.start, explorer.path.end) == ends[49 % 5]
    assert told(explorer, "path")[-1]["version"] == explorer.session.version


def test_maps_travel_as_bytes_on_one_scale(explorer):
    ask(explorer, "compute", settings=settings(explorer, start=0, end=2))
    (path,) = told(explorer, "path")
    buffers = {content["k"]: parts[0] for content, parts in explorer.sent if content["kind"] == "map"}
    scale = path["maps"]
    assert (scale["size"], scale["full"], scale["voxel"]) == (SIZE, SIZE, 3.0)
    for k, volume in enumerate(explorer.maps):
        bytes_ = np.frombuffer(buffers[k], np.int8).reshape(SIZE, SIZE, SIZE)
        known = np.abs(bytes_) < 127
        found = bytes_ / scale["factor"] + scale["offset"]
        assert np.abs(found - volume.numpy())[known].max() <= 0.51 / scale["factor"]
    assert max(np.frombuffer(part, np.int8).max() for part in buffers.values()) > 95


def test_large_maps_are_binned_for_the_browser_only():
    volume = torch.zeros(1, 160, 160, 160)
    volume[:, 40:80, 60:100, 100:120] = 1.0
    packing = Packing.of(volume)
    packed = np.frombuffer(packing.pack(volume[0]), np.int8).reshape(80, 80, 80)
    assert packing.described(2.0) | {"size": 80, "full": 160, "voxel": 4.0} == packing.described(2.0)
    assert np.argwhere(packed > 0).min(0).tolist() == [20, 30, 50]
    assert np.argwhere(packed > 0).max(0).tolist() == [39, 49, 59]


def test_stars_show_their_molecule_before_any_path_and_are_decoded_once(explorer):
    asked = []
    explorer.session.model.stars.decode = lambda z: asked.append(len(z)) or decode(z)
    ask(explorer, "hello")
    stars = {content["component"]: parts[0] for content, parts in explorer.sent if content["kind"] == "star"}
    assert set(stars) == {0, 1, 2} and sum(asked) == 3
    assert told(explorer, "path") == [] and told(explorer, "states")[0]["states"][0]["id"] == "S1"
    ask(explorer, "star", component=1)
    assert sum(asked) == 3
    packing = explorer.session.model.stars.packing
    assert stars[1] == packing.pack(decode(explorer.prior.means[[1]])[0])
    ask(explorer, "star", component=7)
    assert told(explorer, "failed")[-1]["word"] == "Not possible."


def test_packed_maps_of_stars_stay_within_their_budget(monkeypatch):
    monkeypatch.setattr("cryotwin_nb.explorer.packing.BUDGET", 2 * SIZE**3)
    prior = prior_of_three()
    stars = Stars(decode, prior.means.float(), [0])
    for component in (0, 1, 2, 1):
        stars.of(component)
    assert list(stars._kept) == [2, 1]


@pytest.mark.parametrize("method", ["Algorithm 1", "MaxFlux", "All routes"])
def test_each_method_gives_its_path(explorer, method):
    explorer.set(method=method, n_steps=5).choose(0, 2).compute()
    assert explorer.path.latents.shape == (6, 3)
    assert explorer.maps.shape == (6, SIZE, SIZE, SIZE)
    assert {"Algorithm 1": "ridgeline", "MaxFlux": "MaxFlux", "All routes": "route"}[method] == explorer.path.method


def test_the_seed_reaches_algorithm_1():
    means = torch.tensor([[0, 0, 0], [3, 1, 0], [6, 0, 1], [8, 3, 2], [4, 4, -1.0]])
    prior = ct.GaussianMixture([0.3, 0.25, 0.2, 0.15, 0.1], means, torch.eye(3).expand(5, 3, 3))
    request = PathRequest(start=0, end=2, method="Algorithm 1", n_steps=4, omega=2.0, seed=7)
    (found,) = find_paths(request, prior, lambda: None)
    assert torch.equal(found.latents, ct.ridgeline(prior, 0, 2, 4, 2.0, seed=7).latents)
    assert not torch.equal(found.latents, ct.ridgeline(prior, 0, 2, 4, 2.0, seed=0).latents)


@pytest.mark.parametrize("method", ["MaxFlux", "Algorithm 1"])
def test_ends_and_way_points_are_stars_names_states_or_points(explorer, method):
    explorer.set(method=method, n_steps=6)
    states = {state.name: state for state in ct.find_states(explorer.prior)}
    explorer.choose("S1", 2, via=[1]).compute()
    torch.testing.assert_close(explorer.path.latents[-1], explorer.prior.means[2].float())
    apart = (explorer.path.curve - explorer.prior.means[1]).norm(dim=1).min()
    assert float(apart) < 1e-6 and len(explorer.path.latents) == 7
    start = states["S1"].latent if method == "MaxFlux" else explorer.prior.means[states["S1"].components[0]]
    torch.testing.assert_close(explorer.path.latents[0].double(), start, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match=r"name 'S77'.*one of S1"):
        explorer.choose("S77", 0)


def test_any_point_of_the_plane_is_an_end(explorer):
    turn = ask(explorer, "point", plane="PC 1, 2", xy=[0.5, -1.0])
    (point,) = told(explorer, "point")
    plane = explorer.session.model.planes["PC 1, 2"]
    apart = np.square(plane.place(explorer.latents) - [0.5, -1.0]).sum(1)
    torch.testing.assert_close(torch.tensor(point["latent"]), explorer.latents[int(apart.argmin())])
    assert point["turn"] == turn and told(explorer, "single")
    ask(explorer, "compute", settings=settings(explorer, start=point["latent"], end=2))
    torch.testing.assert_close(explorer.path.latents[0], torch.tensor(point["latent"]))
    ask(explorer, "compute", settings=settings(explorer, start=point["latent"], end=2, method="Algorithm 1"))
    assert "Choose stars or states" in told(explorer, "failed")[-1]["text"]
    ask(explorer, "plane", plane="latent 1, 2", settings=settings(explorer))
    ((latent, xy),) = told(explorer, "plane")[-1]["places"]
    np.testing.assert_allclose(xy, latent[:2], atol=1e-5)


def test_names_are_ends_too():
    explorer = an_explorer(labels={0: "B", 2: "E"})
    explorer.choose("E", "B").compute()
    assert (explorer.path.start, explorer.path.end) == (2, 0)
    assert told(explorer, "path")[0]["request"]["start"] == "E"


def test_a_route_is_chosen_from_the_list_without_finding_them_again(explorer, monkeypatch):
    explorer.choose(0, 2).compute()
    other = ct.ridgeline(explorer.prior, 0, 2)
    request, found = explorer.session.request, [explorer.path, other]
    explorer.session.show(*explorer.session.compute(request, lambda *_: None, 0, found))
    monkeypatch.setattr(search, "find_paths", lambda *a: pytest.fail("searched again"))
    ask(explorer, "route", chosen=1, version=explorer.session.version)
    assert explorer.path is other
    ask(explorer, "route", chosen=0, version=1)
    assert "Another path has been computed since" in told(explorer, "failed")[-1]["text"]


def test_the_first_ends_are_the_heaviest_components_with_different_names_if_they_have_any():
    assert first_ends([0.2, 0.5, 0.1, 0.2], {}, ()) == (1, 0)
    assert first_ends([0.2, 0.5, 0.1, 0.2], {0: "A", 1: "A", 3: "A"}, ()) == (1, 2)
    assert first_ends([0.2, 0.5, 0.1, 0.2], {0: "A", 1: "A", 3: "B"}, {1}) == (0, 3)
    assert first_ends([1.0], {}, ()) == (0, 0)


def test_undo_shows_former_paths_again(explorer):
    with pytest.raises(InputError, match="no former path"):
        explorer.undo()
    explorer.choose(0, 1).compute()
    first = explorer.path
    explorer.choose(0, 2).compute()
    assert told(explorer, "answer")[-1]["history"] == 1
    ask(explorer, "undo")
    assert explorer.path is first and told(explorer, "answer")[-1]["history"] == 0
    torch.testing.assert_close(explorer.maps, decode(first.latents))


def test_the_look_is_taken_from_the_page_unless_code_has_changed_it_since(explorer):
    explorer.choose(0, 2).compute()
    rev = explorer.card["rev"]
    look = explorer.session.look.as_dict() | {"step": 7, "sigma": 3.0}
    ask(explorer, "look", rev=rev, look=look, settings=settings(explorer, end=1))
    assert explorer.step == 7 and explorer.session.look.sigma == 3.0 and explorer.session.request.end == 1
    explorer.step = 2
    ask(explorer, "look", rev=rev, look=look, settings=settings(explorer))
    assert explorer.step == 2 and explorer.card["look"]["step"] == 2


@pytest.mark.parametrize(
    "look", [{"step": -1}, {"sigma": float("nan")}, {"plane": 3}, {"unknown": 1}, {"camera": {"a": "x"}}, [1], None]
)
def test_a_look_that_is_none_changes_nothing(explorer, look):
    before = explorer.session.look
    ask(explorer, "look", rev=explorer.card["rev"], look=look, settings=settings(explorer))
    assert explorer.session.look == before and told(explorer, "failed")[-1]["word"] == "Not possible."


def test_the_contour_begins_where_particle_and_solvent_part_and_is_one_for_all_maps(explorer):
    explorer.choose(0, 2).compute()
    reference = decode(explorer.prior.means)
    packing = explorer.session.model.stars.packing
    assert packing.sigma == pytest.approx(automatic_sigma(reference), abs=0.051)
    explorer.set(sigma=2.7)
    assert explorer.picture_of(explorer.session.answer, explorer.session.look).level == pytest.approx(
        contour_level(reference, 2.7), rel=1e-5
    )


@pytest.mark.parametrize("size", [24, 40, 64])
def test_the_automatic_contour_is_the_particles_surface_however_empty_the_box(size):
    x = torch.arange(size) - size // 2
    radius = (x**2 + x[:, None] ** 2 + x[:, None, None] ** 2).double().sqrt()
    noise = 0.05 * torch.randn(radius.shape, generator=torch.Generator().manual_seed(0))
    ball = torch.sigmoid(8 - radius) + noise
    inside = ball > contour_level(ball, automatic_sigma(ball))
    assert (3 * float(inside.sum()) / (4 * np.pi)) ** (1 / 3) == pytest.approx(8, abs=1)


def test_a_page_that_opens_later_gets_everything_again(explorer):
    explorer.choose(0, 2).set(step=5).compute()
    explorer.sent.clear()
    ask(explorer, "hello")
    assert [message["k"] for message in told(explorer, "map")][:3] == [5, 4, 6]
    assert len(told(explorer, "map")) == 12 and len(told(explorer, "path")) == len(told(explorer, "answer")) == 1


def test_nothing_of_the_maps_is_kept_in_the_notebooks_state(explorer):
    explorer._draw_first()
    explorer.choose(0, 2).compute()
    state = explorer.get_state()
    assert len(json.dumps({k: v for k, v in state.items() if k not in ("_esm", "_css")}, default=len)) < 20_000


def broken(z):
    raise RuntimeError("out of <memory>")


@pytest.mark.parametrize(
    ("decoder", "text"),
    [
        (broken, "RuntimeError: out of <memory>"),
        (lambda z: decode(z) * torch.nan, "NaN"),
        (lambda z: torch.zeros(len(z), 8, 8, 9), "one map for each latent"),
        (lambda z: torch.zeros(len(z), 8, 8, 8), "maps of 8 voxels, expected maps of 16 voxels"),
    ],
)
def test_a_decoder_that_fails_is_said_in_words_and_the_rest_goes_on(explorer, decoder, text):
    ask(explorer, "hello")
    explorer.choose(0, 1).compute()
    former = explorer.path
    explorer.session.model.search().decode = decoder
    turn = ask(explorer, "compute", settings=settings(explorer, start=0, end=2))
    failed = told(explorer, "failed")[-1]
    assert failed["turn"] == turn and text in failed["text"]
    assert explorer.path is former
    explorer.session.model.search().decode = decode
    ask(explorer, "compute", settings=settings(explorer, start=0, end=2))
    assert explorer.path is not former


def test_errors_are_said_in_words(explorer):
    turn = ask(explorer, "compute", settings=settings(explorer, start=1, end=1))
    (failed,) = told(explorer, "failed")
    assert failed["word"] == "Not possible." and "Choose two different stars" in failed["text"]
    assert failed["turn"] == turn
    with pytest.raises(InputError, match="Choose two"):
        explorer.choose(1, 1).compute()
    for message in ({"do": "compute"}, {"do": "compute", "settings": {"start": 0}}, {"do": "nothing"}, {}, None, "x"):
        explorer._handle_custom_msg(message, [])
        assert told(explorer, "failed")[-1]["word"] == "Not possible."


@pytest.mark.parametrize("dim", [1, 12])
@pytest.mark.parametrize("components", [1, 2])
def test_one_state_one_component_and_any_dimension(dim, components):
    means = 6.0 * torch.arange(components)[:, None] * torch.ones(dim)
    prior = ct.GaussianMixture(
        torch.full((components,), 1 / components), means, torch.eye(dim).repeat(components, 1, 1)
    )
    explorer = recorded(
        ct.PathwayExplorer(prior, prior.sample(50), lambda z: torch.rand(len(z), 8, 8, 8), voxel_size=1.0)
    )
    explorer._draw_first()
    ask(explorer, "hello")
    assert len(told(explorer, "star")) == components
    ask(explorer, "compute", settings=settings(explorer, n_steps=2))
    assert len(told(explorer, "path")) == components - 1
    for name in explorer.session.model.planes:
        ask(explorer, "plane", plane=name, settings=settings(explorer))
    assert len(told(explorer, "plane")) == len(explorer.session.model.planes)


def test_stopping_leaves_the_former_path(explorer):
    explorer.choose(0, 1).compute()
    former, began = explorer.path, threading.Event()

    def slow(z):
        began.set()
        time.sleep(0.5)
        return decode(z)

    explorer.session.model.search().decode = slow
    turn = ask(explorer, "compute", wait=False, settings=settings(explorer, start=0, end=2))
    assert began.wait(20)
    ask(explorer, "stop", wait=False, of=None)
    (failed,) = told(explorer, "failed")
    assert failed == {"kind": "failed", "of": "path", "turn": turn, "word": "Stopped.", "text": ""}
    assert explorer.path is former


def test_a_job_ends_once_and_can_be_stopped_late_or_twice():
    ended = []
    done = Job(lambda report: report(0.5, "half"), lambda share, text: ended.append(share), ended.append)
    assert done.wait(5)
    done.stop()
    assert ended == [0.5, None]
    endless = job.Job(lambda report: time.sleep(0.5), print, ended.append)
    time.sleep(0.05)
    endless.stop()
    endless.stop()
    assert endless.wait(5)
    assert isinstance(ended[-1], Stopped)


def test_work_that_was_stopped_breaks_off_where_it_reports_and_is_not_heard():
    heard, ended, going_on, stopped_there, began = [], [], threading.Event(), threading.Event(), threading.Event()

    def work(report):
        report(0.1, "begun")
        began.set()
        going_on.wait(5)
        try:
            report(0.9, "nearly done")
        except Stopped:
            stopped_there.set()
            raise

    stopped = Job(work, lambda share, text: heard.append(share), ended.append)
    assert began.wait(20)
    stopped.stop()
    going_on.set()
    assert stopped_there.wait(5)
    assert heard == [0.1] and len(ended) == 1 and isinstance(ended[0], Stopped)
