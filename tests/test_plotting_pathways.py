"""Figures of routes show the shares and numbers passed to them; movies are written completely or not at all."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.animation import FFMpegWriter
from PIL import Image

from cryotwin_nb.errors import InputError
from cryotwin_nb.imaging.fourier import grid
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways import PathConfidence, Route, State, profile
from cryotwin_nb.pathways.ridgeline import pathway_from_knots
from cryotwin_nb.plotting.movie import write_movie
from cryotwin_nb.plotting.pathways import path_profile, route_graph

matplotlib.use("agg")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _figures_closed():
    yield
    plt.close("all")


def routes(*ways: tuple[str, float]) -> list[Route]:
    """Return routes from the letters of their states, with shares."""
    places = {"A": (0.0, 0.0), "B": (4.0, 3.0), "C": (4.0, -3.0), "D": (6.0, 0.0), "E": (10.0, 0.0)}
    states = {
        n: State(n, torch.tensor(p).double(), (i,), 0.1 + 0.05 * i, 0.0) for i, (n, p) in enumerate(places.items())
    }
    empty = torch.zeros(2, 2)
    return [
        Route(empty, empty, empty[0], 0.0, 0.0, share=share, states=tuple(states[n] for n in way))
        for way, share in ways
    ]


def words(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def blobs(n: int = 3, size: int = 16) -> torch.Tensor:
    """Return maps of a growing ball."""
    squared = grid(size, 3).float().square().sum(-1)
    return torch.stack([torch.exp(-squared / (2 * (2 + 0.5 * k) ** 2)) for k in range(n)])


# The graph of routes


def test_the_graph_has_each_state_once_and_the_shares_on_its_lines():
    ax = route_graph(routes(("ABE", 0.5), ("ABDE", 0.2), ("ACE", 0.3)), names={"B": "half"})
    texts = words(ax)
    assert sorted(t for t in texts if "%" not in t) == ["A", "C", "D", "E", "half"]
    assert sorted(t for t in texts if "%" in t) == sorted(["70%", "50%", "20%", "20%", "30%", "30%"])
    widths = sorted(line.get_linewidth() for line in ax.lines)
    assert widths == pytest.approx([1 + 16 * share for share in (0.2, 0.2, 0.3, 0.3, 0.5, 0.7)])
    x = {t.get_text(): t.xy[0] for t in ax.texts if "%" not in t.get_text()}
    assert x["A"] == 0 and x["E"] == 1 and x["half"] < x["D"]


def test_routes_apart_stand_in_rows_apart():
    y = {t.get_text(): t.xy[1] for t in route_graph(routes(("ABE", 0.6), ("ACE", 0.4))).texts}
    assert y["B"] != y["C"] and y["A"] == y["E"]
    assert len(words(route_graph(routes(("ABE", 1.0))))) == 5


def test_states_are_shown_as_their_maps_at_one_contour():
    asked = []

    def decode(z):
        asked.append(z)
        return blobs(len(z))

    ax = route_graph(routes(("ABE", 0.6), ("ACE", 0.4)), decode)
    assert len(asked) == 1 and asked[0].shape == (4, 2) and asked[0].dtype == torch.float32
    pictures = [a.offsetbox.get_data() for a in ax.artists]
    assert len(pictures) == 4 and len({p.shape for p in pictures}) == 1 and pictures[0].shape[2] == 4
    solid = [float(p[..., 3].mean()) for p in pictures]
    assert solid == sorted(solid) and solid[0] < 0.7 * solid[-1]
    assert {"A (10%)", "B (15%)", "C (20%)", "E (30%)"} <= set(words(ax))
    ax.figure.canvas.draw()


def test_a_graph_of_nothing_is_refused():
    with pytest.raises(InputError, match="no routes"):
        route_graph([])


# Profiles


def test_the_profile_shows_energies_and_counts():
    means = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    prior = GaussianMixture([0.5, 0.5], means, torch.eye(2).expand(2, 2, 2))
    found = profile(pathway_from_knots(prior, means, 5), prior, prior.sample(300))
    confidence = PathConfidence(
        **{"latents": torch.zeros(101, 6, 2), "radius": np.zeros(6)},
        **{n: np.linspace(1.05, 1.95, 101) for n in ("log_cost", "barrier", "line_barrier")},
    )
    figure = path_profile(found, confidence)
    top, bottom = figure.axes[:2]
    lines = [np.column_stack(line.get_data()) for line in top.lines]
    assert any(len(xy) == len(found.energy) and np.allclose(xy[:, 1], found.energy) for xy in lines)
    assert [bar.get_height() for bar in bottom.patches] == found.counts.tolist()
    assert words(bottom) == [str(c) for c in found.counts]
    shown = " ".join(t.get_text() for t in top.get_legend().get_texts())
    assert "1.1 to 1.9 nats" in shown
    assert "nats" in top.get_ylabel()
    assert not top.child_axes, "a second axis in kT would be a free energy"
    figure.canvas.draw()
    path_profile(found).canvas.draw()


# Movies


def frames(file) -> list[np.ndarray]:
    with Image.open(file) as movie:
        read = []
        for k in range(movie.n_frames):
            movie.seek(k)
            read.append(np.asarray(movie.convert("RGB"), dtype=float))
    return read


def small(file, maps, **options):
    return write_movie(file, maps, 2.0, size=60, **options)


@pytest.mark.parametrize(("n_maps", "n_between", "n_frames"), [(3, 2, 12), (4, 0, 6), (2, 1, 4)])
def test_a_movie_goes_there_and_back(tmp_path, n_maps, n_between, n_frames):
    """(n - 1) (b + 1) + 1 frames forward, and all of them except the two ends backward."""
    file = small(tmp_path / "path.gif", blobs(n_maps), n_between=n_between, reference=None)
    assert file == tmp_path / "path.gif" and [p.name for p in tmp_path.iterdir()] == ["path.gif"]
    with Image.open(file) as movie:
        assert movie.format == "GIF"
    pictures = frames(file)
    assert len(pictures) == n_frames and len({p.shape for p in pictures}) == 1
    dark = [float((p.min(axis=2) < 245).mean()) for p in pictures]
    assert int(np.argmax(dark)) == n_frames // 2 and dark[0] < dark[n_frames // 2]  # the largest ball is in the middle
    assert dark[1] == pytest.approx(dark[-1], abs=0.01)


def test_a_movie_has_the_titles_the_turn_and_the_colours_asked_for(tmp_path):
    maps = blobs(2)
    maps[:, :, :, 10:] *= 0.2  # not round
    plain = frames(small(tmp_path / "plain.gif", maps, reference=None, n_between=0))
    turned = frames(small(tmp_path / "turned.gif", maps, reference=None, n_between=0, turn=90))
    assert turned[1].shape != plain[1].shape or np.abs(turned[1] - plain[1]).max() > 100
    coloured = frames(small(tmp_path / "coloured.gif", maps, n_between=0))

    def saturation(picture):
        return float((picture.max(axis=2) - picture.min(axis=2)).max())

    assert saturation(coloured[1]) > saturation(plain[1]) + 30
    named = frames(small(tmp_path / "named.gif", maps, reference=None, n_between=0, titles=["first", "WWWWWW"]))
    top = slice(0, named[0].shape[0] // 5)
    assert (named[1][top] < 128).sum() > (named[0][top] < 128).sum()


def test_one_map_is_a_picture(tmp_path):
    assert len(frames(small(tmp_path / "one.GIF", blobs(1)))) == 1


def test_other_endings_and_a_missing_ffmpeg_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"'\.avi'.*\.gif or \.mp4"):
        small(tmp_path / "path.avi", blobs(2))
    monkeypatch.setattr(FFMpegWriter, "isAvailable", classmethod(lambda cls: False))
    with pytest.raises(InputError, match=r"(?s)needs ffmpeg.*write a \.gif"):
        small(tmp_path / "path.mp4", blobs(2))
    with pytest.raises(InputError, match="shape"):
        small(tmp_path / "path.gif", torch.zeros(4, 4))
    with pytest.raises(InputError, match="titles"):
        small(tmp_path / "path.gif", blobs(3), titles=["one"])
    with pytest.raises(InputError, match="'previous'"):
        small(tmp_path / "path.gif", blobs(3), reference="previous")
    with pytest.raises(InputError, match=r"the folder .* does not exist"):
        small(tmp_path / "none" / "path.gif", blobs(2))
    assert list(tmp_path.iterdir()) == [] and plt.get_fignums() == []


@pytest.mark.skipif(not FFMpegWriter.isAvailable(), reason="no ffmpeg")
def test_an_mp4_is_written(tmp_path):
    assert small(tmp_path / "path.mp4", blobs(2)).stat().st_size > 500


def test_a_failure_leaves_neither_file_nor_figure_and_the_former_movie(tmp_path, monkeypatch):
    file = small(tmp_path / "path.gif", blobs(2))
    before = file.read_bytes()
    monkeypatch.setattr("cryotwin_nb.plotting.movie.FuncAnimation", lambda *a, **k: SimpleNamespace(save=failing))
    with pytest.raises(RuntimeError, match="disk"):
        small(file, blobs(3))
    assert [p.name for p in tmp_path.iterdir()] == ["path.gif"] and file.read_bytes() == before
    assert plt.get_fignums() == []


def failing(file, **_):
    with open(file, "wb") as partial:
        partial.write(b"GIF89a")
    raise RuntimeError("disk")
