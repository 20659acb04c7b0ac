"""Maps in closed form from images of known pose: an average, half maps, and the principal directions of variation."""
