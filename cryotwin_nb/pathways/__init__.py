"""Paths through a density: Algorithm 1 joined, the path of least resistance, states, and all routes between two."""

from cryotwin_nb.pathways.chain import ridgeline_chain, straight_resistances, waypoints
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.maxflux import max_flux
from cryotwin_nb.pathways.routes import Route, find_routes
from cryotwin_nb.pathways.states import State, assign, find_states

__all__ = [
    "Landscape",
    "Route",
    "State",
    "assign",
    "find_routes",
    "find_states",
    "max_flux",
    "ridgeline_chain",
    "straight_resistances",
    "waypoints",
]
