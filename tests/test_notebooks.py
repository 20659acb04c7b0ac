"""Every notebook runs from top to bottom, without its stored outputs, in a folder with only the stored models."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from nbclient import NotebookClient

import cryotwin_nb as ct

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
TIMEOUT = 1800
"""Time limit per cell, in seconds."""
N_REAL = 400
REAL = f"""
import cryotwin_nb as ct


def fetch(name, progress=True):
    assert name == "empiar-10076"
    particles = ct.simulate.assembly({N_REAL}, 32, pixel_size=10.0, snr=1.0, seed=0, progress=False)
    particles.truth = None
    return particles


ct.data.fetch = fetch
"""
"""Cell that replaces recorded images, which have no ground truth, by simulated ones."""


def numbered(*numbers: str) -> list[Path]:
    return [path for path in NOTEBOOKS if path.name[:2] in numbers]


def notebook_without_outputs(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def execute(notebook: nbformat.NotebookNode, folder: Path) -> str:
    """Run all cells; return their printed output."""
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


@pytest.fixture(autouse=True)
def settings_of_nobody(tmp_path, monkeypatch):
    """Ignore the user's start-up files."""
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))


@pytest.mark.notebooks
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs(path, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(path.parent / "models", folder / "models")
    execute(notebook_without_outputs(path), folder)


@pytest.mark.notebooks
@pytest.mark.parametrize("path", numbered("01", "02", "03"), ids=lambda path: path.name)
def test_notebook_runs_on_recorded_images_by_one_edit(path, tmp_path):
    """A model is trained and stored, maps of a cryoDRGN run are requested, missing parts are reported as left out."""
    notebook, run = on_recorded_images(path), path.name.startswith("02")
    if run:
        write_run(tmp_path / "run")
        replace_once(notebook, 'f"models/cryodrgn-{DATASET}.npz"', '"run"')
    printed = execute(notebook, tmp_path)
    assert (tmp_path / "models" / "empiar-10076.safetensors").is_file()
    assert "left out" in printed.lower() and ("eval_vol" in printed) == run
    assert sum("image/png" in str(cell.get("outputs")) for cell in notebook.cells) >= 2
    for table in tmp_path.glob("cryodrgn-*/z.txt"):
        assert np.loadtxt(table, ndmin=2).shape[1] == 2


@pytest.mark.notebooks
def test_your_own_data_are_a_star_file_by_one_edit(tmp_path):
    """Without a ground truth, states are numbered and junk is not counted; particles are written back unchanged."""
    printed = on_own_data(tmp_path, n_components=20)
    assert "missing" not in printed and "show no molecule" not in printed
    assert "600 images, box 32 px at 10" in printed and "bit for bit: True" in printed
    assert len(list((tmp_path / "own-data" / "pathway").glob("map_*.mrc"))) == 12
    assert len(ct.Particles.read(tmp_path / "end_of_path.star", contrast="dark")) > 20


@pytest.mark.notebooks
def test_your_own_data_with_a_single_state_have_no_path(tmp_path):
    printed = on_own_data(tmp_path, n_components=1)
    assert "mass: S1\n" in printed and "only one state, so there is no path" in printed
    assert "point 0:" in printed and "point 1:" not in printed and "bit for bit: True" in printed
    assert not (tmp_path / "own-data" / "pathway").exists()


def on_own_data(folder: Path, n_components: int) -> str:
    """Run notebook 06 on a STAR file without a ground truth; return what it prints."""
    (path,) = numbered("06")
    notebook, star = notebook_without_outputs(path), folder / "run_data.star"
    particles = ct.simulate.assembly(600, 48, snr=1.0, seed=1, progress=False)
    particles.truth = None
    particles.write(star, progress=False)
    replace_once(notebook, 'DATASET = "empiar-10076"', f"DATASET = {str(star)!r}")
    replace_once(notebook, "BOX = 128", "BOX = 32")
    replace_once(notebook, "N_COMPONENTS = 100", f"N_COMPONENTS = {n_components}")
    return execute(notebook, folder)


def on_recorded_images(path: Path) -> nbformat.NotebookNode:
    notebook = notebook_without_outputs(path)
    replace_once(notebook, 'DATASET = "assembly-small"', 'DATASET = "empiar-10076"')
    notebook.cells.insert(0, nbformat.v4.new_code_cell(REAL))
    return notebook


def replace_once(notebook: nbformat.NotebookNode, old: str, new: str) -> None:
    (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source)
    assert cell.source.count(old) == 1
    cell.source = cell.source.replace(old, new)


def write_run(folder: Path) -> None:
    """Write a run folder in cryoDRGN's layout: 2-D latents in three groups, and a weights file that is never opened."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    z = rng.normal(size=(N_REAL, 2)) + 6 * rng.integers(3, size=(N_REAL, 1))
    with open(folder / "z.9.pkl", "wb") as file:
        pickle.dump(z.astype(np.float32), file)
        pickle.dump(np.zeros_like(z, dtype=np.float32), file)
    (folder / "weights.9.pkl").write_bytes(b"")
    config = {"dataset_args": {"ind": None}, "lattice_args": {"D": 33}}
    (folder / "config.yaml").write_text(yaml.dump(config))
