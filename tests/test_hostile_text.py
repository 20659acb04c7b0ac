"""Names, labels and titles are text: shown as they are in figures and pages, and harmless in scripts and STAR files."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import mrcfile
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

import cryotwin_nb as ct
from cryotwin_nb import evaluation, plotting
from cryotwin_nb.cli.main import main
from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import read_labels
from cryotwin_nb.formats.chimerax import write_session
from cryotwin_nb.formats.molviewspec import write_molviewspec
from cryotwin_nb.formats.mrc_writing import write_map
from cryotwin_nb.formats.pymol import write_pymol
from cryotwin_nb.pathways import Route, State
from cryotwin_nb.plotting.style import plain

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = [
    r"$\frac{$", "$x$", "$", "$$", "a$b$c", r"\$5", r"\alpha", "_hidden", "__", "#1", "50 %", "{0}", "%s", "a&b",
    "<b>B</b>", "<script>alert(1)</script>", '"quoted"', "O'Neill", "a; quit", "tab\there", "two\nlines", "\x1b[31mred",
    "n\x00l", "\x7f", "cr\rlf", "`ls`", "$(ls)", "../up", "a/b", "-rf", "@1", " lead", "lone \udcff", "Å°µ",
    "$\\mathrm{}$", "x" * 200,
]  # fmt: skip
IDS = [ascii(name)[:20] for name in NAMES]
hostile = pytest.mark.parametrize("name", NAMES, ids=IDS)


# ----------------------------------------------------------------------------------------------------------- figures


def plain_texts(figure: Figure) -> list[str]:
    """Draw a figure and return the texts that are not typeset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the font lacks a glyph
        FigureCanvasAgg(figure).draw()
    found = figure.findobj(Text)
    return [text.get_text() for text in found if not text.get_parse_math() and not text.get_usetex()]


def prior_of_two() -> ct.GaussianMixture:
    return ct.GaussianMixture([0.6, 0.4], torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.eye(2).expand(2, 2, 2))


def decode(z) -> torch.Tensor:
    x = torch.arange(8.0) - 4
    distance = (x**2 + x[:, None] ** 2 + x[:, None, None] ** 2).sqrt()
    return torch.stack([torch.exp(-distance / (1 + 0.1 * float(point.norm()))) for point in torch.as_tensor(z)])


@pytest.fixture
def closed():
    yield
    plt.close("all")


def drawn() -> dict[str, Figure]:
    """Return every figure that shows names of the user, each with all names."""
    n, wide = len(NAMES), torch.arange(2.0 * len(NAMES)).reshape(-1, 2)
    prior = ct.GaussianMixture(torch.ones(n) / n, wide, torch.eye(2).expand(n, 2, 2))
    z, labels = wide.repeat(3, 1) + 0.1, NAMES * 3
    flat, cube = z.double().numpy(), torch.rand(8, 8, 8).repeat(n, 1, 1, 1)
    embedding = evaluation.Embedding(flat, flat, wide.double().numpy(), None)
    curve = SimpleNamespace(frequency=np.linspace(0.01, 0.1, 5), correlation=np.ones(5), resolution=lambda _: 3.0)
    states = tuple(State(name, point.double(), (c,), 1 / n, 0.0) for c, (name, point) in enumerate(zip(NAMES, wide)))
    empty = torch.zeros(2, 2)
    route = Route(empty, empty, empty[0], 0.0, 0.0, share=1.0, states=states)
    other = Route(
        empty, empty, empty[0], 0.0, 0.0, share=1.0, states=tuple(replace(s, name=f"{s.components[0]}") for s in states)
    )
    names = dict(enumerate(NAMES))
    explorer = ct.PathwayExplorer(
        prior, z, decode, labels=names, columns={"names": (NAMES[:20] + NAMES[:20] * 5)[: 3 * n]}
    )
    explorer.set(colour="names")
    axes = {
        "labels of latents": plotting.latent_scatter(z, labels=labels),
        "labels of an embedding": plotting.embedding_scatter(embedding, labels=labels),
        "names of components": plotting.embedding_scatter(embedding, prior, names=names),
        "states": plotting.route_graph([route]),
        "maps of states": plotting.route_graph([other], decode, {f"{c}": name for c, name in names.items()}),
        "curves": plotting.fsc_curves([curve] * n, NAMES),
        "blocks": plotting.occupancy_along_path(np.eye(4, n), NAMES),
        "rows": plotting.confusion_table(np.eye(n, 2), NAMES, ["b", "c"]),
        "columns": plotting.confusion_table(np.eye(2, n), ["b", "c"], NAMES),
    }
    return {what: ax.figure for what, ax in axes.items()} | {
        "gallery": plotting.particle_gallery(cube[:, 0], 1.0, NAMES, n),
        "montage": plotting.map_montage(cube, 1.0, NAMES, size=20),
        "slices": plotting.central_slices(cube, 1.0, NAMES),
        "explorer": explorer.figure(),
    }


