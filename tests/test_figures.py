"""The figures of the paper by one call."""

import json
from types import SimpleNamespace

import pytest
import torch

import cryotwin_nb as ct
from cryotwin_nb.cli.main import main
from cryotwin_nb.demo.paper import FIGURES, make_figures, making, paths
from cryotwin_nb.demo.paper.sources import Method, Sources
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.plotting.colours import state_colours


@pytest.fixture
def few(monkeypatch):
    particles = ct.simulate.assembly(400, 16, pixel_size=20.0, snr=1.0, seed=0, progress=False)
    monkeypatch.setattr(making.data, "fetch", lambda name: particles)
    return particles


def test_figures_are_drawn_once_and_captioned_with_the_paper_s_numbers(few, tmp_path, capsys):
    models = tmp_path / "models"
    models.mkdir()
    tiny = {"width": 8, "depth": 1, "n_features": 8}
    for kind, part, options in (("subspace", "", {}), ("coordinate", "-coordinate", tiny)):
        model = ct.CryoTwin(16, kind, 2, n_components=13, **options)
        model.imaging.measure(few)
        if kind == "subspace":
            model.networks.basis.normal_(generator=torch.Generator().manual_seed(0))
        model.save(models / f"assembly-small{part}.safetensors")
    output = tmp_path / "figures"
    assert main(["figures", "--output", str(output), "--models", str(models), "--only", "4", "1"]) == 0
    made = {path.name for path in output.iterdir() if not path.name.startswith(".")}
    assert made == {f"fig{n}.{kind}" for n in "14" for kind in ("svg", "png")} | {"captions.md", "figures.json"}
    captions = (output / "captions.md").read_text()
    assert captions.index("Fig. 1") < captions.index("Fig. 4")
    assert "paper 0.77" in captions
    (output / "fig1.svg").unlink()
    capsys.readouterr()
    make_figures(output, only=["1", "4"], models=models)
    printed = capsys.readouterr().out
    assert "Fig. 4: already there" in printed
    assert "Fig. 1 (1 of 2)" in printed
    assert (output / "fig1.svg").exists()
    assert set(json.loads((output / "figures.json").read_text())) == {"1", "4"}


def test_a_model_that_finds_no_variation_is_named_and_left_out(few, tmp_path, capsys, monkeypatch):
    models = {name: ct.CryoTwin(16, "subspace", 2, n_components=2) for name in ("subspace", "coordinate")}
    for model in models.values():
        model.imaging.measure(few)
    models["subspace"].networks.basis.normal_(generator=torch.Generator().manual_seed(0))
    models["coordinate"].embed = lambda particles: torch.zeros(len(particles), 2)
    monkeypatch.setattr(making, "obtain", lambda *settings: dict(models))
    make_figures(tmp_path, only=["4"], models=tmp_path)
    assert "coordinate: no variation is found in these images" in capsys.readouterr().out
    assert "coordinate" not in (tmp_path / "captions.md").read_text()
    models["subspace"].embed = models["coordinate"].embed
    with pytest.raises(ct.InputError, match="no variation in the images"):
        make_figures(tmp_path, only=["4"], models=tmp_path, overwrite=True)


def test_cryodrgn_has_rows_with_its_stored_maps_in_the_figures_of_paths(few, monkeypatch):
    states, labels = tuple(few.truth.states), few.truth.labels
    places = torch.tensor([[10.0 * i, 4.0 * (i % 3)] for i in range(len(states))])
    z = places[[states.index(label) for label in labels]]
    z = z + 0.5 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    own = torch.arange(len(states))[:, None, None, None].expand(-1, 16, 16, 16).float()
    normal = GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None])
    method = Method("cryoDRGN", z, normal, {}, places, stored={"state_maps": own.numpy()})
    sources = Sources(few, labels, ~few.truth.between, states, {"cryoDRGN": method}, "")
    drawn, maps = [], SimpleNamespace(seed=0)
    monkeypatch.setattr(paths, "draw_rows", lambda figure, rows, *settings, **options: drawn.append(rows))
    monkeypatch.setattr(paths, "_graph", lambda sources, figure: "")
    _, caption = paths.short_paths(sources, maps)
    assert [row[0] for row in drawn[0]] == ["cryoDRGN\nAlgorithm 1", "cryoDRGN\nmax_flux"]
    assert "C2 to E4, cryoDRGN, max_flux: " in caption
    first, last = (float(drawn[0][1][1][k].mean()) for k in (0, -1))
    assert (states[int(first)], states[int(last)]) == ("C2", "E4")
    paths.joined_paths(sources, maps)
    assert len(drawn[-1]) == 4
    assert [states[int(volume.mean())] for volume in drawn[-1][0][1][::2]] == ["B", "C2", "E1", "E2", "E4", "E5"]


def test_an_unknown_figure_is_refused_before_any_work(tmp_path):
    with pytest.raises(ct.InputError, match="figure"):
        make_figures(tmp_path / "figures", only=["7"])
    assert not (tmp_path / "figures").exists()
    assert set(FIGURES) == {"1", "2a", "2b", "2c", "2d", "3", "4", "5", "6"}


def test_a_state_has_one_colour_and_states_of_a_letter_one_hue():
    colours = state_colours(["B", "C1", "C2", "D1", "E5"])
    assert len(set(colours.values())) == 5
    assert colours == state_colours(["E5", "D1", "C2", "C1", "B"])
    for names in ([f"S{i}" for i in range(1, 20)], [str(i) for i in range(30)], list("ABCDEFGHIJ")):
        assert len(set(state_colours(names).values())) == len(names)
    grey = state_colours(["B", "unnamed"])
    assert list(grey) == ["B", "unnamed"] and grey["unnamed"] == "#999999"
