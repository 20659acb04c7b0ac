"""End-to-end demo on simulated data: simulate, write, read, train, find a path, decode, compare with the truth."""

from cryotwin_nb.demo.running import evaluate, run, table

__all__ = ["evaluate", "run", "table"]
