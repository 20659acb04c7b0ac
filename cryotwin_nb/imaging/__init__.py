"""How a density becomes an image: Fourier transforms, the CTF, slices of maps, masks; and how alike two maps are."""

from cryotwin_nb.imaging.fsc import FscCurve, fsc
from cryotwin_nb.imaging.optics import CTF

__all__ = ["CTF", "FscCurve", "fsc"]
