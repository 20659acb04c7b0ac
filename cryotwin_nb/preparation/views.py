"""Viewing directions: how evenly they sample Fourier space, and what they leave unmeasured.

A particle seen along v measures the plane of Fourier space perpendicular to v. Views v and -v measure the same plane,
so views are axes. Even a large gap in the views need not leave anything unmeasured, but views that are all near one
axis leave a double cone along it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

_AXES = 1000  # directions at which the sampling is evaluated
_MOST, _TESTED = 20_000, 4000  # views examined, and those of them compared with their copies by symmetry
_WIDTH, _COUNT = 0.04, 20  # largest sine of the angle between a direction and its planes; planes per direction, if even
_EMPTY = 0.05  # sampling, relative to even views, below which a direction is unmeasured
_CONE = 0.85  # share of the unmeasured directions within a double cone of their area for them to be called one
_PER_CELL = 20  # expanded views per cell when their evenness is tested
_NEAR = 8  # expected views near a view that is confined to an asymmetric unit
_OVERLAP = 0.25  # largest share of a view's neighbours that are copies of others, for views of one asymmetric unit
_UNEVEN = 0.06  # largest squared relative variation of the expanded views


@dataclass(frozen=True, eq=False)
class ViewSampling:
    """Sampling of Fourier space by views.

    Attributes
    ----------
    views : (n, 3) float64
        Viewing directions in the molecule's frame, unit vectors (x, y, z).
    directions : (1000, 3) float64
        Directions of Fourier space, over a hemisphere.
    sampling : (1000,) float64
        Number of slices through each direction, relative to that of evenly distributed views.
    evenness : float
        Harmonic mean of the sampling, corrected for the finite number of views: 1 if even, 0 if directions are missing.
        It is the inverse of the sampling compensation factor (Baldwin and Lyumkis 2020).
    unmeasured : float
        Share of the directions of which no image contains anything.
    axis : (3,) float64
        Axis around which the views gather, or from which they stay away.
    within, share : float
        Angle from the axis, degrees, and share of the views that lie within it; of a belt, the angle from the plane
        perpendicular to the axis.
    expected : float
        Share of evenly distributed views within this angle.
    is_belt : bool
        Whether the views gather in a belt around the axis (side views) instead of along it.
    cone : float or None
        Half-angle of the unmeasured double cone along `axis`, degrees; None if nothing is unmeasured or it is no cone.
    group : str or None
        Point group of whose asymmetric unit the views fill one evenly.
    """

    views: np.ndarray
    directions: np.ndarray
    sampling: np.ndarray
    evenness: float
    unmeasured: float
    axis: np.ndarray
    within: float
    share: float
    expected: float
    is_belt: bool
    cone: float | None
    group: str | None


def hemisphere(points: int) -> np.ndarray:
    """Return evenly distributed axes (points, 3): a Fibonacci spiral over a hemisphere."""
    height = 1 - (np.arange(points) + 0.5) / points
    turn = np.pi * (3 - 5**0.5) * np.arange(points)
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1)


def slices_through(directions: np.ndarray, views: np.ndarray, width: float) -> np.ndarray:
    """Return the number of slices through each direction (m,), relative to that of even views; `width` is a sine."""
    hits = np.zeros(len(directions))
    for part in np.array_split(views.astype(np.float32), -(-len(views) // 4096)):
        hits += (np.abs(part @ directions.astype(np.float32).T) < width).sum(0)
    return hits / (width * len(views))


def view_evenness(views: np.ndarray, width: float = 0.1, points: int = 500) -> float:
    """Return how evenly the views sample Fourier space: 1 if uniform, near 0 if some directions are missing.

    Parameters
    ----------
    views : (n, 3)
        Unit vectors; a particle seen along v samples the plane perpendicular to v.
    width : float
        Sine of the maximum angle between a direction and the planes counted for it.
    points : int
        Number of directions evaluated.

    Notes
    -----
    The evenness is the ratio of the harmonic to the arithmetic mean of the number of planes through each direction. It
    is the inverse of the sampling compensation factor (Baldwin and Lyumkis 2020). Side views alone give 0.6 to 0.8; a
    single view gives 0.
    """
    hits = slices_through(hemisphere(points), views, width) * width * len(views)
    return float(1 / (1 / np.maximum(hits, 0.5)).mean() / max(hits.mean(), 0.5))


def sampling_of(rotations: np.ndarray) -> ViewSampling:
    """Return how views sample Fourier space.

    Parameters
    ----------
    rotations : (n, 3, 3)
        Poses.
    """
    # at random: every k-th row of a symmetry-expanded set can have the same symmetry operation
    rows = np.random.default_rng(0).permutation(len(rotations))[:_MOST]
    views = np.asarray(rotations[rows, :, 2], dtype=np.float64)
    views = views / np.linalg.norm(views, axis=1, keepdims=True)
    width = min(max(_WIDTH, _COUNT / len(views)), 0.3)
    directions = hemisphere(_AXES)
    sampling = slices_through(directions, views, width)
    harmonic = 1 / (1 / np.maximum(sampling, 0.5 / (width * len(views)))).mean()
    chance = 1 - 1 / (width * len(views))  # of even views
    empty = sampling < _EMPTY
    axis, is_belt, within, share, expected = _gathering(views)
    cone = None
    if empty.mean() > 0:
        along = np.linalg.eigh(directions[empty].T @ directions[empty])[1][:, -1]
        inside = np.abs(directions[empty] @ along) > 1 - empty.mean()  # a double cone of this area
        if inside.mean() > _CONE:
            cone, axis = float(np.degrees(np.arccos(1 - empty.mean()) + np.arcsin(width) / 2)), along
    return ViewSampling(
        views=views,
        directions=directions,
        sampling=sampling,
        evenness=float(min(1, harmonic / chance)),
        unmeasured=float(empty.mean()),
        axis=axis * np.sign(axis[np.abs(axis).argmax()]),
        within=within,
        share=share,
        expected=expected,
        is_belt=is_belt,
        cone=cone,
        group=asymmetric_unit(views[:_TESTED]),
    )


def _gathering(views: np.ndarray) -> tuple[np.ndarray, bool, float, float, float]:
    """Return the axis, whether views gather around its plane, and the angle, share and even share of most excess."""
    vectors = np.linalg.eigh(views.T @ views)[1]
    best = (-1.0, vectors[:, -1], False, 90.0, 1.0, 1.0)
    for is_belt, axis in ((False, vectors[:, -1]), (True, vectors[:, 0])):
        height = np.abs(views @ axis)
        for angle in range(15, 65, 5):
            cut = np.sin(np.radians(angle)) if is_belt else np.cos(np.radians(angle))
            share = float((height < cut).mean() if is_belt else (height > cut).mean())
            expected = float(cut if is_belt else 1 - cut)
            best = max(
                best, (share - expected, axis, is_belt, float(angle), share, expected), key=lambda found: found[0]
            )
    return best[1:]


def asymmetric_unit(views: np.ndarray) -> str | None:
    """Return the point group of which directions (n, 3) fill one asymmetric unit evenly; None if there is none.

    Notes
    -----
    Each group turns the views into as many copies as it has rotations. If the views fill one asymmetric unit, whatever
    its shape, the copies do not overlap and together are evenly distributed. Axes are where RELION and cryoSPARC place
    them: the main one along z; the tetrahedral, octahedral and icosahedral groups in all settings of RELION.
    """
    if len(views) < 300:
        return None
    tree, found = cKDTree(views), {}
    for name, operators in point_groups().items():
        order = len(operators)
        radius = 2 * (_NEAR / (len(views) * order)) ** 0.5  # holds this many views of an asymmetric unit
        own = tree.count_neighbors(tree, radius) - len(views)
        copies = sum(tree.count_neighbors(cKDTree(views @ operator.T), radius) for operator in operators[1:])
        overlap = copies / max(own, 1)
        if overlap < _OVERLAP and (uneven := _unevenness(views, operators)) < _UNEVEN:
            found[name] = overlap + uneven
    return min(found, key=found.__getitem__, default=None)


def point_groups() -> dict[str, np.ndarray]:
    """Return the rotations (order, 3, 3) of each point group and setting, named as in RELION, the identity first."""
    turned = Rotation.from_rotvec
    diagonal = turned([0, 0, np.pi / 4]) * turned(np.arccos(3**-0.5) * np.array([-1, 1, 0]) / 2**0.5)  # (111) to z
    fivefold = np.arctan((1 + 5**0.5) / 2)
    settings = {
        "T": {"": diagonal, " with twofold axes along x, y and z": Rotation.identity()},
        "O": {"": Rotation.identity()},
        "I": {
            "1": Rotation.identity(),
            "2": turned([0, 0, np.pi / 2]),
            "3": turned([0, fivefold, 0]),
            "4": turned([0, -fivefold, 0]),
        },
    }
    names = [f"{kind}{fold}" for kind in "CD" for fold in range(2, 13)]
    found = {name: Rotation.create_group(name, axis="Z") for name in names}
    for name, placed in settings.items():
        for label, place in placed.items():
            found[name + label] = place * Rotation.create_group(name) * place.inv()
    return {name: _identity_first(group) for name, group in found.items()}


def _identity_first(group: Rotation) -> np.ndarray:
    return group[np.argsort(group.magnitude(), kind="stable")].as_matrix()


def _unevenness(views: np.ndarray, operators: np.ndarray) -> float:
    """Return the squared relative variation, beyond chance, of the density of the views and all of their copies."""
    order = len(operators)
    half = hemisphere(int(np.clip(len(views) * order / _PER_CELL, 12, 2000)) // 2)
    cells = cKDTree(np.concatenate([half, -half]))
    copies = np.concatenate([views @ operator.T for operator in operators])
    counts = np.bincount(cells.query(copies)[1], minlength=cells.n)
    expected = len(copies) / cells.n
    return float((np.square(counts - expected) - expected).mean() / expected**2)
