"""Readers and writers of file formats: MRC, STAR, cryoSPARC .cs, cryoDRGN .pkl and scripts for viewers.

Each particle reader returns a `metadata.Metadata`. Conventions of other programs are converted here and nowhere else.
"""

from cryotwin_nb.formats.mrc import read_map
from cryotwin_nb.formats.mrc_writing import write_map

__all__ = ["read_map", "write_map"]
