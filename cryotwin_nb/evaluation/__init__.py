"""How good is a model? Isometry, fit of the prior, a t-SNE of the latents, scores against a ground truth, support.

Every function takes arrays, a mixture or a decode function, so that it also works on another program's results.
"""

import lazy_loader

from cryotwin_nb.errors import extras_told

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    with extras_told():
        return _load(name)
