"""Contents of a set of images: spread of the contrasts, share of junk, and number of images that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from cryotwin_nb.imaging.optics import CTF
from cryotwin_nb.particles.formation import ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.backprojection import MARGIN
from cryotwin_nb.reconstruction.eigenvolumes import Eigenvolumes
from cryotwin_nb.reconstruction.statistics import posterior, with_contrast

_WIDE = 0.5  # standard deviation of the prior under which the contrast of each image is estimated
_DETERMINED = 0.3  # share of the variance of a coordinate that its estimates have
_FAINT = 0.35  # median error of a contrast above which images with and without a particle look alike
_VALLEY = 0.8  # largest density between both kinds of images, relative to that at the fainter one
_GAIN = 8.0  # nats by which images without the particle must improve the fit to count as present
_BOUNDS = ((-9.0, -0.7), (-0.3, 0.4), (0.0, 0.25), (0.7, 1.3), (0.0, 0.6))  # log share; mean, deviation of both kinds
_CERTAIN = 1.96  # standard errors of a 95 % interval


@dataclass(frozen=True)
class Contents:
    """What a set of images consists of.

    Attributes
    ----------
    n_images : int
        Number of different images; copies count once.
    contrast_spread : float
        Standard deviation of the contrasts of the images that show the particle, relative to their mean; it includes
        differences of mass between structures that the images do not resolve. NaN as `junk`.
    junk : float
        Share of the images that do not show the particle, or not at the recorded pose; NaN if the images are too noisy
        to determine it.
    junk_interval : tuple of float
        95 % interval of that share.
    effective : float
        Number of evenly distributed views of the particle that constrain an average as well as these images.
    optics : tuple of str
        Voltage, spherical aberration and amplitude contrast of each optics group.
    """

    n_images: int
    contrast_spread: float
    junk: float
    junk_interval: tuple[float, float]
    effective: float
    optics: tuple[str, ...]

    def table(self) -> list[tuple[str, str]]:
        """Return the contents as names and texts."""
        low, high = (100 * end for end in self.junk_interval)
        judged, unknown = np.isfinite(self.junk), "unknown: the images are too noisy"
        return [
            ("different images", f"{self.n_images:,}, worth {self.effective:,.0f} evenly distributed views"),
            ("junk", f"{100 * self.junk:.1f} % ({low:.1f} to {high:.1f} %)" if judged else unknown),
            ("spread of the contrasts", f"{100 * self.contrast_spread:.0f} %" if judged else unknown),
            *((f"optics group {number}", text) for number, text in enumerate(self.optics, 1)),
        ]


def estimates(
    found: Eigenvolumes, imaging: ImageFormation, batches: Sequence[ImageBatch]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the most likely contrast (n,) of each image, whatever its structure, its error, and coordinates (n, k).

    The coordinates are those of the k directions in which images determine them.
    """
    ball = found.ball(imaging.plane.box_size / 2 + MARGIN)
    lattice, prior, parts = found.lattice(ball), with_contrast(found.prior, _WIDE), []
    for batch in batches:
        full = found.statistics(found.project(ball, lattice, batch, imaging), batch, imaging)
        expected = posterior(full.b, full.G, prior)
        precision = 1 / expected.covariance[:, 0, 0]
        known = (precision - _WIDE**-2).clamp_min(1e-6)  # without the prior
        contrast = (precision * expected.mean[:, 0] - _WIDE**-2) / known
        parts.append(torch.cat([contrast[:, None], known.rsqrt()[:, None], expected.mean[:, 1:]], dim=1))
    every = torch.cat(parts).numpy()
    variances = found.variances.cpu().numpy()
    determined = every[:, 2:].var(0) > np.maximum(_DETERMINED * variances, 1e-12)
    return every[:, 0], every[:, 1], every[:, 2:][:, determined]


def junk_share(contrast: np.ndarray, error: np.ndarray) -> tuple[float, tuple[float, float], float]:
    """Return the share of images without the particle, its 95 % interval, and the relative spread of other contrasts.

    The contrasts are a mixture of two kinds of images, each normally distributed apart from the errors: those of the
    particle have a mean near 1, the others one below 0.4. Particles of less mass, where images do not resolve which,
    look like particles of less contrast, but not as faint as that.
    """

    def parts(values: np.ndarray) -> np.ndarray:
        log_share, low, low_spread, high, spread = values
        widths = [np.hypot(error, own) for own in (low_spread, spread)]
        densities = [-((contrast - mean) ** 2) / (2 * w**2) - np.log(w) for mean, w in zip((low, high), widths)]
        return np.stack([densities[0] + log_share, densities[1] + np.log1p(-np.exp(log_share))])

    def lost(values: np.ndarray) -> float:
        return -float(logsumexp(parts(values), axis=0).sum())

    if np.median(error) > _FAINT:
        return float("nan"), (0.0, 1.0), float("nan")
    starts = ([-9.0, 0.2, 0.2, 1.0, 0.1], [-3.0, 0.2, 0.2, 1.0, 0.1], [-2.0, 0.0, 0.1, 1.0, 0.2])
    fits = [minimize(lost, start, method="L-BFGS-B", bounds=_BOUNDS) for start in starts]
    best = min(fits, key=lambda fit: fit.fun)
    least = _BOUNDS[0][0]
    start, bounds = np.r_[least, best.x[1:]], [(least, least), *_BOUNDS[1:]]
    without = minimize(lost, start, method="L-BFGS-B", bounds=bounds)
    if without.fun - best.fun < _GAIN or not _two_peaks(best.x, float(np.median(error))):
        most = 3 / len(contrast)
        return 0.0, (0.0, most), float(without.x[4] / without.x[3])
    ratio = np.exp(parts(best.x) - logsumexp(parts(best.x), axis=0))
    share = float(np.exp(best.x[0]))
    slope = ratio[0] / share - ratio[1] / (1 - share)
    error_of_share = float(np.square(slope).sum() ** -0.5)
    interval = max(0.0, share - _CERTAIN * error_of_share), min(1.0, share + _CERTAIN * error_of_share)
    return share, interval, float(best.x[4] / best.x[3])


def _two_peaks(values: np.ndarray, error: float) -> bool:
    """Return whether both kinds of images are separate peaks; otherwise their sum is one kind of another shape."""
    log_share, low, low_spread, high, spread = values
    x = np.linspace(low, high, 100)
    weights, widths = (np.exp(log_share), 1 - np.exp(log_share)), (np.hypot(low_spread, error), np.hypot(spread, error))
    density = sum(w / s * np.exp(-((x - m) ** 2) / (2 * s**2)) for w, m, s in zip(weights, (low, high), widths))
    return bool(density.min() < _VALLEY * density[0])


def optics_of(ctf: CTF, group: np.ndarray) -> tuple[str, ...]:
    """Return the optics of each group as text."""
    lines = []
    for number in np.unique(group):
        rows = np.flatnonzero(group == number)
        texts = []
        for column in (ctf.voltage, ctf.spherical_aberration, ctf.amplitude_contrast):
            values = np.round(np.asarray(column, dtype=np.float64)[rows], 4)
            texts.append(" to ".join(f"{value:.4g}" for value in sorted({values.min(), values.max()})))
        voltage, aberration, amplitude = texts
        optics = f"{voltage} kV, Cs {aberration} mm, amplitude contrast {amplitude}"
        lines.append(f"{len(rows):,} images, {optics}")
    return tuple(lines)
