"""Checks of outputs before any work, and removal of the files that a former output lists as its own.

Inputs are never outputs, and the user's own files in an output folder are kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import array_headers, is_file
from cryotwin_nb.formats.sets import remove_file

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def refuse_inputs(outputs: Iterable[str | os.PathLike], inputs: Iterable[str | os.PathLike | None]) -> None:
    """Raise `InputError` if an output is an input, also by another spelling of its path, or by a link."""
    there = {_identity(path): path for path in outputs}
    there.pop(None, None)  # those that do not exist yet
    for path in inputs if there else ():
        if path is not None and (output := there.get(_identity(path))) is not None:
            by = "" if str(path) == str(output) else f" (by the name {path})"
            sentence = f"Writing {output} would overwrite an input of this call{by}."
            raise InputError(output, "an input", "another file", "Choose another name or folder.", sentence)


def _identity(path: str | os.PathLike) -> tuple[int, int] | None:
    """Return device and number of a file, the same for all its names; None if it does not exist."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def refuse_foreign(path: Path, arrays: Collection[str]) -> None:
    """Raise `InputError` if the .npz file `path`, to be replaced or removed, lacks `arrays`: it is the user's own."""
    try:
        ours = not is_file(path) or set(arrays) <= set(array_headers(path))
    except Exception:  # a damaged archive can raise almost any exception
        ours = False
    if not ours:
        sentence = f"{path} would be replaced, but was not written by cryotwin_nb, or is damaged."
        remedy = "Move or delete it, or choose another name or folder."
        raise InputError(path, "a file of other contents", "no file of this name", remedy, sentence)


def require_room(folder: str | os.PathLike, needed: float, what: str, remedy: str = "Free disk space.") -> None:
    """Raise `InputError` if a disk has less free space than the `needed` bytes, which `what` describes."""
    free = shutil.disk_usage(folder).free
    if needed > 0.98 * free:
        found, expected = _sizes(free, math.ceil(needed / 0.98))
        raise InputError(folder, f"{found} free", f"at least {expected} for {what}", remedy)


def _sizes(*values: float) -> list[str]:
    """Return different sizes as text in one unit, with as many digits as show the difference."""
    power = min(int(math.log(max(*values, 1), 1024)), len(_UNITS) - 1)
    texts: list[str] = []
    for digits in range(1, 12):
        texts = [f"{value / 1024**power:.{digits if power else 0}f} {_UNITS[power]}" for value in values]
        if len(set(texts)) == len(values):
            break
    return texts


def summary_of(file: Path) -> dict[str, Any]:
    """Return the JSON object that a former output left in `file`; empty if there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def refuse_unlisted(folder: Path, names: Iterable[str], former: Collection[str], what: str) -> None:
    """Raise `InputError` if a folder has a file of these names that its list of `former` files, in `what`, lacks."""
    for name in names:
        if name not in former and os.path.lexists(folder / name):
            sentence = f"{folder / name} would be replaced, but {what} does not list it: it may be a file of your own."
            remedy = "Move or delete it, or choose another folder."
            raise InputError(folder / name, f"a file that {what} does not list", "no such file", remedy, sentence)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_listed(folder: Path, former: Iterable[Any], kept: Collection[str], pattern: str) -> None:
    """Remove the files of a folder that a former list names, that match a pattern of plain names, and are not kept."""
    for name in former:
        if isinstance(name, str) and name not in kept and re.fullmatch(pattern, name):
            remove_file(folder / name)


def require_star_name(path: Path) -> None:
    """Raise `InputError` if a STAR file cannot refer to a file of this name."""
    name = path.name
    wrong = [char for char in name if char in " \"'#@" or not char.isprintable()]
    if wrong:
        found, expected = f"{wrong[0]!r} in the name {name!r}", "a name without white space, quotes, #, @ and controls"
        sentence = (
            f"{str(path)!r} cannot be written: a STAR file cannot refer to a stack with {wrong[0]!r} in its name."
        )
        raise InputError(path, found, expected, "Choose another name.", sentence)
    if len(name.encode()) > 200:
        raise InputError(path, f"a name of {len(name)} characters", "at most 200 bytes", "Choose a shorter name.")
