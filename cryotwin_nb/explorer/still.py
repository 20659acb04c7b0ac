"""Still picture of a widget, stored in the notebook for readers without a kernel."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from IPython.core.getipython import get_ipython
from IPython.display import display

_IDLE = 1.5  # seconds without a change before the picture is redrawn
_NOTHING = (  # a transparent pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR42mNgAAIAAAUAAen63NgAAAAASUVORK5CYII="
)


class Still:
    """Separate output below the widget's output. A live widget hides it through its class `cryotwin-still-<name>`.

    When the picture changes, only this output is replaced; replacing the output of the widget would reload all maps.

    Parameters
    ----------
    draw : callable
        Function that returns the picture as a PNG.

    Attributes
    ----------
    name : str
        Unique name of the picture.

    Notes
    -----
    The picture cannot be part of the widget's output: in a trusted notebook, JupyterLab prefers the widget and shows
    "model not found" if there is no kernel. A style sheet in the picture's output hides that message.
    """

    def __init__(self, draw: Callable[[], bytes]) -> None:
        self._draw, self.name = draw, uuid4().hex[:12]
        self._handle: Any = None
        self._waiting: asyncio.TimerHandle | None = None
        self._changed = False

    def display_below(self, bundle: dict) -> None:
        """Display the MIME bundle of a widget, then the picture."""
        display(bundle | {"text/plain": "", "image/png": _NOTHING}, raw=True)
        self._handle = display(self._bundle(), raw=True, display_id=True)
        shell = get_ipython()
        if shell is not None:
            shell.events.register("post_run_cell", lambda *_: self._refresh_now() if self._changed else None)

    def refresh(self) -> None:
        """Redraw the picture at the end of the running cell, or after 1.5 s without further changes."""
        if self._handle is None:
            return
        self._changed = True
        if self._waiting is not None:
            self._waiting.cancel()
        try:
            self._waiting = asyncio.get_running_loop().call_later(_IDLE, self._refresh_now)
        except RuntimeError:
            self._refresh_now()

    def _refresh_now(self) -> None:
        self._changed = False
        self._handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, str]:
        """Return the picture as HTML, with the class name that a live widget hides, and as a plain PNG."""
        png = base64.b64encode(self._draw()).decode()
        mine = f"cryotwin-still-{self.name}"
        # Class names of JupyterLab 4. If they are renamed, readers without a kernel see "model not found" above the
        # picture.
        not_found = f".jp-OutputArea-child:has(+ .jp-OutputArea-child .{mine}) .jupyter-widgets:not(:has(*))"
        style = f"<style>{not_found} {{ display: none !important }}</style>"
        picture = f'<img class="{mine}" alt="The explorer as it was last used" src="data:image/png;base64,{png}">'
        return {"text/plain": "", "text/html": style + picture, "image/png": png}
