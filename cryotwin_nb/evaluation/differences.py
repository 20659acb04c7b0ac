"""Differences between a decoded map and the images near it, in both directions: density shown but not in the images,
and density in the images but not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryotwin_nb.reconstruction.backprojection import NormalEquations
from cryotwin_nb.reconstruction.halves import particle_mask

WINDOW = 1 / 32
"""Standard deviation of the Gaussian windows, fraction of the box."""

_LIMIT = 0.5  # minimum difference, as a share of the typical density of the particle
_INSIDE = 0.25  # the typical density is the median of that above this share of the maximum
_SIGNIFICANT = 6.0  # standard errors; a box has about 5,000 independent windows: 1e-5 false alarms per map
_MOST = 3  # differences of each kind reported for one map

Blocks = Mapping[str, "np.ndarray | Tensor"]


@dataclass(frozen=True, eq=False)
class DensityDifference:
    """A region in which a decoded map differs from the images near its point.

    Attributes
    ----------
    point : int
        Index of the point on the path.
    shown : bool
        True for density that the map shows but the images do not contain; False for density that the images contain
        but the map does not show.
    centre : (3,) float64
        Centre xyz of the difference, Å from the centre of the box (voxel D // 2).
    share : float
        Share of the density there that both have, at the largest difference: 0 if one of them is empty.
    significance : float
        Largest difference, standard errors.
    mask : (D, D, D) bool
        Voxels of the region, zyx.
    block : str
        Name of the nearest labelled block; empty if no blocks were given.
    block_distance : float
        Distance from the centre to the nearest position of this block, Å; NaN if no blocks were given.
    """

    point: int
    shown: bool
    centre: np.ndarray
    share: float
    significance: float
    mask: np.ndarray
    block: str = ""
    block_distance: float = float("nan")

    @property
    def place(self) -> str:
        """Where the difference is, as text."""
        x, y, z = self.centre
        near = f", {self.block_distance:.0f} Å from {self.block}" if self.block else ""
        return f"x {x:+.0f}, y {y:+.0f}, z {z:+.0f} Å from the centre{near}"

    def __str__(self) -> str:
        if self.shown:
            return f"density around {self.place} is not supported: the images contain {self.share:.0%} of it"
        return f"density around {self.place} is missing: the map shows {self.share:.0%} of what the images contain"


def find_differences(
    point: int,
    equations: NormalEquations,
    shown: Tensor,
    power: Tensor,
    voxel_size: float,
    copies: float = 1.0,
    blocks: Blocks | None = None,
) -> list[DensityDifference]:
    """Return the regions in which a map differs from the images by more than noise and by half of the typical density.

    Parameters
    ----------
    point : int
        Index of the point on the path.
    equations : NormalEquations
        Normal equations of the images.
    shown : (D, D, D)
        Map, on the grey scale of the images.
    power : (n_shells,)
        Power of the density: prior variance of the differences.
    voxel_size : float
        Voxel size, Å.
    copies : float
        Number of rows per image (`effective_copies`).
    blocks : mapping of str to (J, 3), optional
        Positions xyz of labelled blocks, Å from the centre of the box.

    Notes
    -----
    The misfit A^T (X - A M) is divided by A^T A plus the prior precision, which gives the density that the map lacks.
    In a Gaussian window, its noise is the same everywhere and follows from A^T A.
    """
    from scipy.ndimage import gaussian_filter, label, sum_labels  # slow to import, not needed to load a model

    width = WINDOW * len(shown)
    lacking, error = _lacking(equations, shown, power, width)
    error *= copies**0.5
    seen = gaussian_filter(shown.cpu().numpy(), width, mode="constant")
    found = seen + lacking
    typical = float(np.median(found[found >= _INSIDE * found.max()]))
    large = np.abs(lacking) > max(_LIMIT * typical, _SIGNIFICANT * error)
    differences = []
    for is_shown, region in ((True, large & (lacking < 0)), (False, large & (lacking > 0))):
        pieces, count = label(region)
        sizes = sum_labels(np.abs(lacking), pieces, np.arange(1, count + 1))
        for piece in np.argsort(sizes)[::-1][:_MOST] + 1:
            mask = pieces == piece
            weight, at = np.abs(lacking) * mask, np.argwhere(mask) - len(mask) // 2
            centre = (weight[mask] @ at)[::-1] / weight.sum() * voxel_size
            worst = np.unravel_index(weight.argmax(), weight.shape)
            least, most = sorted((float(seen[worst]), float(found[worst])))
            both = max(least, 0.0) / most
            strength = float(weight.max() / error)
            differences.append(
                DensityDifference(point, is_shown, centre, both, strength, mask, *_nearest(centre, blocks))
            )
    return differences


def _lacking(equations: NormalEquations, shown: Tensor, power: Tensor, width: float) -> tuple[np.ndarray, float]:
    """Return the density of the images minus that of a map, in windows of `width` voxels, and its standard error."""
    mask = particle_mask(equations.imaging)
    _, misfit = equations.misfit(shown * mask)
    ball, weight = equations.ball, equations.sums[:, 2:]
    shell = ball.shell.to(weight.device)
    precision = (1 / (equations.oversampling(mask) * power)).to(weight)[shell, None]
    window = torch.exp(-2 * (np.pi * width / ball.side) ** 2 * ball.positions.float().square().sum(1, keepdim=True))
    gain = window.to(weight) / (weight + precision)
    twice = torch.where(ball.positions[:, :1] == 0, 1.0, 2.0).to(weight)  # plane x = 0 is stored in full
    variance = float((gain.square() * weight * twice).double().sum()) / (ball.side * ball.scale) ** 3
    return (ball.to_volumes(gain * misfit)[0] * mask).cpu().numpy(), variance**0.5


def _nearest(centre: np.ndarray, blocks: Blocks | None) -> tuple[str, float]:
    """Return the name of the block nearest to a centre xyz, and the distance to it, Å."""
    distances = {
        name: float(np.linalg.norm(np.asarray(positions) - centre, axis=1).min())
        for name, positions in (blocks or {}).items()
    }
    return min(distances.items(), key=lambda item: item[1]) if distances else ("", float("nan"))
