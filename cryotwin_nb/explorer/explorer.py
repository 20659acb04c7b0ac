"""The explorer: its controls, and what happens when they are used."""

from __future__ import annotations

import asyncio
import html
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import Decode, Embedding, label_components
from cryotwin_nb.explorer import controls
from cryotwin_nb.explorer.figure import View, draw_view, picture
from cryotwin_nb.explorer.job import Job, Report, Stopped
from cryotwin_nb.explorer.maps import MapViewer
from cryotwin_nb.explorer.planes import Colouring, colouring, planes, shown_rows, to_colour_by
from cryotwin_nb.explorer.profile import profile_svg
from cryotwin_nb.explorer.request import PathRequest, path_title
from cryotwin_nb.explorer.saving import read_note, write_exploration
from cryotwin_nb.explorer.stars import StarPicker
from cryotwin_nb.explorer.still import Still
from cryotwin_nb.formats.files import atomic, make_folder
from cryotwin_nb.mixture import GaussianMixture
from cryotwin_nb.pathways import Landscape, PathProfile, profile
from cryotwin_nb.rendering import automatic_sigma, contour_level
from cryotwin_nb.ridgeline import Pathway

_AT_ONCE = 2  # maps that are decoded before the next look at the stop button


@dataclass(frozen=True, eq=False)
class _Found:
    """What a request gave: all its paths, and one of them decoded."""

    request: PathRequest
    paths: list[Pathway]
    chosen: int
    maps: Tensor
    profile: PathProfile

    @property
    def path(self) -> Pathway:
        return self.paths[self.chosen]


