"""ChimeraX script that opens the maps of a pathway at a shared contour level, with a slider to step through them.

ChimeraX runs a .cxc file with its folder as the working directory, so the script refers to the maps by relative
paths, and the folder can be moved or shared. It uses commands of the user guide of ChimeraX 1.11
(pages open, close, rename, volume, view and mseries); the option `id` of `open` requires ChimeraX 1.7 or later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryotwin_nb.errors import InputError, whole
from cryotwin_nb.formats.files import atomic, require_file

# Colours from start to end of a path: blue through grey to orange, safe for colour-blind readers and in print.
_START, _MIDDLE, _END = (0, 114, 178), (190, 190, 190), (213, 94, 0)
_COLOUR = re.compile(r"[A-Za-z]\w*|#(?:[0-9A-Fa-f]{3}|[0-9A-Fa-f]{4}|[0-9A-Fa-f]{6}|[0-9A-Fa-f]{8})", re.ASCII)
_HARMLESS = str.maketrans({'"': "'", ";": ",", "\\": "/"})


def write_session(
    path: str | os.PathLike,
    maps: Sequence[str | os.PathLike],
    level: float,
    colors: Sequence[str] | None = None,
    title: str = "Pathway",
    number: int = 9001,
) -> None:
    """Write a .cxc script that adds a series of maps at one contour level to a ChimeraX session.

    The maps become the submodels of one model, with a number that is hardly ever taken. Other models and the settings
    of the session stay as they are. Opening the script again replaces its own maps.

    Parameters
    ----------
    path : path-like
        The .cxc file to write; open it in ChimeraX.
    maps : sequence of path-like
        Existing .mrc files, in order; the script refers to them by paths relative to its own folder.
    level : float
        Contour level of all maps, in units of the map values.
    colors : sequence of str, optional
        One colour per map: a name ("orange") or hexadecimal digits ("#0072b2"); by default blue to orange.
    title : str
        Title of the slider and name of the model.
    number : int
        Model number; the maps are opened as #number.1, #number.2 ...

    Raises
    ------
    InputError
        If `maps` is empty, a map is missing, the level is not finite, the numbers of maps and colours differ, a colour
        is neither a name nor hexadecimal digits, or the path of a map contains characters that a script cannot hold.
    """
    series, number = map_series(path, maps, level, colors), whole("number", number, "Pass a positive integer.")
    title = one_line(title)
    every = f"#{number}.1-{len(series)}" if len(series) > 1 else f"#{number}.1"
    lines = [f"# {title}: open this file in ChimeraX 1.7 or later. It adds the maps to the session as model #{number}."]
    lines.append(f"close #{number}")
    for i, (name, color) in enumerate(series, 1):
        lines.append(f"open {_quoted(name, path)} id {number}.{i}")
        lines.append(f"volume #{number}.{i} style surface step 1 color {color}")
    lines.append(f'rename #{number} "{title}"')
    lines += [f"volume {every} level {level:.6g}", f"view #{number}"]
    if len(series) > 1:
        lines.append(f'mseries slider {every} title "{title}" name Map')
    with atomic(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def map_series(
    path: str | os.PathLike, maps: Sequence[str | os.PathLike], level: float, colors: Sequence[str] | None = None
) -> list[tuple[str, str]]:
    """Return for each map its path relative to the folder of `path`, and its colour; see `write_session`."""
    files = [require_file(name, "map").resolve() for name in maps]
    palette = list(colors) if colors is not None else path_colors(len(files))
    if not files:
        raise InputError(path, "no maps", "at least one", "Write the maps first.")
    if len(palette) != len(files):
        found = f"{len(palette)} colours for {len(files)} maps"
        raise InputError(path, found, "one colour per map", "Omit colors to use the defaults.")
    if not np.isfinite(level):
        raise InputError(path, f"a contour level of {level}", "a finite number", "Choose a finite level.")
    folder = Path(path).resolve().parent
    names = [Path(os.path.relpath(file, folder)).as_posix() for file in files]
    for what, words in {"map": names, "colour": palette}.items():
        good = str.isprintable if what == "map" else _COLOUR.fullmatch
        wrong = next((word for word in words if not good(word)), None)
        if wrong is not None:
            expected = (
                "names of printable characters" if what == "map" else 'words or digits, as in "orange" or "#0072b2"'
            )
            raise InputError(path, f"the {what} {wrong!r}", expected, f"Choose another {what}.")
    return list(zip(names, palette, strict=True))


def _quoted(name: str, path: str | os.PathLike) -> str:
    """Return a name in quotation marks, which end at the next mark of their kind, or refuse it."""
    quote = "'" if '"' in name else '"'
    if quote in name or "\\" in name:  # a backslash can begin an escape sequence
        sentence = f"{path} cannot open {name!r}: a ChimeraX script cannot hold this name."
        expected = "a name without backslashes and with one kind of quotation marks at most"
        raise InputError(path, f"a map named {name!r}", expected, "Rename the map.", sentence)
    return f"{quote}{name}{quote}"


def one_line(title: str) -> str:
    """Return a title as one line that ends no quotation or comment and starts no command."""
    text = "".join(char if char.isprintable() else " " for char in title.translate(_HARMLESS))
    return " ".join(text.split())


def path_colors(n: int) -> list[str]:
    """Return n colours "#rrggbb" from the start of a path (blue) to its end (orange)."""
    stops = np.array([_START, _MIDDLE, _END], dtype=np.float64)
    at = np.linspace(0, 2, n)
    channels = np.stack([np.interp(at, (0, 1, 2), stops[:, c]) for c in range(3)], axis=1).round().astype(int)
    return ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in channels]
