"""Map viewer: nglview with all maps of a path loaded at once, of which one is shown.

Maps are sent as binary messages with 8-bit integers, one byte per voxel; they are not stored in a saved notebook. The
script `maps.js` draws the maps; it is sent to each browser view when the view announces itself, and again after the
page is reloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from IPython.utils.capture import capture_output
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.formats.mrc_writing import map_bytes

NGLVIEW = "4.0"
_SCRIPT = Path(__file__).parent / "maps.js"
_LOWEST = -2.0  # standard deviations from the mean: lower densities are never contoured, so they are clipped
HEIGHT = 310


class MapViewer:
    """Viewer of maps in nglview.

    Parameters
    ----------
    voxel_size : float
        Voxel size, Å.
    on_event : callable
        Function called with the events of the browser: ("loaded", ...), ("picture", bytes), ("failed", reason).

    Attributes
    ----------
    widget : nglview.NGLWidget
        Widget to display.
    """

    def __init__(self, voxel_size: float, on_event: Callable[[str, Any], None] = lambda event, value: None) -> None:
        self.widget = _new_widget()
        self.widget.on_msg(self._received)
        self._voxel_size, self._on_event = voxel_size, on_event
        self._version = 0
        self._maps: list[bytes] = []
        self._changes: list[bytes] = []
        self._scale = (0.0, 1.0)
        self._step, self._level = 0, 0.0
        self._overlay: dict[str, Any] = {"start": False, "change": False}

    def load(self, maps: Tensor, level: float, step: int = 0) -> None:
        """Load new maps (m, D, D, D), starting with the one at `step`; `level` is the contour level in their unit."""
        maps = torch.as_tensor(maps).detach().cpu()
        mean, std = float(maps.mean()), float(maps.std())
        low, high = mean + _LOWEST * max(std, 1e-12), max(float(maps.max()), mean + max(std, 1e-12))
        self._scale = ((low + high) / 2, 254 / (high - low))
        self._maps = [self._packed(volume) for volume in maps]
        changes = maps - maps[:1]
        self._changes = [self._packed(change + self._scale[0]) for change in changes]
        self._version += 1
        self._level, self._step = level, step
        self._send_maps()

    def show(self, step: int) -> None:
        """Show the map of a step."""
        self._step = step
        self._send("show", step=step)

    def contour(self, level: float) -> None:
        """Set the contour level of all maps."""
        self._level = level
        self._send("level", **self._levels())

    def overlay(self, start: bool, change: bool) -> None:
        """Show or hide the map at the start as a transparent surface, and the density gained and lost since then."""
        self._overlay = {"start": start, "change": change}
        if change and self._maps:
            self._send_changes()
        self._send("overlay", **self._overlay)

    def reset(self) -> None:
        """Reset the camera to a front view of the whole map."""
        self._send("reset")

    def request_picture(self) -> None:
        """Request a picture of the current view from the browser, which sends the event "picture"."""
        self._send("picture", number=self._version)

    def _levels(self) -> dict[str, Any]:
        """Return the contour levels in units of the bytes; the level for changes is half the level of the maps."""
        offset, factor = self._scale
        return {"level": (self._level - offset) * factor, "change": 0.5 * self._level * factor}

    def _packed(self, volume: Tensor) -> bytes:
        """Encode a map as an MRC file of mode 0."""
        offset, factor = self._scale
        values = ((volume - offset) * factor).round().clamp(-127, 127).to(torch.int8).numpy()
        return map_bytes(values, self._voxel_size)

    def _send_maps(self) -> None:
        task = {"version": self._version, "step": self._step, **self._levels()}
        self._send("load", self._maps, **task)
        if self._overlay["change"]:
            self._send_changes()

    def _send_changes(self) -> None:
        self._send("changes", self._changes, version=self._version, **self._levels())

    def _send(self, task: str, _buffers: Sequence[bytes] = (), **values: Any) -> None:
        self.widget.send({"type": "cryotwin", "task": task, **values}, buffers=list(_buffers) or None)

    def _received(self, _: Any, message: dict, buffers: list) -> None:
        """Handle a message from the browser."""
        if message.get("type") == "request_loaded":
            code = {"args": [_SCRIPT.read_text()], "kwargs": {}}
            self.widget.send({"type": "call_method", "target": "Widget", "methodName": "executeCode", **code})
            if self._maps:
                self._send_maps()
                self._send("overlay", **self._overlay)
        elif message.get("type") == "cryotwin":
            value = bytes(buffers[0]) if buffers else message
            self._on_event(message["event"], value)


def _new_widget() -> Any:
    """Create an nglview widget; refuse other versions of nglview, which do not draw in JupyterLab."""
    found = version("nglview")
    if found != NGLVIEW:
        remedy = f"Run `pip install nglview=={NGLVIEW}`, then restart the kernel and JupyterLab."
        raise InputError("nglview", f"version {found}", f"version {NGLVIEW}", remedy)
    with capture_output():  # importing nglview displays a widget
        import nglview
    widget = nglview.NGLWidget(height=f"{HEIGHT}px")
    widget.background = "white"
    return widget
