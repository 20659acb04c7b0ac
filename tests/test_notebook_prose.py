"""What the notebooks say agrees with what their stored outputs print."""

import copy
import re
import sys
from pathlib import Path

import nbformat
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from notebook_prose import NOTEBOOKS, contradictions, reports

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
SHOWN = {
    "00": {"Algorithm 1", "chain"},
    "02": {"chain"},
    "04": {"Algorithm 1", "MaxFlux", "joined by hand", "route"},
    "05": {"Algorithm 1", "MaxFlux", "hinge"},
}
"""Paths that the notebooks show."""


def stored(number: str) -> nbformat.NotebookNode:
    (path,) = (path for path in PATHS if path.name.startswith(number))
    return nbformat.read(path, as_version=4)


def with_outputs(notebook: nbformat.NotebookNode, pattern: str, replacement: str) -> nbformat.NotebookNode:
    """Return a copy in which printed text is replaced; the pattern must occur."""
    changed, count = copy.deepcopy(notebook), 0
    for cell in changed.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output["text"], n = re.subn(pattern, replacement, output["text"])
                count += n
    assert count, pattern
    return changed


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_no_stored_output_contradicts_the_prose(path):
    assert contradictions(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize(
    ("number", "printed", "changed", "missed"),
    [
        ("00", r"barrier 5\.0", "barrier 9.1", "5.0"),
        ("00", r"length 37", "length 73", "37"),
        ("02", r"5\.441", "4.441", "5.4"),
        ("03", r"0\.967", "0.917", "0.033"),
        ("04", r" 75\.5 nats", " 85.5 nats", "59"),
    ],
)
def test_a_changed_number_is_found(number, printed, changed, missed):
    problems = contradictions(with_outputs(stored(number), printed, changed))
    assert any(f": {missed}" in problem for problem in problems), problems


@pytest.mark.parametrize("number", SHOWN)
def test_barrier_and_images_near_each_step_are_printed_for_every_path(number):
    printed = reports(stored(number).cells)
    assert SHOWN[number] <= {name for name in SHOWN[number] for report in printed if name in report.name}


@pytest.mark.parametrize(
    ("number", "near", "changed", "claim"),
    [
        ("00", r"466 230 163 52 1 0 0 0 0 0 0 552", "466 230 163 52 1 2 3 2 4 5 9 552", "No image"),
        ("00", r"near each step: 937 \d+", "near each step: 937 0", "images near every step"),
        ("05", r"near each step: 1822 \d+", "near each step: 1822 0", "follows the bend"),
    ],
)
def test_a_claim_on_a_path_is_compared_with_the_images_near_it(number, near, changed, claim):
    problems = contradictions(with_outputs(stored(number), near, changed))
    assert any(claim in problem for problem in problems), problems


def test_a_claim_that_a_path_works_needs_images_at_every_step():
    notebook = stored("04")
    notebook.cells.append(nbformat.v4.new_markdown_cell("Algorithm 1 works between neighbouring states."))
    assert any("works between" in problem for problem in contradictions(notebook))


def test_every_notebook_names_the_next_and_the_last_one_none():
    for path, following in zip(PATHS, [*PATHS[1:], None], strict=True):
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
        named = re.findall(r"\*\*Next:\*\* \[[^\]]+\]\(([^)]+)\)", "\n".join(cells))
        assert named == ([following.name] if following else []), path.name
    assert f"]({PATHS[-1].name})" in stored("00").cells[-1].source
