"""The explorer widget: its arguments, its methods and the actions of its buttons."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np
from torch import Tensor

from cryotwin_nb.evaluation import Decode, Embedding
from cryotwin_nb.explorer.arguments import latents_of, names_and_labels, positive_voxel_size, require_components
from cryotwin_nb.explorer.controls import Controls
from cryotwin_nb.explorer.job import Report
from cryotwin_nb.explorer.planes import planes, shown_rows, to_colour_by
from cryotwin_nb.explorer.request import PathRequest
from cryotwin_nb.explorer.screen import Screen
from cryotwin_nb.explorer.worker import Worker
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.ridgeline import Pathway

# Modules that need SciPy or matplotlib are imported on first use, so the stars appear about 1 s earlier.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cryotwin_nb.explorer.search import PathAnswer, PathSearch


class PathwayExplorer(widgets.VBox):
    """Widget to choose the ends of a path among the means of a mixture and to view the maps along the path.

    Parameters
    ----------
    prior : GaussianMixture
        Density of the latents: `model.prior`, or a mixture fitted to other latents, such as cryoDRGN's.
    latents : (n, d) float
        Latents of the particles.
    decode : callable
        Decoder from latents (m, d) to maps (m, D, D, D), such as `model.volumes`.
    voxel_size : float
        Voxel size, Å.
    embedding : Embedding or (n, 2) float, optional
        Embedding in which to show the latents: `embed_tsne(latents, prior)` or another one, such as cryoDRGN's UMAP.
        Principal components and pairs of latent dimensions are always available.
    labels : (n,) str, or mapping of int to str, optional
        Labels of the particles, used to colour the points and to name the components, or the names of the components.
    particles : Particles, optional
        Particles. Points can then be coloured by defocus, optics group and, for simulated data, true state.
    columns : mapping of str to (n,), optional
        Further values by which the points can be coloured, keyed by title.
    evidence : optional
        Evidence for transitions, used by the method "All routes"; see `find_routes`. By default the latents.
    support : callable, optional
        Function, called by a button, that returns the support of a path as `pathway_support` does: `resolution` (K+1,),
        Å, `n_effective` (K+1,) and, optionally, `verdict` and `findings`.
    junk : collection of int, optional
        Components marked as junk: `model.history.junk`, or `OutlierScores.junk_components`.

    Attributes
    ----------
    path, paths : Pathway or None, list of Pathway
        The path shown, and all paths found.
    maps, support
        Maps along `path`, (K+1, D, D, D) float32, and the result of the callable `support`; None if not computed.

    Raises
    ------
    InputError
        If the arguments are inconsistent with each other.
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
        support: Callable[[Pathway], Any] | None = None,
        junk: Collection[int] = (),
    ) -> None:
        self.prior, self.voxel_size = prior.detach(), positive_voxel_size(voxel_size)
        self.latents = latents_of(prior, latents)
        self._decode, self._evidence, self._ask_support = decode, evidence, support
        self.names, labels = names_and_labels(self.prior, self.latents, labels, junk)
        flat = planes(self.prior, self.latents, embedding, shown_rows(len(self.latents)))
        columns = to_colour_by(self.prior, self.latents, labels, particles, columns)
        self.controls = Controls(self.prior, self.names, list(flat), list(columns), support is not None, junk)
        weights = self.prior.weights.cpu().numpy()
        self.screen = Screen(self.controls, flat, columns, weights, self.names, self.voxel_size)
        self._worker = Worker(self.controls)
        super().__init__(self.controls.arranged(self.screen.stars, self.screen.viewer.widget))
        self._connect()

    @classmethod
    def restore(cls, path: str | os.PathLike, prior: GaussianMixture, *args: Any, **kwargs: Any) -> PathwayExplorer:
        """Create an explorer that recomputes and shows an exported path.

        Parameters
        ----------
        path : path
            Folder written by `export`, or its explorer.json.
        prior, args, kwargs
            Arguments of `PathwayExplorer`.

        Raises
        ------
        InputError
            If the file was not written by the explorer, or belongs to another mixture.
        """
        from cryotwin_nb.explorer.saving import read_note, same_points

        request, shown, latents = read_note(path, prior)
        explorer = cls(prior, *args, **kwargs)
        explorer.controls.request = request
        explorer.compute(chosen=shown.get("route", 0))
        explorer.controls.set_shown(shown)
        if explorer.path is not None and not same_points(latents, explorer.path.latents):
            explorer.controls.show_message("The path differs from the stored path, which another version computed.")
        return explorer

    @property
    def path(self) -> Pathway | None:
        return None if self._answer is None else self._answer.path

    @property
    def paths(self) -> list[Pathway]:
        return [] if self._answer is None else self._answer.paths

    @property
    def maps(self) -> Tensor | None:
        return None if self._answer is None else self._answer.maps

    @property
    def support(self) -> Any:
        return None if self._answer is None else self._answer.support

    @property
    def step(self) -> int:
        """Step shown; can be set."""
        return self.controls.step.value

    @step.setter
    def step(self, value: int) -> None:
        self.controls.step.value = value

    def choose(self, start: int, end: int) -> PathwayExplorer:
        """Choose the components at the two ends; equivalent to clicking their stars.

        Parameters
        ----------
        start, end : int
            Indices of components.
        """
        require_components(self.prior, start, end)
        self.controls.start.value, self.controls.end.value = int(start), int(end)
        return self

    def compute(self, chosen: int = 0) -> PathwayExplorer:
        """Compute the path with the current settings and wait for the result. The Compute button does not wait.

        Parameters
        ----------
        chosen : int
            Index of the path to decode, if several are found.
        """
        try:
            answer = self._search.find(self.controls.request, self.controls.progress, chosen)
        finally:
            self.controls.idle()
        self.screen.show(answer)
        return self

    def figure(self) -> Figure:
        """Draw the current view as a matplotlib figure, for publication."""
        from cryotwin_nb.explorer.figure import draw_view

        return draw_view(self.screen.view())

    def export(self, folder: str | os.PathLike) -> list[Path]:
        """Write maps, differences, latents, support, script, movie, figure and explorer.json; return all files there.

        Parameters
        ----------
        folder : path
            Output folder; created if missing.
        """
        from cryotwin_nb.explorer.saving import write_exploration

        answer, shown = self._answer, self.controls.shown
        request, route = (self.controls.request, 0) if answer is None else (answer.request, answer.chosen)
        return write_exploration(folder, self.screen.view(), self.prior, request, shown | {"route": route})

    @property
    def _answer(self) -> PathAnswer | None:
        return self.screen.answer

    @cached_property
    def _search(self) -> PathSearch:
        from cryotwin_nb.explorer.search import PathSearch

        return PathSearch(self.prior, self.latents, self._decode, self._evidence, self._ask_support)

    def _connect(self) -> None:
        c, stars = self.controls, self.screen.stars
        widgets.link((c.start, "value"), (stars, "start"))
        widgets.link((c.end, "value"), (stars, "end"))
        c.compute.on_click(lambda _: self._begin(c.request))
        c.stop.on_click(lambda _: self._worker.stop())
        c.on_route(self._route_chosen)
        c.support.on_click(lambda _: self._support_clicked())
        c.export.on_click(lambda _: self._export_clicked())

    def _begin(self, request: PathRequest, known: list[Pathway] | None = None, chosen: int = 0) -> None:
        """Start a search in the background."""
        finder = self._search  # import here: a job stopped during an import leaves a half-imported module
        self._worker.run(lambda report: finder.find(request, report, chosen, known), self.screen.show)

    def _route_chosen(self, number: int) -> None:
        if self._answer is not None and number != self._answer.chosen:
            self._begin(self._answer.request, self._answer.paths, number)

    def _support_clicked(self) -> None:
        search, answer = self._search, self._answer
        if answer is None:
            self.controls.show_message("Compute a path first.")
        else:
            self._worker.run(lambda report: search.supported(answer, report), self.screen.show_support)

    def _export_clicked(self) -> None:
        folder = self.controls.output if self._answer is None else self.controls.own_folder()

        def work(report: Report) -> list[Path]:
            report(0.5, "writing")
            return self.export(folder)

        show = self.controls.show_message
        self._worker.run(work, lambda files: show(html.escape(f"{len(files)} files written to {folder}.")))

    def _ipython_display_(self, **kwargs: object) -> None:
        self.screen.still.display_below(self._repr_mimebundle_())
