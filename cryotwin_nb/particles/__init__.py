"""Images with poses and CTF, read lazily, whitened and made ready for a model."""
