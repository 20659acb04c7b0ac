"""Paths through a density: Algorithm 1 joined, the path of least resistance, all routes; and how sure they are."""

from cryotwin_nb.pathways.chain import ridgeline_chain, straight_resistances, waypoints
from cryotwin_nb.pathways.confidence import PathConfidence, PathProfile, bootstrap_path, profile
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.maxflux import max_flux
from cryotwin_nb.pathways.network import Network, tube
from cryotwin_nb.pathways.routes import Route, find_routes
from cryotwin_nb.pathways.states import State, assign, find_states

__all__ = [
    "Landscape",
    "Network",
    "PathConfidence",
    "PathProfile",
    "Route",
    "State",
    "assign",
    "bootstrap_path",
    "find_routes",
    "find_states",
    "max_flux",
    "profile",
    "ridgeline_chain",
    "straight_resistances",
    "tube",
    "waypoints",
]
