"""A path as a line of equally spaced nodes, prolonged straight through its ends, with directions across it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

NODES = 200  # pieces of the path; a prolongation as long as the path has as many


@dataclass(frozen=True, eq=False)
class Line:
    """Equally spaced nodes of a path that is prolonged straight through both ends.

    Attributes
    ----------
    points, tangents : (N, d) float64
        Nodes and unit tangents.
    frames : (N, d, d-1) float64
        Unit vectors across the path, which turn with it and not around it.
    position : (N,) float64
        Arc length, 0 at the start and `length` at the end.
    length : float
        Length of the path without the prolongations.
    """

    points: np.ndarray
    tangents: np.ndarray
    frames: np.ndarray
    position: np.ndarray
    length: float

    @classmethod
    def through(cls, curve: np.ndarray, ahead: float = 1.0) -> Line:
        """Return the line along the polyline `curve` (m, d), prolonged at both ends by `ahead` times its length."""
        arc = np.concatenate([[0.0], np.linalg.norm(np.diff(curve, axis=0), axis=1).cumsum()])
        length, step = arc[-1], arc[-1] / NODES
        inner = _along(curve, arc, np.linspace(0, length, NODES + 1))
        more = np.arange(1, round(ahead * NODES) + 1)[:, None] * step
        first, last = inner[0] - inner[NODES // 20], inner[-1] - inner[-1 - NODES // 20]
        before = inner[0] + more[::-1] * first / np.linalg.norm(first)
        points = np.concatenate([before, inner, inner[-1] + more * last / np.linalg.norm(last)])
        around = np.arange(len(points))
        tangents = points[(around + 2).clip(max=len(points) - 1)] - points[(around - 2).clip(0)]
        tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
        return cls(points, tangents, _frames(tangents), (around - len(more)) * step, float(length))


def _along(curve: np.ndarray, arc: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return the points (n, d) of a polyline at the given arc lengths."""
    return np.stack([np.interp(position, arc, column) for column in curve.T], axis=1)


def _frames(tangents: np.ndarray) -> np.ndarray:
    """Return unit vectors perpendicular to each tangent, carried along by the smallest rotations."""
    frame = np.linalg.svd(tangents[:1])[2][1:].T
    frames = [frame]
    for before, now in pairwise(tangents):
        turn = np.outer(now, before) - np.outer(before, now)
        frame = frame + turn @ frame + turn @ turn @ frame / max(1 + before @ now, 1e-6)
        frame = np.linalg.qr(frame - np.outer(now, now @ frame))[0] if frame.shape[1] > 1 else frame
        if frame.shape[1]:
            sign = np.sign(np.einsum("dk,dk->k", frame, frames[-1]))
            frame = frame * np.where(sign == 0, 1, sign) / np.linalg.norm(frame, axis=0)
        frames.append(frame)
    return np.stack(frames)
