"""Density along a line from positions with known errors (deconvolution), with draws for intervals.

The log density is that of a few Gaussians plus a spline whose third differences are penalised. The number of Gaussians
and the penalty maximise the evidence (marginal likelihood, Laplace approximation; each parameter of the Gaussians costs
half the log of the number of positions). States that are Gaussians need no spline, other shapes need no Gaussians. A
sharp edge between a state and an even passage needs a spline that is rough where positions are many and smooth where
they are few: its knots are equally spaced in the share of the positions, not in length, if the evidence prefers that.
Positions are counted in small bins, for a few classes of errors, so the time of a fit does not depend on their number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import BSpline
from scipy.sparse import csr_matrix

_BINS, _CLASSES, _SPLINES = 240, 8, 96  # bins of positions, classes of errors, basis functions
_PENALTIES = 10.0 ** np.array([8, *np.arange(6, -1.1, -0.5)])  # of the third differences; tried from smooth to rough
_GAUSSIANS = 6  # maximum number of Gaussians
_THINNEST = 1e-3  # of the largest density: a stretch with fewer positions counts as if it had so many
_RIDGE = 1e-3  # penalty of the coefficients themselves, which the third differences leave free
_NEWTON, _TOLERANCE = 60, 1e-3  # Newton iterations, and the gain, nats, at which they stop
_STEPS, _STEPS_AGAIN = 150, 20  # EM iterations for the Gaussians; in each draw


@dataclass(frozen=True, eq=False)
class LineCounts:
    """Positions with errors, counted in bins.

    Attributes
    ----------
    grid : (M,) float64
        Equally spaced points at which the density is evaluated.
    splines : (M, B) sparse float64
        Values of the basis functions there.
    position, variance : (R,) float64
        Position of each row of counts, and the mean variance of its errors.
    row : (n,) int64
        Row of counts to which each position belongs.
    """

    grid: np.ndarray
    splines: csr_matrix
    position: np.ndarray
    variance: np.ndarray
    row: np.ndarray

    @classmethod
    def of(cls, position: np.ndarray, error: np.ndarray) -> LineCounts:
        """Count positions (n,) with standard errors (n,)."""
        margin = 2 * float(np.median(error)) + 0.02 * float(np.ptp(position)) + 1e-12
        grid = np.linspace(position.min() - margin, position.max() + margin, _BINS)
        step = grid[1] - grid[0]
        blurred = np.sqrt(error**2 + step**2 / 12)  # a bin adds the error of a uniform distribution
        group = np.searchsorted(np.unique(np.quantile(blurred, np.linspace(0, 1, _CLASSES + 1)[1:-1])), blurred)
        place = np.rint((position - grid[0]) / step).astype(np.int64).clip(0, _BINS - 1)
        key, row = np.unique(group * _BINS + place, return_inverse=True)
        square = np.bincount(group, blurred**2) / np.maximum(np.bincount(group), 1)
        return cls(grid, _splines(grid), grid[key % _BINS], square[key // _BINS], row.reshape(-1))

    def ranked(self, totals: np.ndarray) -> LineCounts:
        """Return counts whose splines are equally spaced in the share of the positions, given totals (R,)."""
        density = (totals / self.kernel.sum(1)) @ self.kernel  # wider than the truth by the errors
        density = density.clip(_THINNEST * density.max())
        share = np.concatenate([[0.0], ((density[1:] + density[:-1]) / 2).cumsum()])
        return replace(self, splines=_splines(share))

    @property
    def step(self) -> float:
        """Distance of two points of the grid."""
        return float(self.grid[1] - self.grid[0])

    @property
    def kernel(self) -> np.ndarray:
        """Likelihood (R, M) of each row at the points of the grid, relative to its maximum."""
        return np.exp(-((self.position[:, None] - self.grid) ** 2) / (2 * self.variance[:, None]))

    def totals(self, weights: np.ndarray) -> np.ndarray:
        """Return the sum of the weights (n,) in each row of counts (R,)."""
        return np.bincount(self.row, weights, len(self.position))


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Mixture of K Gaussians on a line: weights, means and variances (K,) float64, and its log-likelihood."""

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    log_likelihood: float = 0.0

    @classmethod
    def fitted(cls, counts: LineCounts, totals: np.ndarray, n: int) -> Gaussians:
        """Return `n` Gaussians fitted by expectation-maximisation, the better of two initial guesses."""
        order = np.argsort(counts.position)
        share = totals[order].cumsum() / totals.sum()
        low, high = np.interp([0.02, 0.98], share, counts.position[order])
        by_mass = np.interp((np.arange(n) + 0.5) / n, share, counts.position[order])
        variances, found = np.full(n, ((high - low) / (2 * n)) ** 2 + counts.step**2), []
        for means in (by_mass, np.linspace(low, high, n)):
            found.append(cls(np.full(n, 1 / n), means, variances).improved(counts, totals, _STEPS))
        return max(found, key=lambda fit: fit.log_likelihood)

    def improved(self, counts: LineCounts, totals: np.ndarray, steps: int) -> Gaussians:
        """Return the Gaussians after `steps` iterations of expectation-maximisation on totals (R,)."""
        weights, means, variances, value = self.weights, self.means, self.variances, 0.0
        for _ in range(steps):
            total = variances + counts.variance[:, None]
            away = counts.position[:, None] - means
            joint = np.log(weights) - (np.log(total) + away**2 / total) / 2
            highest = joint.max(1, keepdims=True)
            share = np.exp(joint - highest)
            evidence = share.sum(1, keepdims=True)
            value = float(totals @ (highest + np.log(evidence))[:, 0])
            share *= totals[:, None] / evidence
            gain = variances / total
            mean, mass = means + gain * away, share.sum(0) + 1e-9
            weights, means = mass / mass.sum(), (share * mean).sum(0) / mass
            second = (share * (variances * (1 - gain) + (mean - means) ** 2)).sum(0) / mass
            variances = second.clip((counts.step / 2) ** 2)
        return Gaussians(weights, means, variances, value)

    def log_density(self, grid: np.ndarray) -> np.ndarray:
        """Return the log density at points (M,), at least 60 nats below the maximum."""
        away = grid[:, None] - self.means
        density = (self.weights / np.sqrt(self.variances) * np.exp(-(away**2) / (2 * self.variances))).sum(1)
        return np.log(density.clip(density.max() * np.exp(-60)))


