from .barrier import measure_barrier as measure_barrier
from .chain import (
    ridgeline_chain as ridgeline_chain,
    straight_resistances as straight_resistances,
    waypoints as waypoints,
)
from .confidence import PathConfidence as PathConfidence, bootstrap_path as bootstrap_path
from .counting import MeasuredBarrier as MeasuredBarrier
from .landscape import Landscape as Landscape
from .maxflux import max_flux as max_flux
from .network import Network as Network, tube as tube
from .profile import PathProfile as PathProfile, profile as profile
from .ridgeline import Pathway as Pathway, ridgeline as ridgeline
from .routes import Route as Route, find_routes as find_routes
from .states import State as State, assign as assign, find_states as find_states
