"""Gaussian mixtures as densities: values, samples, modes, fitting; this room knows nothing of images."""
