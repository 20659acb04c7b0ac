"""Exchange with other programs: particles for RELION, cryoSPARC and cryoDRGN, maps for ChimeraX, and cryoDRGN runs."""

from cryotwin_nb.exchange.cryodrgn_run import CryodrgnRun, read_cryodrgn
from cryotwin_nb.exchange.export import write_pathway
from cryotwin_nb.exchange.export_selection import write_selection, write_states
from cryotwin_nb.exchange.latents import read_latents
from cryotwin_nb.exchange.selection import select_near, select_state

__all__ = [
    "CryodrgnRun",
    "read_cryodrgn",
    "read_latents",
    "select_near",
    "select_state",
    "write_pathway",
    "write_selection",
    "write_states",
]
