"""Lookup of the stacks that a particle file names: each name leads to a file of its own, or is refused."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import is_file


def locate_stacks(names: Iterable[str], listed_in: Path, datadir: str | os.PathLike | None = None) -> dict[str, Path]:
    """Return the path of each stack that `listed_in` names.

    Below `datadir`, the whole name is tried first, then its ever shorter tails: "Extract/job012/a.mrcs",
    "job012/a.mrcs", "a.mrcs". Without a match there, a relative name is looked up in the folder of `listed_in` and each
    of its parents, one of which is the RELION or cryoSPARC project; an absolute path is used unchanged.

    Parameters
    ----------
    names : iterable of str
        Stack names as written in the file.
    listed_in : Path
        The STAR, .cs or .txt file.
    datadir : path-like, optional
        Folder that contains the stacks.

    Raises
    ------
    InputError
        If a stack is missing, or a shortened name leads to the same file as another name: particles of one stack would
        then get the images of the other.
    """
    found: dict[str, Path] = {}
    shortened: dict[str, bool] = {}
    for name in names:
        found[name], shortened[name] = find_stack(name, listed_in, datadir)
    by_file: dict[Path, str] = {}
    for name, path in found.items():
        other = by_file.setdefault(path.resolve(), name)
        if other != name and (shortened[name] or shortened[other]):
            sentence = f"{listed_in}: the stacks {other!r} and {name!r} both lead to {path}."
            remedy = "Pass as datadir= the folder that these names are relative to, so that each leads to its own file."
            raise InputError(listed_in, "two names for one stack", "a file for each name", remedy, sentence)
    return found


def find_stack(name: str, listed_in: Path, datadir: str | os.PathLike | None = None) -> tuple[Path, bool]:
    """Return the path of a single stack, and whether only a tail of its name matched; see `locate_stacks`."""
    tried = []
    for candidate, shortened in _candidates(name, listed_in, datadir):
        if is_file(candidate):
            return candidate, shortened
        tried.append(candidate)
    looked = f"looked in {', '.join(str(c.parent)[:200] for c in tried[:3])} and parent folders"
    remedy = "Pass datadir=, the folder that the paths in this file are relative to, or images=False for metadata only."
    sentence = f"{listed_in} refers to the stack {name[:200]!r}, which was not found ({looked})."
    raise InputError(listed_in, f"no stack {name[:200]!r} ({looked})", "every stack that it lists", remedy, sentence)


def _candidates(name: str, listed_in: Path, datadir: str | os.PathLike | None) -> Iterator[tuple[Path, bool]]:
    """Yield each path in the order of the search, and whether it contains only a tail of the name."""
    path = Path(name)
    parts = [part for part in PurePath(name).parts if part not in (path.anchor, "..")]
    if datadir is not None:
        for first in range(len(parts)):
            yield Path(datadir, *parts[first:]), first > 0
    if path.is_absolute():
        yield path, False
    else:
        for folder in listed_in.resolve().parents:
            yield folder / path, False
