"""Figures: arrays or the package's result objects in, matplotlib Axes or Figures out.

Every function takes tensors or NumPy arrays and leaves showing and saving to the caller; those that draw a single
graph draw into `ax` where one is given. Lengths are in Å. The colours can be told apart by the colour-blind and in
print. Nothing changes matplotlib's settings outside the figures made here.
"""

import lazy_loader

from cryotwin_nb.errors import extras_told

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    with extras_told():
        return _load(name)
