"""Density along a line from positions with known errors: a smooth log density, fitted to all errors at once.

The log density is a cubic spline, and its third differences are penalised: without data, it becomes a Gaussian. The
penalty is chosen by the likelihood of positions that were left out. Positions are counted in small bins, for a few
classes of errors, so the time of a fit does not depend on their number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import BSpline

_BINS, _CLASSES, _SPLINES = 180, 8, 48  # bins of positions, classes of errors, basis functions
_FOLDS = 5
_PENALTIES = 10.0 ** np.arange(4, -3.1, -0.75)  # of the squared third differences; tried from smooth to rough
_ITERATIONS, _TOLERANCE = 40, 1e-5  # Newton iterations, and the gain, nats, at which they stop


@dataclass(frozen=True, eq=False)
class LineCounts:
    """Positions with errors, counted in bins.

    Attributes
    ----------
    grid : (M,) float64
        Equally spaced points at which the density is evaluated.
    splines : (M, B) float64
        Values of the basis functions there.
    kernel : (R, M) float64
        Likelihood of each row of counts at the points, relative to its maximum.
    row : (n,) int64
        Row of counts to which each position belongs.
    """

    grid: np.ndarray
    splines: np.ndarray
    kernel: np.ndarray
    row: np.ndarray

    @classmethod
    def of(cls, position: np.ndarray, error: np.ndarray) -> LineCounts:
        """Count positions (n,) with standard errors (n,)."""
        margin = 2 * float(np.median(error)) + 0.02 * float(np.ptp(position)) + 1e-12
        grid = np.linspace(position.min() - margin, position.max() + margin, _BINS)
        step = grid[1] - grid[0]
        blurred = np.sqrt(error**2 + step**2 / 12)  # a bin adds the error of a uniform distribution
        edges = np.unique(np.quantile(blurred, np.linspace(0, 1, _CLASSES + 1)[1:-1]))
        group = np.searchsorted(edges, blurred)
        place = np.rint((position - grid[0]) / step).astype(np.int64).clip(0, _BINS - 1)
        key, row = np.unique(group * _BINS + place, return_inverse=True)
        square = np.bincount(group, blurred**2) / np.maximum(np.bincount(group), 1)
        away = grid[key % _BINS][:, None] - grid
        kernel = np.exp(-(away**2) / (2 * square[key // _BINS][:, None]))
        return cls(grid, _splines(grid), kernel, row.reshape(-1))

    def totals(self, weights: np.ndarray) -> np.ndarray:
        """Return the sum of the weights (n,) in each row of counts (R,)."""
        return np.bincount(self.row, weights, len(self.kernel))

    def smooth_density(self, weights: np.ndarray, number: np.ndarray) -> LineDensity:
        """Return the density whose penalty suits the positions, for weights (n,) and groups (n,) drawn together."""
        penalty = self._penalty(weights, number)
        return self.density(self.totals(weights), penalty)

    def _penalty(self, weights: np.ndarray, number: np.ndarray) -> float:
        """Return the penalty with the highest likelihood of left-out positions."""
        fold = np.random.default_rng(0).permutation(int(number.max()) + 1)[number] % _FOLDS
        score = np.zeros(len(_PENALTIES))
        for k in range(_FOLDS):
            kept, left = (self.totals(weights * part) for part in (fold != k, fold == k))
            fitted = None
            for i, penalty in enumerate(_PENALTIES):
                fitted = self.density(kept, penalty, fitted)
                score[i] += left @ fitted.log_likelihood
        return float(_PENALTIES[score.argmax()])

    def density(self, counts: np.ndarray, penalty: float, start: LineDensity | None = None) -> LineDensity:
        """Return the density that maximises the penalised likelihood of counts (R,), by Newton's method."""
        start = start or self.density(counts, 1e6, LineDensity.flat(self)) if penalty < 1e6 else LineDensity.flat(self)
        current = replace(start, penalty=penalty)
        value, scale = current.objective(counts), 1.0
        for _ in range(_ITERATIONS):
            step = current.newton_step(counts)
            for scale in 0.5 ** np.arange(12):
                moved = current.moved(scale * step)
                gain = moved.objective(counts) - value
                if gain > 0:
                    current, value = moved, value + gain
                    break
            if not gain > _TOLERANCE:
                break
        return current


@dataclass(frozen=True, eq=False)
class LineDensity:
    """Smooth density along a line.

    Attributes
    ----------
    counts : LineCounts
        Points, basis and kernel.
    coefficients : (B,) float64
        Coefficients of the splines, which add up to the log density and a constant.
    penalty : float
        Factor of the squared third differences of the coefficients.
    """

    counts: LineCounts
    coefficients: np.ndarray
    penalty: float = 1e6

    @classmethod
    def flat(cls, counts: LineCounts) -> LineDensity:
        """Return the uniform density."""
        return cls(counts, np.zeros(counts.splines.shape[1]))

    def __post_init__(self) -> None:
        log_density = self.counts.splines @ self.coefficients
        log_density -= log_density.max()
        log_mass = log_density - np.log(np.exp(log_density).sum())
        object.__setattr__(self, "_mass", np.exp(log_mass))
        object.__setattr__(self, "log_density", log_mass - np.log(self.counts.grid[1] - self.counts.grid[0]))
        evidence = np.maximum(self.counts.kernel @ self._mass, 1e-300)
        object.__setattr__(self, "_evidence", evidence)

    log_density: np.ndarray = None  # type: ignore[assignment]
    _mass: np.ndarray = None  # type: ignore[assignment]
    _evidence: np.ndarray = None  # type: ignore[assignment]

    @property
    def log_likelihood(self) -> np.ndarray:
        """Log-likelihood (R,) of each row of counts, up to a constant of the row."""
        return np.log(self._evidence)

    def objective(self, counts: np.ndarray) -> float:
        """Return the penalised log-likelihood of counts (R,)."""
        return float(counts @ self.log_likelihood - self.penalty / 2 * (np.diff(self.coefficients, 3) ** 2).sum())

    def moved(self, step: np.ndarray) -> LineDensity:
        """Return the density whose coefficients are changed by `step` (B,)."""
        return LineDensity(self.counts, self.coefficients + step, self.penalty)

    def newton_step(self, counts: np.ndarray) -> np.ndarray:
        """Return the change of the coefficients (B,) that Fisher's scoring proposes for counts (R,)."""
        splines = self.counts.splines
        expected = (self.counts.kernel * self._mass) @ splines / self._evidence[:, None] - self._mass @ splines
        third = np.diff(np.eye(len(self.coefficients)), 3, axis=0)
        rough = self.penalty * third.T @ third
        information = (expected * counts[:, None]).T @ expected + rough + 1e-3 * np.eye(len(rough))
        return np.linalg.solve(information, expected.T @ counts - rough @ self.coefficients)


def _splines(grid: np.ndarray) -> np.ndarray:
    """Return the values (M, B) of equally spaced cubic B-splines on a grid (M,)."""
    step = (grid[-1] - grid[0]) / (_SPLINES - 3)
    knots = grid[0] + step * np.arange(-3, _SPLINES + 1)
    return BSpline.design_matrix(grid.clip(knots[3], knots[-4]), knots, 3).toarray()
