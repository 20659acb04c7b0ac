"""Scores against a ground truth: maps of single images, coordinates, states, the order of blocks along a path."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation.intervals import Interval, interval
from cryotwin_nb.evaluation.metric import Decode
from cryotwin_nb.imaging.fsc import fsc
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.truth.truth import Truth


def coordinate_r2(z: Tensor, truth: Truth, n_neighbours: int = 10) -> dict[str, float]:
    """Held-out R^2 of each true coordinate, predicted from the latents of the nearest particles of the other half.

    Parameters
    ----------
    z : (n, d)
        Latents, in the order of `truth`.
    """
    predicted, target = _held_out(z, truth, n_neighbours)
    return {name: _r2(p, t) for name, p, t in zip(truth.coordinate_names, predicted.T, target.T, strict=True)}


def r2_interval(z: Tensor, truth: Truth, n_neighbours: int = 10) -> dict[str, Interval]:
    """95 % bootstrap intervals of `coordinate_r2`, over the images predicted."""
    predicted, target = _held_out(z, truth, n_neighbours)
    return {n: interval(_r2, p, t) for n, p, t in zip(truth.coordinate_names, predicted.T, target.T, strict=True)}


def _held_out(z: Tensor, truth: Truth, n_neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true coordinates (m, q) of the second half of the particles.

    A prediction is the mean over the nearest neighbours in the first half, weighted by 1 / distance.
    """
    from scipy.spatial import cKDTree

    half, target = len(z) // 2, truth.coordinates
    distance, nearest = cKDTree(np.asarray(z[:half])).query(np.asarray(z[half:]), np.arange(1, n_neighbours + 1))
    weights = 1 / np.maximum(distance, 1e-12)[..., None]
    return (weights * target[:half][nearest]).sum(1) / weights.sum(1), target[half:]


def _r2(predicted: np.ndarray, target: np.ndarray) -> float:
    return float(1 - ((predicted - target) ** 2).mean() / target.var())


def fsc_to_truth(decode: Decode, z: Tensor, truth: Truth, n_images: int = 100) -> np.ndarray:
    """Mean correlation (D/2,) of maps decoded at the latents of single images with the true map of each image."""
    return fsc_of_images(decode, z, truth, n_images).mean(0)


def fsc_of_images(decode: Decode, z: Tensor, truth: Truth, n_images: int = 100) -> np.ndarray:
    """Correlations (m, D/2) of maps decoded at the latents of m single images, evenly spread, with their true maps."""
    rows = np.linspace(0, len(z) - 1, min(n_images, len(z))).astype(int)
    curves = [
        fsc(decoded, truth.volume(row), truth.pixel_size).correlation
        for chunk in np.array_split(rows, -(-len(rows) // 10))
        for row, decoded in zip(chunk, decode(z[chunk]), strict=True)
    ]
    return np.array(curves)


def component_of_state(prior: GaussianMixture, z: Tensor, labels: np.ndarray, state: str) -> int:
    """Index of the component that holds most of the particles labelled `state`.

    Raises
    ------
    InputError
        If no particle carries the label.
    """
    members = np.flatnonzero(np.asarray(labels) == state)
    if len(members) == 0:
        known = ", ".join(sorted(set(map(str, labels))))
        raise InputError("component_of_state", f"no particle labelled {state!r}", f"one of {known}", "Choose one.")
    return int(prior.responsibilities(torch.as_tensor(z)[members]).sum(0).argmax())


def block_occupancies(maps: Tensor, truth: Truth) -> np.ndarray:
    """Occupancy (m, 5) of each block of the assembling subunit in maps (m, D, D, D).

    Least squares: each map is written as scale * (core + sum of occupancy * block); the scale is that of the core.
    """
    names = truth.coordinate_names
    empty = truth.volume_at(np.zeros(len(names)))
    parts = [empty] + [truth.volume_at(row) - empty for row in np.eye(len(names), dtype=np.float32)]
    basis = torch.stack(parts).flatten(1).double()
    solution = torch.linalg.lstsq(basis.T, torch.as_tensor(maps).flatten(1).double().T).solution
    return (solution[1:] / solution[:1]).T.numpy()


def block_order(occupancies: np.ndarray, names: tuple[str, ...], threshold: float = 0.5) -> list[str]:
    """Names of the blocks in the order in which their occupancy (K+1, 5) first passes `threshold` for good.

    The crossing is interpolated between steps; blocks that do not end above the threshold are left out.
    """
    steps = {name: passing_step(values, threshold) for name, values in zip(names, occupancies.T, strict=True)}
    return sorted((name for name, step in steps.items() if np.isfinite(step)), key=steps.__getitem__)


def passing_step(values: np.ndarray, threshold: float) -> float:
    """Where a line (K+1,) passes the threshold for good, in steps: 0 if always above, infinity if it ends below."""
    below = np.flatnonzero(values < threshold)
    if not len(below):
        return 0.0
    last = below[-1]
    if last == len(values) - 1:
        return float("inf")
    return float(last + (threshold - values[last]) / (values[last + 1] - values[last]))


def true_block_orders() -> list[tuple[str, ...]]:
    """The orders in which the blocks appear along the four planted routes."""
    from cryotwin_nb.truth.molecules import BLOCKS, ROUTES, STATES

    orders = []
    for route in ROUTES:
        bits = np.array([STATES[state] for state in route])
        orders.append(tuple(BLOCKS[int(np.argmax(step))] for step in np.diff(bits, axis=0)))
    return orders
