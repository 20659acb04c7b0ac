"""The tube around a path: images that lie on the path, and the place of each along it.

An image lies on the path if its distance to it, in the metric of its own latent error and of the spread of a state
across the path, is below the 99 % quantile of chi squared. The path is prolonged straight through its ends, so the tube
contains whole states. Directions in which the images only differ by their errors are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.spatial import cKDTree

from cryotwin_nb.pathways.line import NODES, Line

_QUANTILE = 0.99  # share of the images of a path that its tube contains
_AT_ONCE = 2**13  # images placed at once
_TINY = 1e-6  # variances below this fraction of the largest are none
_LEAST, _DEVIATIONS = 0.05, 5.0  # live: variance above this multiple of the error's, and this significant
_PER_BIN, _PLACES = 400, 60  # images used for the spread: at most so many in each of these stretches of the curve
_ROUNDS = 12  # rounds in which the spread is estimated
_WEIGHT = 30.0  # images that the common spread is worth, where few images are
_WIDEST = 4.0  # largest ratio of the local variance across the path to the common one


def live_directions(latents: np.ndarray, noise: np.ndarray | None, chord: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis (d, m) of the directions in which images differ by more than their errors.

    Parameters
    ----------
    latents : (n, d) float64
        Points of the images.
    noise : (n, d, d) float64, optional
        Covariances of their errors.
    chord : (d,) float64
        Difference of the ends of the path; the basis always contains most of it.
    """
    total = np.atleast_2d(np.cov(latents.T))
    error = np.zeros_like(total) if noise is None else noise.mean(0)
    variances, axes = np.linalg.eigh(total - error)
    own = np.einsum("dk,de,ek->k", axes, error, axes)
    uncertain = _DEVIATIONS * np.sqrt(2 / len(latents)) * (own + variances.clip(0)) * (own > 0)
    live = axes[:, (variances > _TINY * variances.max()) & (variances > _LEAST * own + uncertain)]
    rest = chord - live @ (live.T @ chord)
    if np.linalg.norm(rest) > 0.5 * np.linalg.norm(chord):
        live = np.concatenate([live, rest[:, None] / np.linalg.norm(rest)], axis=1)
    return live


