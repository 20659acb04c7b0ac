"""Display of the explorer: star picker, maps and profile, updated when controls or results change."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer.controls import Controls
from cryotwin_nb.explorer.maps import MapViewer
from cryotwin_nb.explorer.planes import Colouring, Plane, colouring, shown_rows
from cryotwin_nb.explorer.profile import profile_svg, support_lines
from cryotwin_nb.explorer.stars import StarPicker
from cryotwin_nb.explorer.still import Still
from cryotwin_nb.explorer.view import View
from cryotwin_nb.plotting.rendering import automatic_sigma, contour_level

if TYPE_CHECKING:
    from cryotwin_nb.explorer.search import PathAnswer


class Screen:
    """Display of the results, following the controls.

    Parameters
    ----------
    controls : Controls
        Controls of the explorer.
    planes : mapping of str to Plane
        Planes, keyed by name.
    columns : mapping of str to (n,)
        Values by which the points can be coloured, keyed by title.
    weights : (C,) float
        Weights of the components.
    names : mapping of int to str
        Names of the components.
    voxel_size : float
        Voxel size, Å.

    Attributes
    ----------
    stars, viewer : StarPicker, MapViewer
        The two widgets.
    still : Still
        Picture for readers without a kernel.
    answer : PathAnswer or None
        Result on display.
    """

    def __init__(
        self,
        controls: Controls,
        planes: Mapping[str, Plane],
        columns: Mapping[str, np.ndarray],
        weights: np.ndarray,
        names: dict[int, str],
        voxel_size: float,
    ) -> None:
        self.answer: PathAnswer | None = None
        self._controls, self._planes, self._columns = controls, planes, columns
        self._weights, self._names, self._voxel_size = weights, names, voxel_size
        self._rows = shown_rows(len(next(iter(columns.values()))))
        self.still = Still(self._picture)
        self.stars = StarPicker(weights, names, self.still.name)
        self.viewer = MapViewer(voxel_size, self._on_event)
        self._follow()
        self._show_plane()

    def show(self, answer: PathAnswer) -> None:
        """Show a result; the first time, set the contour level that separates particle from solvent."""
        controls, first = self._controls, self.answer is None
        self.answer = answer
        if first:
            controls.sigma.value = round(automatic_sigma(answer.maps), 1)
        titles = answer.titles(self._names)
        controls.offer(titles, answer.chosen, len(answer.path.latents))
        self.stars.show_path(answer.path)
        self.viewer.load(answer.maps, self._level(), controls.step.value)
        self._show_step()
        controls.show_message(html.escape(titles[answer.chosen]))

    def show_support(self, answer: PathAnswer) -> None:
        """Show how well the images support the path on display."""
        self.answer = answer
        self._show_profile()
        self.still.refresh()

    def view(self) -> View:
        """Return the current view."""
        answer, controls = self.answer, self._controls
        return View(
            self._planes[controls.plane.value],
            self._colouring(),
            self._weights,
            self._names,
            None if answer is None else answer.path,
            None if answer is None else answer.profile,
            None if answer is None else answer.maps,
            None if answer is None else answer.support,
            controls.step.value,
            self._level(),
            controls.sigma.value,
            self._voxel_size,
        )

    def _follow(self) -> None:
        """Update the display when a control changes."""
        c = self._controls
        c.plane.observe(lambda _: self._show_plane(), "value")
        c.colour.observe(lambda _: self._show_colours(), "value")
        c.step.observe(lambda _: self._show_step(), "value")
        c.sigma.observe(lambda _: self._show_contour(), "value")
        for toggle in (c.ghost, c.change):
            toggle.observe(lambda _: self._show_overlay(), "value")
        c.reset.on_click(lambda _: self.viewer.reset())
        c.snapshot.on_click(lambda _: self.viewer.request_picture())

    def _show_plane(self) -> None:
        path = None if self.answer is None else self.answer.path
        self.stars.show_plane(self._planes[self._controls.plane.value], self._colouring(), path)
        self.still.refresh()

    def _show_colours(self) -> None:
        try:
            self.stars.show_colours(self._colouring())
        except InputError as error:
            self._controls.show_error(error)
        else:
            self.still.refresh()

    def _show_step(self) -> None:
        if self.answer is not None:
            self.stars.step = self._controls.step.value
            self.viewer.show(self._controls.step.value)
            self._show_profile()
            self.still.refresh()

    def _show_profile(self) -> None:
        if self.answer is not None:
            step = self._controls.step.value
            drawing = profile_svg(self.answer.profile, step, self.answer.support)
            lines = [self.answer.barrier, *support_lines(self.answer.support, step)]
            self._controls.profile.value = drawing + "".join(f"<div>{html.escape(line)}</div>" for line in lines)

    def _show_contour(self) -> None:
        if self.answer is not None:
            self.viewer.contour(self._level())
            self.still.refresh()

    def _show_overlay(self) -> None:
        ghost, change = self._controls.ghost.value, self._controls.change.value
        self.viewer.overlay(ghost, change)
        notes = ["dark: map at the start"] * ghost + ["since the start: blue gained, orange lost"] * change
        self._controls.show_message("; ".join(notes))

    def _level(self) -> float:
        return 0.0 if self.answer is None else contour_level(self.answer.maps, self._controls.sigma.value)

    def _colouring(self) -> Colouring:
        name = self._controls.colour.value
        return colouring(name, self._columns[name][self._rows])

    def _picture(self) -> bytes:
        from cryotwin_nb.explorer.figure import picture  # deferred, because matplotlib is slow to import

        return picture(self.view())

    def _on_event(self, event: str, value: Any) -> None:
        """Handle an event of the map viewer in the browser."""
        if event == "picture":
            self._write_snapshot(value)
        elif event == "failed":
            reason = html.escape(str(value.get("reason")))
            note = f"<b>The browser could not draw the map.</b> {reason}. Use explorer.figure() instead."
            self._controls.show_message(note)

    def _write_snapshot(self, png: bytes) -> None:
        from cryotwin_nb.explorer.saving import write_snapshot

        try:
            file = write_snapshot(self._controls.own_folder(), self._controls.step.value, png)
        except InputError as error:
            self._controls.show_error(error)
        else:
            self._controls.show_message(html.escape(f"Snapshot written to {file}."))
