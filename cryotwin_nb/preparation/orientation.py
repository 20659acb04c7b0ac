"""Findings on the viewing directions: preferred orientation, unmeasured directions, and views of an asymmetric unit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cryotwin_nb.preparation.findings import NOTE, WARNING, Finding
from cryotwin_nb.preparation.views import ViewSampling

_UNMEASURED = 0.01  # share of the directions
_UNEVEN, _NOTED = 0.7, 0.9  # evenness below which the views are a warning or a note
_FOLLOWS = 0.1  # share of the variance of a principal coordinate that depends on the view

_AXIAL = "Few images show displacements along this axis: judge structures that differ along it with caution"
_ADVICE = f"{_AXIAL}; collect images of tilted specimens or of other grids."


def oriented(sampling: ViewSampling, resolution: np.ndarray, limit: float) -> Iterator[Finding]:
    """Yield findings on views.

    Parameters
    ----------
    sampling : ViewSampling
        Sampling of Fourier space.
    resolution : (m,) float64
        Resolution around each of `sampling.directions`, Å.
    limit : float
        Finest resolution that was examined, Å.
    """
    if sampling.group is not None:
        yield _of_a_refinement(sampling.group)
        return
    x, y, z = sampling.axis
    axis = f"the axis (x, y, z) = ({x:.2f}, {y:.2f}, {z:.2f})"
    place = f"{sampling.within:.0f}° of {'the plane perpendicular to ' if sampling.is_belt else ''}{axis}"
    views = f"{100 * sampling.share:.0f} % of the views lie within {place}, {100 * sampling.expected:.0f} % if even"
    found = f"{views}; {described(resolution, limit)}"
    if sampling.unmeasured > _UNMEASURED:
        share = f"{100 * sampling.unmeasured:.0f} % of the directions of Fourier space"
        where = f"no image measures {share}"
        if sampling.cone is not None:
            where = f"no image measures the double cone of {sampling.cone:.0f}° around {axis}, {share}"
        yield Finding("directions are unmeasured", f"{where}; {found}", _ADVICE, WARNING)
    elif sampling.evenness < _UNEVEN:
        yield Finding("preferred orientation", f"{found}; no direction is unmeasured", _ADVICE, WARNING)
    elif sampling.evenness < _NOTED:
        advice = "Nothing needs to be done." if sampling.is_belt else f"{_AXIAL}."
        yield Finding("uneven views", f"{found}; no direction is unmeasured", advice, NOTE)


def described(resolution: np.ndarray, limit: float) -> str:
    """Return the expected resolution in the best and the worst directions as text."""
    known = resolution[np.isfinite(resolution)]
    if not len(known):
        return "the map has no resolution in any direction"
    best, worst = float(known.min()), float(known.max())
    finest = " or finer" if best <= 1.001 * limit else ""
    if worst < 1.05 * best:
        return f"the map of all images reaches {best:.3g} Å{finest} in all directions"
    return f"the map of all images reaches {best:.3g} Å{finest} in the best and {worst:.3g} Å in the worst directions"


def _of_a_refinement(group: str) -> Finding:
    name = group.split(" ")[0]
    evidence = f"the views fill one asymmetric unit of {group} evenly, like those of a refinement with {name} symmetry"
    command = f"relion_particle_symmetry_expand --i particles.star --o expanded.star --sym {name}"
    if name != group:
        command = f"RELION's {name} has other axes, so turn the map first, then {command}"
    advice = f"Expand the particles first, so that each copy of the unit gets a state of its own: {command}"
    return Finding(f"poses look like those of a {name} refinement", evidence, advice, WARNING)


def depends_on_view(coordinates: np.ndarray, views: np.ndarray) -> Iterator[Finding]:
    """Yield a finding if principal coordinates (n, K) of the structures depend on the views (n, 3).

    Structures do not depend on the direction from which they are seen. A dependence up to the second degree is tested.
    """
    x, y, z = views.T
    degree_two = np.stack([np.ones(len(views)), x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1, x, y, z], axis=1)
    rest = coordinates - degree_two @ np.linalg.lstsq(degree_two, coordinates, rcond=None)[0]
    total = np.square(coordinates - coordinates.mean(0)).sum(0)
    freedom = (len(views) - 1) / max(len(views) - degree_two.shape[1], 1)
    share = 1 - freedom * np.square(rest).sum(0) / np.maximum(total, 1e-300)
    worst = int(share.argmax()) if len(share) else 0
    if len(share) and share[worst] > _FOLLOWS:
        evidence = f"{100 * share[worst]:.0f} % of the variance of principal coordinate {worst + 1} follows the view"
        advice = "Some states may be views, not structures: compare the views of two states before interpreting them."
        yield Finding("structures depend on the view", evidence, advice, WARNING)
