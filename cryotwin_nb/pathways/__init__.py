"""Paths through a density: Algorithm 1 joined, and the path of least resistance; states of a density."""

from cryotwin_nb.pathways.chain import ridgeline_chain, straight_resistances, waypoints
from cryotwin_nb.pathways.landscape import Landscape
from cryotwin_nb.pathways.maxflux import max_flux
from cryotwin_nb.pathways.states import State, assign, find_states

__all__ = [
    "Landscape",
    "State",
    "assign",
    "find_states",
    "max_flux",
    "ridgeline_chain",
    "straight_resistances",
    "waypoints",
]
