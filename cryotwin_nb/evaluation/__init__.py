"""Evaluation of a model: isometry, fit of the prior, t-SNE of the latents, scores against ground truth, image support.

Most functions take arrays, a mixture or a decode function, so they also work on the results of other programs.
"""

import lazy_loader

from cryotwin_nb.errors import extras_explained

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    with extras_explained():
        return _load(name)
