"""Package structure: import order of subpackages, no circular imports, few top-level names, short files."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import sys
import threading
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import cryotwin_nb
import cryotwin_nb as ct

PACKAGE = Path(cryotwin_nb.__file__).parent
ORDER = [
    "errors",
    "runtime",
    "mixture",
    "imaging",
    "pathways",
    "formats",
    "truth",
    "particles",
    "reconstruction",
    "simulate",
    "data",
    "exchange",
    "models",
    "preparation",
    "training",
    "evaluation",
    "plotting",
    "explorer",
    "demo",
    "cli",
    "__main__",
]
"""Each can import only from those before it."""
OTHERS = {"__init__", "__init__.pyi", "py.typed"}
MOST_NAMES = 24  # 22 before the command line (cli) and the type marker (py.typed) were added
MOST_LINES = 250
FILES = sorted(PACKAGE.rglob("*.py"))


def module(path: Path) -> str:
    """Return the module name of a file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path) for path in FILES}


def imported(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, anywhere in it, including for type checking only."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: an import relative to the file"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in full}
    return {name for name in names if name in MODULES} - {module(path)}


def room(name: str) -> str:
    return name.split(".")[1]


def test_every_room_has_its_place_in_the_order():
    there = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert {name.removesuffix(".py") for name in there} - OTHERS == set(ORDER)
    assert len(there) <= MOST_NAMES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_points_up(path):
    if path == PACKAGE / "__init__.py":
        assert imported(path) == {"cryotwin_nb.errors"}
        return
    own = ORDER.index(room(module(path)))
    above = {name for name in imported(path) if name == "cryotwin_nb" or ORDER.index(room(name)) > own}
    assert not above


def test_no_file_imports_itself_by_way_of_others():
    TopologicalSorter({module(path): imported(path) for path in FILES}).prepare()  # raises CycleError


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_can_be_read_at_once(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST_LINES


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name == "__init__.py"], ids=lambda path: path.parent.name
)
def test_each_room_says_what_it_is_for(path):
    documentation = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    first = documentation.split("\n")[0]
    assert len(first) > 30 and first.endswith(".")


STRAIGHT = [
    "particles/particles.py",
    "formats/reading.py",
    "formats/star.py",
    "formats/stacks.py",
    "formats/mrc.py",
    "models/cryotwin.py",
    "particles/streaming.py",
    "particles/formation.py",
    "models/subspace.py",
    "reconstruction/statistics.py",
    "imaging/lattice.py",
    "plotting/rendering.py",
]
"""Files that process an image, in order, from its file to the surface of its map."""
MOST_VISITED = 26


def walk(star: Path, model: ct.CryoTwin) -> list[str]:
    """Return the files whose functions run while an image is read, embedded, decoded and drawn, by first use."""
    render, level = ct.plotting.render_surface, ct.plotting.contour_level
    visited: dict[str, None] = {}

    def enter(frame, event, _):
        name = Path(frame.f_code.co_filename)
        if event == "call" and PACKAGE in name.parents and frame.f_code.co_name != "<module>":
            visited.setdefault(str(name.relative_to(PACKAGE)))

    threading.setprofile(enter)
    sys.setprofile(enter)
    try:
        particles = ct.Particles.read(star, contrast="dark")
        maps = model.volumes(model.embed(particles[:1]))
        render(maps[0], level(maps, 2.0))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return list(visited)


def test_an_image_goes_a_short_way_from_its_file_to_a_surface(tmp_path):
    particles = ct.simulate.assembly(40, 16, progress=False)
    model = ct.CryoTwin(16, latent_dim=2, n_components=2)
    ct.fit(model, particles, ct.TrainingConfig(epochs=1, device="cpu"), progress=False)
    particles.truth = None  # recorded images have none
    particles.write(tmp_path / "p.star", progress=False)
    walk(tmp_path / "p.star", model)  # triggers lazy imports
    visited = walk(tmp_path / "p.star", model)
    assert [name for name in visited if name in STRAIGHT] == STRAIGHT
    assert len(visited) <= MOST_VISITED
    assert all(len((PACKAGE / name).read_text(encoding="utf-8").splitlines()) <= MOST_LINES for name in visited)


def test_results_and_settings_cannot_be_changed():
    """Every dataclass is frozen, except the record that training writes to."""
    loose = set()
    for name in MODULES - {"cryotwin_nb.__main__"}:
        for value in vars(importlib.import_module(name)).values():
            if dataclasses.is_dataclass(value) and value.__module__ == name and not value.__dataclass_params__.frozen:
                loose.add(value.__name__)
    assert loose == {"History"}


SCRIPTS = sorted(
    path for folder in ("benchmarks", "examples", "docs") for path in (PACKAGE.parent / folder).glob("*.py")
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_names_that_exist(script):
    """They do not run in the tests, so a name that moved would only be missed by whoever runs them."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "cryotwin_nb":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
