"""Still picture of the explorer, stored in the notebook for readers without a kernel.

The browser draws it from its own canvases and sends it; only where no browser takes part, as when a notebook is
executed by a program, is it drawn by the kernel, at the end of a cell.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from IPython.core.getipython import get_ipython
from IPython.display import display

from cryotwin_nb.explorer.views import MIME

_NOTHING = (  # a transparent pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR42mNgAAIAAAUAAen63NgAAAAASUVORK5CYII="
)


def cell_of() -> tuple[str, int] | None:
    """Return the identifier of the running cell and of its execution, if a browser runs it; None otherwise.

    Browsers (JupyterLab, Notebook 7, VS Code) send the identifier of the cell with each execution; programs that
    execute a notebook (nbclient, nbconvert, papermill) do not.
    """
    shell = get_ipython()
    parent: dict = getattr(shell, "get_parent", dict)() or {}
    cell = (parent.get("metadata") or {}).get("cellId")
    return None if cell is None else (str(cell), int(getattr(shell, "execution_count", 0)))


class Still:
    """Separate output below the widget's output. A live widget hides it through its class `cryotwin-still-<name>`.

    When the picture changes, only this output is replaced; replacing the output of the widget would open it again.

    Parameters
    ----------
    draw : callable
        Function that returns the picture as a PNG, for use without a browser.
    view : callable
        Function that returns the view, which is stored with the picture.

    Attributes
    ----------
    name : str
        Unique name of the picture.

    Notes
    -----
    The picture cannot be part of the widget's output: in a trusted notebook, JupyterLab prefers the widget and shows
    "model not found" if there is no kernel. A style sheet in the picture's output hides that message.
    """

    def __init__(self, draw: Callable[[], bytes], view: Callable[[], dict]) -> None:
        self._draw, self._view, self.name = draw, view, uuid4().hex[:12]
        self._handle: Any = None
        self._changed = False
        self._registered: Callable[..., None] | None = None

    def display_below(self, bundle: dict) -> None:
        """Display the MIME bundle of a widget, then the picture."""
        display(bundle | {"text/plain": "", "image/png": _NOTHING}, raw=True)
        drawn = self._draw() if cell_of() is None else base64.b64decode(_NOTHING)
        self._handle, self._changed = display(self._bundle(drawn), raw=True, display_id=True), False
        shell = get_ipython()
        if shell is not None and cell_of() is None and self._registered is None:
            self._registered = lambda *_: self._draw_now()
            shell.events.register("post_run_cell", self._registered)

    def changed(self) -> None:
        """Note that the picture shows a former state; without a browser it is drawn at the end of the cell."""
        self._changed = True

    def replace(self, png: bytes) -> None:
        """Replace the picture by one from the browser."""
        if self._handle is not None:
            self._handle.update(self._bundle(png), raw=True)

    def close(self) -> None:
        """Keep the picture as it is."""
        shell = get_ipython()
        if shell is not None and self._registered is not None:
            shell.events.unregister("post_run_cell", self._registered)
        self._handle = self._registered = None

    def _draw_now(self) -> None:
        if self._changed and self._handle is not None:
            self._changed = False
            self.replace(self._draw())

    def _bundle(self, picture: bytes) -> dict[str, Any]:
        """Return the picture as HTML, with the class name that a live widget hides, and as a plain PNG."""
        png = base64.b64encode(picture).decode()
        mine = f"cryotwin-still-{self.name}"
        # Class names of JupyterLab 4. If they are renamed, readers without a kernel see "model not found" above the
        # picture.
        not_found = f".jp-OutputArea-child:has(+ .jp-OutputArea-child .{mine}) .jupyter-widgets:not(:has(*))"
        style = f"<style>{not_found} {{ display: none !important }}</style>"
        image = f'<img class="{mine}" alt="The explorer as it was last used" src="data:image/png;base64,{png}">'
        return {"text/plain": "", "text/html": style + image, "image/png": png, MIME: self._view()}
