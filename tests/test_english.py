"""Code, docs and README avoid phrases that a native expert would not write (CONTRIBUTING.md, English)."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = (
    r"\blest\b",
    r"\bfor want of\b",
    r"\bwhoever\b",
    r"\bby itself\b",
    r"\bthe least of\b",
    r"\bbears?\b",
    r"\b(told|tells?|says)\b",
    r"^\s+Of (?!.*, of)",
)
TEXTS = sorted(
    [*(ROOT / "cryotwin_nb").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").glob("*.md")]
)
TEXTS += [ROOT / name for name in ("README.md", "CHANGELOG.md", "benchmarks/README.md")]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_forbidden_phrase(path):
    assert not forbidden(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_forbidden_phrase_in_the_text_of_a_notebook(path):
    cells = nbformat.read(path, as_version=4).cells
    assert not forbidden("\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))


def forbidden(text: str) -> list[str]:
    """Return the phrases in a text that the rules forbid; method names in code, like `handle.tell()`, do not count."""
    return [match[0] for phrase in FORBIDDEN for match in re.finditer(phrase + r"(?!\()", text, flags=re.M)]
