"""Ground truth of simulated images, and the built-in molecules."""

from cryotwin_nb.truth.truth import Truth

__all__ = ["Truth"]
