"""Fisher information of one image about its latent, as a metric on the latent space."""

from __future__ import annotations

import torch
from torch import Tensor

from cryotwin_nb.evaluation.metric import Decode
from cryotwin_nb.imaging.fourier import fft3, grid
from cryotwin_nb.particles.formation import ImageFormation


def information(decode: Decode, points: Tensor, step: float, imaging: ImageFormation) -> Tensor:
    """Return the expected Fisher information (m, d, d) float64 of one image about its latent, at points (m, d).

    The Jacobian of the decoder is computed by forward differences of length `step`.
    """
    found = []
    for point in points:
        maps = torch.as_tensor(decode(torch.cat([point[None], point + step * torch.eye(len(point))])))
        seen = as_seen(maps, imaging).flatten(1)
        jacobian = (seen[1:] - seen[0]) / step
        found.append((jacobian @ jacobian.mH).real.double())
    return torch.stack(found)


def distances(metric: Tensor, points: Tensor, z: Tensor) -> Tensor:
    """Return distances (m, n) float64 of latents z (n, d) from points (m, d) in the metric (m, d, d) of each point."""
    away = [(z - point).double() for point in points]
    return torch.stack([((a @ G) * a).sum(1).clamp_min(0).sqrt() for a, G in zip(away, metric, strict=True)])


def as_seen(maps: Tensor, imaging: ImageFormation) -> Tensor:
    """Return transforms (k, D, D, D) of maps in the metric of whitened images.

    Inner products of the results are the inner products of whitened images, averaged over poses.
    A shell of the volume has 2 |v| times as many coefficients as the same shell of an image (projection-slice theorem).
    """
    size = maps.shape[-1]
    radius = grid(size, 3).float().norm(dim=-1)
    gain = (imaging.ctf_power / imaging.noise[0]).cpu()[radius.round().long()].float() / (2 * radius).clamp_min(1)
    gain[(radius >= size / 2) | (radius == 0)] = 0
    return torch.stack([fft3(volume) * gain.sqrt() for volume in maps.cpu()])
