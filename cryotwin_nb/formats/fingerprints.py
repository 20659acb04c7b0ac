"""Fingerprints of the rows of a particle file, by which re-sorted or exchanged files are recognised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryotwin_nb.formats.bare_stacks import bare_stacks, listed
from cryotwin_nb.formats.cryosparc import open_table
from cryotwin_nb.formats.star import ANGLES, DEFOCUS
from cryotwin_nb.formats.star_text import NAME, choose_particles, read_tables

if TYPE_CHECKING:
    import pandas as pd

_FIELDS = ("uid", "blob/path", "blob/idx", "alignments3D/pose", "ctf/df1_A", "ctf/df2_A")


def fingerprints(path: Path) -> np.ndarray:
    """Return a hash (N,) uint64 of each row of a particle file: image name or uid, angles and defocus.

    Numbers are rounded to 0.01, so that a file written again with fewer digits has the same fingerprints.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    from pandas.util import hash_pandas_object

    suffix = path.suffix.lower()
    frame = _of_star(path) if suffix == ".star" else _of_cs(path) if suffix == ".cs" else _of_stacks(path)
    return hash_pandas_object(frame, index=False).to_numpy()


def _of_star(path: Path) -> pd.DataFrame:
    tables = read_tables(path)
    table = tables[choose_particles([name for name, table in tables.items() if NAME in table])[0]]
    return _frame({name: table[name].to_numpy() for name in (NAME, *ANGLES, *DEFOCUS) if name in table})


def _of_cs(path: Path) -> pd.DataFrame:
    table = open_table(path)
    columns: dict[str, np.ndarray] = {}
    for name in _FIELDS:
        if name in (table.dtype.names or ()):
            values = np.array(table[name]).reshape(len(table), -1)
            columns |= {f"{name}/{i}": part for i, part in enumerate(values.T)}
    return _frame(columns)


def _of_stacks(path: Path) -> pd.DataFrame:
    table = bare_stacks(path, listed(path, None) if path.suffix.lower() == ".txt" else [path])
    names = np.array([Path(name).name for name in table.stacks], dtype=object)
    return _frame({"stack": names[table.stack_number], "image": table.image_number})


def _frame(columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return the columns as text and as integers, whose hashes do not depend on the version of pandas."""
    import pandas as pd

    exact = {}
    for name, values in columns.items():
        if values.dtype.kind == "f" or (values.dtype.kind in "iub" and name in (*ANGLES, *DEFOCUS)):
            with np.errstate(all="ignore"):
                exact[name] = np.nan_to_num(np.round(values.astype(np.float64) * 100), posinf=0, neginf=0).astype("i8")
        elif values.dtype.kind in "iub":
            exact[name] = values
        else:
            text = np.char.decode(values, "latin-1") if values.dtype.kind == "S" else values
            exact[name] = np.array([str(value) for value in text.tolist()], dtype=object)
    return pd.DataFrame(exact)
