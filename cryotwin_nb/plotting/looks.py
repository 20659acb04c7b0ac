"""Figure and page of the result of `first_look`."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image

from cryotwin_nb.formats.files import atomic
from cryotwin_nb.plotting.curves import fsc_curves
from cryotwin_nb.plotting.pictures import scale_bar
from cryotwin_nb.plotting.style import COLOURS, DENSITY, GREY, as_numpy, styled

if TYPE_CHECKING:
    from cryotwin_nb.preparation.findings import Finding, FirstLook

_NEAR = np.cos(np.radians(10))  # views are counted within this angle of each direction
_MARKS = {"note": "#777", "warning": COLOURS[4], "must be mended": COLOURS[1]}


@styled
def first_look(look: FirstLook) -> Figure:
    """Plot sections of the map, the half-map FSC, the views, and the gain in likelihood for each alternative setting.

    Views are axes, drawn on a hemisphere in an equal-area projection along z. Beside them is the resolution that they
    allow in each direction of Fourier space.

    Parameters
    ----------
    look : FirstLook
        Result of `first_look`.
    """
    figure = plt.figure(figsize=(10.5, 6.6))
    left, right = np.array(figure.subfigures(1, 2, width_ratios=(1.15, 1)), object)
    maps, curve, discs = np.array(left.subfigures(3, 1, height_ratios=(1, 1.15, 1.25)), object)
    _sections(look, maps)
    fsc_curves(look.fsc, ["half maps"], ax=curve.subplots())
    views, resolution = discs.subplots(1, 2)
    _views(look, views)
    _resolution(look, resolution)
    _scores(look, right.subplots())
    return figure


def _disc(ax: Axes, directions: np.ndarray, values: np.ndarray, **style) -> PathCollection:
    """Draw values (m,) on axes (m, 3) over a hemisphere: Lambert's azimuthal equal-area projection along z."""
    flat = directions[:, :2] / np.sqrt((1 + directions[:, 2:]) / 2) / 2**0.5
    points = ax.scatter(flat[:, 0], flat[:, 1], c=values, s=13, lw=0, rasterized=True, **style)
    ax.add_patch(plt.Circle((0, 0), 1.03, fill=False, color=GREY, lw=0.8))
    ax.plot(0, 0, "+", color="black", ms=5, mew=0.8)
    for name, x, y in (("x", 1.1, 0), ("y", 0, 1.1)):
        ax.text(x, y, name, ha="center", va="center", fontsize=8)
    ax.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
    ax.axis("off")
    return points


