"""Figures: functions that draw arrays or the package's results and return matplotlib Axes or Figures.

Every function accepts tensors or NumPy arrays and leaves showing and saving to the caller. Functions that draw a
single graph accept `ax`, the Axes to draw into. Lengths are in Å. The palette remains legible in print and for
colour-blind readers. matplotlib's settings change only while a figure is drawn.
"""

import lazy_loader

from cryotwin_nb.errors import extras_explained

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    with extras_explained():
        return _load(name)
