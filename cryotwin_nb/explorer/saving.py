"""Export of an exploration: the files of `write_pathway`, a movie, a figure and a note to restore the view."""

from __future__ import annotations

import csv
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryotwin_nb.errors import InputError
from cryotwin_nb.exchange.export import write_pathway
from cryotwin_nb.explorer.figure import draw_view
from cryotwin_nb.explorer.job import Report
from cryotwin_nb.explorer.request import PathRequest, fingerprint
from cryotwin_nb.explorer.view import View
from cryotwin_nb.formats.files import atomic, make_folder, require_file, require_writable
from cryotwin_nb.formats.outputs import refuse_unlisted, remove_listed, summary_of
from cryotwin_nb.formats.sets import file_set
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.plotting.movie import write_movie
from cryotwin_nb.runtime.locks import lock_path, writing

NOTE = "explorer.json"
SUPPORT = "support.csv"
_PICTURES = ("pathway.gif", "pathway.png")
_KIND = "PathwayExplorer"
_REPLACED = r"snapshot_\d{3,}\.png|support\.csv|pathway\.gif"
_SNAPSHOTS: set[Path] = set()
"""Snapshots that this process wrote."""


def write_exploration(
    folder: str | os.PathLike,
    view: View,
    prior: GaussianMixture,
    request: PathRequest,
    shown: dict[str, Any],
    movie: bool = False,
    report: Report = lambda share, text: None,
) -> list[Path]:
    """Write maps, latents, scripts for viewers, a figure, a movie on request, and the note; return all files there.

    The files change together. Files of an earlier path that its note lists are replaced or deleted, all others kept.
    """
    folder = Path(folder)
    require_writable(folder)
    with writing(folder / "path.json"):
        return _write(folder, view, prior, request, shown, movie, report)


def _write(
    folder: Path,
    view: View,
    prior: GaussianMixture,
    request: PathRequest,
    shown: dict[str, Any],
    movie: bool,
    report: Report,
) -> list[Path]:
    assert view.path is not None
    assert view.maps is not None
    assert view.voxel_size is not None
    former, pictures = _former(folder), _PICTURES if movie else _PICTURES[1:]
    refuse_unlisted(folder, [*pictures, *([] if view.support is None else [SUPPORT]), NOTE], former, NOTE)
    with file_set(folder):
        report(0.0, "writing maps")
        maps = write_pathway(folder, view.path, view.maps, view.voxel_size, level=view.level)
        titles = [f"step {k}" for k in range(len(view.maps))]
        if movie:
            movie_file, options = folder / _PICTURES[0], {"titles": titles, "level": view.level}
            write_movie(movie_file, view.maps, view.voxel_size, report=report, **options)  # type: ignore[arg-type]
        report(0.9, "drawing the figure")
        with atomic(folder / _PICTURES[1]) as partial:
            draw_view(view).savefig(partial, dpi=200, format="png")
        _write_support(folder / SUPPORT, view.support)
        names = {file.name for file in maps} | {*pictures, NOTE}
        names |= set() if view.support is None else {SUPPORT}
        shots = {_snapshot(step) for step in range(len(view.maps))}
        names |= {name for name in shots & former if (folder / name).is_file()}
        remove_listed(folder, former, names, _REPLACED)
        note = {
            "kind": _KIND,
            "version": version("cryotwin_nb"),
            "prior": fingerprint(prior),
            "request": request.as_dict(),
            "shown": shown,
            "latents": view.path.latents.tolist(),
            "files": sorted(names),
        }
        with atomic(folder / NOTE) as partial:
            partial.write_text(json.dumps(note, indent=1) + "\n")
    return [file for file in sorted(folder.iterdir()) if file != lock_path(folder / "path.json")]


def require_path(answer: object) -> None:
    """Raise `InputError` without a result."""
    if answer is None:
        sentence = "There is no path to export yet."
        raise InputError("export", "no path", "a computed path", "Choose two stars and press Compute.", sentence)


def _former(folder: Path) -> set[str]:
    """Return the names of files in a folder that the explorer wrote: those in its note, and snapshots of this session.

    Earlier builds wrote no list, but the latents of each map.
    """
    found = summary_of(folder / NOTE)
    note = found if found.get("kind") == _KIND else {}
    names, latents = note.get("files"), note.get("latents")
    if names is None and isinstance(latents, list):
        names = [NOTE, *_PICTURES, SUPPORT, *map(_snapshot, range(len(latents)))]
    here = {file.name for file in _SNAPSHOTS if file.parent == folder.resolve()}
    return here | {name for name in (names if isinstance(names, list) else []) if isinstance(name, str)}


def _write_support(file: Path, support: Any) -> None:
    """Write a table of the support by images at each step, if it was computed."""
    if support is None:
        return
    columns: dict[str, list] = {
        "resolution_angstrom": [f"{r:.6g}" for r in support.resolution],
        "effective_images": [f"{n:.6g}" for n in support.n_effective],
    }
    if hasattr(support, "findings"):
        columns["findings"] = ["; ".join(support.findings(step)) for step in range(len(support.resolution))]
    with atomic(file) as partial, open(partial, "w", newline="", encoding="utf-8") as table:
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["step", *columns])
        rows.writerows([step, *row] for step, row in enumerate(zip(*columns.values(), strict=True)))


def write_snapshot(folder: str | os.PathLike, step: int, png: bytes) -> Path:
    """Write a picture from the browser and list it in the note, if there is one; return the file.

    Raises
    ------
    InputError
        If a file of this name is there that the explorer did not write.
    """
    folder, name = make_folder(folder), _snapshot(step)
    refuse_unlisted(folder, [name], _former(folder), NOTE)
    note = summary_of(folder / NOTE)
    with file_set(folder):
        with atomic(folder / name) as partial:
            partial.write_bytes(png)
        if isinstance(note.get("files"), list) and name not in note["files"]:
            with atomic(folder / NOTE) as partial:
                partial.write_text(json.dumps(note | {"files": [*note["files"], name]}, indent=1) + "\n")
    _SNAPSHOTS.add((folder / name).resolve())
    return folder / name


def _snapshot(step: int) -> str:
    return f"snapshot_{step:03d}.png"


def read_note(path: str | os.PathLike, prior: GaussianMixture) -> tuple[PathRequest, dict[str, Any], list]:
    """Read the request, the settings of the view and the path's latents from a note or its folder.

    Raises
    ------
    InputError
        If the file is not a note written by the explorer, or belongs to another mixture.
    """
    path = Path(path) / NOTE if Path(path).is_dir() else path
    path = require_file(path, f"file {NOTE} written by the explorer")
    remedy = "Pass a file or folder written by the explorer's export."
    try:
        note = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        sentence = f"{path} cannot be read as JSON: {error}."
        raise InputError(path, f"invalid JSON ({error})", f"a {_KIND} note", remedy, sentence) from error
    if not isinstance(note, dict) or note.get("kind") != _KIND or not isinstance(note.get("shown"), dict):
        raise InputError(path, "something else", f"a {_KIND} note", remedy, f"{path} is not a {_KIND} note.")
    request = PathRequest.from_dict(note.get("request"), path)
    if note.get("prior") != fingerprint(prior):
        found = f"a path through mixture {note.get('prior')}"
        expected = f"a path through this mixture, {fingerprint(prior)}"
        raise InputError(path, found, expected, "Load the model that the path was computed with.")
    return request, note["shown"], note.get("latents", [])
