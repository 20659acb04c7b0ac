"""Maps in closed form from images of known pose: an average, half maps, the principal directions of variation."""

from cryotwin_nb.reconstruction.eigenvolumes import Eigenvolumes
from cryotwin_nb.reconstruction.homogeneous import Reconstruction, reconstruct

__all__ = ["Eigenvolumes", "Reconstruction", "reconstruct"]
