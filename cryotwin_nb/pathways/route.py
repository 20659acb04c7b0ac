"""A route: a pathway via states, with its share of the flux."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryotwin_nb.pathways.ridgeline import Pathway
from cryotwin_nb.pathways.states import State


@dataclass(frozen=True, eq=False)
class Route(Pathway):
    """Pathway with its share of the flux; see `Pathway` for the other attributes.

    Attributes
    ----------
    share : float
        Share of the flux from start to end.
    states : tuple of State
        States along the route, ends included.
    populations : tuple of float
        Share of all particles in each passage of the route, in order from start to end.
    share_interval : tuple of float
        90 % interval of the share (Bayesian bootstrap of populations, widened); NaN if there were no draws.
    frequency : float
        Fraction of the draws in which the route is found; NaN if there were no draws.
    """

    share: float = 0.0
    states: tuple[State, ...] = ()
    populations: tuple[float, ...] = ()
    share_interval: tuple[float, float] = (np.nan, np.nan)
    frequency: float = np.nan
