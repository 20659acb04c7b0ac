"""Gaussian mixture densities: evaluation, sampling, modes and fitting; independent of images."""

from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.moments import MixtureMoments, StoredMixture

__all__ = ["GaussianMixture", "MixtureMoments", "StoredMixture"]
