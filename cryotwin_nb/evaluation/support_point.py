"""Comparison of one map of a path with the images near its point: the fields of `PathwaySupport` for this point."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from cryotwin_nb.evaluation.blends import Blend, compare_blend, find_blend
from cryotwin_nb.evaluation.differences import Blocks, find_differences
from cryotwin_nb.evaluation.path_maps import PathMaps
from cryotwin_nb.imaging.fsc import fsc
from cryotwin_nb.reconstruction.halves import Pair, particle_mask, solve_pair

_WINDOW = 1 / 16  # standard deviation of the Gaussian windows of the local support, fraction of the box


def compare_point(
    point: int, path: PathMaps, average: Tensor, pair: Pair, power: Tensor, copies: float, blocks: Blocks | None
) -> dict[str, Any]:
    """Return the fields of `PathwaySupport` for one point, given the normal equations of the images near it.

    Parameters
    ----------
    point : int
        Index of the point on the path.
    path : PathMaps
        Maps of the path.
    average : (D, D, D)
        Mean of the maps decoded for the images near the point.
    pair : Pair
        Normal equations of the two half-sets; the second is merged into the first.
    power : (n_shells,)
        Power of the density.
    copies : float
        Number of rows per image (`effective_copies`); the noise of copies does not average out.
    blocks : mapping of str to (J, 3), optional
        Positions xyz of labelled blocks, Å.
    """
    imaging = pair.first.imaging
    voxel_size, mask = float(imaging.pixel_size), particle_mask(imaging)
    average = average.to(mask) * mask
    agreements = [equations.agreement(average) for equations in pair]
    cross, square = (sum(part).cpu().numpy()[1 : len(mask) // 2 + 1] for part in zip(*agreements, strict=True))
    scale = float(cross.sum() / square.sum()) if cross.any() else 1.0
    blend = find_blend(point, path.maps, path.products)
    blends: tuple[Blend, ...] = ()
    if blend is not None:
        change = (path.maps[blend.last] - path.maps[blend.first]).to(mask)
        blends = (compare_blend(blend, pair, scale * average, scale * change, copies),)
    _, curve, volume = solve_pair(pair, power, voxel_size, copies)
    to_decoded = fsc(volume, np.sign(scale) * path.maps[point] * mask.cpu(), voxel_size)
    equations = pair.first  # after merging: the equations of all images
    local_support, local_error = equations.local_agreement(scale * average, mask, _WINDOW * len(mask))
    differences = find_differences(point, equations, scale * average, power, voxel_size, copies, blocks)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 if there are no images
        shell_support, shell_error = cross / square / scale, np.sqrt(copies / (2 * square)) / abs(scale)
    return {
        "maps": volume.numpy(),
        "half_map_fsc": curve.correlation,
        "resolution": curve.resolution(0.143),
        "decoded_fsc": to_decoded.correlation,
        "departure": to_decoded.resolution(0.5),
        "shell_support": shell_support,
        "shell_error": shell_error,
        "local_support": local_support.numpy(),
        "local_error": copies**0.5 * local_error.numpy(),
        "scale": scale,
        "differences": tuple(differences),
        "blends": blends,
    }
