"""What can be taken out of an explorer: path, maps, figures, views and files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cryotwin_nb.errors import InputError, choice
from cryotwin_nb.explorer.folders import claim, claim_new
from cryotwin_nb.explorer.job import Report
from cryotwin_nb.explorer.look import Look
from cryotwin_nb.explorer.planes import colouring
from cryotwin_nb.explorer.view import View
from cryotwin_nb.explorer.widget import ExplorerWidget
from cryotwin_nb.pathways.ridgeline import Pathway

# Modules that need SciPy or matplotlib are imported on first use, so the stars appear about 1 s earlier.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cryotwin_nb.explorer.search import PathAnswer


class ExplorerResults(ExplorerWidget):
    """What `PathwayExplorer` inherits to show and write its results."""

    @property
    def path(self) -> Pathway | None:
        return None if self.session.answer is None else self.session.answer.path

    @property
    def paths(self) -> list[Pathway]:
        return [] if self.session.answer is None else self.session.answer.paths

    @property
    def maps(self) -> Tensor | None:
        return None if self.session.answer is None else self.session.answer.maps

    @property
    def support(self) -> Any:
        return None if self.session.answer is None else self.session.answer.support

    @property
    def voxel_size(self) -> float | None:
        """Voxel size, Å; None if it is not known."""
        return self.session.voxel_size

    def figure(self) -> Figure:
        """Draw the current view as a matplotlib figure, for publication."""
        from cryotwin_nb.explorer.figure import draw_view

        return draw_view(self.picture_of(self.session.answer, self.session.look))

    def show(self, viewer: str = "nglview") -> Any:
        """Return a widget that shows the maps of the path in another viewer.

        Parameters
        ----------
        viewer : {"nglview"}
            Viewer; nglview needs the extra `cryotwin_nb[nglview]`.
        """
        from cryotwin_nb.explorer.ngl import maps_in_nglview

        choice("viewer", viewer, ["nglview"])
        view = self.picture_of(self.session.answer, self.session.look)
        if view.maps is None:
            raise InputError("show", "no path", "a computed path", "Call compute() first.", "There is no path yet.")
        return maps_in_nglview(view.maps, self.voxel_size, view.level, view.step)

    def view(self) -> dict[str, Any]:
        """Return ends, method, step, camera, contour and names as a dict that JSON can hold; `restore` reads it."""
        from cryotwin_nb.explorer.views import view_of

        return view_of(self)

    def export(self, folder: str | os.PathLike, movie: bool = False) -> list[Path]:
        """Write maps, differences, latents, support, scripts, figure and explorer.json; return all files there.

        Parameters
        ----------
        folder : path
            Output folder; created if missing.
        movie : bool
            Write a movie of the maps, too, which takes longer than all the rest.

        Raises
        ------
        InputError
            If there is no path, the voxel size is not known, or another explorer of this session owns the folder.
        """
        return self.write(self.session.answer, self.session.look, folder, movie, self.require_voxel_size())[0]

    def require_voxel_size(self) -> float:
        """Return the voxel size; raise `InputError` if it is not known."""
        if self.session.voxel_size is None:
            sentence = "The voxel size is not known, so the maps would have a wrong scale in other programs."
            remedy = "Pass voxel_size= in Å when you open the explorer, or enter it below the map."
            raise InputError("voxel_size", "none", "the voxel size in Å", remedy, sentence)
        return self.session.voxel_size

    def picture_of(self, answer: PathAnswer | None, look: Look) -> View:
        """Return everything that a figure of a result shows."""
        session, model = self.session, self.session.model
        plane, values = model.planes[look.plane], model.columns[look.colour][self.rows]
        step = 0 if answer is None else min(look.step, len(answer.path.latents) - 1)
        packing = None if answer is None else model.stars.packing
        sigma = 0.0 if packing is None else (packing.sigma if look.sigma is None else look.sigma)
        return View(
            plane,
            colouring(look.colour, values),
            plane.points(self.latents, self.rows),
            plane.place(self.prior.means),
            self.prior.weights.cpu().numpy(),
            self.names,
            None if answer is None else answer.path,
            None if answer is None else answer.profile,
            None if answer is None else answer.maps,
            None if answer is None else answer.support,
            step,
            0.0 if packing is None else packing.level(sigma),
            sigma,
            session.voxel_size,
        )

    def draw_still(self) -> bytes:
        """Draw the picture for readers without a kernel."""
        from cryotwin_nb.explorer.figure import picture  # deferred, because matplotlib is slow to import

        return picture(self.picture_of(self.session.answer, self.session.look))

    def write(
        self,
        answer: PathAnswer | None,
        look: Look,
        folder: str | os.PathLike | None,
        movie: bool,
        voxel_size: float,
        report: Report = lambda share, text: None,
    ) -> tuple[list[Path], Path]:
        """Write a result to a folder, by default one of this explorer's own; return all files there, and the folder."""
        from cryotwin_nb.explorer.saving import require_path, write_exploration

        require_path(answer)
        assert answer is not None
        place = claim(folder, self) if folder else claim_new(self)
        view = replace(self.picture_of(answer, look), voxel_size=voxel_size)
        shown = look.as_dict() | {"route": answer.chosen}
        return write_exploration(place, view, self.prior, answer.request, shown, movie, report), place

    def write_snapshot(self, folder: str | os.PathLike | None, step: int, png: bytes) -> Path:
        """Write a picture of the browser to a folder, by default one of this explorer's own."""
        from cryotwin_nb.explorer.saving import write_snapshot

        return write_snapshot(claim(folder, self) if folder else claim_new(self), step, png)
