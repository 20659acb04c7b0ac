"""The picture that a saved notebook keeps of a widget, for readers without a kernel."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
from IPython.display import display

_IDLE = 1.5  # seconds without a change before the picture is drawn anew
_NOTHING = base64.b64decode(  # a transparent pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR42mNgAAIAAAUAAen63NgAAAAASUVORK5CYII="
)


class Still:
    """An output of its own below the widget's: with a kernel it is an empty widget, without one it is the picture.

    Only this output is replaced when the picture changes: replacing the widget's own would load all maps again.

    Parameters
    ----------
    draw : callable
        Returns the picture as a PNG.
    """

    def __init__(self, draw: Callable[[], bytes]) -> None:
        self._draw, self._empty = draw, widgets.HTML(layout=widgets.Layout(display="none"))
        self._handle: Any = None
        self._waiting: asyncio.TimerHandle | None = None

    def display_below(self, bundle: dict) -> None:
        """Display a widget's bundle, then the picture."""
        display(bundle | {"text/plain": "", "image/png": base64.b64encode(_NOTHING).decode()}, raw=True)
        self._handle = display(self._bundle(), raw=True, display_id=True)

    def refresh(self) -> None:
        """Draw the picture anew once nothing has changed for a while; at once where no event loop runs."""
        if self._handle is None:
            return
        if self._waiting is not None:
            self._waiting.cancel()
        try:
            self._waiting = asyncio.get_running_loop().call_later(_IDLE, self.refresh_now)
        except RuntimeError:
            self.refresh_now()

    def refresh_now(self) -> None:
        """Draw the picture anew."""
        if self._handle is not None:
            self._handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict:
        picture = {"text/plain": "", "image/png": base64.b64encode(self._draw()).decode()}
        return dict(self._empty._repr_mimebundle_()) | picture
