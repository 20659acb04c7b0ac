"""Measures of single images that reveal damage, and the replacement of hot pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from cryotwin_nb.imaging.fourier import grid

_SECTORS, _RADIUS, _INSIDE = 8, 0.4, 0.25
_MOST = 0.02  # part of the pixels up to which hot pixels are replaced
_ROUNDS, _REACH = 8, 3  # spots searched in an image, and how far they extend, pixels
_EDGE = 1 / 3  # pixels of a spot deviate at least this much, relative to its brightest
_DEVIATION = 1.2533  # standard deviation of a Gaussian, relative to its mean absolute deviation


class Meter:
    """Measures of images (m, D, D) of one size D."""

    def __init__(self, size: int) -> None:
        y, x = grid(size, 2).float().unbind(-1)
        outside = torch.hypot(x, y) >= _RADIUS * size
        sector = ((torch.atan2(y, x) / (2 * torch.pi) + 0.5) * _SECTORS).long() % _SECTORS
        sectors = torch.stack([outside & (sector == i) for i in range(_SECTORS)]).flatten(1).float()
        self.sectors = (sectors / sectors.sum(1, keepdim=True).clamp_min(1)).T.contiguous()
        inside = torch.hypot(x, y) < _INSIDE * size
        self.parts = torch.stack([part.flatten() / part.sum() for part in (outside, inside)], dim=1)

    def measure(self, images: Tensor) -> Tensor:
        """Return (m, 4) float64: deviations of pixels outside and inside the particle, slope, and `spikes`.

        Deviations are mean deviations from the mean outside, scaled to standard deviations. The slope is the deviation
        between sectors outside the particle, relative to the mean of the two.
        """
        flat = images.flatten(1)
        flat = flat - flat @ self.parts[:, :1]
        sectors = _DEVIATION * (flat @ self.sectors).abs().mean(1)
        parts = _DEVIATION * (flat.abs_() @ self.parts)
        return torch.stack([*parts.T, sectors / parts.mean(1).clamp_min(1e-30), spikes(images)[0]], dim=1).double()


def spikes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest difference (m,) of a pixel from its four neighbours, relative to the usual one, and where."""
    ring = pad(images, (1, 1, 1, 1), mode="replicate")
    neighbours = ring[:, :-2, 1:-1] + ring[:, 2:, 1:-1] + ring[:, 1:-1, :-2] + ring[:, 1:-1, 2:]
    away = neighbours.mul_(-0.25).add_(images).abs_().flatten(1)
    largest, where = away.max(1)
    return largest / (_DEVIATION * away.mean(1)).clamp_min(1e-30), where


def mend(image: Tensor, hot: float) -> tuple[Tensor, int]:
    """Return an image (D, D) without hot pixels, and their number.

    A hot pixel differs from its neighbours more than `hot` times as much as usual. It and its bright neighbours are
    replaced by the pixels that are half a box away, which contain noise of the same kind. If too many pixels are hot,
    the image is returned unchanged: its spots are not those of a detector.
    """
    size, mended = len(image), image.clone()
    spot = torch.zeros_like(image, dtype=torch.bool)
    for _ in range(_ROUNDS):
        ratio, where = spikes(mended[None])
        if float(ratio) <= hot:
            break
        row, column = divmod(int(where), size)
        near = torch.zeros_like(spot)
        near[max(0, row - _REACH) : row + _REACH + 1, max(0, column - _REACH) : column + _REACH + 1] = True
        away = (mended - mended.median()).abs()
        found = near & (away >= _EDGE * away[row, column])
        spot |= found
        mended = torch.where(spot, _replacement(image, spot), image)
    count = int(spot.sum())
    return (image if is_spoiled(count, size) else mended), count


def is_spoiled(count: int, size: int) -> bool:
    """Return whether an image of `size` pixels has too many hot pixels to replace them."""
    return count > max(1, _MOST * size**2)


def _replacement(image: Tensor, spot: Tensor) -> Tensor:
    half = (len(image) // 2, len(image) // 2)
    return torch.where(spot.roll(half, (0, 1)), image.median(), image.roll(half, (0, 1)))
