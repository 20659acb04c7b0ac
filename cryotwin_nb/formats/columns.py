"""Columns of a particle file: class, micrograph, scores of other programs, and any other value given per particle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotwin_nb.formats.cryosparc import open_table
from cryotwin_nb.formats.star import read_table

if TYPE_CHECKING:
    import pandas as pd


def read_columns(path: Path | None, rows: np.ndarray) -> pd.DataFrame:
    """Return all columns of a .star or .cs file for some of its rows (n,); no columns for other files.

    The columns of optics groups are included. A field of a .cs file with several values, such as alignments3D/shift,
    becomes the columns alignments3D/shift/0, alignments3D/shift/1 ... Fields of neither numbers nor text are left out.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    import pandas as pd

    suffix = "" if path is None else path.suffix.lower()
    if path is not None and suffix == ".star":
        return read_table(path).iloc[rows].reset_index(drop=True)
    columns: dict[str, Any] = {}
    if path is not None and suffix == ".cs":
        table = open_table(path)[rows]
        for name in table.dtype.names or ():
            values = np.asarray(table[name])
            if values.dtype.kind not in "biufSU":  # for example times, which not every DataFrame can hold
                continue
            values = np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values
            flat = values.reshape(len(rows), -1)
            named = [name] if values.ndim == 1 else [f"{name}/{i}" for i in range(flat.shape[1])]
            columns |= dict(zip(named, flat.T, strict=True))
    return pd.DataFrame(columns, index=range(len(rows)))