def test_names_are_drawn_as_they_are(closed):
    for what, figure in drawn().items():
        texts = plain_texts(figure)
        assert [name for name in NAMES if not any(plain(name) in text for text in texts)] == [], what


def test_legends_of_the_explorer_and_titles_of_colours_are_drawn_as_they_are(closed):
    z = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    for names in (NAMES[:20], NAMES[20:]):  # a legend has at most 24 entries
        explorer = ct.PathwayExplorer(prior_of_two(), z, decode, columns={names[0]: (names * 3)[:40]})
        explorer.set(colour=names[0])
        texts = plain_texts(explorer.figure())
        assert [name for name in names if plain(name) not in texts] == []
        assert f"colour: {plain(names[0])}" in texts
        ax = plotting.latent_scatter(z, colour=z[:, 0], colour_label=names[0])
        assert plain(names[0]) in plain_texts(ax.figure)


@hostile
def test_a_name_is_drawn_in_movies_and_in_the_naming_widget(name, tmp_path, monkeypatch):
    titles = []
    title = Axes.set_title
    monkeypatch.setattr(Axes, "set_title", lambda ax, *a, **k: titles.append(title(ax, *a, **k)) or titles[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        plotting.write_movie(
            tmp_path / "m.gif", decode(prior_of_two().means), 1.0, titles=[name] * 2, size=30, n_between=0
        )
        assert titles and all(t.get_text() == plain(name) and not t.get_parse_math() for t in titles)
        naming = ct.name_components(prior_of_two(), decode, tmp_path / "names.json", {0: name, 1: "b"}, size=30)
        assert naming._still().startswith(b"\x89PNG")
    naming.button.click()
    assert "names of 2 components saved" in naming.message.value or name.strip() == ""
    assert read_labels(tmp_path / "names.json")[0] == name.strip()


def test_plain_keeps_what_can_be_drawn():
    assert (
        plain("$\\frac{$ Å\n<b>") == "$\\frac{$ Å\n<b>"
        and plain("\x1b[1m\t\udc80") == "\ufffd[1m\ufffd\ufffd"
        and plain(3) == "3"
    )


# ------------------------------------------------------------------------------------------------------------- pages


class Page(HTMLParser):
    """Collects the elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)

    def handle_data(self, data):
        self.text += data


@hostile
def test_a_name_reaches_the_explorers_page_as_it_is(name):
    """The page shows texts as text (test_explorer_page); here they must arrive unchanged, also in a restored view."""
    z = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    explorer = ct.PathwayExplorer(prior_of_two(), z, decode, labels={0: name, 1: "b"})
    assert explorer.setup["components"][0]["name"] == name
    again = ct.PathwayExplorer.restore(explorer.view(), explorer.prior, z, decode)
    assert again.names == {0: name, 1: "b"}


def test_the_explorers_page_never_parses_texts_as_html():
    sources = (Path(ct.__file__).parent / "explorer" / "front").glob("*.js")
    html = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser")
    assert [file.name for file in sources if html.search(file.read_text(encoding="utf-8"))] == []


# ---------------------------------------------------------------------------------------------- STAR files and scripts


REFUSED = re.compile(r"[ \"'#@\t\n\r\x00\x1b\x7f\udcff]|x{200}")


def told(call: Callable[[], object]) -> str:
    """Return the message with which a call is refused; empty if it is not."""
    try:
        call()
    except InputError as error:
        return str(error)
    return ""


def in_a_file_name(name: str) -> bool:
    return "/" not in name and "\x00" not in name and name not in ("", ".", "..")


@hostile
@pytest.mark.parametrize("by", ["write", "prepare"])
def test_a_star_file_is_refused_or_can_be_read_back(name, by, tmp_path):
    particles = ct.simulate.hinge(8, 16, progress=False)
    output = tmp_path / f"{name}.star"
    run = particles.write if by == "write" else lambda path, progress: ct.prepare(particles, path, progress=progress)
    message = told(lambda: run(output, progress=False))
    if message:
        assert re.search("STAR file|at most 200|does not exist", message), message
        assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    else:
        again = ct.Particles.read(output, contrast="dark")
        assert len(again) == 8 and set(again.files) == {output.with_suffix(".mrcs").name}
        assert not REFUSED.search(name)
    assert list(tmp_path.rglob("*.star")) or REFUSED.search(name) or "/" in name


@hostile
def test_the_command_refuses_such_a_name_before_it_reads_images(name, tmp_path, capsys, monkeypatch):
    ct.simulate.hinge(8, 16, progress=False).write(tmp_path / "p.star", progress=False)
    monkeypatch.setattr(
        "cryotwin_nb.preparation.stack.cropped", lambda *_: (_ for _ in ()).throw(InputError("", "", "", "work"))
    )
    assert main(["prepare", f"{tmp_path / 'p.star'}", "--contrast", "dark", "--output", f"{tmp_path / name}.star"]) == 2
    error = capsys.readouterr().err
    assert ("STAR file cannot refer" in error or "at most 200" in error) == bool(REFUSED.search(name)), error


CHIMERAX = re.compile(r"""open (?:"([^"\\]*)"|'([^'\\]*)') id 9001\.\d+""")


