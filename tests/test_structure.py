"""Imports point down: the rooms in their order, no circles, few names at the top, no file too long to read at once."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import cryotwin_nb

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
    "__main__",
]
"""Each may import from those before it."""
MOST_NAMES = 22
MOST_LINES = 250
LONGER = {"__main__.py"}
FILES = sorted(PACKAGE.rglob("*.py"))


def module(path: Path) -> str:
    """What a file is imported as."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path) for path in FILES}


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in it, also for its types alone."""
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
    there = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()} - {"__init__", "__pycache__"}
    assert there == set(ORDER)
    assert len(there) + 1 <= MOST_NAMES


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
    assert len(lines) <= MOST_LINES or str(path.relative_to(PACKAGE)) in LONGER


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name == "__init__.py"], ids=lambda path: path.parent.name
)
def test_each_room_says_what_it_is_for(path):
    documentation = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    first = documentation.split("\n")[0]
    assert len(first) > 30 and first.endswith(".")
