"""The API page lists every public name; docstrings name every parameter, and their examples run."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import cryotwin_nb as ct

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
LISTED = re.findall(r"auto(?:class|function):: cryotwin_nb\.(\S+)", PAGE)
ROOMS = ("data", "evaluation", "exchange", "explorer", "pathways", "plotting", "simulate")
TAKE_NO_CALL = {"COLOURS", "DENSITY", "STYLE", "UNVERIFIED", "Decode"}  # constants and a type alias


def resolve(name: str):
    parts = name.split(".")
    if len(parts) > 1:
        return getattr(importlib.import_module(".".join(["cryotwin_nb", *parts[:-1]])), parts[-1])
    return getattr(ct, name)


def callables():
    for name in LISTED:
        item = resolve(name)
        yield name, item
        if inspect.isclass(item):
            for attribute, value in vars(item).items():
                function = getattr(value, "__func__", value)
                if not attribute.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{attribute}", function


def named(documented) -> set[str]:
    """Names in the sections of parameters and attributes, in backticks, and fields with a docstring below them."""
    ours = [c for c in getattr(documented, "__mro__", [documented]) if c.__module__.startswith("cryotwin_nb")]
    text = "\n".join(inspect.cleandoc(c.__doc__ or "") for c in ours)
    found = set(re.findall(r"`(\w+)`", text))
    for line in re.findall(r"^\*{0,2}[a-z]\w*(?:, \*{0,2}\w+)*(?: :.*)?$", text, flags=re.M):
        found |= set(re.findall(r"\w+", line.split(" : ")[0]))
    if inspect.isclass(documented):
        source = "".join(inspect.getsource(c) for c in ours)
        found |= set(re.findall(r'^    (\w+):[^\n]*(?:\n    #[^\n]*)*\n    """', source, flags=re.M))
    return found


@pytest.mark.parametrize(("name", "item"), list(callables()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_parameter_is_named(name, item):
    if inspect.isclass(item) and issubclass(item, Exception):
        return
    if dataclasses.is_dataclass(item):
        expected = {f.name for f in dataclasses.fields(item) if f.init and not f.name.startswith("_")}
    else:
        expected = set(inspect.signature(item).parameters) - {"self", "cls"}
    assert expected <= named(item), f"{name}: {sorted(expected - named(item))}"


def test_every_public_name_is_on_the_page():
    public = {n for n in ct.__all__ if not inspect.ismodule(getattr(ct, n))}
    listed = {name.split(".")[-1] for name in LISTED}
    assert public <= listed
    for room in ROOMS:
        exports = importlib.import_module(f"cryotwin_nb.{room}").__all__
        assert set(exports) - TAKE_NO_CALL <= listed, room


@pytest.fixture(scope="module")
def session(tmp_path_factory, one_thread):
    """What the examples assume: a small data set, in memory and on disk, and a model trained on it."""
    folder = tmp_path_factory.mktemp("examples")
    particles = ct.simulate.assembly(n_particles=300, box_size=32, progress=False)
    particles.write(folder / "particles.star", progress=False)
    model = ct.CryoTwin(box_size=32, latent_dim=4, n_components=8)
    ct.fit(model, particles, ct.TrainingConfig(epochs=3), progress=False)
    z = model.embed(particles)
    volume = model.volumes(z[:1])[0].numpy()
    ct.write_map(folder / "map.mrc", volume, 10.0)
    return folder, {"ct": ct, "particles": particles, "model": model, "z": z, "volume": volume}


EXAMPLES = {name: item for name, item in callables() if ">>>" in (item.__doc__ or "")}


def test_the_names_that_everybody_uses_have_an_example():
    """The public functions of every step from images to maps, and the classes and methods between them."""
    functions = {n for n in ct.__all__ if inspect.isfunction(getattr(ct, n))}
    needs_more = {"warm_start", "embed_tsne", "name_components", "read_cryodrgn"}  # time, a notebook, another program
    assert functions - needs_more <= set(EXAMPLES)
    assert {"Particles.read", "CryoTwin", "TrainingConfig", "GaussianMixture.fit"} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name, session, monkeypatch):
    folder, names = session
    monkeypatch.chdir(folder)
    (test,) = doctest.DocTestFinder(recurse=False).find(EXAMPLES[name], name, module=False, globs=dict(names))
    printed: list[str] = []
    failed = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=printed.append).failed
    assert not failed, "".join(printed)