@hostile
def test_a_script_opens_the_map_of_this_name_or_is_refused(name, tmp_path):
    if not in_a_file_name(name):
        return
    with mrcfile.new(tmp_path / "m.mrc", np.zeros((4, 4, 4), np.float32)):
        pass
    try:
        target = (tmp_path / "m.mrc").rename(tmp_path / f"{name}.mrc")
    except (OSError, UnicodeError):
        return
    for write, suffix in ((write_session, "cxc"), (write_pymol, "pml"), (write_molviewspec, "mvsj")):
        script, more = tmp_path / f"s.{suffix}", (8.0,) if suffix == "mvsj" else ()
        try:
            write(script, [target], 1.0, *more)
        except InputError:
            assert not name.isprintable() or (suffix == "cxc" and ("\\" in name or {'"', "'"} <= set(name)))
            assert not script.exists()
            continue
        text = script.read_text(encoding="utf-8")
        if suffix == "cxc":
            (line,) = (line for line in text.splitlines() if line.startswith("open"))
            found = CHIMERAX.fullmatch(line)
            assert (found[1] or found[2]) == target.name
        elif suffix == "pml":
            assert ast.literal_eval(re.search(r"maps=\[\n +(\(.*\)),\n", text)[1])[0] == target.name
        else:
            assert target.name in {unquote(url) for url in re.findall(r'"url": "(.*)"', text)}


