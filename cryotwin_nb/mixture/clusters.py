"""Initial mixtures from k-means clusters."""

from __future__ import annotations

import torch
from torch import Tensor

from cryotwin_nb.mixture.components import Components
from cryotwin_nb.mixture.em import Latents
from cryotwin_nb.mixture.maximisation import maximise

_AT_ONCE = 2**23  # distances held in memory at once


def clusters(latents: Latents, count: int, scale: Tensor, strength: float, generator: torch.Generator) -> Components:
    """Return the mixture of k-means clusters of x * scale (k-means++ seeding, five Lloyd iterations)."""
    x, weights, dim = latents.x * scale, latents.weights, latents.x.shape[1]
    centres = x[_draw(weights, generator)][None]
    nearest = (x - centres[0]).square().sum(-1)
    while len(centres) < count:
        centres = torch.cat([centres, x[_draw(weights * nearest, generator)][None]])
        nearest = torch.minimum(nearest, (x - centres[-1]).square().sum(-1))
    moments = latents.features.new_zeros(count, latents.features.shape[1])
    size = max(1, _AT_ONCE // count)
    for _ in range(5):
        moments = torch.zeros_like(moments)
        for part, features, counts in zip(x.split(size), latents.features.split(size), weights.split(size)):
            moments.index_add_(0, torch.cdist(part, centres).argmin(-1), features * counts[:, None])
        means = moments[:, 1 : dim + 1] / moments[:, :1].clamp_min(1e-12)
        centres = torch.where(moments[:, :1] > 0, means * scale, centres)
    return maximise(moments, strength)


def _draw(weights: Tensor, generator: torch.Generator) -> int:
    """Draw one index with probability proportional to `weights` (torch.multinomial accepts at most 2^24 of them)."""
    cumulative = weights.cumsum(0)
    level = torch.rand((), dtype=torch.float64, generator=generator).to(cumulative) * cumulative[-1]
    return min(int(torch.searchsorted(cumulative, level)), len(weights) - 1)
