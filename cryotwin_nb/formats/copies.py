"""Copies of one image among the particles: duplicates, symmetry-expanded sets, and particles from two refinements.

Copies have the same noise. In different half-sets they would correlate the noise of the half maps: even pure noise
would seem to have a resolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

_SAME = 0.2  # degrees: rounding of angles in files
_MOST = 500  # different relative rotations above which they are no group
_NAMES = {12: "T", 24: "O", 60: "I"}  # point groups by their number of rotations; others are cyclic or dihedral


def split_in_halves(identity: np.ndarray, seed: int | np.random.Generator) -> np.ndarray:
    """Return a random half-set (n,) int64, 0 or 1, for each row; copies of an image are in the same one.

    Parameters
    ----------
    identity : (n,) int64
        Number of the image of each row; copies have the same number.
    seed : int or numpy.random.Generator
        Seed of the split.
    """
    rng = np.random.default_rng(seed)
    images, which = np.unique(identity, return_inverse=True)
    return (rng.permutation(len(images)) % 2)[which]


def merge_duplicates(weights: np.ndarray, identity: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Return weights (S, n) in which one of several rows with the same image and pose has their mean, the others 0.

    A list given twice then counts once. Copies with other poses, as in symmetry-expanded sets, keep their weights.

    Parameters
    ----------
    weights : (S, n) float64
        Weights of the rows.
    identity : (n,) int64
        Number of the image of each row.
    rotations : (n, 3, 3) float
        Poses.
    """
    if len(np.unique(identity)) == len(identity):
        return weights
    key = np.column_stack([identity, np.round(rotations.reshape(-1, 9) * 300).astype(np.int64)])
    _, first, which, count = np.unique(key, axis=0, return_index=True, return_inverse=True, return_counts=True)
    merged = np.zeros_like(weights)
    np.add.at(merged.T, first[which.reshape(-1)], (weights / count[which.reshape(-1)]).T)
    return merged


def effective_copies(weights: np.ndarray, identity: np.ndarray) -> float:
    """Return the mean number of rows per image, sum_i (sum_r w_r)^2 / sum_r w_r^2 over images i and their rows r.

    Parameters
    ----------
    weights : (n,) float64
        Weights of the rows, as from `merge_duplicates`.
    identity : (n,) int64
        Number of the image of each row.
    """
    of_images = np.bincount(np.unique(identity, return_inverse=True)[1], weights)
    squares = float(np.square(weights).sum())
    return float(np.square(of_images).sum()) / squares if squares else 1.0


def describe_copies(identity: np.ndarray, rotations: np.ndarray | None) -> str | None:
    """Return what the copies among the particles are, or None if each image occurs once.

    Parameters
    ----------
    identity : (n,) int64
        Number of the image of each row.
    rotations : (n, 3, 3) float or None
        Poses, by which duplicates are distinguished from symmetry-expanded sets.
    """
    from scipy.spatial.transform import Rotation

    order = np.argsort(identity, kind="stable")
    again = np.flatnonzero(np.diff(identity[order]) == 0) + 1  # positions that repeat the image before them
    if not len(again):
        return None
    n_images = len(identity) - len(again)
    listed = f"{len(identity)} rows list {n_images} images"
    if rotations is None:
        return f"{listed}: {len(again)} rows are duplicates"
    starts = np.flatnonzero(np.r_[True, np.diff(identity[order]) != 0])
    first = order[np.repeat(starts, np.diff(np.r_[starts, len(order)]))][again]
    relative = Rotation.from_matrix(rotations[order[again]]) * Rotation.from_matrix(rotations[first]).inv()
    if (relative.magnitude() < np.deg2rad(_SAME)).all():
        return f"{listed}: {len(again)} rows are duplicates, with the same pose"
    group = point_group(relative)
    if group:
        return f"{listed}: a symmetry-expanded set ({group})"
    return f"{listed} with different poses, such as those of two refinements"


def point_group(relative: Rotation) -> str | None:
    """Return the Schoenflies name of the group whose elements, without the identity, these rotations are; else None."""
    from scipy.spatial.transform import Rotation

    vectors = np.unique(np.round(_canonical(relative), 3), axis=0)
    if len(vectors) > _MOST:
        return None
    elements = Rotation.concatenate([Rotation.identity(), *_distinct(Rotation.from_rotvec(vectors))])
    order = len(elements)
    if order < 2 or not _is_closed(elements):
        return None
    axes = _canonical(elements[1:])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    parallel = np.abs(axes @ axes.T) > np.cos(np.deg2rad(1))
    if parallel.all():
        return f"C{order}"
    if order % 2 == 0 and (parallel.sum(1) >= order // 2 - 1).any():  # all but the half turns across the main axis
        return f"D{order // 2}"
    return _NAMES.get(order)


def _canonical(rotations: Rotation) -> np.ndarray:
    """Return rotation vectors with a unique sign at half turns."""
    vectors = rotations.as_rotvec()
    half_turn = np.linalg.norm(vectors, axis=1) > np.pi - 0.02
    leading = vectors[np.arange(len(vectors)), np.abs(vectors).argmax(1)]
    return np.where((half_turn & (leading < 0))[:, None], -vectors, vectors)


def _distinct(rotations: Rotation) -> list[Rotation]:
    """Return one of each cluster of rotations that agree within 1 degree, without the identity."""
    from scipy.spatial.transform import Rotation

    kept: list[Rotation] = []
    for rotation in rotations:
        angles = [(rotation * other.inv()).magnitude() for other in [Rotation.identity(), *kept]]
        if min(angles) > np.deg2rad(1):
            kept.append(rotation)
    return kept


def _is_closed(elements: Rotation) -> bool:
    """Return whether the product of any two elements is an element, within 1 degree."""
    matrices = elements.as_matrix()
    products = np.einsum("aij,bjk->abik", matrices, matrices).reshape(-1, 9)
    nearest = np.abs(products[:, None] - matrices.reshape(1, -1, 9)).max(-1).min(1)
    return bool((nearest < np.deg2rad(1)).all())