@hostile
def test_a_title_starts_no_command(name, tmp_path):
    write_map(tmp_path / "m.mrc", np.zeros((4, 4, 4)), 1.0)
    for write, suffix in ((write_session, "cxc"), (write_pymol, "pml")):
        for title in ("Pathway", name):
            write(tmp_path / f"{len(title) > 0}{title == name}.{suffix}", [tmp_path / "m.mrc"] * 2, 1.0, title=title)
        usual, odd = ((tmp_path / f"True{other}.{suffix}").read_text().split("\n") for other in (False, True))
        assert len(usual) == len(odd) and all(text.isprintable() for text in odd)
        for before, after in zip(usual, odd, strict=True):
            if before != after:
                assert after.startswith("#") or re.fullmatch(
                    r'(rename #9001|mseries slider #9001\.1-2 title) "[^"\\]*"( name Map)?', after
                )
                assert ";" not in after


@pytest.mark.parametrize(
    "colour", [*NAMES, "red;quit", "red blue", "#12", "#12345", "#1234567", "#ggg", "rgb(1,2,3)", "red\n", ""]
)
def test_a_colour_is_a_word_or_hexadecimal(colour, tmp_path):
    write_map(tmp_path / "m.mrc", np.zeros((4, 4, 4)), 1.0)
    good = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", colour)
    if good:
        write_session(tmp_path / "s.cxc", [tmp_path / "m.mrc"], 1.0, [colour])
        assert f" color {colour}\n" in (tmp_path / "s.cxc").read_text()
        return
    with pytest.raises(InputError, match="the colour"):
        write_session(tmp_path / "s.cxc", [tmp_path / "m.mrc"], 1.0, [colour])


@pytest.mark.parametrize("colour", ["#0072b2", "#abc", "#abcd", "#0072b2ff", "orange", "gray50"])
def test_usual_colours_are_taken(colour, tmp_path):
    write_map(tmp_path / "m.mrc", np.zeros((4, 4, 4)), 1.0)
    write_session(tmp_path / "s.cxc", [tmp_path / "m.mrc"], 1.0, [colour])
    with pytest.raises(InputError, match="number"):
        write_session(tmp_path / "s.cxc", [tmp_path / "m.mrc"], 1.0, number="1; quit")


@hostile
def test_states_become_files_of_their_folder_only(name, tmp_path):
    ct.simulate.hinge(8, 16, progress=False).write(tmp_path / "p.star", progress=False)
    particles, prior = ct.Particles.read(tmp_path / "p.star", contrast="dark"), prior_of_two()
    state = State(name, prior.means[0].double(), (0, 1), 1.0, 0.0)
    before = set(tmp_path.rglob("*"))
    written: list[Path] = []
    message = told(
        lambda: written.extend(ct.write_states(tmp_path / "states", particles, np.zeros((8, 2)), prior, [state]))
    )
    if message:
        assert "a state named" in message and set(tmp_path.rglob("*")) == before
    else:
        assert re.fullmatch(r"[\w+-][\w.+-]*", name) and {path.parent for path in written} == {tmp_path / "states"}


@pytest.mark.parametrize("names", [["states"], ["A", "A"], ["."], [".hidden"], ["x" * 300]])
def test_states_have_names_of_their_own(names, tmp_path):
    ct.simulate.hinge(8, 16, progress=False).write(tmp_path / "p.star", progress=False)
    states = [State(name, torch.zeros(2), (c,), 1.0, 0.0) for c, name in enumerate(names)]
    with pytest.raises(InputError, match="a state named"):
        particles = ct.Particles.read(tmp_path / "p.star", contrast="dark")
        ct.write_states(tmp_path, particles, np.zeros((8, 2)), prior_of_two(), states)


@hostile
def test_a_value_of_a_column_stays_one_token(name, tmp_path):
    ct.simulate.hinge(3, 16, progress=False).write(tmp_path / "p.star", progress=False)
    particles = ct.Particles.read(tmp_path / "p.star", contrast="dark")
    ct.write_selection(tmp_path / "s.star", particles, columns={"label": np.array([name, "b", "c"])})
    found = ct.Particles.read(tmp_path / "s.star", contrast="dark").columns["cryotwinLabel"].astype(str).tolist()
    assert len(found) == 3 and found[1:] == ["b", "c"] and found[0].isprintable()
    assert found[0] == name or re.search(r"[\s#'\"\x00-\x1f\x7f\udcff]", name)
