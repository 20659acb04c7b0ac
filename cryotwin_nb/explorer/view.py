"""Snapshot of the explorer's state, for its figure, its export and the picture stored in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from cryotwin_nb.explorer.planes import Colouring, Plane
from cryotwin_nb.pathways.ridgeline import Pathway

if TYPE_CHECKING:
    from cryotwin_nb.pathways import PathProfile


@dataclass(frozen=True, eq=False)
class View:
    """State of the explorer at one moment.

    Attributes
    ----------
    plane, colouring
        Projection and colours of the scatter plot.
    points, means : (n, 2), (C, 2) float
        Positions of the particles and of the stars in the plane.
    weights : (C,) float
        Weights of the mixture.
    names : mapping of int to str
        Names of the components.
    path, profile, maps : optional
        Path with its profile and maps (m, D, D, D), if computed.
    support : optional
        Support of the path's points by the images, if computed: `resolution` (m,), Å, and `n_effective` (m,).
    step : int
        Current step.
    level : float
        Contour level in the unit of the maps.
    sigma : float
        Contour level in standard deviations above the mean.
    voxel_size : float or None
        Voxel size, Å, if it is known.
    """

    plane: Plane
    colouring: Colouring
    points: np.ndarray
    means: np.ndarray
    weights: np.ndarray
    names: Mapping[int, str]
    path: Pathway | None
    profile: PathProfile | None
    maps: Tensor | None
    support: Any
    step: int
    level: float
    sigma: float
    voxel_size: float | None
