"""Groups of rows that share noise, such as the copies of one image: they are drawn together and never split."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError


def number_groups(groups: Tensor | np.ndarray | None, n: int) -> Tensor:
    """Return the number (n,) int64 of each row's group, from 0 in order of first appearance.

    Parameters
    ----------
    groups : (n,) int, optional
        Rows with the same number are one group; by default each row is its own group.
    n : int
        Number of rows.

    Raises
    ------
    InputError
        If `groups` does not hold one integer per row.
    """
    if groups is None:
        return torch.arange(n)
    values = np.asarray(groups.cpu() if isinstance(groups, Tensor) else groups)
    if values.shape != (n,) or values.dtype.kind not in "iu":
        found, expected = f"{values.dtype} values of shape {values.shape}", f"integers of shape ({n},)"
        raise InputError("groups", found, expected, "Pass particles.identity of the particles in these rows.")
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return torch.as_tensor(rank[which.reshape(-1)])


def arrange(number: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows sorted by the place of their group in an order, and the places.

    Parameters
    ----------
    number : (n,) int64
        Group of each row, as from `number_groups`.
    order : (m,) int64
        Permutation of the groups.

    Returns
    -------
    rows : (n,) int64
        Rows, with groups in the given order.
    place : (n,) int64
        Place of the group of each of these rows; without groups of several rows, 0 to n - 1.
    """
    place = order.argsort()[number]
    rows = place.argsort(stable=True)
    return rows, place[rows]


def bootstrap_weights(number: Tensor, generator: torch.Generator) -> Tensor:
    """Return weights (n,) float64 from Exp(1), one draw per group: Bayesian bootstrap (Rubin 1981)."""
    draws = torch.empty(int(number.max()) + 1, dtype=torch.float64).exponential_(generator=generator)
    return draws[number]
