"""Gaussian mixtures as densities: values, samples, modes, fitting; nothing here knows about images."""

from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.moments import MixtureMoments, StoredMixture

__all__ = ["GaussianMixture", "MixtureMoments", "StoredMixture"]