@dataclass(frozen=True, eq=False)
class Corridor:
    """Tube around a line.

    Attributes
    ----------
    line : Line
        Nodes of the line.
    spread : (N, d, d) float64
        Covariance of the structures across the line at each node, without errors.
    """

    line: Line
    spread: np.ndarray

    @property
    def limit(self) -> float:
        """Largest squared distance, in the metric of an image, at which it lies on the path."""
        return float(stats.chi2.ppf(_QUANTILE, self.line.points.shape[1]))

    @classmethod
    def around(cls, line: Line, latents: np.ndarray, noise: np.ndarray | None) -> Corridor:
        """Estimate the spread across a line from images near it: latents (n, d) and error covariances (n, d, d)."""
        dim, count = line.points.shape[1], len(line.points)
        rows, node = _representative(line, latents)
        latents, noise = latents[rows], None if noise is None else noise[rows]
        error = np.zeros((len(rows), dim - 1, dim - 1)) if noise is None else _across(line.frames[node], noise)
        away = np.einsum("ndk,nd->nk", line.frames[node], latents - line.points[node])
        near = cKDTree(latents).query(line.points[node], k=min(20, len(latents)))[0]
        near = near[:, -1] if near.ndim > 1 else near
        common = np.eye(dim - 1) * max(float(np.quantile(near, 0.25)) ** 2, 1e-12 * line.length**2)
        local = np.broadcast_to(common, (count, dim - 1, dim - 1))
        limit, shrunk = _truncation(dim - 1)
        for _ in range(_ROUNDS if dim > 1 else 0):
            total = local[node] + error
            chi2 = np.einsum("nk,nkl,nl->n", away, np.linalg.inv(total), away)
            inside = (chi2 < limit) & (line.position[node] > line.position[0]) & (node < count - 1)
            if inside.sum() < 3 * dim:
                break
            common, local = _spreads(line, node[inside], away[inside], error[inside], shrunk)
        return cls(line, line.frames @ local @ line.frames.transpose(0, 2, 1))

    def place(self, latents: np.ndarray, noise: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return, for each image, its position along the line, the error of the position, and its squared distance.

        The distance (n,) is in the metric of the image's own error and of the spread across the line.
        """
        parts = []
        for first in range(0, len(latents), _AT_ONCE):
            rows = slice(first, first + _AT_ONCE)
            parts.append(self._place(latents[rows], None if noise is None else noise[rows]))
        position, error, square = (np.concatenate(part) for part in zip(*parts, strict=True))
        return position, error, square

    def _place(self, x: np.ndarray, noise: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        line = self.line
        node = cKDTree(line.points).query(x)[1]
        if noise is not None:  # the nearest node in the metric of the image, at the spread of the nearest one
            precision = self._precision(node, noise)
            pulled = np.einsum("nde,ne->nd", precision, x)
            outer = (line.points[:, :, None] * line.points[:, None]).reshape(len(line.points), -1)
            node = (precision.reshape(len(x), -1) @ outer.T - 2 * pulled @ line.points.T).argmin(1)
        away = x - line.points[node]
        tangent, precision = line.tangents[node], self._precision(node, noise)
        slope = np.einsum("nd,nde->ne", tangent, precision)
        sharpness = np.einsum("nd,nd->n", slope, tangent)
        half = line.position[1] - line.position[0]
        moved = (np.einsum("nd,nd->n", slope, away) / sharpness).clip(-half, half)
        away = away - moved[:, None] * tangent
        square = np.einsum("nd,nde,ne->n", away, precision, away)
        error = sharpness**-0.5 if noise is not None else np.zeros(len(x))
        return line.position[node] + moved, error, square

    def _precision(self, node: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """Return the inverse (n, d, d) of the covariances of images around given nodes (n,)."""
        tangent, small = self.line.tangents[node], (self.line.length / NODES / 10) ** 2
        total = self.spread[node] + small * tangent[:, :, None] * tangent[:, None]
        return np.linalg.inv(total if noise is None else total + noise)


def _stretch(count: int) -> int:
    return -(-count // _PLACES)


def _representative(line: Line, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of images, at most `_PER_BIN` near each stretch of a line, and the node nearest to each."""
    node = cKDTree(line.points).query(latents)[1]
    order = np.random.default_rng(0).permutation(len(latents))
    place = node[order] // _stretch(len(line.points))
    by_place = np.argsort(place, kind="stable")
    rank = np.arange(len(order)) - np.searchsorted(place[by_place], place[by_place])
    rows = np.sort(order[by_place[rank < _PER_BIN]])
    return rows, node[rows]


def _across(frames: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Return the blocks (n, d-1, d-1) of covariances (n, d, d) across the line."""
    return frames.transpose(0, 2, 1) @ covariances @ frames


def _truncation(dim: int) -> tuple[float, float]:
    """Return the limit of chi squared, and the factor by which it lowers the variance of a Gaussian inside it."""
    if dim == 0:
        return 0.0, 1.0
    limit = float(stats.chi2.ppf(_QUANTILE, dim))
    return limit, float(stats.chi2.cdf(limit, dim + 2) / _QUANTILE)


def _spreads(
    line: Line, node: np.ndarray, away: np.ndarray, error: np.ndarray, shrunk: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the common spread (d-1, d-1) and that at each node (N, d-1, d-1), from offsets (n, d-1) and errors.

    The local spread is that around the local mean, so a neighbouring state beside the path does not widen the tube. It
    is between the common one and four times that.
    """
    size = np.trace(error, axis1=1, axis2=2)
    sharp = 1 / size.clip(np.median(size)) ** 2 if size.min() > 0 else np.ones(len(size))  # weights of the images
    second = away[:, :, None] * away[:, None] / shrunk - error
    common = _positive(np.average(second, axis=0, weights=sharp), np.median(error, axis=0))
    places = np.linspace(0, len(line.points) - 1, _PLACES)
    width = (line.position[1] - line.position[0]) / (0.05 * line.length)
    kernel = np.exp(-(((places[:, None] - node) * width) ** 2) / 2) * (sharp / sharp.mean())
    mass = kernel.sum(1)[:, None, None]
    mean = (kernel @ away)[:, :, None] / mass.clip(1e-12)
    local = (kernel @ second.reshape(len(node), -1)).reshape(-1, *common.shape) - mass * mean * mean.transpose(0, 2, 1)
    local = (local + _WEIGHT * common) / (mass + _WEIGHT)
    local = bounded(local, common)
    nearest = np.rint(np.arange(len(line.points)) * (_PLACES - 1) / (len(line.points) - 1)).astype(int)
    return common, local[nearest]


def bounded(local: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Return covariances (N, d, d) whose variances are one to four times those of a common one (d, d)."""
    root = np.linalg.cholesky(common)
    inverse = np.linalg.inv(root)
    ratios, axes = np.linalg.eigh(inverse @ local @ inverse.T)
    return root @ (axes * ratios.clip(1, _WIDEST)[:, None]) @ axes.transpose(0, 2, 1) @ root.T


def _positive(matrix: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return a covariance without negative variances: at least a hundredth of the error or of the largest variance."""
    variances, axes = np.linalg.eigh(matrix)
    least = max(0.01 * np.linalg.eigvalsh(error)[-1], 1e-4 * variances[-1], 1e-300)
    return (axes * variances.clip(least)) @ axes.T
