"""Export of an exploration: the files of `write_pathway`, a movie, a figure and a note to restore the view."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
    """Write maps, latents, scripts for viewers, a movie, a figure and the note; return all files in the folder."""
    if view.path is None or view.maps is None:
        sentence = "There is no path to export yet."
        raise InputError("export", "no path", "a computed path", "Choose two stars and press Compute.", sentence)
    folder = make_folder(folder)
    write_pathway(folder, view.path, view.maps, view.voxel_size, level=view.level)
    for former in folder.glob(f"snapshot_{'[0-9]' * 3}.png"):
        if int(former.stem[-3:]) >= len(view.maps):
            former.unlink()  # from a longer path
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
    """Write a table of the support by images at each step, or remove the table of an earlier path."""
    if support is None:
        file.unlink(missing_ok=True)
        return
    rows = [f"{k},{r:.6g},{n:.6g}\n" for k, (r, n) in enumerate(zip(support.resolution, support.n_effective))]
    with atomic(file) as partial:
        partial.write_text("step,resolution_angstrom,effective_images\n" + "".join(rows))


def write_snapshot(folder: str | os.PathLike, step: int, png: bytes) -> Path:
    """Write a picture from the browser; return the file."""
    file = make_folder(folder) / f"snapshot_{step:03d}.png"
    with atomic(file) as partial:
        partial.write_bytes(png)
    return file


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


def same_points(stored: list, points: Tensor) -> bool:
    """Return whether stored latents agree with the points of a path to within 0.1 % of the largest coordinate."""
    values = torch.as_tensor(stored)
    return values.shape == points.shape and bool(
        torch.allclose(values.float(), points, atol=1e-3 * float(points.abs().max()))
    )
