"""The molecules that come with the package, and the ground truth of simulated images."""

from cryotwin_nb.truth.truth import Truth

__all__ = ["Truth"]
