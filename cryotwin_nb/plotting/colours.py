"""Colours shared by the figures and the explorer, in a module that is fast to import."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's palette in order of use; yellow is last because it has little contrast on white."""

DENSITY = "viridis"
"""Colour map for densities."""
