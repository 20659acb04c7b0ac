"""Messages about the plane and the look of the explorer."""

from __future__ import annotations

import contextlib

import numpy as np

from cryotwin_nb.errors import InputError, positive
from cryotwin_nb.explorer.drawing import colours_drawn, linear_planes_drawn, plane_drawn, points_drawn
from cryotwin_nb.explorer.job import Report
from cryotwin_nb.explorer.messaging import Messages
from cryotwin_nb.explorer.packing import decoded
from cryotwin_nb.explorer.planes import colouring
from cryotwin_nb.explorer.request import PathRequest

LIVE = 16_000_000
"""Bytes of latents, and of colours, up to which a page gets them in advance and switches without the kernel."""


class PlaneMessages(Messages):
    """Serve messages about the plane and the look."""

    def _send_space(self, report: Report) -> None:
        """Send the latents and the linear planes, then the colours by each column, as far as they are within `LIVE`."""
        explorer, model = self._explorer, self._session.model
        latents = explorer.latents[explorer.rows].numpy().astype("<f4")
        if latents.nbytes <= LIVE:
            planes = linear_planes_drawn(model.planes, explorer.prior)
            self._send(kind="space", planes=planes, buffers=[latents.tobytes()])
        for name in list(model.columns)[: LIVE // (3 * len(latents))]:
            report(None, "colours")  # raises Stopped if a newer page has been opened
            with contextlib.suppress(InputError):  # a column without finite values
                legend, rgb = colours_drawn(colouring(name, model.columns[name][explorer.rows]))
                self._send(kind="palette", colour=name, legend=legend, buffers=[rgb])

    def _do_plane(self, message: dict, buffers: list[bytes]) -> None:
        plane = self._explorer.plane_named(message.get("plane"))
        drawn = plane_drawn(plane, self._explorer.prior)
        points = points_drawn(plane, self._explorer.latents, self._explorer.rows)
        request = PathRequest.from_dict(message.get("settings"), "settings")
        free = [end for end in (request.start, request.end, *request.ways) if isinstance(end, tuple)]
        places = [[list(end), self._session.place_of(plane, end)] for end in free]
        path = self._session.drawn_in(plane)
        self._send(kind="plane", turn=message.get("turn"), plane=drawn, path=path, places=places, buffers=[points])

    def _do_colours(self, message: dict, buffers: list[bytes]) -> None:
        name, values = self._column(message.get("colour"))
        legend, rgb = colours_drawn(colouring(name, values[self._explorer.rows]))
        self._send(kind="colours", turn=message.get("turn"), colour=name, legend=legend, buffers=[rgb])

    def _do_look(self, message: dict, buffers: list[bytes]) -> None:
        self._explorer.look_changed(message.get("rev"), message.get("look"), message.get("settings"))

    def _do_point(self, message: dict, buffers: list[bytes]) -> None:
        """Send the latent of the particle that is nearest to a point of a plane, and its map."""
        plane, xy = self._explorer.plane_named(message.get("plane")), message.get("xy")
        if not isinstance(xy, list) or len(xy) != 2 or not all(type(v) in (int, float) for v in xy):
            raise InputError("point", f"{xy!r:.40}", "two numbers", "Click into the plane.")
        points = plane.points(self._explorer.latents, self._explorer.rows)
        row = self._explorer.rows[np.square(points - np.array(xy, float)).sum(1).argmin()]
        latent = self._explorer.latents[[row]]
        turn, stars = message.get("turn"), self._session.model.stars
        self._send(kind="point", turn=turn, latent=latent[0].tolist(), xy=plane.place(latent)[0].tolist())

        def work(report: Report) -> None:
            volume = decoded(stars.decode, latent, stars.packing.size)[0]
            self._send_single(turn, f"map of particle {row}", volume, stars.packing, self._session.voxel_size)

        self._jobs.start("star", turn, work)

    def _do_voxel(self, message: dict, buffers: list[bytes]) -> None:
        self._session.voxel_size = positive("voxel_size", message.get("value"), "Enter the voxel size in Å.")
        self._send(kind="voxel", value=self._session.voxel_size)
