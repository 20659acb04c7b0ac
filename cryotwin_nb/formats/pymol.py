"""PyMOL script that opens the maps of a pathway at a shared contour level, with a scene for each of them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cryotwin_nb.formats.chimerax import map_series, one_line
from cryotwin_nb.formats.files import atomic

_SCRIPT = '''\
# {title}: open this file in PyMOL 2.2 or later. Page Down and Page Up step through the maps.
python
import os
from pymol import cmd


def add_pathway(folder, maps, level):
    """Load the maps, draw each at the same level, and store a scene for each."""
    group = cmd.get_unused_name("pathway", 0)
    normalize = cmd.get("normalize_ccp4_maps")
    cmd.set("normalize_ccp4_maps", 0)  # otherwise the values become multiples of each map's standard deviation
    try:
        for step, (name, color) in enumerate(maps):
            surface = "%s_%03d" % (group, step)
            cmd.load(os.path.join(folder, name), surface + "_map")
            cmd.isosurface(surface, surface + "_map", level)
            cmd.color(color, surface)
            cmd.disable(surface + "_map")
            cmd.group(group, surface + " " + surface + "_map")
    finally:
        cmd.set("normalize_ccp4_maps", normalize)
    surfaces = ["%s_%03d" % (group, step) for step in range(len(maps))]
    for surface in surfaces[::-1]:
        cmd.disable(" ".join(surfaces))
        cmd.enable(surface)
        cmd.scene(surface, "store", view=0, color=0, rep=0, frame=0)
    cmd.scene_order(" ".join(surfaces))
    cmd.zoom(group)


add_pathway(
    os.path.dirname(os.path.abspath(__script__)),
    maps=[
{maps}
    ],
    level={level:.6g},
)
python end
'''


def write_pymol(
    path: str | os.PathLike, maps: Sequence[str | os.PathLike], level: float, title: str = "Pathway"
) -> None:
    """Write a .pml script that adds a series of maps at one contour level to a PyMOL session.

    Each map becomes a map object and an isosurface of its own colour, all in one group, and a scene that shows this
    isosurface alone. Other objects and the settings of the session stay as they are.

    Parameters
    ----------
    path : path-like
        The .pml file; open it in PyMOL.
    maps : sequence of path-like
        Existing .mrc files, in order; the script refers to them by paths relative to its own folder.
    level : float
        Contour level of all maps, in units of the map values.
    title : str
        Title in the first line.

    Raises
    ------
    InputError
        If `maps` is empty, a map is missing, its path contains control characters, or the level is not finite.
    """
    listed = [f"        ({name!r}, {color.replace('#', '0x')!r})," for name, color in map_series(path, maps, level)]
    script = _SCRIPT.format(title=one_line(title), maps="\n".join(listed), level=level)
    with atomic(path) as partial:
        partial.write_text(script, encoding="utf-8")
