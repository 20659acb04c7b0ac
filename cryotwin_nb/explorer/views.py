"""The explorer's view as a small JSON: ends, method, step, camera, contour and names, with a digest of the mixture.

Views come from other people, so they are read as untrusted: they are bounded, unknown entries are refused, names are
only ever shown, and nothing in them is taken as the name of a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer.look import Look
from cryotwin_nb.explorer.request import PathRequest, fingerprint
from cryotwin_nb.formats.files import require_file
from cryotwin_nb.mixture.gaussian import GaussianMixture

KIND = "PathwayExplorer view"
MIME = "application/vnd.cryotwin.view+json"
_MOST_BYTES = {".json": 1_000_000, ".ipynb": 100_000_000}
_MOST_NAMES, _MOST_NAME, _MOST_ROUTE = 10_000, 200, 1000
_KEYS = {"kind", "version", "prior", "settings", "ends", "chosen", "look", "names"}
_REMEDY = "Pass the result of explorer.view(), or a file written with it."


@dataclass(frozen=True)
class Stored:
    """Contents of a view or of the note of an export.

    Attributes
    ----------
    request : PathRequest
        Settings of the path.
    chosen : int
        Index of the path shown.
    look : dict
        Settings of the display.
    names : dict of int to str
        Names of the components; empty if they are not stored.
    points : list of list of float
        Latents of the path or, in a view, of its ends.
    """

    request: PathRequest
    chosen: int
    look: dict[str, Any]
    names: dict[int, str]
    points: list


def view_of(explorer: Any) -> dict[str, Any]:
    """Return the view of an explorer; without a path, of its settings."""
    with explorer.session.lock:
        answer, request, look = explorer.session.answer, explorer.session.request, explorer.session.look
    request = request if answer is None else answer.request
    return {
        "kind": KIND,
        "version": 1,
        "prior": fingerprint(explorer.prior),
        "settings": json.loads(json.dumps(request.as_dict())),
        "ends": [] if answer is None else answer.path.latents[[0, -1]].tolist(),
        "chosen": 0 if answer is None else answer.chosen,
        "look": look.as_dict(),
        "names": {str(component): name for component, name in explorer.names.items()},
    }


def read_source(source: Any, prior: GaussianMixture) -> Stored:
    """Read a view (dict, .json or .ipynb) or the note of an export (folder or explorer.json).

    Raises
    ------
    InputError
        If it is something else, has unknown entries, or belongs to another mixture.
    """
    if isinstance(source, Mapping):
        return read_view(dict(source), prior, "view")
    path = Path(source)
    if not path.is_dir():
        found = _read(path)
        if found.get("kind") == KIND or path.suffix == ".ipynb":
            return read_view(found, prior, path)
    from cryotwin_nb.explorer.saving import read_note

    request, shown, points = read_note(path, prior)
    chosen = shown.pop("route", 0)
    return Stored(request, chosen if type(chosen) is int and chosen >= 0 else 0, shown, {}, points)


def read_view(view: dict[str, Any], prior: GaussianMixture, where: Any) -> Stored:
    """Check a view and return its contents; see `read_source`."""
    if view.get("kind") != KIND or view.get("version") != 1:
        raise InputError(where, "something else", f"a {KIND}", _REMEDY, f"{where} is not a {KIND}.")
    if set(view) != _KEYS:
        found = f"unknown or missing entries: {', '.join(map(repr, sorted(set(view) ^ _KEYS)[:5]))!s:.100}"
        raise InputError(where, found, f"the entries {', '.join(sorted(_KEYS))}", _REMEDY)
    request = PathRequest.from_dict(view["settings"], where)
    Look().changed(view["look"])
    chosen, names, ends = view["chosen"], view["names"], view["ends"]
    wrong = type(chosen) is not int or not 0 <= chosen < _MOST_ROUTE or not _are_names(names)
    if wrong or not isinstance(ends, list) or len(ends) not in (0, 2):
        raise InputError(where, "an invalid path number, names or ends", f"a {KIND}", _REMEDY)
    if view["prior"] != fingerprint(prior):
        sentence = "This view belongs to another model."
        remedy = "Load the model that the view was made with."
        raise InputError(where, f"mixture {view['prior']!s:.20}", f"mixture {fingerprint(prior)}", remedy, sentence)
    return Stored(request, chosen, view["look"], {int(c): name for c, name in names.items()}, ends)


def same_points(stored: list, points: Tensor) -> bool:
    """Return whether stored latents, of all points or of both ends, agree to 0.1 % of the largest coordinate."""
    points = points[[0, -1]] if len(stored) == 2 else points
    try:
        values = torch.as_tensor(stored or points)
    except (TypeError, ValueError, RuntimeError):
        return False
    return values.shape == points.shape and bool(
        torch.allclose(values.float(), points, atol=1e-3 * float(points.abs().max()))
    )


def _read(path: Path) -> dict[str, Any]:
    """Read the JSON of a file or, from a notebook, the last view that it holds."""
    file = require_file(path, "file with a view")
    most = _MOST_BYTES.get(path.suffix, _MOST_BYTES[".json"])
    if Path(file).stat().st_size > most:
        raise InputError(path, "a large file", f"at most {most:,} bytes", _REMEDY)
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
        if path.suffix == ".ipynb":
            outputs = [output for cell in found["cells"] for output in cell.get("outputs", ())]
            found = [output["data"][MIME] for output in outputs if MIME in output.get("data", ())][-1]
    except (ValueError, RecursionError) as error:
        sentence = f"{path} cannot be read as JSON: {error}."
        raise InputError(path, f"invalid JSON ({error})", f"a {KIND}", _REMEDY, sentence) from error
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(path, "no view", f"a notebook saved with a {KIND}", _REMEDY) from error
    return found if isinstance(found, dict) else {}


def _are_names(names: Any) -> bool:
    return (
        isinstance(names, dict)
        and len(names) <= _MOST_NAMES
        and all(k.isascii() and k.isdecimal() and len(k) < 10 for k in names)
        and all(isinstance(v, str) and len(v) <= _MOST_NAME for v in names.values())
    )
