"""Paths through a density: Algorithm 1, the path of least resistance, states, all routes; and how sure they are."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
