"""Figures of the cryoTWIN paper, drawn from trained models: coordinate networks, cryoDRGN and subspace model."""

from cryotwin_nb.demo.paper.making import FIGURES, make_figures

__all__ = ["FIGURES", "make_figures"]
