"""Figures: arrays or the package's result objects in, matplotlib Axes or Figures out.

Every function takes tensors or NumPy arrays and leaves showing and saving to the caller; those that draw a single
graph draw into `ax` where one is given. Lengths are in Å. The colours can be told apart by the colour-blind and in
print. Nothing changes matplotlib's settings outside the figures made here.
"""

from cryotwin_nb.plotting.curves import (
    LivePlot,
    confusion_table,
    density_along_path,
    fsc_curves,
    isometry_scatter,
    noise_spectrum,
    occupancy_along_path,
    training_curves,
)
from cryotwin_nb.plotting.diagram import training_diagram
from cryotwin_nb.plotting.latents import embedding_scatter, latent_scatter
from cryotwin_nb.plotting.particles import first_look, preparation
from cryotwin_nb.plotting.pathways import path_profile, route_graph, write_movie
from cryotwin_nb.plotting.pictures import central_slices, map_montage, particle_gallery, scale_bar
from cryotwin_nb.plotting.rendering import contour_level, render_surface, view_from
from cryotwin_nb.plotting.style import COLOURS, DENSITY, STYLE
from cryotwin_nb.plotting.support import path_support

__all__ = [
    "COLOURS",
    "DENSITY",
    "STYLE",
    "LivePlot",
    "central_slices",
    "confusion_table",
    "contour_level",
    "density_along_path",
    "embedding_scatter",
    "first_look",
    "fsc_curves",
    "isometry_scatter",
    "latent_scatter",
    "map_montage",
    "noise_spectrum",
    "occupancy_along_path",
    "particle_gallery",
    "path_profile",
    "path_support",
    "preparation",
    "render_surface",
    "route_graph",
    "scale_bar",
    "training_curves",
    "training_diagram",
    "view_from",
    "write_movie",
]
