"""CryoTwin models: encoder, decoder and trainable prior in a coordinate or subspace architecture; model files."""

from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.models.history import History
from cryotwin_nb.models.likelihood import ImageLikelihood

__all__ = ["CryoTwin", "History", "ImageLikelihood"]
