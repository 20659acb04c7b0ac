"""Scores against a ground truth: maps of single images, coordinates, states, and block order along a path."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.errors import InputError
from cryotwin_nb.evaluation.intervals import Interval, interval
from cryotwin_nb.evaluation.metric import Decode
from cryotwin_nb.imaging.fsc import fsc
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.groups import number_groups
from cryotwin_nb.truth.truth import Truth


def coordinate_r2(
    z: Tensor, truth: Truth, n_neighbours: int = 10, groups: np.ndarray | None = None
) -> dict[str, float]:
    """Return the held-out R^2 of each true coordinate, predicted from nearest neighbours in latent space.

    The coordinates of one half of the particles are predicted from their neighbours in the other half.

    Parameters
    ----------
    z : (n, d)
        Latents, in the order of `truth`.
    truth : Truth
        Ground truth of the particles.
    n_neighbours : int
        Number of neighbours.
    groups : (n,) int, optional
        Group of each particle, such as `particles.identity`; a group is in one half.
    """
    predicted, target, _ = _held_out(z, truth, n_neighbours, groups)
    return {name: _r2(p, t) for name, p, t in zip(truth.coordinate_names, predicted.T, target.T, strict=True)}


def r2_interval(
    z: Tensor, truth: Truth, n_neighbours: int = 10, groups: np.ndarray | None = None
) -> dict[str, Interval]:
    """Return 95 % bootstrap intervals of `coordinate_r2`, from resampling the predicted particles.

    Parameters
    ----------
    z, truth, n_neighbours, groups
        As in `coordinate_r2`.
    """
    predicted, target, own = _held_out(z, truth, n_neighbours, groups)
    pairs = zip(truth.coordinate_names, predicted.T, target.T, strict=True)
    return {name: interval(_r2, p, t, groups=own) for name, p, t in pairs}


def _held_out(
    z: Tensor, truth: Truth, n_neighbours: int, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return predicted and true coordinates (m, q) and groups (m,) of the second half of the particles.

    A prediction is the mean over the nearest neighbours in the first half, weighted by 1 / distance.
    """
    from scipy.spatial import cKDTree

    number, target, latents = number_groups(groups, len(z)).numpy(), truth.coordinates, np.asarray(z)
    known = number < (number.max() + 1) // 2
    distance, nearest = cKDTree(latents[known]).query(latents[~known], np.arange(1, n_neighbours + 1))
    weights = 1 / np.maximum(distance, 1e-12)[..., None]
    return (weights * target[known][nearest]).sum(1) / weights.sum(1), target[~known], number[~known]


def _r2(predicted: np.ndarray, target: np.ndarray) -> float:
    return float(1 - ((predicted - target) ** 2).mean() / target.var())


def fsc_to_truth(decode: Decode, z: Tensor, truth: Truth, n_images: int = 100) -> np.ndarray:
    """Return the mean FSC (D/2,) between maps decoded at the latents of single images and the true maps of the images.

    Parameters
    ----------
    decode, z, truth, n_images
        As in `fsc_of_images`.
    """
    return fsc_of_images(decode, z, truth, n_images).mean(0)


def fsc_of_images(decode: Decode, z: Tensor, truth: Truth, n_images: int = 100) -> np.ndarray:
    """Return the FSC (m, D/2) between maps decoded at the latents of single images and the true maps of the images.

    Parameters
    ----------
    decode : callable
        Function from latents (m, d) to maps (m, D, D, D).
    z : (n, d)
        Latents, in the order of `truth`.
    truth : Truth
        Ground truth of the particles.
    n_images : int
        Maximum number m of images, evenly spread over the particles.
    """
    rows = np.linspace(0, len(z) - 1, min(n_images, len(z))).astype(int)
    curves = [
        fsc(decoded, truth.volume(row), truth.pixel_size).correlation
        for chunk in np.array_split(rows, -(-len(rows) // 10))
        for row, decoded in zip(chunk, decode(z[chunk]), strict=True)
    ]
    return np.array(curves)


def component_of_state(prior: GaussianMixture, z: Tensor, labels: np.ndarray, state: str) -> int:
    """Return the index of the component that contains the largest number of particles labelled `state`.

    Parameters
    ----------
    prior : GaussianMixture
        Mixture that contains the components.
    z : (n, d)
        Latents.
    labels : (n,) str
        Label of each latent.
    state : str
        One of the labels.

    Raises
    ------
    InputError
        If no particle has the label.
    """
    members = np.flatnonzero(np.asarray(labels) == state)
    if len(members) == 0:
        known = ", ".join(sorted(set(map(str, labels))))
        raise InputError(
            "component_of_state", f"no particle labelled {state!r}", f"one of {known}", "Pass one of these."
        )
    return int(prior.responsibilities(torch.as_tensor(z)[members]).sum(0).argmax())


def block_occupancies(maps: Tensor, truth: Truth) -> np.ndarray:
    """Return the occupancy (m, 5) of each block of the assembling subunit in maps, by least squares.

    Each map is fitted as scale * (core + sum of occupancy * block); the scale is the coefficient of the core.

    Parameters
    ----------
    maps : (m, D, D, D)
        Maps on the grid of `truth`.
    truth : Truth
        Ground truth with the blocks.
    """
    names = truth.coordinate_names
    empty = truth.volume_at(np.zeros(len(names)))
    parts = [empty] + [truth.volume_at(row) - empty for row in np.eye(len(names), dtype=np.float32)]
    basis = torch.stack(parts).flatten(1).double()
    solution = torch.linalg.lstsq(basis.T, torch.as_tensor(maps).flatten(1).double().T).solution
    return (solution[1:] / solution[:1]).T.numpy()


def block_order(occupancies: np.ndarray, names: tuple[str, ...], threshold: float = 0.5) -> list[str]:
    """Return the names of the blocks in the order in which they appear along a path.

    A block appears where its occupancy rises above the threshold for the last time, interpolated between steps. Blocks
    whose final occupancy is below the threshold are left out.

    Parameters
    ----------
    occupancies : (K+1, 5)
        Occupancy of each block at each point of the path.
    names : tuple of str
        Names of the blocks.
    threshold : float
        Occupancy above which a block is present.
    """
    steps = {name: passing_step(values, threshold) for name, values in zip(names, occupancies.T, strict=True)}
    return sorted((name for name, step in steps.items() if np.isfinite(step)), key=steps.__getitem__)


def passing_step(values: np.ndarray, threshold: float) -> float:
    """Return the interpolated step at which values rise above a threshold for the last time.

    The result is 0 if the values are always above the threshold, and infinity if the last value is below it.

    Parameters
    ----------
    values : (K+1,)
        Value at each step.
    threshold : float
        Threshold.
    """
    below = np.flatnonzero(values < threshold)
    if not len(below):
        return 0.0
    last = below[-1]
    if last == len(values) - 1:
        return float("inf")
    return float(last + (threshold - values[last]) / (values[last + 1] - values[last]))


def true_block_orders() -> list[tuple[str, ...]]:
    """Return the orders in which the blocks appear along the four simulated routes."""
    from cryotwin_nb.truth.molecules import BLOCKS, ROUTES, STATES

    orders = []
    for route in ROUTES:
        bits = np.array([STATES[state] for state in route])
        orders.append(tuple(BLOCKS[int(np.argmax(step))] for step in np.diff(bits, axis=0)))
    return orders
