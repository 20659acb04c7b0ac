"""Outlier scores for junk among the particles: images that the model's best structure does not explain.

Two kinds of outliers are recognised. Images of contaminants retain signal after the best structure is subtracted.
Images of noise with no particle correlate less with their best structure than other images do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cryotwin_nb.errors import InputError
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.particles.particles import Particles
from cryotwin_nb.particles.streaming import batches


@dataclass(frozen=True)
class OutlierScores:
    """Measures of how poorly each image is explained by the structure decoded at its latent.

    Attributes
    ----------
    score : (n,) float32
        Outlier score: median 0, spread 1 (median absolute deviation, scaled to a standard deviation); junk images
        score well above 3.
    residual : (n,) float32
        chi^2 per degree of freedom of the image minus the structure: 1 for noise alone.
    correlation : (n,) float32
        Normalised correlation of the whitened image with the prediction.
    contrast : (n,) float32
        Scale factor that best fits the prediction to the image; negative factors count as 0 in `residual`.
    """

    score: np.ndarray
    residual: np.ndarray
    correlation: np.ndarray
    contrast: np.ndarray


@torch.no_grad()
def outlier_scores(
    model: CryoTwin, particles: Particles, batch_size: int = 256, progress: bool = False
) -> OutlierScores:
    """Score particles by how poorly the model explains their images; each image is read once.

    Parameters
    ----------
    model : CryoTwin
        Trained model of either architecture.
    particles : Particles
        At least two particles, on the model's grid.
    batch_size : int
        Number of images processed at once.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        For the reasons listed in `CryoTwin.embed`, or if there is only one particle.

    Notes
    -----
    The score is the sum of the standardised residual and the standardised lack of correlation, standardised again.

    Examples
    --------
    >>> scores = ct.outlier_scores(model, particles)
    >>> scores.score.shape
    (300,)
    """
    if len(particles) < 2:
        raise InputError("outlier_scores", "one particle", "at least 2 particles", "Score the whole data set.")
    imaging = model.imaging
    weights, parts = imaging.multiplicity[1:], []  # without the mean, which depends on the background level
    for batch in batches(model.imaging, particles, batch_size, "outlier scores" if progress else None):
        data, seen = batch.data[:, 1:], model.predict(batch, model.encode(batch)[0])[:, 1:]
        energy, power = ((weights * (x.real.square() + x.imag.square())).sum(1) for x in (data, seen))
        product = (weights * (data.real * seen.real + data.imag * seen.imag)).sum(1)
        contrast = product / power.clamp_min(1e-20)
        factor = contrast.clamp_min(0)
        residual = (energy - 2 * factor * product + factor.square() * power) / weights.sum()
        correlation = product / (power * energy).clamp_min(1e-20).sqrt()
        parts.append(torch.stack([residual, correlation, contrast]).cpu())
    residual, correlation, contrast = torch.cat(parts, dim=1).numpy()
    score = standardised(standardised(residual) - standardised(correlation))
    return OutlierScores(score.astype(np.float32), residual, correlation, contrast)


def standardised(values: np.ndarray) -> np.ndarray:
    """Return values (n,) minus their median, in units of 1.4826 median absolute deviations, float64."""
    away = np.asarray(values, dtype=np.float64) - np.median(values)
    return away / max(1.4826 * float(np.median(np.abs(away))), 1e-12)
