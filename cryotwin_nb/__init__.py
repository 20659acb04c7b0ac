"""From single-particle cryo-EM images to an isometric latent space, a density on it, and conformational pathways.

    import cryotwin_nb as ct

The public names stand in `__init__.pyi` and load on first use, so that importing the package stays quick and needs
neither matplotlib nor a browser.
"""

import lazy_loader

from cryotwin_nb.errors import extras_told

__version__ = "0.1.0"

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    with extras_told():
        return _load(name)
