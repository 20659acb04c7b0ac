"""Text of STAR files: tables split into tokens as RELION does, read by pandas.

RELION splits rows at white space; quotes and # have a meaning only at the start of a token. The starfile library treats
them as pandas does by default, and so misreads names such as grid#2 or O'Neill, and rows of the wrong length.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryotwin_nb.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_LONGEST_LINE = 2**16
_MOST_LABELS = 1000
_TOKEN = re.compile(rb"\"[^\"]*\"(?!\S)|'[^']*'(?!\S)|\S+")
_MARKS = (b'"', b"'", b"#")
_MARK = re.compile(rb"[\"'#](?<=\s.)")  # at the start of a token, but not of the text; inside names it has no meaning
NAME = "rlnImageName"  # label of image names
_TEXT = (NAME, "rlnMicrographName", "rlnOpticsGroupName")
_PARTICLES = ("particles", "images", "")  # data_particles: RELION 3.1 and later; data_images or data_: earlier
_TOMOGRAPHY = ("rlnTomoName", "rlnTomoParticleId", "rlnTomoParticleName", "rlnTomoVisibleFrames")
_REMEDY = "Correct that line, or export the file again."


class Table:
    """Lines of a table before they are parsed: column labels and rows, with line numbers from 1."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.rows: list[bytes] = []
        self.lines = array("L")
        self.label_line = 0  # of the last label
        self.is_loop = False


def read_tables(path: Path) -> dict[str, pd.DataFrame]:
    """Return the tables of a STAR file by name, without "data_"; a block without a loop is a table of one row.

    Raises
    ------
    InputError
        If a row has too many or too few values, a label occurs twice, or the file has no plain lines of text.
    """
    return {name: _parsed(table, name, path) for name, table in split(path).items() if table.labels}


def choose_particles(names: list[str]) -> list[str]:
    """Sort the names of tables that contain images: data_particles, data_images, data_, then others as in the file."""
    order = [*_PARTICLES, *names]
    return sorted(names, key=order.index)


def split(path: Path) -> dict[str, Table]:
    """Return the tables of a file; comments and blank lines between rows are skipped."""
    tables: dict[str, Table] = {}
    table = Table()
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            text = line.strip().removeprefix(b"\xef\xbb\xbf")
            if len(line) > _LONGEST_LINE or b"\r" in text:
                found = "a line of more than 64 kB" if len(line) > _LONGEST_LINE else "a carriage return within a line"
                raise InputError(f"{path}, line {number}", found, "a table as written by RELION", _REMEDY)
            if not text or text.startswith(b"#"):
                continue
            if text.startswith(b"data_"):
                name = _decoded(text.split()[0][5:])
                table = tables[name] = Table()
            elif text.startswith(b"loop_"):
                table.is_loop = True
            elif text.startswith(b"_") and not (table.is_loop and table.rows):
                label, value, *_ = [*text[1:].split(None, 1), b"", b""]
                table.labels.append(_decoded(label))
                table.label_line = number
                if len(table.labels) > _MOST_LABELS:
                    expected = f"at most {_MOST_LABELS}"
                    raise InputError(f"{path}, line {number}", "more labels", expected, _REMEDY)
                if not table.is_loop:
                    table.rows = [(table.rows[0] if table.rows else b"") + b" " + (tokens(value) or [b'""'])[0]]
                    table.lines = array("L", [number])
            else:
                table.rows.append(text)
                table.lines.append(number)
    return tables


