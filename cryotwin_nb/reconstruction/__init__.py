"""Closed-form maps from images of known pose: average, half maps and principal components of variation."""

from cryotwin_nb.reconstruction.eigenvolumes import Eigenvolumes
from cryotwin_nb.reconstruction.homogeneous import Reconstruction, reconstruct

__all__ = ["Eigenvolumes", "Reconstruction", "reconstruct"]
