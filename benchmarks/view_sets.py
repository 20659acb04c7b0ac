"""Uneven distributions of viewing directions, for benchmarks; needs numpy and SciPy only."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

KINDS = ("70 % within 25", "all within 50", "belt of 30", "even")
"""70 % of the views within 25 degrees of one axis; all within 50 degrees of it; all within 30 degrees of the plane
perpendicular to it; even views."""


def around(axis: np.ndarray, height: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return directions (n, 3) at the given heights (n,) along an axis."""
    turn, ring = rng.uniform(0, 2 * np.pi, len(height)), np.sqrt(1 - height**2)
    upright = np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1)
    return upright @ Rotation.align_vectors([axis], [[0, 0, 1]])[0].as_matrix().T


def even(n: int, rng: np.random.Generator) -> np.ndarray:
    return around(np.array([0.0, 0.0, 1.0]), rng.uniform(-1, 1, n), rng)


def random_axis(rng: np.random.Generator) -> np.ndarray:
    axis = rng.normal(size=3)
    return axis / np.linalg.norm(axis)


def views_of(kind: str, n: int, axis: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return viewing directions (n, 3) of one of the kinds."""
    c25, c50, s30 = np.cos(np.radians(25)), np.cos(np.radians(50)), np.sin(np.radians(30))
    match kind:
        case "70 % within 25":
            near = around(axis, rng.uniform(c25, 1, int(0.7 * n)), rng)
            return rng.permutation(np.concatenate([near, even(n - len(near), rng)]))
        case "all within 50":
            return around(axis, rng.uniform(c50, 1, n), rng)
        case "belt of 30":
            return around(axis, rng.uniform(-s30, s30, n), rng)
        case "even":
            return even(n, rng)
    raise ValueError(f"unknown kind of views: {kind}")
