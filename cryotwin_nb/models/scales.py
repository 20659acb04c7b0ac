"""Scales of the coordinate networks' inputs and outputs, measured on the images before training."""

from __future__ import annotations

import torch
from torch import Tensor

from cryotwin_nb.imaging.fourier import shell_mean
from cryotwin_nb.models.average import AverageMap
from cryotwin_nb.particles.formation import Chunks, ImageBatch, ImageFormation
from cryotwin_nb.reconstruction.backprojection import SignalPower
from cryotwin_nb.runtime import distributed


def signal_amplitude(imaging: ImageFormation, batch: ImageBatch, n_shells: int) -> Tensor:
    """Return the radial amplitude (n_shells,) of the density, from images (or this process's share of them)."""
    sums = torch.stack([batch.data.abs().square().sum(0), batch.transfer.square().sum(0)]).double()
    distributed.all_sum(sums)
    sums /= distributed.total(len(batch.data))
    power, seen = shell_mean(sums, imaging.shell, n_shells)
    return ((power - 1).clamp_min(1e-3) / seen.clamp_min(1e-12)).sqrt()


def deviation_amplitude(imaging: ImageFormation, average: AverageMap, chunks: Chunks) -> tuple[Tensor, float]:
    """Return the radial amplitude (n_shells,) of deviations from the average map, and the number of images."""
    power, count = SignalPower(imaging), 0
    for batch in chunks():
        count += len(batch.data)
        power.add(average.removed(imaging, batch))
    power.join()
    return power.spectrum.sqrt(), distributed.total(count)