class PathwayExplorer(widgets.VBox):
    """A widget to choose the ends of a path among the means of a mixture, and to see its maps.

    Parameters
    ----------
    prior : GaussianMixture
        On any latents: `model.prior`, or a mixture fitted to those of cryoDRGN.
    latents : (n, d) float
        Of the particles.
    decode : callable
        Latents (m, d) to maps (m, D, D, D), such as `model.volumes`.
    voxel_size : float
        Å.
    embedding : Embedding or (n, 2) float, optional
        To show them in: `embed_tsne(latents, prior)`, or any other, such as cryoDRGN's UMAP. There are principal
        components and pairs of latents besides.
    labels : (n,) str, or mapping of component to name, optional
        Labels of the particles to colour by, by which the means are named too; or names of the means.
    particles : Particles, optional
        To colour by defocus, optics group and, of simulated data, the truth.
    columns : mapping of str to (n,), optional
        More to colour by.
    evidence : optional
        What populates the passages between states when all routes are asked for; see `find_routes`. By default the
        latents.

    Attributes
    ----------
    path : Pathway or None
        What is shown; `paths` are all that were found, `maps` (K+1, D, D, D) those of `path`.

    Raises
    ------
    InputError
        If the arguments do not belong together.
    """

    def __init__(
        self,
        prior: GaussianMixture,
        latents: Tensor | np.ndarray,
        decode: Decode,
        voxel_size: float = 1.0,
        embedding: Embedding | np.ndarray | None = None,
        labels: Sequence | np.ndarray | Mapping[int, str] | None = None,
        particles: Any = None,
        columns: Mapping[str, Any] | None = None,
        evidence: Any = None,
    ) -> None:
        self.prior, self._decode, self.voxel_size = prior.detach(), decode, _positive(voxel_size)
        self.latents = _latents(latents, prior)
        self._evidence = self.latents if evidence is None else evidence
        self.names, labels = _names(self.prior, self.latents, labels)
        self._rows = shown_rows(len(self.latents))
        self._planes = planes(self.prior, self.latents, embedding, self._rows)
        self._columns = to_colour_by(self.prior, self.latents, labels, particles, columns)
        self._found: _Found | None = None
        self._job: Job | None = None
        self._landscape: Landscape | None = None
        self._offering = False
        self._loop = _running_loop()
        self._still = Still(lambda: picture(self._view()))
        self.stars = StarPicker(self.prior.weights.cpu().numpy(), self.names, self._still.name)
        self.viewer = MapViewer(self.voxel_size, self._heard)
        self.controls = controls.Controls(self.prior, self.names, list(self._planes), list(self._columns))
        super().__init__(self.controls.arranged(self.stars, self.viewer.widget))
        self._connect()
        self._show_plane()

    @classmethod
    def restore(cls, path: str | os.PathLike, prior: GaussianMixture, *args: Any, **kwargs: Any) -> PathwayExplorer:
        """An explorer with the path that another one exported; `path` is its folder or its explorer.json.

        The other arguments are those of the class. The path is computed anew.

        Raises
        ------
        InputError
            If the file is none, or belongs to another mixture.
        """
        request, shown, latents = read_note(path, prior)
        explorer = cls(prior, *args, **kwargs)
        explorer.controls.request = request
        explorer.compute(chosen=shown.get("route", 0))
        explorer.controls.set_shown(shown)
        before = torch.as_tensor(latents)
        if explorer.path is not None and not _alike(before, explorer.path.latents):
            explorer.controls.say("The path differs from the stored one: another version computed that.")
        return explorer

    @property
    def path(self) -> Pathway | None:
        return None if self._found is None else self._found.path

    @property
    def paths(self) -> list[Pathway]:
        return [] if self._found is None else self._found.paths

    @property
    def maps(self) -> Tensor | None:
        return None if self._found is None else self._found.maps

    @property
    def step(self) -> int:
        """The step that is shown; may be set."""
        return self.controls.step.value

    @step.setter
    def step(self, value: int) -> None:
        self.controls.step.value = value

    def choose(self, start: int, end: int) -> PathwayExplorer:
        """Choose the components at the ends, as clicks on their stars do."""
        for name, component in (("start", start), ("end", end)):
            if not 0 <= component < self.prior.n_components:
                expected = f"0 to {self.prior.n_components - 1}"
                raise InputError(name, f"component {component}", expected, "The stars' tips show the components.")
        self.controls.start.value, self.controls.end.value = int(start), int(end)
        return self

    def compute(self, chosen: int = 0) -> PathwayExplorer:
        """Compute what the controls ask for, and wait for it. The button does the same without waiting."""
        found = self._compute(self.controls.request, chosen, self.controls.progress)
        self.controls.idle()
        self._show(found)
        return self

    def figure(self) -> Figure:
        """The same view as a matplotlib figure, for papers."""
        return draw_view(self._view())

    def export(self, folder: str | os.PathLike) -> list[Path]:
        """Write maps, difference maps, latents, ChimeraX script, movie, picture and explorer.json into a folder."""
        request = self.controls.request if self._found is None else self._found.request
        route = 0 if self._found is None else self._found.chosen
        return write_exploration(folder, self._view(), self.prior, request, self.controls.shown | {"route": route})

    def _connect(self) -> None:
        c = self.controls
        widgets.link((c.start, "value"), (self.stars, "start"))
        widgets.link((c.end, "value"), (self.stars, "end"))
        c.compute.on_click(lambda _: self._begin(self.controls.request))
        c.stop.on_click(lambda _: self._job.stop() if self._job else None)
        c.routes.observe(self._route_chosen, "value")
        c.plane.observe(lambda _: self._show_plane(), "value")
        c.colour.observe(lambda _: self._saying(self._show_colours), "value")
        c.step.observe(lambda _: self._show_step(), "value")
        c.sigma.observe(lambda _: self._show_contour(), "value")
        for toggle in (c.ghost, c.change):
            toggle.observe(lambda _: self._show_overlay(), "value")
        c.reset.on_click(lambda _: self.viewer.reset())
        c.snapshot.on_click(lambda _: self.viewer.request_picture())
        c.export.on_click(lambda _: self._export_clicked())

    def _begin(self, request: PathRequest, known: list[Pathway] | None = None, chosen: int = 0) -> None:
        """Compute beside the kernel."""
        self._run(lambda report: self._compute(request, chosen, report, known), self._show)

    def _run(self, work: Callable[[Report], Any], show: Callable[[Any], None]) -> None:
        """Do work beside the kernel, one at a time, and show what it gave; what went wrong is said in words."""
        if self._job is not None and not self._job.wait(0):
            return
        given: list[Any] = []

        def finished(error: BaseException | None) -> None:
            self.controls.idle()
            if error is None:
                show(given[0])
            else:
                self._say_error(error)

        report, done = self._later(self.controls.progress), self._later(finished)
        self._job = Job(lambda report: given.append(work(report)), report, done)

    def _compute(self, request: PathRequest, chosen: int, report: Report, known: list[Pathway] | None = None) -> _Found:
        report(0.0, "path")
        paths = known or request.find(self.prior, self._of_prior, self._evidence)
        path = paths[min(chosen, len(paths) - 1)]
        parts: list[Tensor] = []
        count = len(path.latents)
        for part in path.latents.split(_AT_ONCE):
            report(0.3 + 0.6 * _AT_ONCE * len(parts) / count, f"map {_AT_ONCE * len(parts) + 1} of {count}")
            parts.append(torch.as_tensor(self._decode(part)).detach().float().cpu())
        report(0.9, "particles near")
        return _Found(request, paths, paths.index(path), torch.cat(parts), profile(path, self.prior, self.latents))

    def _of_prior(self) -> Landscape:
        """The landscape, computed once."""
        if self._landscape is None:
            self._landscape = Landscape.of(self.prior)
        return self._landscape

    def _show(self, found: _Found) -> None:
        """Show what was computed; the first time at a contour that parts particle and solvent."""
        first, self._found = self._found is None, found
        if first:
            self.controls.sigma.value = round(automatic_sigma(found.maps), 1)
        titles = [path_title(path, self.names) for path in found.paths]
        self._offering = True  # lest filling the menu count as a choice
        self.controls.offer(titles, found.chosen, len(found.path.latents))
        self._offering = False
        self.stars.show_path(found.path)
        self.viewer.load(found.maps, self._level(), self.step)
        self._show_step()
        self.controls.say(html.escape(titles[found.chosen]))

    def _route_chosen(self, change: dict) -> None:
        found = self._found
        if found is not None and not self._offering and change["new"] not in (None, found.chosen):
            self._begin(found.request, found.paths, change["new"])

    def _show_plane(self) -> None:
        self.stars.show_plane(self._planes[self.controls.plane.value], self._colouring(), self.path)
        self._still.refresh()

    def _show_colours(self) -> None:
        self.stars.show_colours(self._colouring())
        self._still.refresh()

    def _show_step(self) -> None:
        if self._found is None:
            return
        self.stars.step = self.step
        self.viewer.show(self.step)
        self.controls.profile.value = profile_svg(self._found.profile, self.step)
        self._still.refresh()

    def _show_contour(self) -> None:
        if self._found is not None:
            self.viewer.contour(self._level())
            self._still.refresh()

    def _show_overlay(self) -> None:
        ghost, change = self.controls.ghost.value, self.controls.change.value
        self.viewer.overlay(ghost, change)
        said = ["dark: the map at the start"] * ghost + ["blue: gained since the start, orange: lost"] * change
        self.controls.say(", ".join(said))

    def _level(self) -> float:
        return 0.0 if self._found is None else contour_level(self._found.maps, self.controls.sigma.value)

    def _colouring(self) -> Colouring:
        name = self.controls.colour.value
        return colouring(name, self._columns[name][self._rows])

    def _view(self) -> View:
        found = self._found
        return View(
            self._planes[self.controls.plane.value],
            self._colouring(),
            self.prior.weights.cpu().numpy(),
            self.names,
            self.path,
            None if found is None else found.profile,
            self.maps,
            self.step,
            self._level(),
            self.controls.sigma.value,
            self.voxel_size,
        )

    def _export_clicked(self) -> None:
        folder = self.controls.folder.value.strip() or "pathway"

        def work(report: Report) -> list[Path]:
            report(0.5, "writing")
            return self.export(folder)

        self._run(work, lambda files: self.controls.say(html.escape(f"{len(files)} files written to {folder}.")))

    def _heard(self, event: str, value: Any) -> None:
        """What the browser says."""
        if event == "picture":
            self._saying(lambda: self._write_snapshot(value))
        elif event == "failed":
            reason = html.escape(str(value.get("reason")))
            self.controls.say(f"<b>The browser could not draw the map.</b> {reason}. explorer.figure() draws it.")

    def _write_snapshot(self, png: bytes) -> None:
        file = make_folder(self.controls.folder.value.strip() or "pathway") / f"snapshot_{self.step:03d}.png"
        with atomic(file) as partial:
            partial.write_bytes(png)
        self.controls.say(html.escape(f"Snapshot written to {file}."))

    def _saying(self, action: Callable[[], None]) -> None:
        """Do something; what went wrong is said in words."""
        try:
            action()
        except InputError as error:
            self._say_error(error)

    def _say_error(self, error: BaseException) -> None:
        if isinstance(error, Stopped):
            self.controls.say("Stopped.")
        elif isinstance(error, InputError):
            self.controls.say(f"<b>Not possible.</b> {html.escape(str(error))}")
        else:
            self.controls.say(f"<b>It failed.</b> {type(error).__name__}: {html.escape(str(error))}")

    def _later(self, function: Callable) -> Callable:
        """The function, to be called from a thread: it runs in the kernel's loop, where there is one."""
        loop = self._loop
        return function if loop is None else lambda *args: loop.call_soon_threadsafe(function, *args)

    def _ipython_display_(self, **kwargs: object) -> None:
        self._still.display_below(self._repr_mimebundle_())


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _positive(voxel_size: float) -> float:
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError("voxel_size", f"{voxel_size}", "a positive number of Å", "Give particles.pixel_size.")
    return float(voxel_size)


def _latents(latents: Any, prior: GaussianMixture) -> Tensor:
    z = torch.as_tensor(latents).detach().cpu().float()
    if z.ndim != 2 or z.shape[1] != prior.latent_dim or len(z) < 2:
        expected = f"(n, {prior.latent_dim}) with n at least 2"
        raise InputError("latents", f"shape {tuple(z.shape)}", expected, "Give those that the prior was fitted to.")
    return z


def _names(prior: GaussianMixture, z: Tensor, labels: Any) -> tuple[dict[int, str], Any]:
    """Names of components, and the labels of particles, from either."""
    if isinstance(labels, Mapping):
        return {int(c): str(name) for c, name in labels.items()}, None
    if labels is None:
        return {}, None
    return label_components(prior, z, np.asarray(labels)), labels


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a.float(), b, atol=1e-3 * float(b.abs().max())))
