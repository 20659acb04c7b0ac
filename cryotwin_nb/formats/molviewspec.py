"""MolViewSpec file (.mvsj) that shows the maps of a pathway in Mol*, one snapshot per map.

The nodes are those of the tree schema 1 (molstar.org/mol-view-spec-docs/tree-schema); maps are drawn by its nodes
`volume` and `volume_representation`. Mol* resolves the relative addresses of the maps against the address of the .mvsj
file, so both must be on a web server, or in one .mvsx archive.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from cryotwin_nb.formats.chimerax import map_series
from cryotwin_nb.formats.files import atomic

_SHOWN = 500  # ms, of each map when Mol* plays the series


def write_molviewspec(
    path: str | os.PathLike, maps: Sequence[str | os.PathLike], level: float, width: float, title: str = "Pathway"
) -> None:
    """Write a .mvsj file that shows a series of maps at one contour level, from the same direction.

    Parameters
    ----------
    path : path-like
        The .mvsj file.
    maps : sequence of path-like
        Existing .mrc files, in order; the file refers to them by addresses relative to its own folder.
    level : float
        Contour level of all maps, in units of the map values.
    width : float
        Width of the maps, Å.
    title : str
        Title of the series.

    Raises
    ------
    InputError
        If `maps` is empty, a map is missing, its path contains control characters, or the level is not finite.
    """
    series, centre = map_series(path, maps, level), width / 2
    camera = {"target": [centre] * 3, "position": [centre, centre, centre + width], "up": [0.0, 1.0, 0.0]}
    snapshots = []
    for step, (name, color) in enumerate(series):
        surface = _node(
            "volume_representation", _node("color", color=color), type="isosurface", absolute_isovalue=level
        )
        density = _node("download", _node("parse", _node("volume", surface), format="map"), url=quote(name))
        snapshots.append(
            {
                "root": _node("root", density, _node("camera", **camera)),
                "metadata": {"title": f"Map {step}", "key": f"map_{step:03d}", "linger_duration_ms": _SHOWN},
            }
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    metadata = {"title": title, "timestamp": now, "version": "1"}
    with atomic(path) as partial:
        partial.write_text(json.dumps({"kind": "multiple", "metadata": metadata, "snapshots": snapshots}, indent=1))


def _node(kind: str, *children: dict[str, Any], **params: Any) -> dict[str, Any]:
    """Return a node of the tree; parameters and children are left out if there are none."""
    node: dict[str, Any] = {"kind": kind}
    if params:
        node["params"] = params
    if children:
        node["children"] = list(children)
    return node
