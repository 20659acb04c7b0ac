"""Built-in molecules: pseudo-atoms, their blocks, and how coordinates move or weight them.

Both molecules are synthetic: they are shapes that follow published outlines, not atomic models.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

BLOCKS = ("base", "CP", "L1", "stalk", "H68")
"""Blocks of the assembling large ribosomal subunit; the core is always present."""

STATES = {
    "B": (0, 0, 0, 0, 0),
    "C1": (0.5, 0, 0, 0, 0),
    "C2": (1, 0, 0, 0, 0),
    "C3": (1, 0, 1, 0, 0),
    "D1": (0, 1, 0, 0, 0),
    "D2": (0, 1, 1, 0, 0),
    "D3": (0, 1, 0, 1, 0),
    "D4": (0, 1, 1, 1, 0),
    "E1": (1, 1, 0, 0, 0),
    "E2": (1, 1, 1, 0, 0),
    "E3": (1, 1, 0, 1, 0),
    "E4": (1, 1, 1, 1, 0),
    "E5": (1, 1, 1, 1, 1),
}
"""Occupancies of `BLOCKS` in the thirteen states."""

STATE_MASSES = dict(zip(STATES, (12.5, 4.7, 10.5, 10.5, 6.5, 6.4, 6.4, 6.5, 7.0, 8.0, 6.0, 8.0, 7.0), strict=True))
"""Percentage of the particles in each state. The sums over the states B, C, D and E (12.5, 25.7, 25.8, 36.0)
were published for EMPIAR-10076 (Davis et al. 2016); how a sum is divided among the states of a letter is our choice."""

ROUTES = (
    ("B", "C2", "E1", "E2", "E4", "E5"),
    ("B", "C2", "C3", "E2", "E4", "E5"),
    ("B", "D1", "D2", "D4", "E4", "E5"),
    ("B", "D1", "D3", "E3", "E4", "E5"),
)
"""The four assembly routes of Davis et al. 2016."""

ROUTE_SHARES = (0.3, 0.3, 0.2, 0.2)
"""Share of each route among the particles between states."""

HINGE_STATES = {"start": (0.0, 0.0), "corner": (1.0, 0.0), "end": (1.0, 1.0)}
"""The ends and the corner of the L that the two hinge motions trace."""

_HINGES = (
    # block, pivot (Å), axis, swing from coordinate 0 to 1 (degrees)
    (1, (-40.0, 15.0, 0.0), (0.0, 0.0, 1.0), 40.0),
    (2, (40.0, 15.0, 0.0), (0.0, 1.0, 0.0), 40.0),
)


@cache
def assembly_molecule() -> dict[str, Tensor]:
    """Return the pseudo-atoms of the subunit: positions (J, 3) Å, masses (J,), blocks (J,), 0 for the core."""
    return _build(
        [
            _ellipsoid((0, 0, 0), (66, 46, 46), 430),
            _ellipsoid((0, -66, -8), (72, 34, 46), 400),
            _ellipsoid((4, 74, 4), (32, 30, 28), 200),
            _rod((-64, 28, 0), (-112, 52, 12), 14, 130),
            _rod((62, 28, -4), (116, 56, -10), 13, 130),
            _ellipsoid((0, 8, 62), (46, 24, 18), 160),
        ]
    )


@cache
def hinge_molecule() -> dict[str, Tensor]:
    """Return the pseudo-atoms of a body (block 0) with two arms (blocks 1, 2), as in `assembly_molecule`."""
    return _build(
        [
            _ellipsoid((0, -15, 0), (46, 52, 40), 650),
            _rod((-44, 22, 0), (-104, 52, 0), 20, 400),
            _rod((44, 22, 0), (108, 46, 0), 20, 400),
        ]
    )


def assembly_structure(molecule: dict[str, Tensor], occupancies: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions (1, J, 3) Å and masses (m, J) of the subunit at occupancies (m, 5)."""
    with_core = torch.cat([torch.ones(len(occupancies), 1), occupancies.float()], dim=1)
    return molecule["positions"][None], molecule["masses"] * with_core[:, molecule["blocks"]]


def hinge_structure(molecule: dict[str, Tensor], coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions (m, J, 3) Å and masses (1, J) of the hinged molecule at coordinates (m, 2)."""
    positions = molecule["positions"].expand(len(coordinates), -1, -1).clone()
    for motion, (block, pivot, axis, swing) in enumerate(_HINGES):
        atoms = molecule["blocks"] == block
        angle = torch.deg2rad(coordinates[:, motion].float() * swing)
        rotation = axis_rotation(torch.tensor(axis), angle)
        arm = molecule["positions"][atoms] - torch.tensor(pivot)
        positions[:, atoms] = arm @ rotation.transpose(1, 2) + torch.tensor(pivot)
    return positions, molecule["masses"][None]


def axis_rotation(axis: Tensor, angle: Tensor) -> Tensor:
    """Return rotation matrices (n, 3, 3) about unit axes (3,) or (n, 3) by angles (n,) in radians (Rodrigues)."""
    axis = axis.expand(len(angle), 3)
    cross = torch.zeros(len(angle), 3, 3, dtype=angle.dtype)
    cross[:, [2, 0, 1], [1, 2, 0]] = axis
    cross[:, [1, 2, 0], [2, 0, 1]] = -axis
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return torch.eye(3) + sine * cross + (1 - cosine) * cross @ cross


def _build(parts: list[np.ndarray]) -> dict[str, Tensor]:
    """Combine parts into a centred molecule: blocks 0, 1, ... and equal masses of 1."""
    positions = np.concatenate(parts)
    blocks = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    positions -= positions.mean(0)
    return {
        "positions": torch.as_tensor(positions, dtype=torch.float32),
        "masses": torch.ones(len(positions)),
        "blocks": torch.as_tensor(blocks),
    }


def _ellipsoid(centre, radii, n: int) -> np.ndarray:
    """Return n points (n, 3), evenly spread in an ellipsoid."""
    return _spread(lambda x: (x**2).sum(1) < 1, n) * np.asarray(radii) + np.asarray(centre)


def _rod(start, stop, radius: float, n: int) -> np.ndarray:
    """Return n points (n, 3), evenly spread in a cylinder from start to stop."""
    start, stop = np.asarray(start, float), np.asarray(stop, float)
    along = stop - start
    across = np.linalg.svd(along[None])[2][1:]
    x = _spread(lambda x: (x[:, :2] ** 2).sum(1) < 1, n)
    return start + (x[:, 2:] + 1) / 2 * along + radius * x[:, :2] @ across


def _spread(inside, n: int) -> np.ndarray:
    """Return n points in [-1, 1]^3 where `inside` is true; each is the best of ten random candidates.

    The best candidate is the one farthest from all earlier points.
    """
    rng = np.random.Generator(np.random.PCG64(10076))
    points = np.empty((0, 3))
    while len(points) < n:
        candidates = rng.uniform(-1, 1, (60, 3))
        candidates = candidates[inside(candidates)][:10]
        if len(points) == 0:
            points = candidates[:1]
            continue
        distance = np.linalg.norm(candidates[:, None] - points[None], axis=-1).min(1)
        points = np.concatenate([points, candidates[[distance.argmax()]]])
    return points