@dataclass(frozen=True, eq=False)
class LineDensity:
    """Density along a line.

    Attributes
    ----------
    counts : LineCounts
        Positions and grid.
    gaussians : Gaussians, optional
        Mixture to whose log density the spline is added.
    coefficients : (B,) float64
        Coefficients of the spline.
    penalty : float
        Factor of half the squared third differences of the coefficients.
    """

    counts: LineCounts
    gaussians: Gaussians | None
    coefficients: np.ndarray
    penalty: float

    @classmethod
    def fitted(cls, counts: LineCounts, weights: np.ndarray) -> LineDensity:
        """Return the density with the highest evidence, for weights (n,) of the positions."""
        totals, best, found = counts.totals(weights), -np.inf, None
        for n in range(1, _GAUSSIANS + 1):
            gaussians = Gaussians.fitted(counts, totals, n) if n > 1 else None  # the spline contains a single one
            evidence, density = cls._with_best_penalty(counts, gaussians, totals)
            evidence -= 1.5 * (n - 1) * np.log(totals.sum())
            if evidence > best:
                best, found, worse = evidence, density, 0
            elif (worse := worse + 1) == 2:
                break
        evidence, density = cls._with_best_penalty(counts.ranked(totals), None, totals)
        return density if found is None or evidence > best else found

    @classmethod
    def _with_best_penalty(
        cls, counts: LineCounts, gaussians: Gaussians | None, totals: np.ndarray
    ) -> tuple[float, LineDensity]:
        """Return the largest evidence among the penalties and the density with that penalty."""
        coefficients, best, found, kernel = np.zeros(counts.splines.shape[1]), -np.inf, None, counts.kernel
        for penalty in _PENALTIES:
            density, value, information = cls(counts, gaussians, coefficients, penalty).maximised(totals, kernel)
            coefficients = density.coefficients
            free = len(coefficients) - 3
            evidence = value + free / 2 * np.log(penalty) - np.linalg.slogdet(information)[1] / 2
            if evidence > best:
                best, found = evidence, density
            elif evidence < best - 10:
                break
        assert found is not None
        return float(best), found

    @property
    def log_density(self) -> np.ndarray:
        """Log density (M,) at the points of the grid."""
        log_density = self.counts.splines @ self.coefficients
        if self.gaussians is not None:
            log_density = log_density + self.gaussians.log_density(self.counts.grid)
        highest = log_density.max()
        return log_density - highest - np.log(np.exp(log_density - highest).sum() * self.counts.step)

    def drawn(self, weights: np.ndarray, generator: np.random.Generator, kernel: np.ndarray) -> LineDensity:
        """Return the density for drawn weights (n,) of the positions and drawn values of the third differences.

        The latter are drawn from the distribution that the penalty describes. Without them, intervals would not contain
        the error of smoothing (randomised maximum a posteriori).
        """
        totals, gaussians = self.counts.totals(weights), self.gaussians
        if gaussians is not None:
            gaussians = gaussians.improved(self.counts, totals, _STEPS_AGAIN)
        third = generator.normal(size=len(self.coefficients) - 3) / np.sqrt(self.penalty)
        return replace(self, gaussians=gaussians).maximised(totals, kernel, third)[0]

    def maximised(
        self, totals: np.ndarray, kernel: np.ndarray, third: np.ndarray | float = 0.0
    ) -> tuple[LineDensity, float, np.ndarray]:
        """Maximise the penalised log-likelihood of totals (R,) over the coefficients, by Fisher's scoring.

        Returns the density, the value reached and the information matrix (B, B) there. The penalty is on the deviation
        of the third differences from `third`.
        """
        splines, x = self.counts.splines, self.coefficients
        across = splines.T.tocsr()
        base = 0.0 if self.gaussians is None else self.gaussians.log_density(self.counts.grid)
        differences = np.diff(np.eye(len(x)), 3, axis=0)
        rough = self.penalty * differences.T @ differences + _RIDGE * np.eye(len(x))
        pull = self.penalty * differences.T @ np.broadcast_to(third, len(differences))

        def evaluated(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
            log_density = base + splines @ x
            mass = np.exp(log_density - log_density.max())
            mass /= mass.sum()
            evidence = (kernel @ mass).clip(1e-300)
            return mass, evidence, float(totals @ np.log(evidence) - x @ rough @ x / 2 + pull @ x)

        mass, evidence, value = evaluated(x)
        for _ in range(_NEWTON):
            expected = (across @ (kernel * mass).T).T / evidence[:, None] - across @ mass
            information = (expected * totals[:, None]).T @ expected + rough
            step = np.linalg.solve(information, expected.T @ totals - rough @ x + pull)
            for scale in 0.5 ** np.arange(12):
                moved = evaluated(x + scale * step)
                if moved[2] > value:
                    break
            else:
                break
            gain, x, (mass, evidence, value) = moved[2] - value, x + scale * step, moved
            if gain < _TOLERANCE:
                break
        return replace(self, coefficients=x), value, information


def _splines(grid: np.ndarray) -> csr_matrix:
    """Return the values (M, B) of equally spaced cubic B-splines at increasing points (M,)."""
    step = (grid[-1] - grid[0]) / (_SPLINES - 3)
    knots = grid[0] + step * np.arange(-3, _SPLINES + 1)
    return BSpline.design_matrix(grid.clip(knots[3], knots[-4]), knots, 3).tocsr()
