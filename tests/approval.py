"""Compares what tests draw with descriptions that somebody has looked at and approved.

Every artist of every figure that a test leaves open, and every widget that it makes, becomes a line of text with its
place, size, colours, text and data. The lines are stored in `approved/`, one file per test module. `pytest --approve`
stores those of the tests that it runs; look at the pictures first. "varies" marks a drawing that depends on timing or,
like t-SNE, on the processor.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "approved"
NUMBER = re.compile(r"(?<![\w#])-?(?:\d+\.?\d*(?:e[-+]\d+)?|inf|nan)(?!\w)")
UNSTABLE = re.compile(r"IPY_MODEL_\w+|[0-9a-f]{32}|/[^\s\"]*/pytest-\d+/(popen-gw\d+/)?[^/]+")


def numbers(values: object) -> str:
    """Return the shape, range and moments of an array, with the first values of a short one."""
    array = np.ma.filled(np.ma.asarray(values).astype(float), np.nan).ravel()
    if len(array) <= 8:
        return "[" + " ".join(f"{v:.5g}" for v in array) + "]"
    finite = array[np.isfinite(array)]
    if not len(finite):
        return f"{np.shape(values)} empty"
    ramp = np.linspace(-1, 1, len(finite))  # makes the summary depend on the order
    summary = (finite.min(), finite.max(), finite.mean(), np.square(finite).mean(), (ramp * finite).mean())
    return f"{np.shape(values)} " + " ".join(f"{v:.5g}" for v in summary)


def describe_figure(figure) -> Iterator[str]:
    """Yield a line for each visible artist of a figure, in drawing order."""
    from matplotlib import collections, image, lines, offsetbox, patches, text

    yield f"Figure {numbers(figure.get_size_inches())}"
    for artist in figure.findobj(lambda a: a.get_visible()):
        parts: list[object] = [artist.get_zorder(), artist.get_alpha()]
        if isinstance(artist, text.Text):
            if not artist.get_text():
                continue
            parts += [
                repr(artist.get_text()),
                artist.get_fontsize(),
                artist.get_color(),
                artist.get_ha(),
                artist.get_va(),
            ]
            parts += [artist.get_rotation(), artist.get_weight()]
            if isinstance(artist, text.Annotation):
                parts += [artist.xy, artist.xyann, artist.xycoords, artist.anncoords]
        elif isinstance(artist, lines.Line2D):
            parts += [numbers(artist.get_xydata()), artist.get_color(), artist.get_linewidth(), artist.get_linestyle()]
            parts += [artist.get_marker(), artist.get_markersize(), artist.get_drawstyle()]
        elif isinstance(artist, collections.Collection):
            parts += [numbers(artist.get_offsets()), numbers(artist.get_facecolor()), numbers(artist.get_edgecolor())]
            parts += [numbers(artist.get_linewidth()), *(numbers(p.vertices) for p in artist.get_paths()[:3])]
            parts += [numbers(artist.get_sizes())] if isinstance(artist, collections.PathCollection) else []
        elif isinstance(artist, image.AxesImage):
            parts += [numbers(artist.get_array()), artist.get_clim(), artist.get_cmap().name, artist.get_extent()]
        elif isinstance(artist, offsetbox.OffsetImage):
            parts += [numbers(artist.get_data()), artist.get_zoom()]
        elif isinstance(artist, patches.Patch):
            parts += [numbers(artist.get_path().vertices), numbers(artist.get_facecolor())]
            parts += [numbers(artist.get_edgecolor()), artist.get_linewidth(), artist.get_hatch()]
            parts += [numbers(artist.get_bbox())] if isinstance(artist, patches.Rectangle) else []
        elif type(artist).__name__.endswith("Axes") or type(artist).__name__ == "Axes":
            parts += [numbers(artist.get_xlim()), numbers(artist.get_ylim()), artist.get_xscale(), artist.get_yscale()]
            parts += [artist.get_aspect(), numbers(artist.get_position().bounds), artist.axison]
        else:
            continue
        yield f"{type(artist).__name__} " + " ".join(str(part) for part in parts)


def summary(value: object) -> object:
    """Return bytes and long lists of numbers as `numbers`, anything else as it is."""
    if isinstance(value, (bytes, memoryview)):
        return numbers(np.frombuffer(value, np.uint8))
    if isinstance(value, list) and len(value) > 8:
        try:
            return numbers(np.array(value, dtype=float))
        except (TypeError, ValueError):
            return value
    return value


def describe_widget(widget) -> str:
    """Return the state of a widget on a line, without identifiers."""
    state = {k: v for k, v in widget.get_state().items() if v is not None and not k.startswith("_")}
    shown = {k: summary(v) for k, v in state.items() if k != "still"}  # an identifier
    return f"{type(widget).__name__} " + UNSTABLE.sub("", json.dumps(shown, sort_keys=True, default=str))


def describe(name: str, value: object) -> Iterator[str]:
    """Yield a line for each number, array and text in nested results."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if not f.name.startswith("_")}
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from describe(f"{name}.{key}", part)
    elif isinstance(value, (list, tuple)) and not all(isinstance(v, (int, float)) for v in value):
        for number, part in enumerate(value):
            yield from describe(f"{name}[{number}]", part)
    elif hasattr(value, "detach") or isinstance(value, (np.ndarray, list, tuple)):
        array = value.detach().cpu().double().numpy() if hasattr(value, "detach") else np.asarray(value)
        yield f"{name} {numbers(array) if array.dtype.kind in 'fiub' else array.tolist()}"
    else:
        yield f"{name} {value:.5g}" if isinstance(value, (float, np.floating)) else f"{name} {value}"


