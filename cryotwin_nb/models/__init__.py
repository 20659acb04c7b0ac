"""CryoTwin: encoder, decoder and trainable prior, in a coordinate or a subspace architecture; models as files."""

from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.models.history import History
from cryotwin_nb.models.records import ImageLikelihood

__all__ = ["CryoTwin", "History", "ImageLikelihood"]
