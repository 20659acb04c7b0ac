"""Heterogeneity analysis of single-particle cryo-EM images: isometric latents, their density, and pathways through it.

    import cryotwin_nb as ct

Public names are listed in `__init__.pyi` and loaded on first use, so importing the package is fast and requires
neither matplotlib nor a browser.
"""

import lazy_loader

from cryotwin_nb.errors import extras_explained

__version__ = "0.1.0"

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    with extras_explained():
        return _load(name)