def equal(found: list[str], approved: list[str], tolerance: float = 1e-3) -> bool:
    """Whether both have the same words, and numbers that agree relative to the largest number of their line."""
    if [NUMBER.sub("#", line) for line in found] != [NUMBER.sub("#", line) for line in approved]:
        return False
    for ours, theirs in zip(found, approved, strict=True):
        a, b = (np.array(NUMBER.findall(line), dtype=float) for line in (ours, theirs))
        scale = np.abs(b[np.isfinite(b)]).max(initial=0)
        if not np.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
            return False
    return True


def existing() -> tuple[dict, list[int]]:
    """Return the ipywidgets that exist, by identifier, and the numbers of the open figures."""
    module, pyplot = (sys.modules.get(name) for name in ("ipywidgets.widgets.widget", "matplotlib.pyplot"))
    return dict(module._instances) if module else {}, pyplot.get_fignums() if pyplot else []


def drawn(before: tuple[dict, list[int]]) -> list[str]:
    """Describe the figures and widgets made since `before`."""
    widgets, numbers = existing()
    pyplot = sys.modules.get("matplotlib.pyplot")
    figures = [pyplot.figure(n) for n in numbers if n not in before[1]] if pyplot else []
    lines = [line for figure in figures for line in describe_figure(figure)]
    return lines + [describe_widget(widget) for key, widget in widgets.items() if key not in before[0]]


def versions() -> dict[str, str]:
    """Return the versions that decide how things look by default."""
    return {name: importlib.metadata.version(name) for name in ("matplotlib", "ipywidgets", "numpy", "torch")}


def processor() -> str:
    """Return the name of this machine's processor, with its generation: families and models can share a name."""
    file = Path("/proc/cpuinfo")
    found = re.findall(r"^(model name|cpu family|model)\s*: (.*)$", file.read_text(), re.M) if file.exists() else []
    first = dict(reversed(found))
    if "model name" not in first:
        return platform.processor()
    return f"{first['model name']}, family {first.get('cpu family')}, model {first.get('model')}"


def same_processor(module: str) -> bool:
    return stored(module).get("processor") == processor()


def comparable(module: str) -> bool:
    """Whether the approved drawings were made with the versions that are installed."""
    return stored(module).get("versions") == versions()


def stored(module: str) -> dict[str, Any]:
    file = FOLDER / f"{module}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def store(module: str, entries: dict[str, list[str]]) -> None:
    """Merge entries into the file of a module; an empty one is removed."""
    merged = {**stored(module), **entries, "versions": versions(), "processor": processor()}
    kept = {name: lines for name, lines in sorted(merged.items()) if lines}
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(kept, indent=1, ensure_ascii=False)
    (FOLDER / f"{module}.json").write_text(text + "\n", encoding="utf-8")