def _parsed(table: Table, name: str, path: Path) -> pd.DataFrame:
    import pandas as pd

    twice = [label for i, label in enumerate(table.labels) if label in table.labels[:i]]
    if twice:
        raise InputError(path, f"{twice[0]} twice in data_{name}", "each label once", "Correct that table.")
    if not table.rows:
        return pd.DataFrame(columns=table.labels)
    text, separator = b"\n".join(table.rows), r"\s+"
    if text[:1] in _MARKS or (any(mark in text for mark in _MARKS) and _MARK.search(text)):
        text, separator = b"\n".join(b"\t".join(map(_unquoted, tokens(row))) for row in table.rows), "\t"
    _require_length(table, 0, path)
    try:
        frame = pd.read_csv(
            BytesIO(text),
            sep=separator,
            header=None,
            names=table.labels,
            index_col=False,
            quoting=csv.QUOTE_NONE,
            keep_default_na=False,
            skip_blank_lines=False,
            dtype={label: str for label in _TEXT if label in table.labels},
            encoding="utf-8" if _is_utf8(text) else "latin-1",
            low_memory=False,
        )
    except ValueError:  # pandas' ParserError is one
        frame = None
    last = None if frame is None else frame.iloc[:, -1]
    missing = last is None or (last.dtype.kind not in "iub" and not last.astype(str).str.len().all())
    if missing or len(frame) != len(table.rows):
        for row in range(len(table.rows)):  # a missing value is an empty text
            _require_length(table, row, path)
    if frame is None:
        raise InputError(path, f"data_{name} that pandas cannot parse", "a table as written by RELION", _REMEDY)
    return frame


def _require_length(table: Table, row: int, path: Path) -> None:
    """Raise `InputError` unless a row has as many values as there are labels."""
    count, expected = len(tokens(table.rows[row])), len(table.labels)
    if count != expected:
        where, found = f"{path}, line {table.lines[row]}", f"{count} value{'s' * (count != 1)}"
        raise InputError(where, found, f"{expected}, one for each label", _REMEDY)


def tokens(text: bytes) -> list[bytes]:
    """Return the tokens of a line up to a comment, with their quotes."""
    found = _TOKEN.findall(text)
    comment = next((i for i, token in enumerate(found) if token.startswith(b"#")), len(found))
    return found[:comment]


def _unquoted(token: bytes) -> bytes:
    quoted = len(token) > 1 and token[:1] in (b'"', b"'") and token[-1:] == token[:1]
    return token[1:-1].replace(b"\t", b" ") if quoted else token


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _decoded(text: bytes) -> str:
    return text.decode("utf-8" if _is_utf8(text) else "latin-1")


def image_names(table: pd.DataFrame, path: Path) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, frozenset[str]]:
    """Parse names `N@stack`.

    Returns the stacks, the stack of each particle, its position there from 0, and the stacks named without a number.
    """
    numbers, names, whole_files = [], [], set()
    for row, entry in enumerate(table[NAME].astype(str)):
        number, at, name = entry.strip().partition("@")
        if not at:
            number, name = "1", number
            whole_files.add(name)
        name = name.removesuffix(":mrcs").removesuffix(":mrc")  # RELION's way to state the format
        if not number.isdecimal() or len(number) > 15 or int(number) < 1 or not name:
            found = f"rlnImageName {entry!r} in row {row + 1}"
            raise InputError(path, found, "names like 000001@stack.mrcs, numbered from 1", "Correct that row.")
        numbers.append(int(number) - 1)
        names.append(name)
    # dtype object: in a string array every entry takes the space of the longest name
    stacks, stack_number = np.unique(np.array(names, dtype=object), return_inverse=True)
    positions = np.array(numbers, dtype=np.int64)
    return tuple(str(s) for s in stacks), stack_number.astype(np.int64), positions, frozenset(whole_files)


def refuse_tomography(particles: pd.DataFrame, tables: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Raise `InputError` if a STAR file lists subtomograms or stacks of tilt images."""
    general, optics = tables.get("general"), tables.get("optics")
    found = None
    with_dimension = [t for t in (particles, optics) if t is not None and "rlnImageDimensionality" in t]
    if any((table["rlnImageDimensionality"].astype(str).str.strip() == "3").any() for table in with_dimension):
        found = "3-D subtomograms (rlnImageDimensionality 3)"
    if (~particles[NAME].astype(str).str.contains("@", regex=False)).all():
        flag = None if general is None else general.get("rlnTomoSubTomosAre2DStacks")
        named = [name for name in _TOMOGRAPHY if name in particles]
        if flag is not None and (flag.astype(str).str.strip() != "0").any():
            found = "particles of tilt series (rlnTomoSubTomosAre2DStacks)"
        elif named:
            found = f"particles of tomograms ({named[0]}, and image names without a number)"
    if found:
        sentence = f"{path} lists {found}; tomography is not supported."
        raise InputError(
            path, found, "single-particle images", "Pass the particles of a single-particle job.", sentence
        )
