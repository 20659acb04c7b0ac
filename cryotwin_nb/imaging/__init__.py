"""Image formation: Fourier transforms, CTF, central slices and masks; and the Fourier shell correlation of maps."""

from cryotwin_nb.imaging.fsc import FscCurve, fsc
from cryotwin_nb.imaging.optics import CTF

__all__ = ["CTF", "FscCurve", "fsc"]
