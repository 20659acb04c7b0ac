"""Particle images with poses and CTF, read lazily, whitened and prepared for a model."""

from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.quality import Quality, image_quality
from cryotwin_nb.particles.whitening import Whitening

__all__ = ["ImageBatch", "ImageFormation", "Particles", "Quality", "Whitening", "image_quality"]
