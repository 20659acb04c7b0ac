"""Colours that figures and the explorer share; here, so that the explorer need not wait for the figures' modules."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's palette in the order of use; yellow last, because it has little contrast on white."""

DENSITY = "viridis"
"""Colour map of densities."""
