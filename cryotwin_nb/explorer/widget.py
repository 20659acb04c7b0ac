"""The explorer as a widget: its state in the browser, and what the browser's messages change."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer.drawing import colours_drawn, components_drawn, plane_drawn, points_drawn
from cryotwin_nb.explorer.folders import release
from cryotwin_nb.explorer.jobs import Jobs
from cryotwin_nb.explorer.look import Look
from cryotwin_nb.explorer.messages import Inbox
from cryotwin_nb.explorer.planes import Plane, colouring
from cryotwin_nb.explorer.request import METHODS, PathRequest
from cryotwin_nb.explorer.session import Model, Session
from cryotwin_nb.explorer.still import Still, cell_of
from cryotwin_nb.mixture.gaussian import GaussianMixture

_STATIC = Path(__file__).parent / "static"
_OPEN: dict[str, list[tuple[int, weakref.ref]]] = {}
"""Explorers by cell, each with the number of the execution that opened it."""


class ExplorerWidget(anywidget.AnyWidget):
    """What `PathwayExplorer` inherits: the widget, its session, and the messages between kernel and browser.

    The traits hold what a page needs to draw the stars before the kernel answers: `setup` never changes, `card` holds
    all settings, with a number (`rev`) that rises with each change from code.
    """

    _esm = _STATIC / "explorer.js"
    _css = _STATIC / "explorer.css"

    setup = traitlets.Dict().tag(sync=True)
    still = traitlets.Unicode().tag(sync=True)
    card = traitlets.Dict().tag(sync=True)
    plane_shown = traitlets.Dict().tag(sync=True)
    points_shown = traitlets.Bytes().tag(sync=True)
    colours_shown = traitlets.Bytes().tag(sync=True)

    prior: GaussianMixture
    latents: Tensor
    particles: Any
    names: dict[int, str]
    rows: np.ndarray
    session: Session
    jobs: Jobs
    draw_still: Callable[[], bytes]  # of `ExplorerResults`, as the next
    view: Callable[[], dict[str, Any]]

    def begin(self, model: Model, request: PathRequest, look: Look, voxel_size: float | None, setup: dict) -> None:
        """Start the session; explorers that an earlier execution of the same cell opened are closed."""
        _close_former(self)
        self.jobs = Jobs(self.send_message)
        self.session = Session(model, request, look, voxel_size, self.send_message)
        self.picture = Still(self.draw_still, self.view)
        self.still = self.picture.name
        self._rev = 0
        weights = self.prior.weights.tolist()
        drawn = components_drawn(self.prior, self.names, setup.pop("junk"))
        heaviest = sorted(range(len(weights)), key=lambda c: -weights[c])
        self.labelled = [c for c in heaviest if drawn[c]["label"]] or heaviest[:12]
        self.setup = setup | {
            "components": drawn,
            "labelled": self.labelled,
            "methods": list(METHODS),
            "planes": list(model.planes),
            "columns": list(model.columns),
            "n": len(self.latents),
            "shown": len(self.rows),
            "dim": self.prior.latent_dim,
        }
        self.publish()
        inbox = Inbox(self)
        self.on_msg(lambda _, message, buffers: inbox.receive(message, buffers))

    def send_message(self, buffers: Any = (), **content: Any) -> None:
        """Send a message to the browser, from any thread."""
        if self.comm is not None:
            self.send(content, buffers=list(buffers) or None)

    def plane_named(self, name: Any) -> Plane:
        """Return a plane; raise `InputError` if there is none of that name."""
        found = self.session.model.planes
        if not isinstance(name, str) or name not in found:
            raise InputError("plane", f"{name!r:.40}", f"one of {', '.join(found)}", "Choose a plane of the list.")
        return found[name]

    @property
    def offered(self) -> tuple[list[str], list[str]]:
        """Names of the planes and of the columns."""
        return list(self.session.model.planes), list(self.session.model.columns)

    def look_changed(self, rev: Any, look: Any, settings: Any) -> None:
        """Take over settings from the browser, unless code has changed them since the browser last heard of them."""
        with self.session.lock:
            if rev != self._rev:
                return
            request = PathRequest.from_dict(settings, "settings")
            self.session.look = self.session.look.changed(look, *self.offered)
            self.session.request = request

    def change(self, request: PathRequest | None = None, look: Look | None = None) -> None:
        """Change settings from code, and show them in the browser."""
        with self.session.lock:
            self.session.request = request or self.session.request
            self.session.look = look or self.session.look
        self.publish()

    def publish(self) -> None:
        """Show the present settings in the browser."""
        with self.session.lock:
            self._rev += 1
            settings, look = self.session.request.as_dict(), self.session.look.as_dict()
            self.card = {"rev": self._rev, "settings": settings, "look": look, "voxel": self.session.voxel_size}
        self.picture.changed()

    def close(self) -> None:
        """Close the explorer and give its memory back; its picture stays in the notebook."""
        if self.comm is None or not hasattr(self, "session") or sys.is_finalizing():
            return
        self.jobs.stop()
        self.picture.close()
        release(self)
        with self.hold_trait_notifications():
            super().close()
            self.points_shown = self.colours_shown = b""
        self.session.close()
        self.particles, self.latents = None, self.latents[:0]

    def _ipython_display_(self, **kwargs: object) -> None:
        self._draw_first()
        bundle: Any = self._repr_mimebundle_()
        self.picture.display_below(bundle[0])

    def _draw_first(self) -> None:
        """Set the traits from which a page draws the stars before the kernel answers."""
        look = self.session.look
        plane, values = self.session.model.planes[look.plane], self.session.model.columns[look.colour][self.rows]
        legend, rgb = colours_drawn(colouring(look.colour, values))
        with self.hold_sync():
            self.points_shown = points_drawn(plane, self.latents, self.rows)
            self.colours_shown = rgb
            self.plane_shown = plane_drawn(plane, self.prior) | {"colour": look.colour, "legend": legend}


def _close_former(explorer: ExplorerWidget) -> None:
    """Close the explorers that earlier executions of the running cell opened."""
    here = cell_of()
    if here is None:
        return
    cell, execution = here
    for earlier, other in _OPEN.get(cell, []):
        former = other()
        if earlier != execution and former is not None:
            former.close()
    kept = [pair for pair in _OPEN.get(cell, []) if pair[0] == execution]
    _OPEN[cell] = [*kept, (execution, weakref.ref(explorer))]
