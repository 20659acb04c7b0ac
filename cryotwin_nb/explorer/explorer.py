"""The explorer itself: what it is given, what may be asked of it, and what its buttons do."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation import Decode, Embedding
from cryotwin_nb.explorer.arguments import latents_of, names_and_labels, positive_voxel_size
from cryotwin_nb.explorer.controls import Controls
from cryotwin_nb.explorer.job import Report
from cryotwin_nb.explorer.planes import planes, shown_rows, to_colour_by
from cryotwin_nb.explorer.request import PathRequest
from cryotwin_nb.explorer.screen import Screen
from cryotwin_nb.explorer.worker import Worker
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.ridgeline import Pathway

# What needs SciPy or matplotlib is imported where it is first used: the stars are on the page a second earlier.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cryotwin_nb.explorer.search import PathAnswer, PathSearch


class PathwayExplorer(widgets.VBox):
    """A widget to choose the ends of a path among the means of a mixture, and to see its maps.

    Parameters
    ----------
    prior : GaussianMixture
        On any latents: `model.prior`, or a mixture fitted to those of cryoDRGN.
    latents : (n, d) float
        Latents of the particles.
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
    support : callable, optional
        A path to what images say of its points: `resolution` (K+1,), Å, of half maps at FSC 0.143, and `n_effective`
        (K+1,), the images behind them; asked by a button. For example
        `lambda path: ct.pathway_support(model, particles, path)`.

    Attributes
    ----------
    path : Pathway or None
        What is shown; `paths` are all that were found, `maps` (K+1, D, D, D) those of `path`, `support` what the
        callable said of it.

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
        support: Callable[[Pathway], Any] | None = None,
    ) -> None:
        self.prior, self.voxel_size = prior.detach(), positive_voxel_size(voxel_size)
        self.latents = latents_of(prior, latents)
        self._decode, self._evidence, self._ask_support = decode, evidence, support
        self.names, labels = names_and_labels(self.prior, self.latents, labels)
        flat = planes(self.prior, self.latents, embedding, shown_rows(len(self.latents)))
        columns = to_colour_by(self.prior, self.latents, labels, particles, columns)
        self.controls = Controls(self.prior, self.names, list(flat), list(columns), with_support=support is not None)
        weights = self.prior.weights.cpu().numpy()
        self.screen = Screen(self.controls, flat, columns, weights, self.names, self.voxel_size)
        self._worker = Worker(self.controls)
        super().__init__(self.controls.arranged(self.screen.stars, self.screen.viewer.widget))
        self._connect()

    @classmethod
    def restore(cls, path: str | os.PathLike, prior: GaussianMixture, *args: Any, **kwargs: Any) -> PathwayExplorer:
        """An explorer with the path that another one exported; `path` is its folder or its explorer.json.

        The other arguments are those of the class. The path is computed anew.

        Raises
        ------
        InputError
            If the file is none, or belongs to another mixture.
        """
        from cryotwin_nb.explorer.saving import read_note

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
        """The step that is shown; may be set."""
        return self.controls.step.value

    @step.setter
    def step(self, value: int) -> None:
        self.controls.step.value = value

    def choose(self, start: int, end: int) -> PathwayExplorer:
        """Choose the components at the ends, as clicks on their stars do."""
        for name, component in (("start", start), ("end", end)):
            if not 0 <= component < self.prior.n_components:
                expected = f"a component from 0 to {self.prior.n_components - 1}"
                raise InputError(name, f"component {component}", expected, "Hover over a star to see its component.")
        self.controls.start.value, self.controls.end.value = int(start), int(end)
        return self

    def compute(self, chosen: int = 0) -> PathwayExplorer:
        """Compute what the controls ask for, and wait for it. The button does the same without waiting."""
        try:
            answer = self._search.find(self.controls.request, self.controls.progress, chosen)
        finally:
            self.controls.idle()
        self.screen.show(answer)
        return self

    def figure(self) -> Figure:
        """The same view as a matplotlib figure, for papers."""
        from cryotwin_nb.explorer.figure import draw_view

        return draw_view(self.screen.view())

    def export(self, folder: str | os.PathLike) -> list[Path]:
        """Write maps, difference maps, latents, support, ChimeraX script, movie, picture and explorer.json."""
        from cryotwin_nb.explorer.saving import write_exploration

        request = self.controls.request if self._answer is None else self._answer.request
        route = 0 if self._answer is None else self._answer.chosen
        shown = self.controls.shown | {"route": route}
        return write_exploration(folder, self.screen.view(), self.prior, request, shown)

    @property
    def _answer(self) -> PathAnswer | None:
        return self.screen.answer

    @cached_property
    def _search(self) -> PathSearch:
        from cryotwin_nb.explorer.search import PathSearch

        evidence = self.latents if self._evidence is None else self._evidence
        return PathSearch(self.prior, self.latents, self._decode, evidence, self._ask_support)

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
        """Compute beside the kernel."""
        finder = self._search  # imported here: a job that is stopped while it imports would leave half a module
        self._worker.run(lambda report: finder.find(request, report, chosen, known), self.screen.show)

    def _route_chosen(self, number: int) -> None:
        if self._answer is not None and number != self._answer.chosen:
            self._begin(self._answer.request, self._answer.paths, number)

    def _support_clicked(self) -> None:
        search, answer = self._search, self._answer
        if answer is None:
            self.controls.say("Compute a path first.")
            return
        self._worker.run(lambda report: search.supported(answer, report), self.screen.show_support)

    def _export_clicked(self) -> None:
        folder = self.controls.output

        def work(report: Report) -> list[Path]:
            report(0.5, "writing")
            return self.export(folder)

        self._worker.run(work, lambda files: self.controls.say(html.escape(f"{len(files)} files written to {folder}.")))

    def _ipython_display_(self, **kwargs: object) -> None:
        self.screen.still.display_below(self._repr_mimebundle_())


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a.float(), b, atol=1e-3 * float(b.abs().max())))
