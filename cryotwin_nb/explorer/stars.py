"""Star picker: latents in a plane, clickable stars at the means, and the path between two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets

from cryotwin_nb.explorer.planes import Colouring, Plane
from cryotwin_nb.pathways.ridgeline import Pathway, equidistant

_CORNERS = 120  # number of points per path drawn
_HERE = Path(__file__).parent


class StarPicker(anywidget.AnyWidget):
    """Scatter plot of latents with a star at each mean; clicks set `start` and `end`, which can also be set from code.

    `still` is the name of the still picture that a live picker hides (see `still.Still`). Use `show_plane`,
    `show_colours` and `show_path` to set everything else.
    """

    _esm = _HERE / "stars.js"
    _css = _HERE / "stars.css"

    start = traitlets.Int(-1).tag(sync=True)
    end = traitlets.Int(-1).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    points = traitlets.Bytes().tag(sync=True)
    colours = traitlets.Bytes().tag(sync=True)
    stars: Any = traitlets.List().tag(sync=True)
    extent = traitlets.List([0.0, 0.0, 1.0, 1.0]).tag(sync=True)
    axes = traitlets.List(["", ""]).tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    curve: Any = traitlets.List().tag(sync=True)
    steps: Any = traitlets.List().tag(sync=True)
    legend = traitlets.Dict().tag(sync=True)
    still = traitlets.Unicode().tag(sync=True)

    def __init__(self, weights: np.ndarray, names: dict[int, str], still: str = "") -> None:
        super().__init__(still=still)
        self._weights, self._names = weights, names
        self._heaviest = {name: c for c, name in sorted(names.items(), key=lambda item: weights[item[0]])}
        self._plane: Plane | None = None
        self._colouring: Colouring | None = None

    def show_plane(self, plane: Plane, colouring: Colouring, path: Pathway | None = None) -> None:
        """Show a plane and the path projected onto it."""
        self._plane = plane
        both = np.concatenate([np.percentile(plane.points, (0.2, 99.8), axis=0), plane.means])
        size = 13 + 13 * np.sqrt(self._weights / self._weights.max())
        with self.hold_sync():
            self.extent = [*both.min(0).tolist(), *both.max(0).tolist()]
            self.axes = list(plane.axes) if any(plane.axes) else ["embedding", ""]
            self.unit = "latent units" if any(plane.axes) else ""
            self.stars = [
                {"x": x, "y": y, "size": s} | self._texts(c)
                for c, ((x, y), s) in enumerate(zip(plane.means.tolist(), size.tolist()))
            ]
            self.show_colours(colouring)
            self.show_path(path)

    def show_colours(self, colouring: Colouring) -> None:
        """Set the colours of the points."""
        assert self._plane is not None
        with self.hold_sync():
            self.points = self._plane.points[colouring.order].astype("<f4").tobytes()
            self.colours = colouring.rgb[colouring.order].tobytes()
            self.legend = colouring.legend

    def show_path(self, path: Pathway | None) -> None:
        """Draw a path, or remove it if None."""
        assert self._plane is not None
        with self.hold_sync():
            if path is None:
                self.curve = self.steps = []
                return
            curve = equidistant(path.curve, _CORNERS)
            placed = self._plane.place(torch.cat([curve, path.latents.to(curve)]))
            self.curve, self.steps = placed[:_CORNERS].tolist(), placed[_CORNERS:].tolist()

    def _texts(self, component: int) -> dict[str, str]:
        """Return the name, the label (only for the largest star with that name) and the tooltip of a star."""
        name = self._names.get(component, "")
        label = name if self._heaviest.get(name) == component else ""
        tip = f"component {component}, weight {self._weights[component]:.1%}"
        return {"name": name, "label": label, "tip": f"{name}, {tip}" if name else tip}
