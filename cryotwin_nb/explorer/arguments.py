"""Validation and conversion of the explorer's arguments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from cryotwin_nb.errors import InputError, positive
from cryotwin_nb.evaluation import label_components
from cryotwin_nb.mixture.gaussian import GaussianMixture
from cryotwin_nb.mixture.points import require_points


def positive_voxel_size(voxel_size: float) -> float:
    """Validate a voxel size in Å and return it as a float."""
    return positive("voxel_size", voxel_size, "Pass particles.pixel_size.")


def latents_of(prior: GaussianMixture, latents: Any) -> Tensor:
    """Validate latents and return them as (n, d) float32 on the CPU."""
    return require_points(latents, prior.latent_dim, least=2).cpu().float()


def require_components(prior: GaussianMixture, start: int, end: int) -> None:
    """Raise `InputError` unless the mixture has both components."""
    for name, component in (("start", start), ("end", end)):
        if not 0 <= component < prior.n_components:
            expected = f"a component from 0 to {prior.n_components - 1}"
            raise InputError(name, f"component {component}", expected, "Hover over a star to see its component.")


def names_and_labels(
    prior: GaussianMixture, z: Tensor, labels: Any, junk: Collection[int] = ()
) -> tuple[dict[int, str], Any]:
    """Return the names of the components, with a mark for `junk`, and, if given, the labels of the particles."""
    names = {}
    if isinstance(labels, Mapping):
        names, labels = {int(c): str(name) for c, name in labels.items()}, None
    elif labels is not None:
        names = label_components(prior, z, np.asarray(labels))
    return names | {c: f"{names.get(c, '')} (looks like junk)".strip() for c in junk}, labels
