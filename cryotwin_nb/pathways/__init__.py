"""Paths through a density: the paper's Algorithm 1, the path of least resistance, routes, states, confidence."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
