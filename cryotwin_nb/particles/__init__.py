"""Particle images with poses and CTF, read lazily, whitened and prepared for a model."""

from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.whitening import Whitening

__all__ = ["ImageBatch", "ImageFormation", "Particles", "Whitening"]
