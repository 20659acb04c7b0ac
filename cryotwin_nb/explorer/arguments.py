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


def voxel_size_of(voxel_size: float | None, particles: Any) -> float | None:
    """Validate a voxel size in Å; without one, return that of the particles, or None if it is not known."""
    if voxel_size is None:
        return None if particles is None else float(particles.pixel_size)
    return positive("voxel_size", voxel_size, "Pass particles.pixel_size.")


def latents_of(prior: GaussianMixture, latents: Any) -> Tensor:
    """Validate latents and return them as (n, d) float32 on the CPU."""
    return require_points(latents, prior.latent_dim, least=2).cpu().float()


def require_particles(particles: Any, n: int) -> None:
    """Raise `InputError` unless there is one particle, if any are given, for each of n latents."""
    if particles is not None and len(particles) != n:
        remedy = "Pass the particles that were embedded, in the same order."
        raise InputError("particles", f"{len(particles):,} particles", f"{n:,}, one for each latent", remedy)


def first_ends(weights: list[float], names: Mapping[int, str], junk: Collection[int]) -> tuple[int, int]:
    """Return the heaviest component and the next one with another name; junk only if there is nothing else."""
    heaviest = sorted(range(len(weights)), key=lambda c: -weights[c])
    ends = [c for c in heaviest if c not in junk] or heaviest
    return ends[0], next((c for c in ends[1:] if c not in names or names[c] != names.get(ends[0])), ends[-1])


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
