"""Fit of each image to a model at its recorded pose: signal present, signal left over, and better fits elsewhere."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from cryotwin_nb.imaging.fourier import fft3, grid, n_shells, shell_mean
from cryotwin_nb.imaging.lattice import half_ball
from cryotwin_nb.models.cryotwin import CryoTwin
from cryotwin_nb.particles.formation import ImageBatch
from cryotwin_nb.reconstruction.halves import PADDING
from cryotwin_nb.reconstruction.statistics import over_contrasts

_STEP = 10.0  # degrees between the poses that are searched
_BAND = (
    8.0  # maximum |k| in the search, grid units: an error of half a step blurs finer detail of a particle that fills
)
# 0.4 of the box, whatever the number of pixels
_SPREAD = 0.1  # minimum standard deviation of the contrasts in the search


class ImageFit:
    """Measures how well images fit the structures at their latents, and whether they fit the average elsewhere better.

    Parameters
    ----------
    model : CryoTwin
        Trained model.
    centre : (1, d) float32
        Latent of the average structure, which is compared with the images at other poses.
    """

    def __init__(self, model: CryoTwin, centre: Tensor) -> None:
        self.model, imaging = model, model.imaging
        spread = getattr(model.networks, "contrast_spread", 0.0)  # coordinate networks do not fit contrasts
        self.spread = float(spread)
        average, size = model.volumes(centre).to(model.device), imaging.plane.box_size
        shell = grid(size, 3, model.device).reshape(-1, 3).float().norm(dim=-1).round().long()
        self.power = shell_mean(fft3(average[0]).flatten().abs().square(), shell, n_shells(size))[imaging.shell].float()
        self.n = int((imaging.frequencies.norm(dim=1) < min(_BAND, size / 2)).sum())
        ball = half_ball(size, _BAND + 1, PADDING)
        poses, searched = searched_poses().to(model.device), imaging.frequencies[1 : self.n].contiguous()
        slices = ball.slices(ball.from_volumes(average), searched, poses)  # (poses, P, 2), real and imaginary parts
        self.templates, self.powers = slices.flatten(1).T.contiguous(), slices.square().sum(-1).T.contiguous()

    def measure(self, batch: ImageBatch) -> Tensor:
        """Return seven measures of a batch of images: (7, m) float32.

        Residual, correlation and contrast are those of `OutlierScores`. The others: the lack of signal relative to its
        standard error; the evidence for more signal with the particle's power spectrum in the residual, standardised
        for white noise; the log-likelihood ratio of a residual with as much signal as the particle and of white noise;
        and the log-likelihood of the best pose minus that of the recorded one.
        """
        weights = self.model.imaging.multiplicity[1:]  # without the mean, which depends on the background level
        data, seen = batch.data[:, 1:], self.model.predict(batch, self.model.encode(batch)[0])[:, 1:]
        energy, power = (weights * data.abs().square()).sum(1), (weights * seen.abs().square()).sum(1)
        product = (weights * (data.conj() * seen).real).sum(1)
        contrast = product / power.clamp_min(1e-20)
        rest = (data - contrast.clamp_min(0)[:, None] * seen).abs().square()
        residual = (weights * rest).sum(1) / weights.sum()
        correlation = product / (power * energy).clamp_min(1e-20).sqrt()
        lack = (power - product) / (power + (self.spread * power).square()).clamp_min(1e-20).sqrt()
        added = batch.transfer[:, 1:].square() * self.power[1:]
        gain = added / (1 + added)
        extra = (weights / 2 * gain * (rest - 1)).sum(1) / (weights / 2 * gain.square()).sum(1).clamp_min(1e-20).sqrt()
        ratio = (weights / 2 * (gain * rest - added.log1p())).sum(1)
        return torch.stack([residual, correlation, contrast, lack, extra, ratio, self._gain(batch, seen)])

    def _gain(self, batch: ImageBatch, seen: Tensor) -> Tensor:
        """Return the log-likelihood (m,) of the average at the best pose minus that of `seen` at the recorded pose."""
        kept, spread = slice(1, self.n), max(self.spread, _SPREAD)
        weights = self.model.imaging.multiplicity[kept]
        data, seen = batch.data[:, kept], seen[:, : self.n - 1]
        here = (weights * (data.conj() * seen).real).sum(1), (weights * seen.abs().square()).sum(1)
        filtered = torch.view_as_real(data * (batch.transfer[:, kept] * weights)).flatten(1)
        power = (batch.transfer[:, kept].square() * weights) @ self.powers
        there = over_contrasts(filtered @ self.templates, power, spread)
        return there.amax(1) - over_contrasts(*here, spread)


def searched_poses(step: float = _STEP) -> Tensor:
    """Return rotation matrices (m, 3, 3) float32 that cover all poses about `step` degrees apart (spiral of views)."""
    n = round(4 * np.pi / np.deg2rad(step) ** 2)
    place = (np.arange(n) + 0.5) / n
    views = np.stack([np.pi * (1 + 5**0.5) * n * place, np.arccos(1 - 2 * place)], axis=1)
    turns = np.deg2rad(np.arange(0, 360, step))
    angles = np.column_stack([np.repeat(views, len(turns), axis=0), np.tile(turns, n)])
    return torch.as_tensor(Rotation.from_euler("ZYZ", angles).as_matrix().astype(np.float32))
