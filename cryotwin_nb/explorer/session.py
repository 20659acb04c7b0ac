"""State of an explorer: settings, look, result and history, and the messages that show them in the browser.

Messages from the browser are served by any thread, also while a cell runs. Each brings all settings that it needs, and
each method takes them as arguments and changes the state under a lock, so that no thread sees half of a change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer.drawing import paths_drawn, profile_drawn, support_drawn
from cryotwin_nb.explorer.job import Report
from cryotwin_nb.explorer.jobs import Send
from cryotwin_nb.explorer.look import Look
from cryotwin_nb.explorer.packing import Stars
from cryotwin_nb.explorer.planes import Plane
from cryotwin_nb.explorer.request import PathRequest
from cryotwin_nb.pathways.ridgeline import Pathway

if TYPE_CHECKING:  # SciPy is slow to import
    from cryotwin_nb.explorer.search import PathAnswer, PathSearch

_HISTORY = 50  # number of former results that can be restored


@dataclass(frozen=True, eq=False)
class Model:
    """What an explorer explores, and how it is shown; none of it changes.

    Attributes
    ----------
    names : dict of int to str
        Names of the components.
    planes : dict of str to Plane
        Planes by name.
    columns : dict of str to (n,) array
        Values by which the points can be coloured, by title.
    search : callable
        Function that returns the `PathSearch`.
    stars : Stars
        Packed maps of the components.
    """

    names: dict[int, str]
    planes: dict[str, Plane]
    columns: dict[str, np.ndarray]
    search: Callable[[], PathSearch]
    stars: Stars


class Session:
    """Settings and results of one explorer.

    Parameters
    ----------
    model : Model
        What is explored.
    request : PathRequest
        First settings.
    look : Look
        First look.
    voxel_size : float or None
        Voxel size, Å; None if it is not known.
    send : callable
        Function that sends messages to the browser.

    Attributes
    ----------
    answer : PathAnswer or None
        Result shown.
    version : int
        Number of the result shown, by which the browser distinguishes results; 0 without one.
    """

    def __init__(self, model: Model, request: PathRequest, look: Look, voxel_size: float | None, send: Send) -> None:
        self.model, self.request, self.look, self.voxel_size = model, request, look, voxel_size
        self.answer: PathAnswer | None = None
        self.version, self._versions = 0, 0
        self.lock, self._send = threading.RLock(), send
        self._history: list[tuple[PathRequest, list[Pathway], int]] = []

    def compute(
        self,
        request: PathRequest,
        report: Report,
        chosen: int = 0,
        known: list[Pathway] | None = None,
        turn: Any = None,
    ) -> tuple[int, PathAnswer]:
        """Find paths and decode one, sending each map as soon as it is decoded; return the result and its number."""
        with self.lock:
            self._versions += 1
            version, plane, first = self._versions, self.model.planes[self.look.plane], self.look.step
        packing = self.model.stars.packing
        sent: list[int] = []
        search = self.model.search()

        def on_map(paths: list[Pathway], index: int, k: int, volume: Tensor) -> None:
            if not sent:
                self._send_path(version, request, paths, index, plane, turn)
                sent.append(version)
            self._send(kind="map", version=version, k=k, buffers=[packing.pack(volume)])

        answer = search.find(request, report, chosen, known, on_map, first)
        if answer.maps.shape[-1] != packing.size:
            found, expected = f"maps of {answer.maps.shape[-1]} voxels", f"maps of {packing.size} voxels, as before"
            raise InputError("decode", found, expected, "Pass a decoder with one box size.")
        return version, answer

    def show(self, version: int, answer: PathAnswer, remember: bool = True) -> str:
        """Make a result the one shown, unless a newer one is; return its title."""
        with self.lock:
            if version < self.version:
                return ""
            if remember and self.answer is not None:
                former = (self.answer.request, self.answer.paths, self.answer.chosen)
                self._history = [*self._history, former][-_HISTORY:]
            self.answer, self.version, self.request = answer, version, answer.request
            depth = len(self._history)
        self._send_answer(version, answer, depth)
        return answer.titles(self.model.names)[answer.chosen]

    def former(self) -> tuple[PathRequest, list[Pathway], int]:
        """Return settings and paths of the result before the one shown, and forget them.

        Raises
        ------
        InputError
            If there is none.
        """
        with self.lock:
            if not self._history:
                sentence = "There is no former path."
                raise InputError("undo", "no former path", "a path computed before", "Compute a path first.", sentence)
            return self._history.pop()

    def supported(self, version: int, answer: PathAnswer) -> None:
        """Show how well the images support the path shown; ignored if another one is shown by now."""
        with self.lock:
            if version != self.version:
                return
            self.answer = answer
        self._send(kind="support", version=version, **support_drawn(answer.support))

    def send_everything(self) -> None:
        """Send the result shown, to a browser that has just opened the explorer."""
        with self.lock:
            answer, version, depth = self.answer, self.version, len(self._history)
            plane = self.model.planes[self.look.plane]
        if answer is None:
            return
        packing = self.model.stars.packing
        self._send_path(version, answer.request, answer.paths, answer.chosen, plane, None)
        for k in sorted(range(len(answer.maps)), key=lambda k: abs(k - self.look.step)):
            self._send(kind="map", version=version, k=k, buffers=[packing.pack(answer.maps[k])])
        self._send_answer(version, answer, depth)

    def close(self) -> None:
        """Forget all results."""
        with self.lock:
            self.answer, self._history = None, []
            self.model = replace(
                self.model, planes={}, columns={}, search=_closed, stars=Stars(_closed, torch.zeros(0, 0), [])
            )

    def drawn_in(self, plane: Plane) -> dict[str, Any] | None:
        """Return the paths shown as lines in a plane, with their number; None without a result."""
        with self.lock:
            answer, version = self.answer, self.version
        if answer is None:
            return None
        titles = answer.titles(self.model.names)
        return paths_drawn(plane, answer.paths, answer.chosen, titles) | {"version": version}

    def place_of(self, plane: Plane, latent: tuple[float, ...]) -> list[float]:
        """Return the position of a free end or way-point in a plane."""
        self.model.search().place("end", latent)
        return plane.place(torch.tensor([latent], dtype=torch.float64))[0].tolist()

    def _send_path(
        self, version: int, request: PathRequest, paths: list[Pathway], chosen: int, plane: Plane, turn: Any
    ) -> None:
        from cryotwin_nb.explorer.paths import path_title

        titles = [path_title(path, self.model.names) for path in paths]
        self._send(
            kind="path",
            turn=turn,
            version=version,
            request=request.as_dict(),
            titles=titles,
            plane=plane.name,
            maps=self.model.stars.packing.described(self.voxel_size),
            n=len(paths[chosen].latents),
            **paths_drawn(plane, paths, chosen, titles),
        )

    def _send_answer(self, version: int, answer: PathAnswer, depth: int) -> None:
        support = None if answer.support is None else support_drawn(answer.support)
        profile = profile_drawn(answer.profile)
        self._send(
            kind="answer", version=version, profile=profile, barrier=answer.barrier, support=support, history=depth
        )


def _closed(*_: Any) -> Any:
    sentence = "This explorer is closed."
    raise InputError("explorer", "a closed explorer", "an open one", "Run its cell again.", sentence)
