"""Code, docs and README avoid phrases that a native expert would not write (CONTRIBUTING.md, English)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = (
    r"\blest\b",
    r"\bfor want of\b",
    r"\bwhoever\b",
    r"\bby itself\b",
    r"\bthe least of\b",
    r"\bbears? the name\b",
    r"^\s+Of (?!.*, of)",
)
TEXTS = sorted([*(ROOT / "cryotwin_nb").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"])


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_forbidden_phrase(path):
    text = path.read_text(encoding="utf-8")
    found = [match[0] for phrase in FORBIDDEN for match in re.finditer(phrase, text, flags=re.M)]
    assert not found
