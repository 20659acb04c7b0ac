"""The picture that a saved notebook keeps of a widget, for readers without a kernel."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from IPython.core.getipython import get_ipython
from IPython.display import display

_IDLE = 1.5  # seconds without a change before the picture is drawn anew
_NOTHING = (  # a transparent pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR42mNgAAIAAAUAAen63NgAAAAASUVORK5CYII="
)


class Still:
    """An output of its own below the widget's. A live widget hides it, by the class `cryotwin-still-<name>`.

    Only this output is replaced when the picture changes: replacing the widget's own would load all maps again.

    Parameters
    ----------
    draw : callable
        Returns the picture as a PNG.

    Attributes
    ----------
    name : str

    Notes
    -----
    A picture in the widget's own output would not do: in a notebook that it trusts, JupyterLab prefers the widget and
    says "model not found". That line is hidden by a style beside the picture.
    """

    def __init__(self, draw: Callable[[], bytes]) -> None:
        self._draw, self.name = draw, uuid4().hex[:12]
        self._handle: Any = None
        self._waiting: asyncio.TimerHandle | None = None
        self._changed = False

    def display_below(self, bundle: dict) -> None:
        """Display a widget's bundle, then the picture."""
        display(bundle | {"text/plain": "", "image/png": _NOTHING}, raw=True)
        self._handle = display(self._bundle(), raw=True, display_id=True)
        shell = get_ipython()
        if shell is not None:
            shell.events.register("post_run_cell", lambda *_: self._refresh_now() if self._changed else None)

    def refresh(self) -> None:
        """Draw the picture anew at the end of the running cell; after clicks, once nothing has changed for a while."""
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
        """The picture, as HTML with a name that a live widget knows, and plain."""
        png = base64.b64encode(self._draw()).decode()
        mine = f"cryotwin-still-{self.name}"
        # Class names of JupyterLab 4. Breaks when these are renamed: a reader without a kernel then sees a line "model
        # not found" above the picture.
        not_found = f".jp-OutputArea-child:has(+ .jp-OutputArea-child .{mine}) .jupyter-widgets:not(:has(*))"
        style = f"<style>{not_found} {{ display: none !important }}</style>"
        picture = f'<img class="{mine}" alt="The explorer as it was last used" src="data:image/png;base64,{png}">'
        return {"text/plain": "", "text/html": style + picture, "image/png": png}
