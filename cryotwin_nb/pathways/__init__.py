"""Pathways through a density: Algorithm 1 of cryoTWIN, paths of least resistance, states, routes and confidence."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
