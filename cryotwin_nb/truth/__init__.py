"""The embedded molecules, and what is known of simulated images because they were made."""

from cryotwin_nb.truth.truth import Truth

__all__ = ["Truth"]
