"""An exploration as files: all that `write_pathway` writes, a movie, a picture, and a note that recreates it."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryotwin_nb.errors import InputError
from cryotwin_nb.exchange.export import write_pathway
from cryotwin_nb.explorer.figure import draw_view
from cryotwin_nb.explorer.request import PathRequest, fingerprint
from cryotwin_nb.explorer.view import View
from cryotwin_nb.formats.files import atomic, make_folder, require_file
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.plotting.movie import write_movie

NOTE = "explorer.json"
SUPPORT = "support.csv"
_KIND = "PathwayExplorer"


def write_exploration(
    folder: str | os.PathLike, view: View, prior: GaussianMixture, request: PathRequest, shown: dict[str, Any]
) -> list[Path]:
    """Write maps, latents, a ChimeraX script, a movie, a picture and the note; returns the files."""
    if view.path is None or view.maps is None:
        sentence = "There is no path to export yet."
        raise InputError("export", "no path", "a computed path", "Choose two stars and press Compute.", sentence)
    folder = make_folder(folder)
    write_pathway(folder, view.path, view.maps, view.voxel_size, level=view.level)
    titles = [f"step {k}" for k in range(len(view.maps))]
    write_movie(folder / "pathway.gif", view.maps, view.voxel_size, titles=titles, level=view.level)
    with atomic(folder / "pathway.png") as partial:
        draw_view(view).savefig(partial, dpi=200, format="png")
    _write_support(folder / SUPPORT, view.support)
    note = {
        "kind": _KIND,
        "version": version("cryotwin_nb"),
        "prior": fingerprint(prior),
        "request": request.as_dict(),
        "shown": shown,
        "latents": view.path.latents.tolist(),
    }
    with atomic(folder / NOTE) as partial:
        partial.write_text(json.dumps(note, indent=1) + "\n")
    return sorted(folder.iterdir())


def _write_support(file: Path, support: Any) -> None:
    """What images say of each step, as a table; one of a former path is removed."""
    if support is None:
        file.unlink(missing_ok=True)
        return
    rows = [f"{k},{r:.6g},{n:.6g}\n" for k, (r, n) in enumerate(zip(support.resolution, support.n_effective))]
    with atomic(file) as partial:
        partial.write_text("step,resolution_angstrom,effective_images\n" + "".join(rows))


def write_snapshot(folder: str | os.PathLike, step: int, png: bytes) -> Path:
    """Write a picture of the browser's; returns the file."""
    file = make_folder(folder) / f"snapshot_{step:03d}.png"
    with atomic(file) as partial:
        partial.write_bytes(png)
    return file


def read_note(path: str | os.PathLike, prior: GaussianMixture) -> tuple[PathRequest, dict[str, Any], list]:
    """The request, what was shown and the path's latents, from the note or the folder that holds it.

    Raises
    ------
    InputError
        If it is no such note, or belongs to another mixture.
    """
    path = Path(path) / NOTE if Path(path).is_dir() else path
    path = require_file(path, f"file {NOTE} written by the explorer")
    remedy = "Give a file that the explorer's export wrote."
    try:
        note = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        sentence = f"{path} cannot be read as JSON: {error}."
        raise InputError(path, f"no JSON ({error})", f"a {_KIND} note", remedy, sentence) from error
    if not isinstance(note, dict) or note.get("kind") != _KIND or not isinstance(note.get("shown"), dict):
        raise InputError(path, "something else", f"a {_KIND} note", remedy, f"{path} is not a {_KIND} note.")
    request = PathRequest.from_dict(note.get("request"), path)
    if note.get("prior") != fingerprint(prior):
        found, expected = f"a path on the mixture {note.get('prior')}", f"one on this mixture, {fingerprint(prior)}"
        raise InputError(path, found, expected, "Load the model that it was made with.")
    return request, note["shown"], note.get("latents", [])