def _views(look: FirstLook, ax: Axes) -> None:
    sampling = look.sampling
    counts = np.zeros(len(sampling.directions))
    for part in np.array_split(sampling.views, -(-len(sampling.views) // 4096)):
        counts += (np.abs(part @ sampling.directions.T) > _NEAR).sum(0)
    density = counts / (len(sampling.views) * (1 - _NEAR))
    points = _disc(ax, sampling.directions, density, cmap=DENSITY, vmin=0)
    ax.set_title(f"views (evenness {sampling.evenness:.2f})", fontsize=9, pad=2)
    ax.figure.colorbar(points, ax=ax, shrink=0.75, pad=0.02).set_label("density, 1 if even", fontsize=8)


def _resolution(look: FirstLook, ax: Axes) -> None:
    values = look.direction_resolution
    known = np.isfinite(values)
    title = "resolution in each direction, Å"
    if not known.any():
        ax.axis("off")
        ax.set_title(f"{title}: none", fontsize=9, pad=2)
        return
    low, high = float(values[known].min()), float(values[known].max())
    shown = np.ma.array(values, mask=~known)
    points = _disc(
        ax, look.sampling.directions[known], shown[known], cmap="cividis_r", norm=LogNorm(low * 0.99, high * 1.01)
    )
    if not known.all():
        _disc(ax, look.sampling.directions[~known], np.zeros((~known).sum()), cmap="gray", vmin=0, vmax=1)
        title = f"{title} (black: none)"
    ax.set_title(title, fontsize=9, pad=2)
    bar = ax.figure.colorbar(points, ax=ax, shrink=0.75, pad=0.02)
    ticks = np.unique(np.round(np.geomspace(low, high, 4), 1)).tolist()
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.ax.minorticks_off()


def _sections(look: FirstLook, figure) -> None:
    cube = as_numpy(look.map)
    middle = len(cube) // 2
    sections = {"xy": cube[middle], "xz": cube[:, middle], "yz": cube[:, :, middle]}
    low, high = np.percentile(cube, (0.5, 99.8))
    for panel, (name, picture) in zip(figure.subplots(1, 3), sections.items()):
        panel.imshow(picture, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="bicubic")
        panel.axis("off")
        panel.set_title(f"section {name}", fontsize=9, pad=3)
        if name == "xy":
            scale_bar(panel, look.voxel_size, "white")


def _scores(look: FirstLook, ax: Axes) -> None:
    """Draw one bar per alternative, the best on top; those above 0 predict images better than the file's metadata."""
    names = sorted(look.scores, key=look.scores.__getitem__)
    values = np.array([look.scores[name] for name in names])
    colours = [COLOURS[1] if value > 0 else COLOURS[0] for value in values]
    ax.barh(range(len(names)), values, color=colours, height=0.7)
    ax.set_yticks(range(len(names)), names, fontsize=7.5)
    ax.axvline(0, color="black", lw=0.8)
    reach = max(1.0, float(np.abs(values).max()))
    ax.set_xscale("symlog", linthresh=0.3)
    decades = 10.0 ** np.arange(0, np.ceil(np.log10(reach)) + 1)
    ticks = [tick for tick in (*-decades[::-1], 0, *decades) if values.min() * 1.3 <= tick <= values.max() * 1.3]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="gain over the metadata in the file (nats per image)", ylim=(-0.6, len(names) - 0.4))
    serious = look.problems or look.warnings
    found = "; ".join(finding.name for finding in serious) or "no problem found"
    colour = _MARKS[serious[0].level] if serious else COLOURS[2]
    ax.set_title(found, fontsize=9, color=colour, loc="right", wrap=True)


@dataclass(frozen=True, repr=False)
class Page:
    """Page that Jupyter shows, and that can be saved as a file without any other files.

    Attributes
    ----------
    html : str
        HTML of the body.
    title : str
        Title of the saved file.
    """

    html: str
    title: str

    def _repr_html_(self) -> str:
        return self.html

    def save(self, path: str | os.PathLike) -> None:
        """Write an HTML file, completely or not at all.

        Parameters
        ----------
        path : str or path
            File to write.
        """
        with atomic(path) as partial:
            head = f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>{escape(self.title)}</title>"
            partial.write_text(f"{head}{self.html}</html>\n", encoding="utf-8")


class Section(NamedTuple):
    """Part of a page: a heading, lines of text and a figure."""

    title: str
    lines: Sequence[str]
    figure: Figure | None


def first_look_page(look: FirstLook, title: str = "First look", sections: Sequence[Section] = ()) -> Page:
    """Return a page with the verdict, the findings, the figure and a table of the measurements.

    Parameters
    ----------
    look : FirstLook
        Result of `first_look`.
    title : str
        Heading.
    sections : sequence of Section
        Further sections at the end.

    Examples
    --------
    >>> ct.plotting.first_look_page(ct.first_look(particles)).save("look.html")
    """
    findings = "".join(_card(finding) for finding in look.findings)
    rows = "".join(f"<tr><th>{escape(name)}<td>{escape(text)}" for name, text in look.table())
    picture = _picture(first_look(look), "map, half-map correlation, views, resolution and alternatives")
    body = (
        f"<h1>{escape(title)}</h1><p class=verdict>{escape(look.verdict)}</p>{findings}{picture}<table>{rows}</table>"
    )
    for section in sections:
        lines = "".join(f"<p>{escape(line)}" for line in section.lines)
        drawn = "" if section.figure is None else _picture(section.figure, section.title)
        body += f"<h2>{escape(section.title)}</h2>{lines}{drawn}"
    return Page(f"<style>{_STYLE}</style><div class=cryotwin-look>{body}</div>", title)


def _picture(figure: Figure, description: str) -> str:
    """Return a figure as an element of a page, and close it."""
    drawn, file = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", dpi=80, bbox_inches="tight")
    plt.close(figure)
    few = Image.open(drawn).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)  # a third of the size
    few.save(file, "png", optimize=True)
    shown = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{shown}">'


def _card(finding: Finding) -> str:
    heading = f"{escape(finding.name)} <small>{escape(finding.level)}</small>"
    evidence = escape(finding.evidence[:1].upper() + finding.evidence[1:])
    style = f"border-left-color:{_MARKS[finding.level]}"
    return f'<section style="{style}"><h2>{heading}</h2><p>{evidence}.<p><b>{escape(finding.advice)}</b></section>'


_STYLE = """
.cryotwin-look {font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 1rem auto; padding: 0 1rem}
.cryotwin-look h1 {font-size: 1.3rem; margin: 0} .cryotwin-look h2 {font-size: 1rem; margin: 0}
.cryotwin-look small {font-weight: normal; opacity: .7} .cryotwin-look p {margin: .2rem 0}
.cryotwin-look .verdict {font-size: 1.15rem; margin: .4rem 0 .8rem}
.cryotwin-look > h2 {margin-top: 1.4rem}
.cryotwin-look section {border-left: 5px solid; padding: .2rem .8rem; margin: .6rem 0}
.cryotwin-look img {max-width: 100%; background: white; margin: .8rem 0}
.cryotwin-look table {border-collapse: collapse} .cryotwin-look tr {border-top: 1px solid #8884}
.cryotwin-look th, .cryotwin-look td {text-align: left; padding: .25rem 1rem .25rem 0; vertical-align: top}
"""
