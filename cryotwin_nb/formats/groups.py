"""Selection of optics groups by number or name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.metadata import Metadata


def in_groups(table: Metadata, rows: np.ndarray, wanted: int | str | Sequence[int | str]) -> np.ndarray:
    """Return those of the `rows` (m,) of a table that belong to certain optics groups.

    Parameters
    ----------
    table : Metadata
        All particles of the file.
    rows : (m,) int64
        Rows to choose from.
    wanted : int, str or sequence of int or str
        Numbers or names of the groups, as in the file. A text that is not a name is split at commas.

    Raises
    ------
    InputError
        If the file contains no such group, or none of the rows belongs to these groups.
    """
    groups = [wanted] if isinstance(wanted, (str, int, np.integer)) else list(wanted)
    chosen: set[int] = set()
    for group in groups:
        whole = _matching(table, group)
        parts = group.split(",") if isinstance(group, str) and not whole else [group]
        for part in parts:
            found = whole or _matching(table, part.strip() if isinstance(part, str) else part)
            if not found:
                raise _unknown(table, part)
            chosen.update(found)
    kept = rows[np.isin(table.optics_group[rows], list(chosen))]
    if len(kept) == 0:
        remedy = "Select other groups, or other particles with indices=."
        raise InputError("optics_groups", "none of the selected particles", "at least one", remedy)
    return kept


def _matching(table: Metadata, group: object) -> list[int]:
    """Return the groups with a certain name or, if there is none, with this number."""
    names, numbers = ([label[-1] for label in table.group_labels], [label[0] for label in table.group_labels])
    labels = names if isinstance(group, str) and group in names else numbers
    return [place for place, label in enumerate(labels) if label == str(group)]


def _unknown(table: Metadata, group: object) -> InputError:
    listed = [" ".join([number, *(f"({text})" for text in name)]) for number, *name in table.group_labels]
    expected = f"one of {', '.join(listed)}" if listed else "a file with optics groups"
    remedy = "Pass numbers or names of optics groups in this file." if listed else "Select particles with indices=."
    sentence = f"{table.path} contains no optics group {str(group).strip()!r}; expected {expected}."
    return InputError("optics_groups", repr(group), expected, remedy, sentence)
