"""The maps of a pathway as a movie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.animation import FFMpegWriter, FuncAnimation, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import atomic
from cryotwin_nb.plotting.pictures import _cubes, _filled, scale_bar
from cryotwin_nb.plotting.rendering import contour_level, render_surface, view_from
from cryotwin_nb.plotting.style import Array, styled

if TYPE_CHECKING:
    pass

_EVEN = "pad=ceil(iw/2)*2:ceil(ih/2)*2"  # H.264 wants even sides


@styled
def write_movie(
    file: str | os.PathLike,
    maps: Array | Sequence[Array],
    voxel_size: float,
    *,
    titles: Sequence | None = None,
    level: float | None = None,
    sigma: float = 2.0,
    reference: str | None = "first",
    view: tuple[float, float] = (0.0, 0.0),
    turn: float = 0.0,
    frames_per_second: int = 8,
    n_between: int = 2,
    size: int = 360,
) -> Path:
    """Write the maps of a path as a movie, there and back, at one contour.

    Parameters
    ----------
    file : path
        .gif, or .mp4 where ffmpeg is installed. Written whole or not at all.
    maps : (m, D, D, D) float
    voxel_size : float
        Å.
    titles : sequence of m, optional
        By default the number of the map.
    level, sigma, view
        As in `map_montage`.
    reference : "first" or None
        Colour what has been gained blue and what has been lost orange since the first map, or nothing.
    turn : float
        Degrees that the view turns by from the first map to the last.
    frames_per_second : float
    n_between : int
        Frames interpolated between two maps, linearly.
    size : int
        Pixels along the edge of the uncut pictures.

    Raises
    ------
    InputError
        If the ending is another, ffmpeg is missing, the maps are not maps or a setting is not valid.
    """
    file, cubes = Path(file), _cubes(maps)
    writer = _writer(file, frames_per_second)
    if titles is not None and len(titles) != len(cubes):
        raise InputError("titles", f"{len(titles)}", f"{len(cubes)}, one for each map", "Omit titles to number maps.")
    if reference not in (None, "first"):
        raise InputError("reference", repr(reference), "'first' or None", "Choose one of them.")
    level = contour_level(cubes, sigma) if level is None else level
    first = cubes[0] if reference == "first" else None
    pictures, steps = [], np.linspace(0, len(cubes) - 1, (len(cubes) - 1) * (n_between + 1) + 1)
    for step in steps:
        k = min(int(step), len(cubes) - 2) if len(cubes) > 1 else 0
        mixed = cubes[k] + (step - k) * (cubes[min(k + 1, len(cubes) - 1)] - cubes[k])
        angle = view[0] + turn * step / max(len(cubes) - 1, 1)
        difference = None if first is None else mixed - first
        pictures.append(render_surface(mixed, level, size=size, view=view_from(angle, view[1]), difference=difference))
    rows, columns = _filled(np.stack(pictures).min(axis=(0, 3)) < 1)
    names = [str(titles[round(s)] if titles is not None else f"map {round(s)}") for s in steps]
    shape = (columns.stop - columns.start, rows.stop - rows.start)
    figure = Figure(figsize=(shape[0] / 80, shape[1] / 80 + 0.3), dpi=80)  # not pyplot's: this may run in a thread
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    image = panel.imshow(pictures[0][rows, columns])
    panel.axis("off")
    scale_bar(panel, voxel_size * cubes.shape[-1] / size)
    order = [*range(len(steps)), *range(len(steps) - 2, 0, -1)]

    def draw(number: int) -> tuple:
        image.set_data(pictures[number][rows, columns])
        return image, panel.set_title(names[number], fontsize=9)

    with atomic(file) as partial:
        FuncAnimation(figure, draw, frames=order, blit=False).save(str(partial), writer=writer, dpi=80)
    return file


def _writer(file: Path, frames_per_second: int) -> PillowWriter | FFMpegWriter:
    if file.suffix.lower() == ".gif":
        return PillowWriter(fps=frames_per_second)
    if file.suffix.lower() != ".mp4":
        raise InputError(file, f"the ending {file.suffix!r}", ".gif or .mp4", "Choose another name.")
    if not FFMpegWriter.isAvailable():
        sentence = f"{file}: writing .mp4 needs ffmpeg, which is not on the PATH."
        raise InputError(file, "no ffmpeg", "ffmpeg on the PATH", "Install ffmpeg, or write a .gif.", sentence)
    return FFMpegWriter(fps=frames_per_second, codec="h264", extra_args=["-pix_fmt", "yuv420p", "-vf", _EVEN])
