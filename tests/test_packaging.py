"""What is installed, with what, and what is kept in the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import cryotwin_nb

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def by_name(requirements: list[str]) -> dict[str, SpecifierSet]:
    parsed = [Requirement(text) for text in requirements]
    return {canonicalize_name(r.name): r.specifier for r in parsed}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def bounds(project) -> dict[str, SpecifierSet]:
    return by_name(project["dependencies"] + project["optional-dependencies"]["test"])


def test_constraints_pin_every_direct_dependency_within_its_bounds(bounds):
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = by_name([line for line in lines if line and not line.startswith("#")])
    assert set(pins) == set(bounds)
    for name, pin in pins.items():
        (exact,) = pin
        assert exact.operator == "==", name
        assert bounds[name].contains(exact.version), name


def test_conda_environment_has_the_same_names_and_bounds(bounds, project):
    entries = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (by_pip,) = (entry["pip"] for entry in entries if isinstance(entry, dict))
    by_conda = [re.sub(r"(?<![<>=])=(?!=)", "==", entry) for entry in entries if isinstance(entry, str)]
    conda = by_name(by_conda + by_pip)
    conda["torch"] = conda.pop("pytorch")
    assert set(conda) - {"python", "pip"} == set(bounds)
    for name, bound in bounds.items():
        assert set(bound) <= set(conda[name]), name
    assert set(SpecifierSet(project["requires-python"])) <= set(conda["python"])


def test_import_is_light():
    code = "import sys, cryotwin_nb; print(*{name.partition('.')[0] for name in sys.modules})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"matplotlib", "nglview", "openTSNE", "sklearn", "IPython", "ipywidgets"} & set(run.stdout.split())


@pytest.mark.parametrize("name", cryotwin_nb.__all__)
def test_public_name(name):
    assert getattr(cryotwin_nb, name) is not None
    assert name in dir(cryotwin_nb)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute ridgelin"):
        _ = cryotwin_nb.ridgelin


@pytest.mark.parametrize(
    "first",
    [
        "import cryotwin_nb.pathways.ridgeline",
        "from cryotwin_nb.pathways.ridgeline import Pathway",
        "import cryotwin_nb.plotting, cryotwin_nb.pathways.ridgeline",
        "import importlib; importlib.import_module('cryotwin_nb.pathways.ridgeline')",
    ],
)
def test_ridgeline_is_the_function_whoever_imports_the_module(first):
    code = f"{first}; import cryotwin_nb as ct; assert ct.ridgeline.__class__.__name__ == 'function'"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


def test_licence():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("BSD 3-Clause License")
    assert "cryotwin_nb authors" in text


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_version_is_in_the_changelog_and_the_citation():
    assert f"## [{cryotwin_nb.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == cryotwin_nb.__version__


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_kept_with_pictures_and_without_widget_state(path):
    assert path.stat().st_size < 500_000
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output.evalue for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
