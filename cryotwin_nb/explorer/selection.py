"""Particles selected in the plane: their number, composition, mean map, and the file of the selection."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.explorer.job import Report
from cryotwin_nb.explorer.planes import by_label

_FIRST = 400  # number of images of the first mean map; each further one has four times as many
_BINS = 8


def composition(values: np.ndarray, rows: np.ndarray) -> list[list]:
    """Return, for each label or range of values, its name and the numbers of selected and of all particles."""
    values = np.asarray(values)
    if by_label(values):
        names, number = np.unique(values.astype(str), return_inverse=True)
    else:
        finite = values[np.isfinite(values)].astype(float)
        edges = np.unique(np.quantile(finite, np.linspace(0, 1, _BINS + 1))) if len(finite) else np.array([0.0])
        number = np.where(np.isfinite(values), np.digitize(values, edges[1:-1], right=True), max(len(edges) - 1, 1))
        names = np.array([*(f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)), "not finite"])
        names = names if len(edges) > 1 else np.array([f"{edges[0]:.4g}", "not finite"])
    total = np.bincount(number, minlength=len(names))
    here = np.bincount(number[rows], minlength=len(names))
    order = np.argsort(-here, kind="stable") if by_label(values) else np.arange(len(names))
    return [[str(names[i]), int(here[i]), int(total[i])] for i in order if total[i]]


def require_rows(rows: np.ndarray, n: int) -> np.ndarray:
    """Return rows from a browser as sorted int64; raise `InputError` unless they are rows of n particles."""
    rows = np.unique(rows.astype(np.int64))
    if len(rows) == 0:
        raise InputError("selection", "no particles", "at least one", "Draw a larger loop.", "Nothing is selected.")
    if rows[-1] >= n:
        raise InputError("selection", f"row {rows[-1]}", f"rows below {n}", "Select the particles again.")
    return rows


def mean_maps(
    particles: Any, rows: np.ndarray, report: Report, show: Callable[[int, Tensor], None], seed: int = 0
) -> tuple[Tensor, float]:
    """Reconstruct a map from selected images, in rounds of more and more of them.

    Parameters
    ----------
    particles : Particles
        Particles with images, poses and CTF.
    rows : (k,) int64
        Selected particles.
    report : callable
        Function that receives the progress; it raises an exception to stop.
    show : callable
        Function that receives the number of images and the map of each round.

    Returns
    -------
    (D, D, D) float32 map, and the resolution of its half maps, Å
    """
    from cryotwin_nb.reconstruction import reconstruct

    shuffled = np.random.default_rng(seed).permutation(rows)
    numbers = [_FIRST * 4**k for k in range(12) if _FIRST * 4**k < len(rows)] + [len(rows)]
    for done, n in enumerate(numbers):
        report(sum(numbers[:done]) / sum(numbers), f"map from {n:,} images")
        found = reconstruct(particles[np.sort(shuffled[:n])])
        volume = torch.as_tensor(found.map).float().cpu()
        show(n, volume)
    return volume, float(found.resolution)
