from .classes import class_averages as class_averages
from .colours import COLOURS as COLOURS, DENSITY as DENSITY, state_colours as state_colours
from .curves import confusion_table as confusion_table, density_along_path as density_along_path
from .training import LivePlot as LivePlot
from .curves import fsc_curves as fsc_curves, isometry_scatter as isometry_scatter, noise_spectrum as noise_spectrum
from .curves import occupancy_along_path as occupancy_along_path
from .training import spectrum as spectrum, training_curves as training_curves
from .diagram import training_diagram as training_diagram
from .latents import embedding_scatter as embedding_scatter, latent_scatter as latent_scatter
from .looks import Page as Page, first_look as first_look, first_look_page as first_look_page
from .particles import preparation as preparation
from .pathways import path_profile as path_profile, route_graph as route_graph
from .movie import write_movie as write_movie
from .pictures import central_slices as central_slices, map_montage as map_montage
from .pictures import particle_gallery as particle_gallery, scale_bar as scale_bar
from .rendering import contour_level as contour_level, render_surface as render_surface, view_from as view_from
from .style import STYLE as STYLE
from .support import density_differences as density_differences, path_support as path_support
