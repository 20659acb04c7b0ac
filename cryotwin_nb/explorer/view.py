"""What the explorer shows at one moment, as data: for its figure, its export, and the picture that a notebook keeps."""

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
    """What the explorer shows.

    Attributes
    ----------
    plane, colouring
        Projection and colours of the scatter plot.
    weights : (C,) float
        Weights of the mixture.
    names : mapping of component to name
    path, profile, maps : optional
        Where a path was computed.
    support : optional
        Where images were asked for it: `resolution` (m,) in Å and `n_effective` (m,) of its points.
    step : int
    level : float
        Contour, in the maps' unit.
    sigma : float
        The same in standard deviations.
    voxel_size : float
        Å.
    """

    plane: Plane
    colouring: Colouring
    weights: np.ndarray
    names: Mapping[int, str]
    path: Pathway | None
    profile: PathProfile | None
    maps: Tensor | None
    support: Any
    step: int
    level: float
    sigma: float
    voxel_size: float
