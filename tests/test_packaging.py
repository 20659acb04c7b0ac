"""Installed files, dependencies, and the contents of the repository."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import cryotwin_nb
import cryotwin_nb as ct
from cryotwin_nb.errors import _EXTRAS

ROOT = Path(__file__).parents[1]
OWN = "cryotwin_nb["
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def by_name(requirements: list[str]) -> dict[str, SpecifierSet]:
    found: dict[str, SpecifierSet] = {}
    for parsed in map(Requirement, requirements):
        name = canonicalize_name(parsed.name)
        found[name] = found.get(name, SpecifierSet()) & parsed.specifier
    return found


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def bounds(project) -> dict[str, SpecifierSet]:
    extras = project["optional-dependencies"]
    return by_name([*project["dependencies"], *(r for extra in extras.values() for r in extra if OWN not in r)])


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


def imports(path: Path) -> set[str]:
    """Return the packages that a file imports, anywhere in it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        text = "\n".join(re.sub(r"^[%!].*$", "", cell, flags=re.M) for cell in cells)
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"cryotwin_nb"}


def distributions(names: set[str]) -> set[str]:
    known = packages_distributions()
    return {canonicalize_name(known[name][0]) for name in names}


def test_every_imported_package_is_declared(project, bounds):
    """Imports of the package are declared where they are needed, those of tests and notebooks in any extra."""
    extras = project["optional-dependencies"]
    run = set(by_name([*project["dependencies"], *extras["notebooks"], *extras["nglview"]]))
    for path in (ROOT / "cryotwin_nb").rglob("*.py"):
        assert distributions(imports(path)) <= run, path
    own = {path.stem for folder in ("tests", "benchmarks") for path in (ROOT / folder).glob("*.py")}
    for path in [*NOTEBOOKS, *(ROOT / "tests").glob("*.py")]:
        assert distributions(imports(path) - own) <= set(bounds), path


@pytest.mark.parametrize("name", ["notebooks", "nglview"])
def test_what_an_extra_brings_is_known_where_its_absence_is_told(project, name):
    base, extra = (set(by_name(part)) for part in (project["dependencies"], extras_of(project, name)))
    used = set().union(*(imports(path) for path in (ROOT / "cryotwin_nb").rglob("*.py")))
    known = packages_distributions()
    needs = {name for name in used if canonicalize_name(known[name][0]) in extra - base}
    assert needs == set(_EXTRAS[name])


def extras_of(project: dict, name: str) -> list[str]:
    return [text for text in project["optional-dependencies"][name] if OWN not in text]


BASE_ONLY = """
import sys, warnings

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import numpy as np, cryotwin_nb as ct
from cryotwin_nb.cli.main import main

particles = ct.simulate.assembly(120, 16, snr=2.0, progress=False)
particles.write("p.star", progress=False)
command = "train p.star --contrast dark --output out --latent-dim 2 --n-components 3 --epochs 1"
assert main(command.split()) == 0
assert main("look p.star --contrast dark".split()) == 0
assert main("prepare p.star --contrast dark --output prepared.star".split()) == 0
model = ct.CryoTwin.load("out/model.safetensors")
model.prior = ct.GaussianMixture([0.5, 0.5], [[-1.0, 0], [1, 0]], [np.eye(2)] * 2)
model.save("two.safetensors")
assert main("states two.safetensors".split()) == 0
assert main("pathway two.safetensors --start 0 --end 1 --output path".split()) == 0
assert main("select two.safetensors p.star --contrast dark --state 0 --least 0 --output s.star".split()) == 0
z, truth = model.embed(particles), particles.truth
assert -1 <= ct.isometry(model, z, seed=0).correlation <= 1
assert set(ct.evaluation.coordinate_r2(z, truth)) == set(truth.coordinate_names)
missing = 0
for ask in (
    lambda: ct.plotting.map_montage,
    lambda: ct.PathwayExplorer,
    lambda: ct.name_components,
    lambda: ct.embed_tsne(z, model.prior),
    lambda: main("look p.star --contrast dark --output look".split()) == 2 or 1 / 0,
):
    try:
        ask()
    except ct.MissingExtraError as error:
        assert "pip install 'cryotwin_nb[notebooks]'" in str(error), error
        missing += 1
assert missing == 4, missing
"""


def test_the_base_alone_trains_looks_prepares_and_finds_paths(tmp_path):
    program = f"BLOCKED = {set(_EXTRAS['notebooks'])}\n{BASE_ONLY}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "cryotwin_nb[notebooks]" in run.stderr  # note of the command line on the missing picture


def test_import_is_light():
    code = "import sys, cryotwin_nb; print(*{name.partition('.')[0] for name in sys.modules})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"matplotlib", "nglview", "openTSNE", "sklearn", "IPython", "pandas"} & set(run.stdout.split())


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


def test_readme_and_citation_take_the_repository_s_address_from_the_project(project):
    """Until `[project.urls]` names one, the README has a placeholder and the citation no address."""
    address = project.get("urls", {}).get("Repository")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"git clone {address or '<this repository>'} && cd cryotwin_nb" in readme
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation.get("repository-code") == address


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


def test_defaults_are_the_papers_where_it_has_them_and_otherwise_as_documented():
    """(C, T) = (100, 3), (K, omega, M) = (11, 2, 1000); other defaults are as documented."""
    documented = {
        ct.CryoTwin: dict(latent_dim="auto", n_components=100, noise_width=3.0, weighting="volume"),
        ct.ridgeline: dict(n_steps=11, omega=2.0, n_samples=1000, concentration=1.0, seed=0),
        ct.max_flux: dict(n_steps=11, exponent=1.0, spacing="length", seed=0),
        ct.find_routes: dict(max_routes=8, n_steps=11, least_share=0.02, n_draws=100, least_frequency=0.9),
        ct.warm_start: dict(epochs=12, batch_size=16, learning_rate=1e-3, seed=0),
        ct.prepare: dict(dtype=None, whiten=None, for_relion=False, resume=True, box_size=None),
        ct.first_look: dict(n_images=5000, resolution=None, seed=0),
        ct.plotting.write_movie: dict(sigma=2.0, frames_per_second=8, n_between=2, turn=0.0, reference="first"),
        ct.write_pathway: dict(sigma=3.0, level=None, box_size=None),
        ct.GaussianMixture.fit: dict(n_components=100, select=True, strength=2.0, n_init=8, max_iter=300, tol=1e-5),
    }
    for function, defaults in documented.items():
        parameters = inspect.signature(function).parameters
        assert {name: parameters[name].default for name in defaults} == defaults, function
    config = dict(beta=2.0, learning_rate=1e-3, warmup=0.4, start_radius=0.5, isometry=10.0, cache_gib=4.0)
    assert config.items() <= vars(ct.TrainingConfig()).items()
