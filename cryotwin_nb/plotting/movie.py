"""Movies of the maps along a pathway."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import FFMpegWriter, FuncAnimation, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.files import atomic
from cryotwin_nb.plotting.pictures import _cubes, _filled, scale_bar
from cryotwin_nb.plotting.rendering import contour_level, render_surface, view_from
from cryotwin_nb.plotting.style import PLAIN, Array, plain, styled

_EVEN = "pad=ceil(iw/2)*2:ceil(ih/2)*2"  # H.264 requires even sides


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
    report: Callable[[float, str], object] | None = None,
) -> Path:
    """Write the maps of a path as a movie that plays forwards and then backwards, at one contour level.

    Parameters
    ----------
    file : path
        .gif file, or .mp4 if ffmpeg is installed. Written completely or not at all.
    maps : (m, D, D, D) float
        Density maps, zyx, all in the same unit.
    voxel_size : float
        Voxel size, Å.
    titles : sequence of m, optional
        Titles of the maps; by default their numbers.
    level : float, optional
        Contour level in the unit of the maps; by default determined by `sigma`.
    sigma : float
        Contour level in standard deviations above the mean; see `map_montage`.
    reference : "first" or None
        Colour density gained since the first map blue and density lost orange; None switches this off.
    view : (float, float)
        Azimuth and elevation in degrees; see `view_from`.
    turn : float
        Rotation of the view from the first map to the last, degrees.
    frames_per_second : int
        Frame rate.
    n_between : int
        Number of linearly interpolated frames between consecutive maps.
    size : int
        Edge length of the pictures before cropping, pixels.
    report : callable, optional
        Function called with the completed share and a description; it can raise an exception to stop.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        If the file extension is not supported, ffmpeg is missing, the maps have the wrong shape or a setting is
        invalid.
    """
    file, cubes = Path(file), _cubes(maps)
    writer = _writer(file, frames_per_second)
    if titles is not None and len(titles) != len(cubes):
        remedy = "Pass one title per map, or omit titles to number the maps."
        raise InputError("titles", f"{len(titles)}", f"{len(cubes)}, one for each map", remedy)
    if reference not in (None, "first"):
        raise InputError("reference", repr(reference), "'first' or None", "Pass one of these.")
    level = contour_level(cubes, sigma) if level is None else level
    first = cubes[0] if reference == "first" else None
    pictures: list[np.ndarray] = []
    steps = np.linspace(0, len(cubes) - 1, (len(cubes) - 1) * (n_between + 1) + 1)
    for step in steps:
        if report is not None:
            report(0.8 * len(pictures) / len(steps), f"movie: picture {len(pictures) + 1} of {len(steps)}")
        k = min(int(step), len(cubes) - 2) if len(cubes) > 1 else 0
        mixed = cubes[k] + (step - k) * (cubes[min(k + 1, len(cubes) - 1)] - cubes[k])
        angle = view[0] + turn * step / max(len(cubes) - 1, 1)
        difference = None if first is None else mixed - first
        pictures.append(render_surface(mixed, level, size=size, view=view_from(angle, view[1]), difference=difference))
    rows, columns = _filled(np.stack(pictures).min(axis=(0, 3)) < 1)
    names = [str(titles[round(s)] if titles is not None else f"map {round(s)}") for s in steps]
    shape = (columns.stop - columns.start, rows.stop - rows.start)
    figure = Figure(figsize=(shape[0] / 80, shape[1] / 80 + 0.3), dpi=80)  # pyplot is not safe in threads
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    image = panel.imshow(pictures[0][rows, columns])
    panel.axis("off")
    scale_bar(panel, voxel_size * cubes.shape[-1] / size)
    order = [*range(len(steps)), *range(len(steps) - 2, 0, -1)]

    def draw(number: int) -> tuple:
        image.set_data(pictures[number][rows, columns])
        return image, panel.set_title(plain(names[number]), fontsize=9, **PLAIN)

    with atomic(file) as partial:
        FuncAnimation(figure, draw, frames=order, blit=False).save(str(partial), writer=writer, dpi=80)
    return file


def _writer(file: Path, frames_per_second: int) -> PillowWriter | FFMpegWriter:
    if file.suffix.lower() == ".gif":
        return PillowWriter(fps=frames_per_second)
    if file.suffix.lower() != ".mp4":
        raise InputError(file, f"extension {file.suffix!r}", ".gif or .mp4", "Choose another file name.")
    if not FFMpegWriter.isAvailable():
        sentence = f"{file}: writing .mp4 needs ffmpeg, which is not on the PATH."
        raise InputError(file, "no ffmpeg", "ffmpeg on the PATH", "Install ffmpeg, or write a .gif.", sentence)
    return FFMpegWriter(fps=frames_per_second, codec="h264", extra_args=["-pix_fmt", "yuv420p", "-vf", _EVEN])
