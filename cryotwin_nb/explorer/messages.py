"""Messages from the browser, each of which is complete: no other setting takes part in what it asks for.

A message is a dict {"do": ..., "turn": ...} with binary buffers. It is acknowledged at once; every answer repeats its
turn, so that the browser can drop answers that are no longer wanted. Slow work is left to background jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer.job import Report
from cryotwin_nb.explorer.jobs import in_words
from cryotwin_nb.explorer.messages_of_particles import ParticleMessages
from cryotwin_nb.explorer.messages_of_planes import PlaneMessages
from cryotwin_nb.explorer.request import PathRequest


class Inbox(PlaneMessages, ParticleMessages):
    """Serve the messages of an explorer's browser.

    Parameters
    ----------
    explorer : PathwayExplorer
        Explorer whose browser sends the messages.
    """

    def __init__(self, explorer: Any) -> None:
        super().__init__(explorer)
        self._served: dict[str, Callable[[dict, list[bytes]], object]] = {
            name.removeprefix("_do_"): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }

    def receive(self, message: Any, buffers: Sequence[Any] = ()) -> None:
        """Serve one message; whatever is wrong with it is reported to the browser."""
        message = message if isinstance(message, dict) else {}
        turn, do = message.get("turn"), message.get("do")
        self._send(kind="begun", turn=turn)
        try:
            if do not in self._served:
                raise InputError("message", f"{do!r:.40}", f"one of {', '.join(self._served)}", "Reload the page.")
            self._served[do](message, [bytes(part) for part in buffers])
        except Exception as error:
            self._send(kind="failed", of=do, turn=turn, **in_words(error))

    # ------------------------------------------------------------------------------------------------ paths and maps

    def _do_ping(self, message: dict, buffers: list[bytes]) -> None:
        pass

    def _do_hello(self, message: dict, buffers: list[bytes]) -> None:
        """Send a browser that has just opened the explorer what there is, then the maps of the labelled stars."""
        self._explorer.publish()
        self._jobs.start("hello", message.get("turn"), lambda report: self._welcome())
        self._jobs.start("stars", message.get("turn"), self._send_labelled)
        self._jobs.start("space", message.get("turn"), self._send_space)

    def _welcome(self) -> None:
        self._session.send_everything()

    def _send_labelled(self, report: Report) -> None:
        for n, component in enumerate(self._explorer.labelled):
            report(n / len(self._explorer.labelled), "maps of the stars")
            self._send_star(component, None)
        report(None, "states")
        weights = self._explorer.prior.weights.tolist()
        states = [
            {"name": s.title, "id": s.name, "mass": s.mass, "star": max(s.components, key=lambda c: weights[c])}
            for s in self._session.model.search().states()
        ]
        self._send(kind="states", states=states)

    def _do_star(self, message: dict, buffers: list[bytes]) -> None:
        component = message.get("component")
        if type(component) is not int or not 0 <= component < self._explorer.prior.n_components:
            raise InputError("star", f"{component!r:.40}", "a component of the mixture", "Reload the page.")
        turn = message.get("turn")
        self._jobs.start("star", turn, lambda report: self._send_star(component, turn))

    def _send_star(self, component: int, turn: Any) -> None:
        stars = self._session.model.stars
        packed = stars.of(component)
        maps = stars.packing.described(self._session.voxel_size)
        self._send(kind="star", turn=turn, component=component, maps=maps, buffers=[packed])

    def _do_compute(self, message: dict, buffers: list[bytes]) -> None:
        request = PathRequest.from_dict(message.get("settings"), "settings")
        self._find(message.get("turn"), request)

    def _do_route(self, message: dict, buffers: list[bytes]) -> None:
        answer, _ = self._shown(message)
        chosen = message.get("chosen")
        if type(chosen) is not int or not 0 <= chosen < len(answer.paths):
            raise InputError("route", f"{chosen!r:.40}", f"0 to {len(answer.paths) - 1}", "Choose a path of the list.")
        self._find(message.get("turn"), answer.request, chosen, answer.paths)

    def _do_undo(self, message: dict, buffers: list[bytes]) -> None:
        request, paths, chosen = self._session.former()
        self._find(message.get("turn"), request, chosen, paths, remember=False)

    def _find(self, turn: Any, request: PathRequest, chosen: int = 0, known: Any = None, remember: bool = True) -> None:
        session = self._session
        session.model.search()  # import here: a job stopped during an import leaves a half-imported module
        self._jobs.start(
            "path",
            turn,
            lambda report: session.compute(request, report, chosen, known, turn),
            lambda found: session.show(*found, remember=remember),
        )

    def _do_support(self, message: dict, buffers: list[bytes]) -> None:
        answer, version = self._shown(message)
        search = self._session.model.search()
        self._jobs.start(
            "support",
            message.get("turn"),
            lambda report: search.supported(answer, report),
            lambda found: self._session.supported(version, found),
        )

    def _do_stop(self, message: dict, buffers: list[bytes]) -> None:
        self._jobs.stop(message.get("of"))
