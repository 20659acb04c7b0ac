"""Simulated particle images of known structures, computed exactly from pseudo-atoms."""

from cryotwin_nb.simulate.images import assembly, hinge, random_rotations

__all__ = ["assembly", "hinge", "random_rotations"]
