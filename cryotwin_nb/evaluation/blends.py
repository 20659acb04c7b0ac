"""Cross-fades: decoded maps that are blends of two other maps of a path, where the images show an intermediate.

A cross-fade of a moving domain shows two weak copies of it; a real intermediate shows one, in between. Where a path
shows a blend, the images near its point decide between the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.imaging.fourier import shell_mean
from cryotwin_nb.reconstruction.backprojection import NormalEquations
from cryotwin_nb.reconstruction.halves import Pair, particle_mask

_WINDOW = 1 / 16  # standard deviation of the Gaussian windows that find where two maps differ, fraction of the box
_LEAST_WEIGHT = 0.15  # of either map; a map with less is nearly the other one
_LEAST_DISTANCE = 4.0  # between the two maps, standard errors of one image: beyond the kernels of both
_CLOSE = 0.15  # maximum squared distance of a map from a blend, as a share of what a motion makes it
_MOVED = 0.1  # minimum power of the lesser one of gains and losses, relative to the greater one
_REFUSED = 0.2  # minimum squared difference between the images and a cross-fade, in the same unit
_NOTICED = 4.0  # minimum of the same, squared standard errors of one image: smaller ones do not change its latent
_SIGNIFICANT = 5.0  # standard errors above 0 of the difference of a cross-fade
_CONFIDENT = 2.0  # standard errors below `_REFUSED` of the difference of a map that the images show


@dataclass(frozen=True)
class Blend:
    """A map of a path that is a blend of two others, and what the images near it show.

    Attributes
    ----------
    point : int
        Index of the point on the path.
    first, last : int
        Points, before and after it, whose maps are blended.
    weight : float
        Weight of the map of `last`; the map of `first` has the rest.
    motion : float
        weight (1 - weight) |A (M_last - M_first)|^2 of an average image: about the squared distance of the intermediate
        of a rigid domain from the blend, in squared standard errors of one image.
    difference : float
        Squared difference between the images and the blend where the two maps differ, in units of `motion`: 0 if the
        images show the blend, about 1 if a rigid domain moves.
    error : float
        Standard error of `difference`.
    """

    point: int
    first: int
    last: int
    weight: float
    motion: float
    difference: float
    error: float

    @property
    def is_cross_fade(self) -> bool:
        """Whether the images show something else than the blend."""
        return self.difference > max(self._least, _SIGNIFICANT * self.error)

    @property
    def undecided(self) -> bool:
        """Whether there are too few images to decide."""
        return not self.is_cross_fade and max(self.difference, 0) + _CONFIDENT * self.error > self._least

    @property
    def _least(self) -> float:
        return max(_REFUSED, _NOTICED / self.motion)

    def __str__(self) -> str:
        maps = f"a blend of maps {self.first} and {self.last} ({1 - self.weight:.0%} and {self.weight:.0%})"
        if self.is_cross_fade:
            return f"cross-fade: this map is {maps}, not an intermediate"
        if self.undecided:
            return f"undecided: this map is {maps}, and too few images show whether it is a cross-fade"
        return f"this map is {maps}, as the images show"


def find_blend(point: int, maps: Tensor, products: np.ndarray) -> Blend | None:
    """Return the two maps of which a map is a blend, before images are compared; None if it is no blend.

    Among several pairs, the most different one is returned. Pairs that differ only by density that one of them has in
    addition are left out: between them nothing moves, and a blend is a partial occupancy.

    Parameters
    ----------
    point : int
        Index of the map.
    maps : (m, D, D, D)
        Maps of the path.
    products : (m, m) float64
        Inner products of the maps as an average image shows them, in units of its noise.

    Notes
    -----
    A domain that moves by more than its size, a share w of the way, is at a squared distance of about
    w (1 - w) |M_j - M_i|^2 from all blends of the two ends; this is the unit of the distance from a blend.
    """
    found = []
    for i in range(point):
        for j in range(point + 1, len(maps)):
            square = products[i, i] + products[j, j] - 2 * products[i, j]
            if square < _LEAST_DISTANCE**2:
                continue
            weight = (products[point, j] - products[point, i] - products[i, j] + products[i, i]) / square
            rest = products[point, point] + products[i, i] - 2 * products[point, i] - weight**2 * square
            motion = weight * (1 - weight) * square
            inside = _LEAST_WEIGHT <= weight <= 1 - _LEAST_WEIGHT
            if inside and rest < _CLOSE * motion and _moves(maps[j] - maps[i]):
                found.append((square, Blend(point, i, j, float(weight), float(motion), 0.0, float("inf"))))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _moves(change: Tensor) -> bool:
    """Return whether a change of a map (D, D, D) has both gains and losses."""
    from scipy.ndimage import gaussian_filter  # slow to import, not needed to load a model

    smooth = gaussian_filter(change.cpu().numpy(), _WINDOW * len(change), mode="constant")
    gain, loss = np.square(smooth.clip(0)).sum(), np.square(smooth.clip(None, 0)).sum()
    return bool(min(gain, loss) > _MOVED * max(gain, loss))


def compare_blend(blend: Blend, pair: Pair, shown: Tensor, change: Tensor, copies: float = 1.0) -> Blend:
    """Return a blend with the difference between the images near its point and its map.

    Parameters
    ----------
    blend : Blend
        Result of `find_blend`.
    pair : Pair
        Normal equations of the two half-sets of images.
    shown, change : (D, D, D)
        The map, and the difference between the two maps that it blends, on the grey scale of the images.
    copies : float
        Number of rows per image (`effective_copies`).

    Notes
    -----
    The map that the misfit of one half-set shows, filtered and limited to where the two maps differ, is compared with
    the misfit of the other half-set. Its noise is independent, so the expectation is 0 if the images show the blend.
    The images cannot decide between a blend and a mixture of both ends: they were selected by their position between
    the ends, which is all that distinguishes these two.
    """
    from scipy.ndimage import gaussian_filter  # slow to import, not needed to load a model

    mask, weight = particle_mask(pair.first.imaging), blend.weight
    change = change * mask
    where = gaussian_filter(change.abs().cpu().numpy(), _WINDOW * len(change))
    region = torch.as_tensor(gaussian_filter((where > 0.1 * where.max()).astype(np.float32), 1.0)).to(mask) * mask
    moved = (weight * (1 - weight)) ** 0.5 * change  # has the size of the difference that a motion makes
    found = expected = error = 0.0
    for own, other in (pair, tuple(reversed(pair))):
        (_, first), (_, second) = (equations.misfit(shown * mask) for equations in (own, other))
        product, square = _products(other, _solved(own, first, moved, region), second)
        found, error = found + product, error + (square / 2) ** 0.5
        first, second = (equations.misfit(moved)[0] * equations.sums[:, 2:] for equations in (own, other))
        expected += _products(other, _solved(own, first, moved, region), second)[0]
    if not expected:  # no images in one of the half-sets
        return blend
    return replace(blend, difference=found / expected, error=copies**0.5 * error / expected)


def _solved(equations: NormalEquations, misfit: Tensor, moved: Tensor, region: Tensor) -> Tensor:
    """Return the map (D, D, D) in a region that best explains a misfit (V, 2), with the spectrum of `moved`."""
    ball = equations.ball
    shell = ball.shell.to(misfit.device)
    spectrum = shell_mean(ball.from_volumes(moved[None]).square().sum(1), shell, int(shell.max()) + 1)
    precision = 1 / (equations.oversampling(region) * spectrum.clamp_min(1e-12 * float(spectrum.max()))).float()
    return ball.to_volumes(misfit / (equations.sums[:, 2:] + precision[shell, None]))[0] * region


def _products(equations: NormalEquations, volume: Tensor, misfit: Tensor) -> tuple[float, float]:
    """Return the inner product of a map (D, D, D) with a misfit (V, 2), and |A M|^2, both as in `agreement`."""
    ball = equations.ball
    once = torch.where(ball.positions[:, :1] == 0, 0.5, 1.0).to(misfit)
    lattice = ball.from_volumes(torch.stack([volume, volume * ball.gridding.to(volume)]))
    product = (lattice[:, ::2] * misfit * once).double().sum()
    return float(product), float((lattice[:, 1::2].square() * equations.sums[:, 2:] * once).double().sum())
