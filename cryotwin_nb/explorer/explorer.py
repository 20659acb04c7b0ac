"""The explorer: its arguments, and methods that do what its buttons do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import choice, known_options
from cryotwin_nb.evaluation import Decode, Embedding
from cryotwin_nb.explorer.arguments import first_ends, latents_of, names_and_labels, require_particles, voxel_size_of
from cryotwin_nb.explorer.look import Look
from cryotwin_nb.explorer.packing import Stars
from cryotwin_nb.explorer.planes import planes, shown_rows, to_colour_by
from cryotwin_nb.explorer.request import PathRequest, Place
from cryotwin_nb.explorer.results import ExplorerResults
from cryotwin_nb.explorer.session import Model
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.pathways.ridgeline import Pathway

# Modules that need SciPy or matplotlib are imported on first use, so the stars appear about 1 s earlier.
if TYPE_CHECKING:
    from cryotwin_nb.explorer.search import PathSearch

_REFERENCE = 4  # number of components whose maps set the scale of all maps


class PathwayExplorer(ExplorerResults):
    """Widget to choose the ends of a path among the means of a mixture and to view the maps along the path.

    Parameters
    ----------
    prior : GaussianMixture
        Density of the latents: `model.prior`, or a mixture fitted to other latents, such as cryoDRGN's.
    latents : (n, d) float
        Latents of the particles.
    decode : callable
        Decoder from latents (m, d) to maps (m, D, D, D), such as `model.volumes`.
    voxel_size : float, optional
        Voxel size, Å; by default that of `particles`. Without either, maps are shown but not written.
    embedding : Embedding or (n, 2) float, optional
        Embedding in which to show the latents: `embed_tsne(latents, prior)` or another one, such as cryoDRGN's UMAP.
        Principal components and pairs of latent dimensions are always available.
    labels : (n,) str, or mapping of int to str, optional
        Labels of the particles, used to colour the points and to name the components, or the names of the components.
    particles : Particles, optional
        Particles. Points can then be coloured by defocus, optics group and, for simulated data, true state; a
        selection of points can be reconstructed and written to a file.
    columns : DataFrame or mapping of str to (n,), optional
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

    Notes
    -----
    Running a cell again closes the explorer that it opened before. Maps are sent to the browser with 8 bits a voxel
    and at most 128 voxels along an edge; `maps` and exported files have full size and precision.
    """

    def __init__(
        self,
        prior: GaussianMixture,
        latents: Tensor | np.ndarray,
        decode: Decode,
        voxel_size: float | None = None,
        embedding: Embedding | np.ndarray | None = None,
        labels: Sequence | np.ndarray | Mapping[int, str] | None = None,
        particles: Any = None,
        columns: Mapping[str, Any] | None = None,
        evidence: Any = None,
        support: Callable[[Pathway], Any] | None = None,
        junk: Collection[int] = (),
    ) -> None:
        super().__init__()
        self.prior, self.particles = prior.detach(), particles
        self.latents = latents_of(prior, latents)
        require_particles(particles, len(self.latents))
        self.names, labels = names_and_labels(self.prior, self.latents, labels, junk)
        self.rows = shown_rows(len(self.latents))
        found = planes(self.latents, embedding)
        values = to_colour_by(self.prior, self.latents, labels, particles, columns)
        weights = self.prior.weights.tolist()
        heaviest = sorted(set(range(len(weights))) - set(junk) or range(len(weights)), key=lambda c: -weights[c])
        stars = Stars(decode, self.prior.means.cpu().float(), heaviest[:_REFERENCE])
        names, z = self.names, self.latents

        @cache
        def search() -> PathSearch:
            from cryotwin_nb.explorer.search import PathSearch

            return PathSearch(prior.detach(), z, decode, evidence, support, names)

        self.begin(
            Model(self.names, found, values, search, stars),
            PathRequest(*first_ends(weights, self.names, junk)),
            Look(next(iter(found)), next(iter(values))),
            voxel_size_of(voxel_size, particles),
            {"support": support is not None, "particles": particles is not None, "junk": set(junk)},
        )

    @classmethod
    def restore(cls, source: Any, prior: GaussianMixture, *args: Any, **kwargs: Any) -> PathwayExplorer:
        """Create an explorer that recomputes and shows an exported path, or a view.

        Parameters
        ----------
        source : path or dict
            Folder written by `export`, or its explorer.json; the result of `view`, or a .json file with it; or a
            notebook (.ipynb) saved with an explorer: the last view in it.
        prior, args, kwargs
            Arguments of `PathwayExplorer`.

        Raises
        ------
        InputError
            If the source is something else, or belongs to another mixture.
        """
        from cryotwin_nb.explorer.views import read_source, same_points

        stored = read_source(source, prior)
        explorer = cls(prior, *args, **({"labels": stored.names} | kwargs if stored.names else kwargs))
        explorer.change(stored.request, explorer.session.look.changed(stored.look, *explorer.offered))
        explorer.compute(stored.chosen)
        if explorer.path is not None and not same_points(stored.points, explorer.path.latents):
            text = "The path differs from the stored path, which another version computed."
            explorer.send_message(kind="note", text=text)
        return explorer

    @property
    def step(self) -> int:
        """Step shown; can be set."""
        return self.session.look.step

    @step.setter
    def step(self, value: int) -> None:
        self.set(step=value)

    def choose(self, start: Any, end: Any, via: Sequence[Any] = ()) -> PathwayExplorer:
        """Choose the ends of the path, and points on its way; equivalent to clicking them.

        Parameters
        ----------
        start, end : int, str or (d,) float
            Components, names (of components, or of states: "S1"), or latents.
        via : sequence, optional
            Way-points, given like the ends.
        """
        ends = [_place(value) for value in (start, end, *via)]
        request = replace(self.session.request, start=ends[0], end=ends[1], ways=tuple(ends[2:]))
        request = PathRequest.from_dict(request.as_dict(), "ends")
        for name, value in zip(("start", "end", *["via"] * len(via)), ends):
            self.session.model.search().place(name, value)
        self.change(request)
        return self

    def set(self, **settings: Any) -> PathwayExplorer:
        """Change settings.

        Parameters
        ----------
        settings
            Any of method, n_steps, omega, seed; plane, colour, step, sigma, ghost, change, paint, dust.

        Examples
        --------
        >>> explorer.set(method="Algorithm 1", omega=3.0, plane="PC 1, 2").compute()  # doctest: +SKIP
        """
        of_path = {field.name for field in fields(PathRequest)} - {"start", "end", "ways"}
        of_look = {field.name for field in fields(Look)}
        known_options("explorer.set", settings, of_path | of_look)
        for name, offered in zip(("plane", "colour"), self.offered, strict=True):
            if name in settings:
                choice(name, settings[name], offered)
        values = {k: v for k, v in settings.items() if k in of_path}
        request = PathRequest.from_dict(self.session.request.as_dict() | values, "settings")
        look = self.session.look.changed({k: v for k, v in settings.items() if k in of_look}, *self.offered)
        self.change(request, look)
        return self

    def compute(self, chosen: int = 0) -> PathwayExplorer:
        """Compute the path with the current settings and wait for the result. The Compute button does not wait.

        Parameters
        ----------
        chosen : int
            Index of the path to decode, if several are found.
        """
        self.session.show(*self.session.compute(self.session.request, lambda share, text: None, chosen))
        self.picture.changed()
        return self

    def undo(self) -> PathwayExplorer:
        """Show the path before the present one again.

        Raises
        ------
        InputError
            If there is none.
        """
        request, paths, chosen = self.session.former()
        found = self.session.compute(request, lambda share, text: None, chosen, paths)
        self.session.show(*found, remember=False)
        self.change(request)
        return self


def _place(value: Any) -> Place:
    """Convert an end given from code to one that a message can hold."""
    if isinstance(value, (Tensor, np.ndarray, list, tuple)):
        return tuple(torch.as_tensor(value).double().flatten().tolist())
    if isinstance(value, np.integer):
        return int(value)
    return getattr(value, "name", value)  # a state
